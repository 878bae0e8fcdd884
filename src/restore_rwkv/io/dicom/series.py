"""Which series there are below a path, and the images of the one that is meant."""

from __future__ import annotations

import filecmp
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restore_rwkv.errors import InputError, message_of
from restore_rwkv.io.dicom.archive import Unpacked
from restore_rwkv.io.dicom.files import (
    DicomImage,
    Summary,
    read_summary,
    read_up_to_pixels,
    sound,
    transfer_syntax,
)
from restore_rwkv.io.dicom.folder import Found, find_files

_log = logging.getLogger(__name__)
# Objects with pixels that are not images of a patient, and objects without pixels.
_NOT_IMAGES = {"AU", "DOC", "ECG", "FID", "KO", "PLAN", "PR", "REG", "RTDOSE", "RTPLAN", "RTRECORD"}
_NOT_IMAGES |= {"RTSTRUCT", "RWV", "SEG", "SR"}
_MOST_LISTED = 8
_LONGEST_TEXT = 40


@dataclass(frozen=True, eq=False)
class FoundSeries:
    """A DICOM series below a path, as its headers describe it.

    Attributes:
        uid: SeriesInstanceUID; empty where the files have none.
        number: SeriesNumber, as text; empty where the files have none.
        description: SeriesDescription; empty where the files have none.
        modality: DICOM's code, such as "CT"; empty where the files have none.
        is_image: Whether these are images, and not reports, contours, labels or dose.
        transfer_syntaxes: UIDs of the encodings of its files, sorted.
        rows: Number of rows of the first image, 0 without pixels.
        columns: Number of columns of the first image, 0 without pixels.
        files: Its files, sorted by path.
        unpacked: Keeps the files of an archive for as long as this object lives; else None.
    """

    uid: str
    number: str
    description: str
    modality: str
    is_image: bool
    transfer_syntaxes: tuple[str, ...]
    rows: int
    columns: int
    files: tuple[Path, ...]
    unpacked: Unpacked | None = field(default=None, repr=False)


def find_series(
    path: str | Path, damaged: dict[Path, str] | None = None
) -> tuple[FoundSeries, ...]:
    """Find every DICOM series below a path, from headers only.

    Args:
        path: Folder (at any depth), DICOMDIR, zip archive or DICOM file.
        damaged: Filled with the files and folders below a folder that cannot be read, and why;
            without it, the first one is an error.

    Returns:
        The series, sorted by number; reports, contours and labels too. Empty where a folder or an
        archive holds no DICOM.

    Raises:
        InputError: The path is a file but not DICOM or zip, the archive is unsafe, or a header is
            damaged.
        OSError: A file or folder cannot be opened.
    """
    with sound(Path(path).name):
        found = find_files(Path(path), read_summary)
        if damaged is None:
            require_sound(found)
        else:
            damaged.update(
                {file: message_of(error) or str(error) for file, error in found.damaged.items()}
            )
        return tuple(_described(group, found.unpacked) for group in _groups(found.images))


def require_sound(found: Found[Any]) -> None:
    """Raise the fault of a file that cannot be read, which might belong to any of the series."""
    if found.damaged:
        raise next(iter(found.damaged.values()))


def choose_series(
    found: Found[DicomImage], series: int | str | None, where: str
) -> list[DicomImage]:
    """Return the images of the only image series, or of the one with this number or UID.

    Args:
        found: The files below a path.
        series: SeriesNumber or SeriesInstanceUID; None for the only one.
        where: Name of the path, for messages.

    Raises:
        InputError: There are no images, several series match, or none; or a DICOMDIR names files
            of the series that are not there.
    """
    require_sound(found)
    headers = {image.path: image for image in found.images}
    groups = dict(enumerate(_groups([image.summary for image in found.images])))
    known = {key: _described(group, None) for key, group in groups.items()}
    images = {key: item for key, item in known.items() if item.is_image}
    if not images:
        raise InputError(f"{where}: {_why_empty(found, list(known.values()))}")
    wanted = images
    if series is not None:
        wanted = {k: s for k, s in images.items() if str(series) in (s.uid or None, s.number)}
    if len(wanted) != 1:
        raise InputError(f"{where}: {_why_none([*images.values()], [*wanted.values()], series)}")
    ((chosen_key, chosen),) = wanted.items()
    _report_missing_files(found, chosen, where)
    ignored = found.others + sum(
        key not in images or file.rows is None for key, group in groups.items() for file in group
    )
    if ignored:
        _log.warning("%s: ignored %d file(s) that are not DICOM images", where, ignored)
    if found.links:
        _log.warning(
            "%s: did not follow %d symbolic link(s) that lead out of the folder or nowhere",
            *(where, found.links),
        )
    return [headers[file.path] for file in groups[chosen_key] if file.rows is not None]


