"""A restoration on disk with its report: image, record, page and maps appear together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restore_rwkv.errors import InputError, OperatorError, WeightsError
from restore_rwkv.evaluation.fidelity.files import PAGE_SUFFIX, ReportFiles, map_names, map_suffix
from restore_rwkv.evaluation.fidelity.results import Fidelity, RestoredPair
from restore_rwkv.io import (
    OutputFormat,
    OutputOptions,
    Progress,
    RestorationRecord,
    Target,
    Volume,
    begin_stage,
    degraded_by,
    file_sha256,
    record_values,
)
from restore_rwkv.io.kinds import suffix_of
from restore_rwkv.io.outputs import PLACED, OutputType
from restore_rwkv.model import read_info
from restore_rwkv.options import Seed, validated
from restore_rwkv.restoration import (
    FileRequest,
    Plan,
    Preview,
    Restored,
    RestoreOptions,
    Restorer,
    restore_file,
)
from restore_rwkv.restoration.file import derivation_of
from restore_rwkv.restoration.preview import preview_file
from restore_rwkv.tasks import (
    AxisFactor,
    ReportCalibration,
    RestoredScan,
    SpreadMethod,
    Task,
)
from restore_rwkv.tasks.modality import is_signed

_OF_RECORD = (
    *("source", "source_sha256", "series_instance_uid", "output", "output_sha256"),
    *("output_series_instance_uid", "weights", "weights_sha256", "task", "scale", "consistency"),
    *("ensemble", "strength", "factor", "factor_from", "clipped_voxels", "dtype", "volumes"),
    *("warnings", "device", "software", "torch", "python", "created", "notice"),
)


@validated("report")
@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """How a report is made.

    Attributes:
        uncertainty: how the spread is found from which the intervals follow, "turns" or
            "bootstrap"; None for no intervals.
        seed: of the simulated noise.
        command: what the user typed, for the provenance.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    uncertainty: SpreadMethod | None = None
    seed: Seed = 0
    command: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reported:
    """A restored scan with its report.

    Attributes:
        restored: the scan, of a 4-D image its first volume, and the record of all.
        fidelity: what the report says; of a 4-D image about its first volume.
        files: where the report lies.
    """

    restored: Restored
    fidelity: Fidelity
    files: ReportFiles


def restore_with_report(
    restorer: Restorer,
    source: Path | str,
    target: Path | str,
    options: RestoreOptions | None = None,
    *,
    report: ReportOptions | None = None,
    dtype: OutputType = "auto",
    format: OutputFormat = "auto",
    overwrite: bool = False,
    keep_nan: bool = False,
    series: int | str | None = None,
    progress: Progress | None = None,
) -> Reported:
    """Restore a scan on disk, and write beside it what supports the restored image.

    These are OUT.fidelity.html, a page, and a file for each map, such as OUT.removed.nii.gz; for a
    derived DICOM series the maps are parametric maps, and for an output without geometry they are
    NPY. The record has the figures in its field `fidelity`. Image, record, page and maps appear
    together or not at all. The report of a 4-D image is about its first volume.

    Args:
        restorer: task, weights and device.
        source: as for `Restorer.file`, and likewise all arguments not named here.
        target: as for `Restorer.file`.
        options: as for `Restorer.file`.
        report: how the report is made.
        dtype: as for `Restorer.file`.
        format: as for `Restorer.file`.
        overwrite: replace existing files, those of the report too.
        keep_nan: as for `Restorer.file`.
        series: as for `Restorer.file`.
        progress: as for `Restorer.file`.

    Raises:
        InputError: as `Restorer.file`, or a file of the report cannot be written.
        ConfigError: as `Restorer.file`.
        WeightsError: as `Restorer.file`, or intervals are asked for and the weights have no
            calibration of them.

    Example:
        >>> restorer = Restorer("ct-denoise")  # doctest: +SKIP
        >>> reported = restore_with_report(restorer, "ct.nii.gz", "out.nii.gz")  # doctest: +SKIP
        >>> reported.fidelity.support, reported.files.page  # doctest: +SKIP
    """
    how = OutputOptions(dtype=dtype, format=format, overwrite=overwrite, keep_nan=keep_nan)
    addition = _Report(report or ReportOptions())
    request = FileRequest(
        source=Path(source),
        series=series,
        target=Target.of(target, Path(source), how),
        options=options or RestoreOptions(),
        addition=addition,
    )
    restored = restore_file(restorer, request, progress)
    return Reported(restored=restored, fidelity=addition.fidelity, files=addition.files)


def preview_with_report(
    restorer: Restorer,
    source: Path | str,
    target: Path | str,
    options: RestoreOptions | None = None,
    *,
    report: ReportOptions | None = None,
    dtype: OutputType = "auto",
    format: OutputFormat = "auto",
    overwrite: bool = False,
    keep_nan: bool = False,
    series: int | str | None = None,
) -> Preview:
    """Say what `restore_with_report` with the same arguments would do, and what it would refuse."""
    how = OutputOptions(dtype=dtype, format=format, overwrite=overwrite, keep_nan=keep_nan)
    addition = _Report(report or ReportOptions())
    options = options or RestoreOptions()
    return preview_file(restorer, Path(source), series, (target, how), options, addition)


