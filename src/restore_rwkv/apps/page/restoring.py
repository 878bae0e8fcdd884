"""One job: the restored scan with its record, and three images for the viewer on one grid."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restore_rwkv.apps.page.jobs import Job, JobSource, stem_of
from restore_rwkv.apps.progress import JobProgress
from restore_rwkv.apps.words import safe_name, shown_unit
from restore_rwkv.errors import BusyError, ConfigError, InputError, UnfitError
from restore_rwkv.io import (
    OutputOptions,
    Progress,
    RestorationRecord,
    Target,
    Volume,
    begin_stage,
    write_volume,
)
from restore_rwkv.restoration import Plan, Restored, RestoreOptions, Restorer
from restore_rwkv.restoration.memory import free_memory

REPORT = "restore_rwkv.evaluation.fidelity.report"
"""Module with `restore_with_report`; a package may lack it."""

_LEAST_MEMORY = 256 << 20


class KeepingRestorer(Restorer):
    """A restorer that keeps the first scan that it restores, beside what became of it.

    Attributes:
        pair: the scan and its restored form, on one grid; None before.
    """

    pair: tuple[Volume, Volume] | None = None

    def run_plan(self, plan: Plan, progress: Progress | None = None) -> Restored:
        """Restore the volume of a plan; arguments and errors are those of `Restorer`."""
        restored = super().run_plan(plan, progress)
        if self.pair is None:
            self.pair = (plan.volume, restored.volume)
        return restored


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What was written of a job.

    Attributes:
        folder: with all that is downloaded together.
        record: how the image was made.
        record_path: file of the record.
        report: page of the report; None without one.
        maps: of the report.
    """

    folder: Path
    record: RestorationRecord
    record_path: Path
    report: Path | None = None
    maps: tuple[Any, ...] = ()


def report_module() -> Any:
    """Return the module that makes reports; raises ConfigError where this version has none."""
    try:
        return importlib.import_module(REPORT)
    except ModuleNotFoundError as error:
        if error.name != REPORT:
            raise
        raise ConfigError("report: this version cannot make one; leave report out") from error


def restore_scan(
    job: Job, folder: Path, restorer: KeepingRestorer, progress: JobProgress
) -> dict[str, Any]:
    """Restore the scan of a job, and write all that the page shows of it.

    Args:
        job: the job.
        folder: where to write; it exists and is empty.
        restorer: with the task, weights and device of the job.
        progress: told the stages and slices.

    Returns:
        JSON values: paths below `folder`, and what a viewer needs to know of the values.

    Raises:
        CancelledError: the job was cancelled.
        RestoreError: as `Restorer.file`.
        OSError: the disk is full.
    """
    restorer.pair = None
    try:
        written, notes = _restored(job, folder, restorer, progress)
        assert restorer.pair is not None
        before, after = restorer.pair
    finally:
        restorer.pair = None
    downloads = {"dicom" if written.folder.name == "dicom" else "nifti": written.folder.name}
    begin_stage(progress, "writing")
    if "dicom" in downloads:
        refusal = _write_nifti(job, folder / "nifti", after, written.record)
        if refusal:
            notes.append(refusal)
        else:
            downloads["nifti"] = "nifti"
    maps = [_write_map(folder / "maps", each) for each in written.maps]
    _write_views(folder, before, after, progress)
    record, report = written.record, written.report
    return {
        "downloads": downloads,
        "record": written.record_path.relative_to(folder).as_posix(),
        "report": None if report is None else report.relative_to(folder).as_posix(),
        "maps": maps,
        "unit": shown_unit(after.unit, record.modality),
        "modality": record.modality,
        "suv_per_unit": after.suv_per_unit,
        "slice_axis": record.slice_axis,
        "task": record.task,
        "weights": Path(record.weights).stem,
        "fit": record.fit.outcome,
        "seconds": record.seconds,
        "volumes": record.volumes,
        "change": {"mean": record.change.mean, "largest": record.change.largest},
        "warnings": list(record.warnings),
        "notes": notes,
    }


