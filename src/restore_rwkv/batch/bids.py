"""A BIDS dataset: which of its images are restored, and the name of each restored image."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from restore_rwkv.batch.bidsignore import Ignored
from restore_rwkv.errors import InputError
from restore_rwkv.io.inheritance import (
    DESCRIPTION,
    BidsName,
    bids_name,
    dataset_of,
    inherited_files,
)
from restore_rwkv.io.sidecar import BIDS_IMAGES

_EXTENSIONS = (".nii", ".nii.gz")
_FOLDERS = {"MR": "anat", "PT": "pet", "CT": "ct"}  # of each modality; BIDS has none for CT yet
_LABEL = "[0-9A-Za-z+]+"
_OF_RESULTS = ("desc", "res", "den", "space", "label", "seg")
_LARGEST = 1 << 24  # bytes; of a description or a sidecar
_POINTER = 1 << 10  # bytes; git-annex and git-lfs put short texts in the place of files
_POINTERS = {b"/annex/objects/": "datalad get", b"version https://git-lfs": "git lfs pull -I"}
_METADATA = (".json", ".bval", ".bvec")


@dataclass(frozen=True, kw_only=True)
class BidsImage:
    """An image of a raw dataset that is to be restored.

    Attributes:
        path: the file; its links are not followed.
        name: below the dataset, with slashes.
        modality: "MR", "PT" or "CT", by its suffix.
        refusal: why it cannot be restored, in one line; None where nothing speaks against it.
    """

    path: Path
    name: str
    modality: str
    refusal: str | None


@dataclass(frozen=True, kw_only=True)
class BidsDataset:
    """A raw dataset.

    Attributes:
        root: its folder, absolute.
        description: what its dataset_description.json says.
        images: those to be restored, by their names.
        left_out: number of other data files, by their suffix (such as "bold"), or the reason in
            brackets, such as "T1w (part-phase)".
    """

    root: Path
    description: Mapping[str, Any]
    images: tuple[BidsImage, ...]
    left_out: Mapping[str, int]


def find_bids(dataset: str | Path) -> BidsDataset:
    """Find every anatomical, PET and CT image of a raw BIDS dataset.

    Looked at are sub-*/[ses-*]/ and the folders of data types in them; derivatives/, sourcedata/,
    code/ and hidden folders are not, and what .bidsignore names is left out. As BIDS has no CT yet,
    which only a line of .bidsignore makes valid, such a line does not leave it out.

    Args:
        dataset: folder with dataset_description.json.

    Raises:
        InputError: it is not a raw BIDS dataset, holds no subject, or one of its folders cannot be
            read.
    """
    root = Path(dataset).absolute()
    description = read_description(root)
    _check_raw(root, description)
    left_out: Counter[str] = Counter()
    images: list[BidsImage] = []
    ignored, ignored_ct = Ignored.of(root), Ignored.of(root, but="ct")
    for path in _data_files(root):
        name = path.relative_to(root).as_posix()
        parts = bids_name(path.name)
        modality = BIDS_IMAGES.get(parts.suffix) if parts else None
        if (ignored_ct if modality == "CT" else ignored).holds(name):
            left_out["(in .bidsignore)"] += 1
        elif parts is None:
            left_out["(not a name of BIDS)"] += 1
        elif modality is None or (reason := _reason(parts, path.parent.name)) is not None:
            left_out[parts.suffix + (f" ({reason})" if modality else "")] += 1
        else:
            refusal = _refusal(path, name, parts)
            images.append(BidsImage(path=path, name=name, modality=modality, refusal=refusal))
    if not images and not left_out:
        raise InputError(f"{root}: holds no data of subjects (sub-*); give the raw dataset")
    images = _without_doubles(sorted(images, key=lambda image: image.name))
    return BidsDataset(
        root=root,
        description=description,
        images=tuple(images),
        left_out=dict(sorted(left_out.items())),
    )


def bids_target(name: str, scale: float | None = None) -> PurePosixPath:
    """Return the path of a restored image below its derivative dataset.

    Always .nii.gz, which holds float32 of any scan and is what readers of derivatives expect; one
    dataset then has one kind of file.

    Args:
        name: file name of the raw image, such as sub-01_ses-a_run-1_T1w.nii.gz.
        scale: factor of the finer grid; None where the grid is kept.

    Returns:
        Such as sub-01/ses-a/anat/sub-01_ses-a_run-1_desc-restored_T1w.nii.gz; with a scale of 2
        ..._res-2x_desc-restored_T1w.nii.gz.

    Raises:
        InputError: it is not the name of a raw image of BIDS that can be restored.
    """
    parts = bids_name(name)
    modality = BIDS_IMAGES.get(parts.suffix) if parts else None
    if parts is None or modality is None or next(iter(parts.entities), None) != "sub":
        raise InputError(f"{name}: not the name of an image of BIDS; name it as sub-01_T1w.nii.gz")
    processed = [key for key in _OF_RESULTS if key in parts.entities]
    if processed:
        raise InputError(
            f"{name}: {processed[0]}-{parts.entities[processed[0]]} in its name is of a processed "
            "image; give the raw dataset"
        )
    entities = dict(parts.entities)
    if scale is not None:
        entities["res"] = f"{scale:g}x".replace(".", "p")  # labels are letters and digits
    entities["desc"] = "restored"
    folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    restored = BidsName(entities, parts.suffix, ".nii.gz")
    return PurePosixPath(*folders, _FOLDERS[modality], str(restored))


def bids_metadata(image: Path) -> dict[str, Any]:
    """Return what the JSON files of a dataset say of an image, by the inheritance principle.

    Args:
        image: absolute path of a raw image.

    Raises:
        InputError: one of the files cannot be read, or several of one folder apply.
    """
    joined: dict[str, Any] = {}
    for file in inherited_files(image):
        _check_content(file, file.relative_to(dataset_of(image) or image.parent).as_posix())
        joined |= _json_object(file, "correct it")
    return joined


def read_description(root: Path) -> dict[str, Any]:
    """Return what dataset_description.json says.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of a BIDS dataset")
    path = root / DESCRIPTION
    if not os.path.lexists(path):
        raise InputError(
            f"{root}: not a BIDS dataset, as it has no {DESCRIPTION}; give the folder that has "
            "one, or restore the tree without bids=True"
        )
    _check_content(path, DESCRIPTION)
    return _json_object(path, "correct it")


