"""The DICOM files below a path: a folder at any depth, a DICOMDIR, a zip archive, or one file."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.archive import Unpacked, is_zip, unpack
from restore_rwkv.io.dicom.directory import is_directory, match_files
from restore_rwkv.io.dicom.files import (
    DicomImage,
    Summary,
    first_bytes,
    is_dicom,
    read_image,
)

F = TypeVar("F", DicomImage, Summary)


@dataclass(frozen=True, eq=False)
class Found(Generic[F]):
    """The DICOM files below a path.

    Attributes:
        images: Files as they were read, reports and other objects without pixels too.
        others: Number of regular files that are not DICOM.
        links: Symbolic links that lead out of the folder or nowhere; they are not followed.
        missing: Names of files that a DICOMDIR lists and that are not there, by SeriesInstanceUID.
        damaged: Why a file or a folder cannot be read, by its path; such files are in no series.
        unpacked: Temporary folder that holds the files of an archive, for as long as this lives.
    """

    images: list[F] = field(default_factory=list)
    others: int = 0
    links: int = 0
    missing: dict[str, list[str]] = field(default_factory=dict)
    damaged: dict[Path, Exception] = field(default_factory=dict)
    unpacked: Unpacked | None = None


def find_files(path: Path, read: Callable[[Path], F]) -> Found[F]:
    """Return the DICOM files at any depth of a folder, of a DICOMDIR or of a zip archive, or one.

    Each header is read once, by `read`: `read_image` or `read_summary`. Symbolic links inside a
    folder are not followed: what they lead to inside is found anyway, and what lies outside does
    not belong to it. Hidden folders are not searched (copies of a file system, what programs of
    versions keep), but links to files in them are files, as git-annex has them. Pipes, sockets and
    devices are not opened.

    Raises:
        InputError: The path is a file but not DICOM or zip, or damaged, or the archive is unsafe.
        OSError: The path, or a file that a DICOMDIR names, cannot be opened.
    """
    if path.is_dir():
        return _find_below(path, None, read)
    if stat.S_ISREG(path.stat().st_mode) and is_zip(first_bytes(path)):
        unpacked = unpack(path)
        return _find_below(unpacked.path, unpacked, read)
    if not is_dicom(path):
        raise InputError(f"{path.name}: not a DICOM file; export it again")
    image = read(path)
    if not _is_directory(image):
        return Found([image])
    files, _ = _files_below(path.parent, {})
    named, lost = match_files(path, files)
    images = [read(file) for file in sorted(named) if is_dicom(file)]
    missing: defaultdict[str, list[str]] = defaultdict(list)
    for reference in lost:
        missing[reference.series].append(reference.name)
    return Found(images, len(named) - len(images), missing=dict(missing))


def images_in(folder: Path) -> list[DicomImage]:
    """Return the DICOM images that a folder directly contains, without those of its subfolders.

    Raises:
        InputError: A header is damaged.
        OSError: A file cannot be opened.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file() and is_dicom(file))
    images = [read_image(file) for file in files]
    return [image for image in images if "Rows" in image.header]


def _is_directory(image: DicomImage | Summary) -> bool:
    return is_directory(image if isinstance(image, Summary) else image.summary)


def _find_below(folder: Path, unpacked: Unpacked | None, read: Callable[[Path], F]) -> Found[F]:
    damaged: dict[Path, Exception] = {}
    files, links = _files_below(folder, damaged)
    images, others = [], 0
    missing: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        if not is_dicom(file):
            others += 1
            continue
        try:
            image = read(file)
        except (InputError, OSError) as error:
            damaged[file] = error
            continue
        if not _is_directory(image):
            images.append(image)
            continue
        for reference in match_files(file, [f for f in files if file.parent in f.parents])[1]:
            missing[reference.series].append(reference.name)
    return Found(images, others, links, dict(missing), damaged, unpacked)


def _files_below(folder: Path, closed: dict[Path, Exception]) -> tuple[list[Path], int]:
    """Return the regular files at any depth, sorted, and the number of links that lead outside.

    Folders that cannot be opened are put into `closed`, but for the first.
    """

    def note(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise error
        closed[Path(error.filename)] = error

    files: list[Path] = []
    links = 0
    inside = os.path.realpath(folder) + os.sep
    for here, folders, names in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]  # of killed runs too
        for name in names:
            if name.startswith("."):  # of file managers, of runs that go on, ...
                continue
            file = Path(here, name)
            if file.is_symlink():
                if not _is_inside(file, inside):
                    links += 1
                elif _is_hidden(file, inside) and file.is_file():
                    files.append(file)
            elif stat.S_ISREG(file.lstat().st_mode):
                files.append(file)
    return sorted(files), links


def _is_hidden(link: Path, inside: str) -> bool:
    """Whether a link inside a folder leads to something that is not found there by itself."""
    below = os.path.realpath(link)[len(inside) :]
    return any(name.startswith(".") for name in below.split(os.sep))


def _is_inside(link: Path, inside: str) -> bool:
    target = os.path.realpath(link)
    return target.startswith(inside) and os.path.exists(target)
