"""Every scan below a path: DICOM series, and files of the other formats."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.read import read_series
from restore_rwkv.io.dicom.series import FoundSeries, find_series
from restore_rwkv.io.dicom.syntaxes import syntax_name
from restore_rwkv.io.files import read_volumes
from restore_rwkv.io.kinds import check_source, holds_volume, kind_of, suffix_of
from restore_rwkv.io.volume import Volume


@dataclass(frozen=True, eq=False)
class FoundScan:
    """A scan below a path, which may turn out to be damaged.

    Attributes:
        path: Its file; for DICOM the path that was searched.
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
        DICOM series by their numbers, then files by their paths. Reports, contours, records and
        files of other kinds are left out.

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
    for series in find_series(path, damaged):
        if series.is_image:
            yield _series(series, path)
    for file, fault in damaged.items():
        read = partial(_refuse, fault)
        yield FoundScan(file, str(file), "damaged", None, read, files=(file,), fault=fault)
    if path.is_dir():
        yield from map(_file, _volumes_below(path))


def _volumes_below(folder: Path) -> list[Path]:
    found: dict[str, Path] = {}
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted(names):
            file = Path(here, name)
            if name.startswith(".") or not (holds_volume(name) or _is_volume(file)):
                continue
            found.setdefault(os.path.realpath(file), file)  # links may lead to one file
    return sorted(found.values())


def _is_volume(file: Path) -> bool:
    """Whether a file without a known suffix is an image other than DICOM, by its content."""
    if suffix_of(file.name).startswith(".img"):  # its header stands for both
        return False
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
