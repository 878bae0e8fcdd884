"""The files that a DICOMDIR names: the table of contents of an exported CD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.io.dicom.files import Summary, read_whole_header, refusing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CLASS = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage


@dataclass(frozen=True)
class Reference:
    """A file that a DICOMDIR names.

    Attributes:
        name: Its path below the folder of the DICOMDIR, with "/".
        series: SeriesInstanceUID of its series; empty where the records do not lead to it.
    """

    name: str
    series: str


def is_directory(file: Summary) -> bool:
    """Whether a file is a DICOMDIR."""
    return file.kind == _CLASS


def references(path: Path) -> list[Reference]:
    """Return the files that a DICOMDIR names, whether they exist or not.

    Raises:
        InputError: The DICOMDIR is damaged.
    """
    header = read_whole_header(path)
    with refusing(path.name, "the DICOMDIR is damaged"):
        first = header.get("OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity")
        return list(_walk(list(header.get("DirectoryRecordSequence") or ()), int(first or 0)))


def match_files(
    directory: Path, files: Sequence[Path]
) -> tuple[dict[Path, Reference], list[Reference]]:
    """Return the files that a DICOMDIR names, and what it names that is not there.

    Names are compared without case, as copies of a CD change it. Only the given files are matched,
    so that no name of a DICOMDIR leads out of its folder.

    Args:
        directory: The DICOMDIR.
        files: All files below its folder.
    """
    root = directory.parent
    there = {_key(file.relative_to(root).as_posix()): file for file in files}
    found: dict[Path, Reference] = {}
    missing: list[Reference] = []
    for reference in references(directory):
        file = there.get(_key(reference.name))
        if file is None:
            missing.append(reference)
        else:
            found[file] = reference
    return found, missing


def _key(name: str) -> str:
    # ISO 9660 shows names in either case, with a version (";1") or an empty suffix (".").
    return name.lower().partition(";")[0].rstrip(".")


def _walk(records: list[Dataset], first: int) -> Iterator[Reference]:
    """Follow the records from the root; those that cannot be reached come last."""
    waiting = {record.seq_item_tell: record for record in records}
    todo = [(first, "")]
    while todo:
        offset, series = todo.pop()
        record = waiting.pop(offset, None)  # popped: records in a circle end here
        if record is None:
            continue
        inner = series
        if record.get("DirectoryRecordType") == "SERIES":
            inner = str(record.get("SeriesInstanceUID") or "")
        yield from _reference(record, inner)
        todo.append((int(record.get("OffsetOfTheNextDirectoryRecord") or 0), series))
        lower = record.get("OffsetOfReferencedLowerLevelDirectoryEntity")
        todo.append((int(lower or 0), inner))
    for record in waiting.values():
        yield from _reference(record, "")


def _reference(record: Dataset, series: str) -> Iterator[Reference]:
    parts = record.get("ReferencedFileID")
    if parts:
        yield Reference(parts if isinstance(parts, str) else "/".join(parts), series)