@dataclass
class _Report:
    """The report that comes with a restored image; see `restoration.file.Addition`."""

    options: ReportOptions
    restorer: Restorer = field(init=False)
    calibration: ReportCalibration | None = field(init=False)
    files: ReportFiles = field(init=False)
    plan: Plan = field(init=False)
    fidelity: Fidelity = field(init=False)

    def check(self, restorer: Restorer, target: Target, plan: Plan) -> Sequence[Path]:
        self.restorer = restorer
        info = read_info(restorer.weights_of(plan.task))
        self.calibration = info.report.get(plan.task.name)
        method = self.options.uncertainty
        if method is not None:
            weights = restorer.weights_of(plan.task).name
            require_intervals(self.calibration, method, weights, plan.task.name)
        if method == "bootstrap":
            require_noise(plan)
        placed = target.is_series or suffix_of(target.path.name) in PLACED
        self.files = ReportFiles(
            page=target.beside(PAGE_SUFFIX),
            stem=target.beside(""),
            suffix=map_suffix(plan.volume, dicom=target.is_series) if placed else ".npy",
            names=map_names(plan.task, intervals=method is not None),
            overwrite=target.options.overwrite,
        )
        self.files.check(plan.volume)
        return self.files.paths

    def prepare(self, plan: Plan, restored: Restored, progress: Progress | None) -> Sequence[Path]:
        from restore_rwkv.evaluation.fidelity.measure import measure_fidelity

        self.plan = plan
        pair = pair_of_plan(plan, restored, self.calibration, self.options)
        if self.options.uncertainty is not None:
            from restore_rwkv.restoration.uncertainty import find_spread

            spread = find_spread(
                *(self.restorer, plan, restored, self.options.uncertainty),
                seed=self.options.seed,
                progress=progress,
            )
            pair = dataclasses.replace(pair, spread=spread)
        begin_stage(progress, "measuring the fidelity", "steps")
        self.fidelity = measure_fidelity(pair, progress)
        self.files = self.files.of(self.fidelity)
        return self.files.paths

    def write(self, files: Sequence[Path], record: RestorationRecord) -> RestorationRecord:
        provenance = provenance_of(record_values(record), self.options.command)
        pair = dataclasses.replace(self.fidelity.pair, provenance=provenance)
        self.fidelity = dataclasses.replace(self.fidelity, pair=pair)
        self.files.write(self.fidelity, files, derivation_of(self.plan, record))
        digests = {
            final.name: file_sha256(path)
            for final, path in zip(self.files.paths, files, strict=True)
        }
        asked = {"seed": self.options.seed, "uncertainty": self.options.uncertainty}
        values = {**self.fidelity.to_dict(), **asked, "files": digests}
        return dataclasses.replace(record, fidelity=values)


def require_intervals(
    calibration: ReportCalibration | None, method: SpreadMethod, weights: str, task: str
) -> None:
    """Raise WeightsError unless weights have calibrated intervals by a method for a task."""
    if calibration is not None and calibration.intervals_by(method) is not None:
        return
    raise WeightsError(
        f"{weights}: no intervals, since these weights have no calibration of them by {method} for "
        f"{task}; leave uncertainty out, or calibrate them (docs/trust.md)"
    )


def pair_of_plan(
    plan: Plan, restored: Restored, calibration: ReportCalibration | None, options: ReportOptions
) -> RestoredPair:
    """Return a scan and its restored form, as a plan was run."""
    _, height, width = plan.volume.slices(plan.axis).shape
    tile = plan.tiling.tile
    return RestoredPair(
        before=plan.volume,
        after=restored.volume,
        task=plan.task,
        axis=plan.axis,
        factor=_factor(plan),
        signed=plan.task.rules.holds_measurement and is_signed(plan.volume),
        tile=None if tile == (height, width) else tile,
        fit=plan.fit,
        calibration=calibration,
        provenance=provenance_of(record_values(restored.record), options.command),
        seed=options.seed,
    )


def _factor(plan: Plan) -> AxisFactor | None:
    """Reduction of the measurement where it is known; None for CT and PET of unknown dose."""
    if plan.scale is not None:
        return plan.refinement.factor
    assumed = plan.noise is not None and plan.noise.assumed is not None
    return known_factor(None if assumed else plan.factor, plan.volume, plan.task)


def known_factor(given: AxisFactor | None, scan: Volume, task: Task) -> AxisFactor | None:
    """Return a factor that is given, else that of the record of `degrade` beside the scan."""
    if given is not None or scan.source is None:
        return given
    return degraded_by(scan.source.path, task.name)


def provenance_of(record: dict[str, Any], command: str) -> dict[str, Any]:
    """Return what a report says of how an image was made, of the values of its record."""
    known = {name: record[name] for name in _OF_RECORD if record.get(name) not in (None, "", ())}
    return {**({"command": command} if command else {}), **known}


def require_noise(plan: Plan) -> None:
    """Refuse a bootstrap of a scan whose noise cannot be simulated, before the network runs.

    Raises:
        InputError: the scan has no geometry, or its noise cannot be measured.
    """
    case = RestoredScan(
        scan=plan.volume,
        restored=plan.volume,
        axis=plan.axis,
        factor=plan.refinement.factor,
    )
    try:
        plan.task.rules.measure_again(case)
    except OperatorError as error:
        raise InputError(
            f"{plan.volume.name}: uncertainty: {str(error).partition(';')[0]}; give "
            "uncertainty='turns'"
        ) from error
