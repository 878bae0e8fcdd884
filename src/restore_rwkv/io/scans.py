"""Every scan below a path: DICOM series, and files of the other formats."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from restore_rwkv.errors import InputError, message_of
from restore_rwkv.io.dicom.files import is_dicom
from restore_rwkv.io.dicom.read import read_series
from restore_rwkv.io.dicom.series import FoundSeries, find_series
from restore_rwkv.io.dicom.syntaxes import syntax_name
from restore_rwkv.io.files import read_volumes
from restore_rwkv.io.kinds import check_source, holds_volume, kind_of, suffix_of
from restore_rwkv.io.volume import Volume

_log = logging.getLogger(__name__)
_OF_DICOM = ("", ".dcm", ".dicom", ".ima")


@dataclass(frozen=True, eq=False)
class FoundScan:
    """A scan below a path, which may turn out to be damaged.

    Attributes:
        path: Its file; for DICOM the path that was searched, or the archive below it.
        name: What to call it: the path, and number and description of a series.
        encoding: Suffix of the file, or names of DICOM's transfer syntaxes.
        series: SeriesInstanceUID; None for other formats.
        read: Returns its volumes, each read when its turn comes, and how many there are.
        number: SeriesNumber; empty for other formats.
        files: Its files, sorted; empty for a series in an archive.
        fault: Why it cannot be read, where that is known already.
    """

    path: Path
    name: str
    encoding: str
    series: str | None
    read: Callable[[], tuple[Iterator[Volume], int]]
    number: str = ""
    files: tuple[Path, ...] = ()
    fault: str = ""


def find_scans(path: str | Path) -> Iterator[FoundScan]:
    """Find every DICOM series and every file of another format below a path.

    Args:
        path: Folder, at any depth; or a file, which may be a DICOMDIR or a zip archive.

    Yields:
        DICOM series by their numbers, then those of each zip archive, then files by their paths.
        Reports, contours, records, files of other kinds, and archives without DICOM are left out,
        and so are hidden files and folders. Links that lead out of the folder are followed to
        files of other formats than DICOM; a warning counts the others.

    Raises:
        InputError: The path does not exist, or is a file of an unknown kind.
        OSError: A folder cannot be opened.
    """
    path = Path(path)
    check_source(path)
    if not path.is_dir() and kind_of(path) != "dicom":
        yield _file(path)
        return
    damaged: dict[Path, str] = {}
    found = find_series(path, damaged)
    yield from (_series(series, path) for series in found if series.is_image)
    yield from (_damaged(file, fault) for file, fault in damaged.items())
    if not path.is_dir():
        return
    # DICOM was looked for in all files, whatever their names; one that cannot be opened is damaged.
    seen = {*damaged, *(file for series in found for file in series.files)}
    files = [file for file in _files_below(path) if file not in seen]
    for file in files:
        if _is_archive(file.name):
            yield from _in_archive(file)
    yield from (_file(file) for file in files if not _is_archive(file.name))


def _files_below(folder: Path) -> list[Path]:
    """Images of other formats than DICOM, and zip archives."""
    found: dict[str, Path] = {}
    lost: list[Path] = []
    inside = os.path.realpath(folder) + os.sep
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        lost += (Path(here, name) for name in folders if _leads_out(Path(here, name), inside))
        there = set(names)
        for name in sorted(names):
            file = Path(here, name)
            if name.startswith(".") or _has_header(name, there):
                continue
            if holds_volume(name) or _is_archive(name) or _is_volume(file):
                found.setdefault(os.path.realpath(file), file)  # links may lead to one file
            elif _leads_out(file, inside) and _may_be_dicom(file):
                lost.append(file)
    if lost:
        _log.warning(
            "%s: did not follow %d symbolic link(s) that lead out of it or nowhere, the first %s; "
            "give what they lead to as a path of its own",
            *(folder, len(lost), min(lost)),
        )
    return sorted(found.values())


def _leads_out(path: Path, inside: str) -> bool:
    return path.is_symlink() and not (
        os.path.realpath(path).startswith(inside) and os.path.exists(path)
    )


def _may_be_dicom(link: Path) -> bool:
    """Whether a link may lead to DICOM: by content where there is any, else by its name."""
    try:
        return is_dicom(link) if link.exists() else suffix_of(link.name) in _OF_DICOM
    except OSError:
        return True


def _is_archive(name: str) -> bool:
    return suffix_of(name) == ".zip"


def _in_archive(path: Path) -> Iterator[FoundScan]:
    """Series of an archive among others, one that cannot be unpacked as damaged."""
    try:
        found = [series for series in find_series(path) if series.is_image]
    except (InputError, OSError) as error:
        yield _damaged(path, message_of(error) or str(error))
        return
    for series in found:
        yield _series(series, path)


def _damaged(file: Path, fault: str) -> FoundScan:
    read = partial(_refuse, fault)
    return FoundScan(file, str(file), "damaged", None, read, files=(file,), fault=fault)


def _has_header(name: str, there: set[str]) -> bool:
    """Whether a file holds the voxels of a header beside it, which is the scan."""
    suffix = suffix_of(name)
    stem = name[: len(name) - len(suffix)]
    return suffix in (".img", ".img.gz") and not there.isdisjoint((f"{stem}.hdr", f"{stem}.hdr.gz"))


def _is_volume(file: Path) -> bool:
    """Whether a file without a known suffix is an image other than DICOM, by its content."""
    try:
        check_source(file)
        return kind_of(file) != "dicom"
    except (InputError, OSError):
        return False


def _file(path: Path) -> FoundScan:
    read = partial(_volumes, path)
    return FoundScan(path, str(path), "".join(path.suffixes[-2:]), None, read, files=(path,))


def _volumes(path: Path) -> tuple[Iterator[Volume], int]:
    volumes = read_volumes(path)
    return iter(volumes), len(volumes)


def _series(series: FoundSeries, path: Path) -> FoundScan:
    name = f"{path}: series {series.number or '?'} {series.description}".rstrip()
    encoding = ", ".join(map(syntax_name, series.transfer_syntaxes))
    return FoundScan(
        *(path, name, encoding, series.uid, lambda: (iter([read_series(series, path)]), 1)),
        number=series.number,
        files=series.files if series.unpacked is None else (),
    )


def _refuse(fault: str) -> tuple[Iterator[Volume], int]:
    raise InputError(fault)
