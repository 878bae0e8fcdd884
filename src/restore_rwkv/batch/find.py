"""Every scan below some folders, on the disk or in a store, and the name of its output."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from restore_rwkv.batch.find_stored import stored_scans
from restore_rwkv.batch.naming import BatchFormat, FoundJob, Scan, jobs_of, prefixes
from restore_rwkv.batch.storage import is_url, name_of, pair_of, plain
from restore_rwkv.errors import InputError
from restore_rwkv.io import FoundScan, find_scans

__all__ = ["BatchFormat", "FoundJob", "find_jobs", "share"]


def find_jobs(
    trees: Sequence[str | Path], output: str | Path, format: BatchFormat = "auto"
) -> Iterator[FoundJob]:
    """Find every DICOM series and every volume below some paths or URLs, as jobs.

    Outputs mirror the tree: `study/t1.nii.gz` becomes `OUT/study/t1.nii.gz`. A series that lies on
    its own in a folder is named as that folder, others `folder/series-N` by their SeriesNumber.
    With several trees, each has a folder of its own name in the output.

    Args:
        trees: folders at any depth, or files; paths, or URLs such as `s3://bucket/study`.
        output: folder of the outputs, a path or URL; what lies in it is not looked at.
        format: "auto" for the format of each scan (that of a header with its voxels in another
            file becomes one file), "nifti" for NIfTI.

    Yields:
        Jobs in the order of trees, series and files.

    Raises:
        InputError: a path does not exist, is of an unknown kind, or is given twice.
        StorageError: a store cannot be used, or the disk has no room for the headers of a folder.
        ConfigError: a URL holds a password, or nothing that is installed reads such URLs.
        OSError: a folder cannot be opened.
    """
    roots = [_root(str(tree)) for tree in trees]
    for root, count in Counter(roots).items():
        if count > 1:
            raise InputError(f"{root}: is given {count} times; give it once")
    place = _root(str(output))
    names = [name_of(root) if is_url(root) else Path(root).name for root in roots]
    scans: list[Scan] = []
    for root, prefix in zip(roots, prefixes(names), strict=True):
        if is_url(root):
            scans += stored_scans(root, prefix, place)
        else:
            scans += _scans(Path(root), prefix, Path(place))
    yield from jobs_of(scans, place, format)


def _root(place: str) -> str:
    place = plain(place)
    return place.rstrip("/") if is_url(place) else os.path.abspath(place)


def _scans(root: Path, prefix: PurePosixPath, output: Path) -> Iterator[Scan]:
    base = root if root.is_dir() else root.parent
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
        source = _place(found)
        pair = [source.with_name(other) for other in pair_of(source.name) if found.series is None]
        sizes = [file.stat() for file in (*(found.files or (source,)), *pair) if file.exists()]
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


def share(jobs: Iterable[FoundJob], part: int, parts: int) -> Iterator[FoundJob]:
    """Give the jobs of one of several equal parts, the same on every machine.

    A scan belongs to a part by its key, so that the parts agree even where the tree grows.

    Args:
        jobs: of all parts.
        part: number of the part, from 1.
        parts: number of parts.
    """
    return (found for found in jobs if int(found.job.key, 16) % parts == part - 1)
