"""Every scan below some folders, and the name of its output below another one."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from restore_rwkv.batch.job import Job, job_key
from restore_rwkv.errors import InputError
from restore_rwkv.io import FoundScan, find_scans
from restore_rwkv.io.kinds import suffix_of
from restore_rwkv.io.outputs import output_suffix
from restore_rwkv.io.record import record_of, record_of_series

_HEADERS = (".hdr", ".nhdr", ".mhd")
_VOXELS = (".img", ".img.gz", ".raw", ".raw.gz", ".zraw")

BatchFormat = Literal["auto", "nifti"]
"""Format of outputs: that of each scan, or NIfTI for all."""


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


@dataclass(frozen=True)
class _Scan:
    """A scan in its tree.

    Attributes:
        found: what was found.
        folder: where it lies below its tree, "." for the tree itself; below the name of the tree
            where there are several.
        name: its own: that of its file; of a series "" where it is named after its folder.
    """

    found: FoundScan
    folder: PurePosixPath
    name: str


def find_jobs(
    trees: Sequence[Path], output: Path, format: BatchFormat = "auto"
) -> Iterator[FoundJob]:
    """Find every DICOM series and every volume below some paths, as jobs.

    Outputs mirror the tree: `study/t1.nii.gz` becomes `OUT/study/t1.nii.gz`. A series that lies on
    its own in a folder is named as that folder, others `folder/series-N` by their SeriesNumber.
    With several folders, each has one of its own name in the output, whatever their order; a file
    counts as one of the folder that it lies in.

    Args:
        trees: folders at any depth, or files.
        output: folder of the outputs; what lies in it is not looked at.
        format: "auto" for the format of each scan (that of a header with its voxels in another
            file becomes one file), "nifti" for NIfTI.

    Yields:
        Jobs in the order of trees, series and files.

    Raises:
        InputError: a path does not exist, is of an unknown kind, is given twice or within another,
            or lies in the output; or one series is given in parts.
        OSError: a folder cannot be opened.
    """
    roots = [Path(os.path.abspath(tree)) for tree in trees]
    output = Path(os.path.abspath(output))
    _check_apart(roots, output)
    prefixes = _prefixes([_base(root) for root in roots])
    scans = [
        scan for root in roots for scan in _scans(root, prefixes[_base(root)], _below(output, root))
    ]
    crowded = Counter(scan.folder for scan in scans if scan.found.series is not None)
    above = {parent for scan in scans for parent in scan.folder.parents}
    above |= {scan.folder for scan in scans if scan.found.series is None}
    taken: set[Path] = set()
    keys: set[str] = set()
    for scan in scans:
        alone = crowded[scan.folder] == 1 and scan.folder not in above
        found = _job(scan, output, format, alone=alone, taken=taken)
        if found.job.key in keys:
            raise InputError(f"{found.job.source}: a series of it is given in parts; give it whole")
        keys.add(found.job.key)
        yield found


def _check_apart(roots: Sequence[Path], output: Path) -> None:
    """Check that no tree is given twice, within another one, or in the output."""
    real = {root: Path(os.path.realpath(root)) for root in roots}
    places = Counter(real[root] for root in roots)
    outside = Path(os.path.realpath(output))
    for root, place in real.items():
        if places[place] > 1:
            raise InputError(f"{root}: is given {places[place]} times; give it once")
        above = next((folder for folder in place.parents if folder in places), None)
        if above is not None:
            raise InputError(f"{root}: lies in {above}, which is given too; leave it out")
        if place.is_relative_to(outside):
            raise InputError(
                f"{root}: lies in {output}, the folder of the outputs; name another one for them"
            )


def _below(output: Path, root: Path) -> Path:
    """The output as a path below a tree, whatever links lead to either, if it lies in the tree."""
    inside = os.path.relpath(os.path.realpath(output), os.path.realpath(root))
    return output if inside.startswith(os.pardir) else root / inside


def _base(root: Path) -> Path:
    """Folder whose structure the outputs of a tree mirror."""
    return root if root.is_dir() else root.parent


def _prefixes(bases: Sequence[Path]) -> dict[Path, PurePosixPath]:
    """Folder of each base in the output: none for one base, else a name of its own."""
    distinct = sorted(set(bases))
    if len(distinct) == 1:
        return {distinct[0]: PurePosixPath()}
    names: dict[str, Path] = {}
    for base in distinct:
        name = base.name or "root"
        others = (f"{name}-{number}" for number in range(2, len(distinct) + 2))
        names[next(free for free in (name, *others) if free not in names)] = base
    return {base: PurePosixPath(name) for name, base in names.items()}


def _scans(root: Path, prefix: PurePosixPath, output: Path) -> Iterator[_Scan]:
    base = _base(root)
    for found in find_scans(root):
        place = Path(os.path.abspath(_place(found)))
        if place.is_relative_to(output):
            continue
        if found.series is not None and found.files:  # named after its folder
            folder, name = place, ""
        elif found.series is not None:  # in an archive, which stands for a folder
            folder, name = place.with_suffix(""), ""
        else:
            folder, name = place.parent, place.name
        below = PurePosixPath(os.path.relpath(folder, base).replace(os.sep, "/"))
        yield _Scan(found, prefix / below, name)


def _place(found: FoundScan) -> Path:
    """File of a scan; for DICOM the folder that holds all files of the series, or the archive."""
    if found.series is None or not found.files:
        return found.path
    return Path(os.path.commonpath([file.parent for file in found.files]))


def _job(
    scan: _Scan, output: Path, format: BatchFormat, *, alone: bool, taken: set[Path]
) -> FoundJob:
    found = scan.found
    source = _place(found)
    files = tuple(os.path.relpath(file, source) for file in found.files if found.series is not None)
    target, is_series = _target(scan, output, format, alone=alone)
    target = _free(target, is_series, taken)
    below = scan.folder / scan.name
    name = str(below) if below.name else source.name
    if found.series is not None:
        name = f"{name}: series {found.number or '?'}"
    sizes = list(_stats([*(found.files or (source,)), *_companions(source)]))
    job = Job(
        key=job_key(str(below), found.series),
        name=name,
        source=str(source),
        series=found.series,
        files=files,
        target=str(target),
        is_series=is_series,
        size=sum(size.st_size for size in sizes),
    )
    return FoundJob(job, max((size.st_mtime_ns for size in sizes), default=0), found.fault)


def _companions(source: Path) -> list[Path]:
    """Files that may hold the voxels of a header."""
    suffix = suffix_of(source.name)
    if suffix.removesuffix(".gz") not in _HEADERS:
        return []
    stem = source.name[: len(source.name) - len(suffix)]
    return [source.with_name(stem + other) for other in _VOXELS]


def _stats(files: Iterable[Path]) -> Iterator[os.stat_result]:
    for file in files:
        with suppress(OSError):  # it is not there, or not any more
            yield file.stat()


def _target(scan: _Scan, output: Path, format: BatchFormat, *, alone: bool) -> tuple[Path, bool]:
    """Name of an output, and whether it is a folder."""
    folder = output / scan.folder
    if scan.found.series is None:
        suffix = suffix_of(scan.name)
        stem, own = scan.name[: len(scan.name) - len(suffix)], scan.name[-len(suffix) :]
        new = ".nii.gz" if format == "nifti" else output_suffix(suffix)
        return folder / f"{stem}{own if new == suffix else new}", False
    plain = re.fullmatch(r"-?\d{1,12}", scan.found.number)  # else it may hold "../"
    number = f"series-{scan.found.number if plain else 'x'}"
    if alone and scan.folder == PurePosixPath():  # the tree itself
        number = _place(scan.found).name or number
    elif alone:
        folder, number = folder.parent, folder.name
    return folder / (f"{number}.nii.gz" if format == "nifti" else number), format != "nifti"


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


def share(jobs: Iterable[FoundJob], part: int, parts: int) -> Iterator[FoundJob]:
    """Give the jobs of one of several equal parts, the same on every machine.

    A scan belongs to a part by its key, so that the parts agree even where the tree grows.

    Args:
        jobs: of all parts.
        part: number of the part, from 1.
        parts: number of parts.
    """
    return (found for found in jobs if int(found.job.key, 16) % parts == part - 1)
