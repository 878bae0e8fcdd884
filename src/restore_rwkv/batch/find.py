"""Every scan below some folders, on the disk or in a store, and the name of its output."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from restore_rwkv.batch.find_stored import stored_scans
from restore_rwkv.batch.naming import BatchFormat, FoundJob, Scan, jobs_of, prefixes
from restore_rwkv.batch.storage import is_url, plain
from restore_rwkv.errors import InputError
from restore_rwkv.io import FoundScan, find_scans
from restore_rwkv.io.kinds import suffix_of

__all__ = ["BatchFormat", "FoundJob", "find_jobs", "share"]

_HEADERS = (".hdr", ".nhdr", ".mhd")
_VOXELS = (".img", ".img.gz", ".raw", ".raw.gz", ".zraw")


def find_jobs(
    trees: Sequence[str | Path], output: str | Path, format: BatchFormat = "auto"
) -> Iterator[FoundJob]:
    """Find every DICOM series and every volume below some paths or URLs, as jobs.

    Outputs mirror the tree: `study/t1.nii.gz` becomes `OUT/study/t1.nii.gz`. A series that lies on
    its own in a folder is named as that folder, others `folder/series-N` by their SeriesNumber.
    With several folders, each has one of its own name in the output, whatever their order; a file
    counts as one of the folder that it lies in.

    Args:
        trees: folders at any depth, or files; paths, or URLs such as `s3://bucket/study`.
        output: folder of the outputs, a path or URL; what lies in it is not looked at.
        format: "auto" for the format of each scan (that of a header with its voxels in another
            file becomes one file), "nifti" for NIfTI.

    Yields:
        Jobs in the order of trees, series and files.

    Raises:
        InputError: a path does not exist, is of an unknown kind, is given twice or within another,
            or lies in the output; or one series is given in parts.
        StorageError: a store cannot be used, or the disk has no room for the headers of a folder.
        ConfigError: a URL holds a password, or nothing that is installed reads such URLs.
        OSError: a folder cannot be opened.
    """
    roots = [_root(str(tree)) for tree in trees]
    place = _root(str(output))
    _check_apart(roots, place)
    folders = prefixes([_base(root) for root in roots])
    scans: list[Scan] = []
    for root in roots:
        prefix = folders[_base(root)]
        if is_url(root):
            scans += stored_scans(root, prefix, place)
        else:
            scans += _scans(Path(root), prefix, _below(place, Path(root)))
    yield from jobs_of(scans, place, format)


def _root(place: str) -> str:
    place = plain(place)
    return place.rstrip("/") if is_url(place) else os.path.abspath(place)


def _check_apart(roots: Sequence[str], output: str) -> None:
    """Check that no tree is given twice, within another one, or in the output."""
    real = {root: _real(root) for root in roots}
    places = Counter(real[root] for root in roots)
    outside = _real(output)
    for root, place in real.items():
        if places[place] > 1:
            raise InputError(f"{root}: is given {places[place]} times; give it once")
        above = next((str(folder) for folder in place.parents if folder in places), None)
        if above is not None:
            raise InputError(f"{root}: lies in {above}, which is given too; leave it out")
        if place == outside or outside in place.parents:
            raise InputError(
                f"{root}: lies in {output}, the folder of the outputs; name another one for them"
            )


def _real(place: str) -> PurePosixPath | Path:
    """Path of a place without links; a URL is one too."""
    return PurePosixPath(place) if is_url(place) else Path(os.path.realpath(place))


def _below(output: str, root: Path) -> Path | None:
    """Output as a path below a tree, whatever links lead to either; None if it is not in it."""
    if is_url(output):
        return None
    inside = os.path.relpath(os.path.realpath(output), os.path.realpath(root))
    return None if inside.startswith(os.pardir) else root / inside


def _base(root: str) -> str:
    """Folder whose structure the outputs of a tree mirror."""
    return root if is_url(root) or os.path.isdir(root) else os.path.dirname(root)


def _scans(root: Path, prefix: PurePosixPath, output: Path | None) -> Iterator[Scan]:
    base = _base(str(root))
    for found in find_scans(root):
        source = _place(found)
        place = Path(os.path.abspath(source))
        if output is not None and place.is_relative_to(output):
            continue
        if found.series is not None and found.files:  # named after its folder
            folder, name = place, ""
        elif found.series is not None:  # in an archive, which stands for a folder
            folder, name = place.with_suffix(""), ""
        else:
            folder, name = place.parent, place.name
        below = PurePosixPath(os.path.relpath(folder, base).replace(os.sep, "/"))
        sizes = list(_stats([*(found.files or (source,)), *_companions(source)]))
        in_series = found.files if found.series is not None else ()
        yield Scan(
            source=str(source),
            files=tuple(os.path.relpath(file, source) for file in in_series),
            series=found.series,
            number=found.number,
            folder=prefix / below,
            name=name,
            size=sum(size.st_size for size in sizes),
            modified=max((size.st_mtime_ns for size in sizes), default=0),
            fault=found.fault,
        )


def _place(found: FoundScan) -> Path:
    """File of a scan; for DICOM the folder that holds all files of the series, or the archive."""
    if found.series is None or not found.files:
        return found.path
    return Path(os.path.commonpath([file.parent for file in found.files]))


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


def share(jobs: Iterable[FoundJob], part: int, parts: int) -> Iterator[FoundJob]:
    """Give the jobs of one of several equal parts, the same on every machine.

    A scan belongs to a part by its key, so that the parts agree even where the tree grows.

    Args:
        jobs: of all parts.
        part: number of the part, from 1.
        parts: number of parts.
    """
    return (found for found in jobs if int(found.job.key, 16) % parts == part - 1)
