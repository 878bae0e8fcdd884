"""Jobs from the scans that were found: their keys, their names and those of their outputs."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from restore_rwkv.batch.job import Job, job_key
from restore_rwkv.batch.storage import is_url, joined, name_of
from restore_rwkv.errors import InputError
from restore_rwkv.io.kinds import suffix_of
from restore_rwkv.io.outputs import output_suffix
from restore_rwkv.io.record import record_of, record_of_series

BatchFormat = Literal["auto", "nifti"]
"""Format of outputs: that of each scan, or NIfTI for all."""


_OF_A_BATCH = re.compile(r"(manifest|overview)[-\w]*\.(sqlite(-journal)?|html)", re.I)


@dataclass(frozen=True)
class FoundJob:
    """A scan that was found.

    Attributes:
        job: what to do with it.
        modified: newest time of its files, in ns.
        fault: why it cannot be read, where that is known already.
    """

    job: Job
    modified: int
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A scan in its tree.

    Attributes:
        source: path or URL of its file; for DICOM of the folder that holds all files of the series,
            or of the archive.
        files: DICOM: its files below `source`; empty for an archive.
        series: SeriesInstanceUID; None for other formats.
        number: SeriesNumber; empty for other formats.
        folder: where it lies below its tree, "." for the tree itself; below the name of the tree
            where there are several.
        name: its own: that of its file; of a series "" as it is named after its folder.
        size: bytes of its files.
        modified: newest of their times, in ns.
        fault: why it cannot be read, where that is known already.
    """

    source: str
    files: tuple[str, ...] = ()
    series: str | None
    number: str = ""
    folder: PurePosixPath
    name: str = ""
    size: int
    modified: int
    fault: str = ""


def prefixes(bases: Sequence[str]) -> dict[str, PurePosixPath]:
    """Folder of each base in the output: none for one base, else one of its own name."""
    distinct = sorted(set(bases))
    if len(distinct) == 1:
        return {distinct[0]: PurePosixPath()}
    names: dict[str, str] = {}
    for base in distinct:
        name = _own_name(base) or "root"
        others = (f"{name}-{number}" for number in range(2, len(distinct) + 2))
        names[next(free for free in (name, *others) if free not in names)] = base
    return {base: PurePosixPath(name) for name, base in names.items()}


def jobs_of(scans: Sequence[Scan], output: str, format: BatchFormat) -> Iterator[FoundJob]:
    """Give the jobs of all scans of a batch; arguments as `find_jobs`.

    Raises:
        InputError: one series is given in parts.
    """
    crowded = Counter(scan.folder for scan in scans if scan.series is not None)
    above = {parent for scan in scans for parent in scan.folder.parents}
    above |= {scan.folder for scan in scans if scan.series is None}
    taken: set[Path] = set()
    keys: set[str] = set()
    for scan in scans:
        alone = crowded[scan.folder] == 1 and scan.folder not in above
        is_series = scan.series is not None and format != "nifti"
        target = _free(_target(scan, format, alone=alone), is_series, taken).as_posix()
        below = str(scan.folder / scan.name)
        if scan.series is not None and not scan.files:  # there may be a folder of that name too
            below += PurePosixPath(scan.source).suffix
        name = below if below != "." else _own_name(scan.source)
        key = job_key(below, scan.series)
        if key in keys:
            raise InputError(f"{scan.source}: a series of it is given in parts; give it whole")
        keys.add(key)
        job = Job(
            key=key,
            name=name if scan.series is None else f"{name}: series {scan.number or '?'}",
            source=scan.source,
            series=scan.series,
            files=scan.files,
            target=joined(output, target) if is_url(output) else os.path.join(output, target),
            is_series=is_series,
            size=scan.size,
        )
        yield FoundJob(job, scan.modified, scan.fault or _clash(target, job.name))


def _target(scan: Scan, format: BatchFormat, *, alone: bool) -> Path:
    """Name of an output below the folder of all."""
    folder = Path(scan.folder)
    if scan.series is None:
        suffix = suffix_of(scan.name)
        stem, own = scan.name[: len(scan.name) - len(suffix)], scan.name[-len(suffix) :]
        new = ".nii.gz" if format == "nifti" else output_suffix(suffix)
        return folder / f"{stem}{own if new == suffix else new}"
    plain = re.fullmatch(r"-?\d{1,12}", scan.number)  # else it may hold "../"
    number = f"series-{scan.number if plain else 'x'}"
    if alone and scan.folder == PurePosixPath():  # the tree itself
        number = _own_name(scan.source) or number
    elif alone:
        folder, number = folder.parent, folder.name
    return folder / (f"{number}.nii.gz" if format == "nifti" else number)


def _clash(target: str, name: str) -> str:
    """Why an output cannot have its name, below the folder of all; empty where it can."""
    first = PurePosixPath(target).parts[0]
    if not _OF_A_BATCH.fullmatch(first):
        return ""
    return (
        f"{name}: its output would have the name of the batch's own {first}; rename it, or give "
        "the folder that it lies in"
    )


def _own_name(source: str) -> str:
    return name_of(source) if is_url(source) else Path(source).name


def _free(target: Path, is_series: bool, taken: set[Path]) -> Path:
    """Return a name whose output and record no other scan has."""
    length = 0 if is_series else len(suffix_of(target.name))
    stem, suffix = (
        target.name[: len(target.name) - length],
        target.name[len(target.name) - length :],
    )
    for number in range(1, len(taken) + 2):
        name = target.with_name(f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
        record = record_of_series(name) if is_series else record_of(name)
        if not taken & {name, record}:
            taken |= {name, record}
            break
    return name