def _restored(
    job: Job, folder: Path, restorer: KeepingRestorer, progress: JobProgress
) -> tuple[_Written, list[str]]:
    """Restore to a derived series where the source is DICOM, else to an image.

    A series that cannot be derived from, such as one of secondary captures, becomes NIfTI.
    """
    stem = stem_of(job)
    notes: list[str] = []
    if job.source.series is not None:
        try:
            return _file(job, folder / "dicom" / stem, restorer, progress, "dicom"), notes
        except (UnfitError, BusyError):
            raise
        except InputError as error:
            if restorer.pair is not None:
                raise
            notes.append(f"no derived DICOM series: {error}")
    target = folder / "nifti" / f"{stem}{_suffix(job.source)}"
    return _file(job, target, restorer, progress, "auto"), notes


def _file(
    job: Job, path: Path, restorer: KeepingRestorer, progress: JobProgress, format: Any
) -> _Written:
    options = RestoreOptions(
        plane=job.options.plane,
        strength=job.options.strength,
        memory=_memory(restorer),
    )
    source, series = job.source.path, job.source.series
    how: dict[str, Any] = {"format": format, "series": series, "progress": progress}
    record_path = Target.of(path, source, OutputOptions(format=format)).record
    if not job.options.report:
        made = restorer.file(source, path, options, **how)
        return _Written(folder=path.parent, record=made.record, record_path=record_path)
    module = report_module()
    method = None if job.options.uncertainty == "none" else job.options.uncertainty
    asked = module.ReportOptions(uncertainty=method)
    reported = module.restore_with_report(restorer, source, path, options, report=asked, **how)
    return _Written(
        folder=path.parent,
        record=reported.restored.record,
        record_path=record_path,
        report=reported.files.page,
        maps=reported.fidelity.maps,
    )


def _memory(restorer: Restorer) -> int:
    """Bytes for activations: the default, or half of what is free where that is less."""
    return min(RestoreOptions().memory, max(_LEAST_MEMORY, free_memory(restorer.device) // 2))


def _write_nifti(job: Job, folder: Path, after: Volume, record: RestorationRecord) -> str:
    """Write a restored series as NIfTI as well, with a record; return why not, empty if so."""
    path = folder / f"{stem_of(job)}.nii.gz"
    target = Target.of(path, job.source.path, OutputOptions())
    folder.mkdir()
    try:
        target.check_image(after)
    except InputError as error:
        folder.rmdir()
        return f"no NIfTI: {error}"
    target.write_volumes(
        [after], 1, lambda output, _others: dataclasses.replace(record, output=output)
    )
    return ""


def _write_views(folder: Path, before: Volume, after: Volume, progress: JobProgress) -> None:
    """Write the images that the viewer shows: before, after, and after minus before."""
    _write_view(before.data, before, folder / "before.nii.gz")
    progress.check()
    _write_view(after.data, before, folder / "after.nii.gz")
    progress.check()
    # In place of the restored values, which nothing needs any more.
    difference = np.subtract(after.data, before.data, out=after.data)
    _write_view(difference, before, folder / "difference.nii.gz")


def _write_view(data: np.ndarray[Any, Any], grid: Volume, path: Path) -> None:
    """Write values as plain NIfTI, whatever file the scan came from, tilted series too."""
    affine = np.eye(4) if grid.affine is None else grid.affine
    write_volume(Volume(data, affine, grid.unit, grid.modality), path)


def _write_map(folder: Path, given: Any) -> dict[str, Any]:
    """Write a map of the report for the viewer, and return what it says of itself."""
    name = safe_name(given.name)
    _write_view(given.volume.data, given.volume, folder / f"{name}.nii.gz")
    known = ("title", "unit", "limit", "threshold", "signed", "meaning", "blind_to")
    return {"name": name, **{key: getattr(given, key) for key in known}}


def _suffix(source: JobSource) -> str:
    """Suffix of the result: images without geometry do not fit NIfTI."""
    return ".nii.gz" if source.placed else ".tif" if source.flat else ".npy"
