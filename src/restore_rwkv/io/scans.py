"""Every scan below a path: DICOM series, and files of the other formats."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.read import read_series
from restore_rwkv.io.dicom.series import FoundSeries, find_series
from restore_rwkv.io.files import read_volumes
from restore_rwkv.io.kinds import check_source, holds_volume, kind_of
from restore_rwkv.io.volume import Volume


@dataclass(frozen=True, eq=False)
class FoundScan:
    """A scan below a path, which may turn out to be damaged.

    Attributes:
        path: Its file; for DICOM the path that was searched.
        name: What to call it: the path, and number and description of a series.
        encoding: Suffix of the file, or names of DICOM's transfer syntaxes.
        series: SeriesInstanceUID; None for other formats.
        read: Returns the first of its volumes, and how many there are.
        fault: Why it cannot be read at all; None where it may.
    """

    path: Path
    name: str
    encoding: str
    series: str | None
    read: Callable[[], tuple[Volume, int]]
    fault: str | None = None


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
        yield FoundScan(file, str(file), "damaged", None, partial(_refuse, fault), fault)
    if path.is_dir():
        yield from map(_file, _volumes_below(path))


def _volumes_below(folder: Path) -> list[Path]:
    found = []
    for here, _, names in os.walk(folder):
        for name in names:
            file = Path(here, name)
            if holds_volume(name) and not file.is_symlink() and stat.S_ISREG(file.stat().st_mode):
                found.append(file)
    return sorted(found)


def _file(path: Path) -> FoundScan:
    return FoundScan(path, str(path), "".join(path.suffixes[-2:]), None, partial(_first, path))


def _first(path: Path) -> tuple[Volume, int]:
    volumes = read_volumes(path)
    return next(iter(volumes)), len(volumes)


def _series(series: FoundSeries, path: Path) -> FoundScan:
    from pydicom.uid import UID

    name = f"{path}: series {series.number or '?'} {series.description}".rstrip()
    encoding = ", ".join(UID(uid).name for uid in series.transfer_syntaxes)
    return FoundScan(path, name, encoding, series.uid, lambda: (read_series(series, path), 1))


def _refuse(fault: str) -> tuple[Volume, int]:
    raise InputError(fault)