def _check_raw(root: Path, description: Mapping[str, Any]) -> None:
    kind = description.get("DatasetType", "raw")
    if kind == "derivative" or "PipelineDescription" in description:  # that of BIDS before 1.4
        raise InputError(f"{root}: is a derivative dataset; give the raw dataset it was made from")
    if "DatasetType" not in description and "GeneratedBy" in description:
        raise InputError(
            f"{root}: may be a derivative dataset, as {DESCRIPTION} has GeneratedBy; add "
            '"DatasetType": "raw" to it if it is not'
        )
    if kind == "study":
        raise InputError(f"{root}: is a study of several datasets; give the raw one in sourcedata/")
    if kind != "raw":
        raise InputError(f"{root}: DatasetType {kind!r} is unknown; give a raw dataset")


def _data_files(root: Path) -> Iterator[Path]:
    """Every file of a data type, but metadata, and folders that are one recording."""
    for subject in _folders(root, "sub"):
        sessions = _folders(subject, "ses")
        for place in (subject, *sessions):
            for folder in _entries(place):
                if folder.is_dir() and folder not in sessions:
                    for path in _entries(folder):
                        if not path.name.endswith(_METADATA):
                            yield path


def _folders(parent: Path, key: str) -> list[Path]:
    pattern = re.compile(f"{key}-{_LABEL}")
    return [path for path in _entries(parent) if pattern.fullmatch(path.name) and path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({error.strerror}); correct its permissions"
        ) from error
    return [folder / name for name in names if not name.startswith(".")]


def _reason(parts: BidsName, folder: str) -> str | None:
    """Return why a file of a suffix that is restored is not; None for an image that is."""
    if parts.extension not in _EXTENSIONS:
        return parts.extension
    if parts.entities.get("part", "mag") != "mag":
        return f"part-{parts.entities['part']}"
    usual = _FOLDERS[BIDS_IMAGES[parts.suffix]]
    return None if folder == usual else f"in {folder}/"


def _refusal(path: Path, name: str, parts: BidsName) -> str | None:
    """Return why an image cannot be restored; None where its values may be read."""
    try:
        places = [f"{key}-{parts.entities[key]}" for key in ("sub", "ses") if key in parts.entities]
        if list(PurePosixPath(name).parts[:-2]) != places:
            raise InputError(f"{name}: its name does not say the folders it is in; correct it")
        bids_target(path.name)
        _check_content(path, name)
        bids_metadata(path)
    except InputError as error:
        return str(error)
    return None


def _check_content(path: Path, name: str) -> None:
    """Refuse a file whose content was not fetched: a broken link, or a pointer in its place."""
    if path.is_symlink() and not path.exists():
        if "/annex/objects/" in os.readlink(path).replace(os.sep, "/"):
            raise InputError(f"{name}: its content is not here; fetch it with `datalad get {name}`")
        raise InputError(f"{name}: a link to a file that is not there; correct the link")
    try:
        with path.open("rb") as stream:
            head = stream.read(_POINTER)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check it") from error
    for begin, command in _POINTERS.items():
        if head.startswith(begin):
            raise InputError(f"{name}: its content is not here; fetch it with `{command} {name}`")


def _json_object(path: Path, remedy: str) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            text = stream.read(_LARGEST).decode("utf-8-sig")
        values = json.loads(text, parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not text, or not JSON
        raise InputError(f"{path}: not readable JSON; {remedy}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a JSON object; {remedy}")
    return values


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")  # which Python would read and write


def _without_doubles(images: list[BidsImage]) -> list[BidsImage]:
    """Refuse images whose results would have one name, also where case does not count."""
    stems = [image.name.removesuffix(".gz").removesuffix(".nii").lower() for image in images]
    count = Counter(stems)
    return [
        image
        if count[stem] == 1
        else replace(image, refusal=f"{image.name}: is there twice (.nii, .nii.gz, case); keep one")
        for stem, image in zip(stems, images, strict=True)
    ]
