"""What supports an image that was restored by anything, from the files of scan and image."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.fidelity.files import (
    NUMBERS_SUFFIX,
    PAGE_SUFFIX,
    ReportFiles,
    beside,
    map_names,
    map_suffix,
)
from restore_rwkv.evaluation.fidelity.reading import FidelityOptions, read_pair
from restore_rwkv.evaluation.fidelity.results import Fidelity, RestoredPair
from restore_rwkv.io import (
    Derivation,
    DicomSource,
    Progress,
    atomic_files,
    begin_stage,
    claimed,
    record_of,
    record_of_series,
    recorded_warnings,
)
from restore_rwkv.io.record import RECORD_SUFFIX
from restore_rwkv.tasks import NOTICE


def fidelity_of_files(
    before: Path | str,
    after: Path | str,
    options: FidelityOptions | None = None,
    *,
    output: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Fidelity, ReportFiles | None]:
    """Say what supports an image that was restored by anything, and write the report.

    Args:
        before: the scan that was restored: any file or folder that `read_volume` takes.
        after: the restored image, on the grid of the scan or, where its record says so, on a finer
            one.
        options: what the files do not say.
        output: page to write, such as out.fidelity.html; beside it come out.fidelity.json with all
            numbers, and a file for each map, such as out.removed.nii.gz (DICOM parametric maps for
            a DICOM series, NPY without geometry). None to write nothing.
        overwrite: replace existing files.
        progress: called with steps done and of all.

    Returns:
        What the report says, and its files; None where nothing was written.

    Raises:
        InputError: an image cannot be read, both are one file, their grids, modalities or units
            differ, nothing says what the scan was restored for, or an output exists or cannot be
            written.
        ConfigError: an option is not for this scan.
        WeightsError: the weights are missing, damaged, or of another task.

    Example:
        >>> fidelity, files = fidelity_of_files("ct.nii.gz", "denoised.nii.gz")  # doctest: +SKIP
        >>> fidelity.support, fidelity.verdict  # doctest: +SKIP
    """
    from restore_rwkv.evaluation.fidelity.measure import measure_fidelity

    before, after = Path(before), Path(after)
    with recorded_warnings() as said:
        begin_stage(progress, f"reading {before.name}")
        pair = read_pair(before, after, options or FidelityOptions())
        files = None if output is None else _files(Path(output), pair, overwrite=overwrite)
        if files is None:
            begin_stage(progress, "measuring the fidelity", "steps")
            return measure_fidelity(_with_warnings(pair, said), progress), None
        files.check(pair.after, (before, after))
        with claimed(*files.paths):
            begin_stage(progress, "measuring the fidelity", "steps")
            fidelity = measure_fidelity(_with_warnings(pair, said), progress)
            begin_stage(progress, "writing")
            files = files.of(fidelity)
            with atomic_files(*files.paths, overwrite=overwrite) as temporaries:
                files.write(fidelity, temporaries, _derivation(fidelity))
    return fidelity, files


def default_page(after: Path | str) -> Path:
    """Return where the page about a restored image lies by default: out.fidelity.html beside it."""
    after = Path(os.path.abspath(after)) if Path(after).name in ("", "..") else Path(after)
    record = record_of_series(after) if after.is_dir() else record_of(after)
    return record.with_name(record.name.removesuffix(RECORD_SUFFIX) + PAGE_SUFFIX)


def _with_warnings(pair: RestoredPair, said: list[str]) -> RestoredPair:
    known = tuple(pair.provenance.get("warnings", ()))
    warnings = tuple(dict.fromkeys((*known, *said)))
    if not warnings:
        return pair
    return dataclasses.replace(pair, provenance={**pair.provenance, "warnings": warnings})


def _files(page: Path, pair: RestoredPair, *, overwrite: bool) -> ReportFiles:
    """Return the files of a report: numbers and maps beside the page, named after it."""
    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{page.name}: the report is a page of HTML; end the name in .html")
    stem = page.with_suffix("")
    stem = stem.with_name(stem.name.removesuffix(".fidelity") or stem.name)
    return ReportFiles(
        page=page,
        stem=stem,
        suffix=map_suffix(pair.after, dicom=isinstance(pair.after.source, DicomSource)),
        names=map_names(pair.task),
        numbers=beside(stem, NUMBERS_SUFFIX),
        overwrite=overwrite,
    )


def _derivation(fidelity: Fidelity) -> Derivation:
    """Say how the image of a map was made, for headers of DICOM."""
    provenance = fidelity.pair.provenance
    return Derivation(
        task=fidelity.pair.task.name,
        description="",  # that of each map
        weights=str(provenance.get("weights", "")),
        weights_sha256=str(provenance.get("weights_sha256", "")),
        notice=NOTICE,
    )