def drop_copies(images: list[DicomImage], where: str) -> list[DicomImage]:
    """Return the images without identical copies of an instance.

    Slices at other positions that share one SOPInstanceUID, as some anonymisers leave them, are
    kept with a warning.

    Raises:
        InputError: Two files at one position have one SOPInstanceUID, but differ.
    """
    instances: dict[tuple[str, str], DicomImage] = {}
    uids: set[str] = set()
    result, copies, shared = [], [], []
    for image in images:
        uid = _text(image, "SOPInstanceUID")
        place = (uid, _text(image, "ImagePositionPatient"))
        first = instances.setdefault(place, image) if uid else image
        if first is image:
            result.append(image)
            if uid in uids:
                shared.append(image)
            uids |= {uid} - {""}
        elif _same_content(first.path, image.path):
            copies.append(image)
        else:
            raise InputError(
                f"{where}: {first.path.name} and {image.path.name} have the same SOPInstanceUID "
                "but differ; remove the wrong one"
            )
    if copies:
        _log.warning(
            "%s: ignored %d identical copies of slices, the first %s",
            *(where, len(copies), copies[0].path.name),
        )
    if shared:
        _log.warning(
            "%s: %d slices have the SOPInstanceUID of another; the image can be read, but a "
            "derived DICOM series needs one for each",
            *(where, len(shared)),
        )
    return result


def _same_content(one: Path, other: Path) -> bool:
    """Whether two files are equal byte for byte, or else in all elements, pixels too."""
    if filecmp.cmp(one, other, shallow=False):
        return True
    first, second = read_up_to_pixels(one), read_up_to_pixels(other)
    return transfer_syntax(first) == transfer_syntax(second) and bool(first == second)


def _groups(files: Sequence[Summary]) -> list[list[Summary]]:
    """Files by SeriesInstanceUID, sorted by SeriesNumber."""
    groups: defaultdict[str, list[Summary]] = defaultdict(list)
    for file in files:
        groups[file.series].append(file)
    return sorted(groups.values(), key=_rank)


def _rank(group: list[Summary]) -> tuple[float, str]:
    number = group[0].number
    rank = int(number) if number.lstrip("-").isdecimal() else math.inf
    return rank, str(group[0].path)


def _described(group: list[Summary], unpacked: Unpacked | None) -> FoundSeries:
    pixels = [file for file in group if file.rows is not None]
    first = (pixels or group)[0]
    return FoundSeries(
        uid=first.series,
        number=first.number,
        description=first.description,
        modality=first.modality,
        is_image=bool(pixels) and first.modality not in _NOT_IMAGES,
        transfer_syntaxes=tuple(sorted({file.syntax for file in group})),
        rows=first.rows or 0,
        columns=first.columns,
        files=tuple(file.path for file in group),
        unpacked=unpacked,
    )


def _text(image: DicomImage, keyword: str) -> str:
    value = image.header.get(keyword)
    return "" if value is None else str(value).strip()


def _why_empty(found: Found[DicomImage], known: Sequence[FoundSeries]) -> str:
    """What was found instead of images, and the remedy."""
    lost = [name for names in found.missing.values() for name in names]
    if lost:
        return (
            f"no DICOM images here, {len(lost)} file(s) are named by the DICOMDIR but missing, the "
            f"first {lost[0]}; copy the whole CD or export again"
        )
    if not (found.others or found.links or known):
        return "the folder is empty; give one with a DICOM series"
    kinds = ", ".join(sorted({series.modality or "files without pixels" for series in known}))
    links = f", {found.links} symbolic link(s) that lead out of it or nowhere" * bool(found.links)
    there = f", only {kinds}" * bool(known) + f", {found.others} other file(s)" * bool(found.others)
    return f"no DICOM images here{there}{links}; give the folder or the .zip of a series of images"


def _why_none(
    images: Sequence[FoundSeries], wanted: Sequence[FoundSeries], series: int | str | None
) -> str:
    """Why not exactly one series is meant, with a short list of them, and the remedy."""
    if series is not None and not wanted:
        return f"none of its series is {series}; choose one of {_listing(images)}"
    if series is not None:
        return (
            f"{len(wanted)} series are {series}, {_listing(wanted)}; choose one by "
            "series='UID', its SeriesInstanceUID"
        )
    return f"{len(images)} series, {_listing(images)}; choose one by series=NUMBER (or its UID)"


def _listing(found: Sequence[FoundSeries]) -> str:
    numbers = Counter(series.number for series in found)
    texts = []
    for series in list(found)[:_MOST_LISTED]:
        description = series.description or "without description"
        if len(description) > _LONGEST_TEXT:
            description = description[: _LONGEST_TEXT - 3] + "..."
        uid = ""
        if numbers[series.number] > 1 or not series.number:
            uid = f", UID {series.uid or 'missing'}"
        files = f"{len(series.files)} file{'s' * (len(series.files) != 1)}"
        kind = series.modality or "?"
        texts.append(f"{series.number or '?'} ({kind} {description}, {files}{uid})")
    if len(found) > _MOST_LISTED:
        texts.append(f"... and {len(found) - _MOST_LISTED} more")
    return "; ".join(texts)


def _report_missing_files(found: Found[DicomImage], chosen: FoundSeries, where: str) -> None:
    lost = found.missing.get(chosen.uid, [])
    if lost:
        raise InputError(
            f"{where}: {len(lost)} file(s) of the series are named by the DICOMDIR but missing, "
            f"the first {lost[0]}; copy the whole CD or export again"
        )
    others = [name for names in found.missing.values() for name in names]
    if others:
        _log.warning(
            "%s: %d file(s) of other series are named by the DICOMDIR but missing, the first %s",
            *(where, len(others), others[0]),
        )
