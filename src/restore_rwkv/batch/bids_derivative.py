"""A derivative dataset of BIDS: its description, and the JSON file of each restored image.

A kill at any moment leaves a dataset that a second run completes. The description comes before
everything else, and each file appears whole. An image comes before its JSON file: one that has none
yet is completed when the run is resumed, whereas a JSON file without an image would be an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from restore_rwkv.batch.bids import BidsDataset, bids_metadata, bids_target, read_description
from restore_rwkv.batch.find import FoundJob
from restore_rwkv.batch.job import Job, job_key
from restore_rwkv.errors import InputError
from restore_rwkv.io.atomic import atomic_file
from restore_rwkv.io.inheritance import DESCRIPTION, bids_name, dataset_of
from restore_rwkv.tasks import NOTICE

_PROGRAM = "restore-rwkv"
_BIDS_VERSION = "1.11.1"  # that the names and fields were checked against
_RAW = "raw"  # name of the raw dataset in BIDS URIs
_CARRIED: Mapping[str, type] = {
    "License": str,
    "Authors": list,
    "Acknowledgements": str,
    "HowToAcknowledge": str,
    "Funding": list,
    "EthicsApprovals": list,
    "ReferencesAndLinks": list,
    "Keywords": list,
    "HEDVersion": object,
}
_IGNORED = (
    "*.restoration.json",
    "manifest*.sqlite*",
    "overview*.html",
    "*report*.json",
    "**/ct",  # BIDS has no CT yet; the validator compares folders without a slash
)
_READMES = ("README", "README.md", "README.rst", "README.txt")
_REPLACED = ("Sources", "RawSources", "Description", "Resolution", "DeepLearning")
_OF_DATASET = ("IntendedFor", "B0FieldIdentifier", "B0FieldSource")  # name files of the raw one
_OF_GRID = (
    *("ReconMatrixPE", "EffectiveEchoSpacing", "DerivedPixelBandwidth"),
    *("SpacingBetweenSlices", "SliceTiming", "Rows", "Columns", "PixelSpacing"),
    *("dcmmeta_affine", "dcmmeta_shape", "dcmmeta_slice_dim", "dcmmeta_reorient_transform"),
)


def bids_output(dataset: Path, out: Path | None = None) -> Path:
    """Return the folder of the derivative dataset.

    Args:
        dataset: the raw dataset.
        out: what the user asks for; None for derivatives/restore-rwkv in the raw dataset.

    Raises:
        InputError: it is in the raw dataset but not in its derivatives/, which would make that
            invalid, or is or holds the raw dataset.
    """
    if out is None:
        return dataset.absolute() / "derivatives" / _PROGRAM
    root, place = dataset.resolve(), out.resolve()
    inside = place.relative_to(root).parts if place.is_relative_to(root) else None
    if root.is_relative_to(place) or (
        inside is not None and (len(inside) < 2 or inside[0] != "derivatives")
    ):
        raise InputError(
            f"{out}: would mix results into the raw dataset; name a folder in its derivatives/, or "
            "one elsewhere"
        )
    return out.absolute()


def bids_jobs(dataset: BidsDataset, out: Path, scale: float | None = None) -> Iterator[FoundJob]:
    """Return the images of a raw dataset as jobs, those that are refused with the reason.

    Args:
        dataset: the raw dataset.
        out: folder of the derivative dataset.
        scale: factor of the finer grid; None where the grid is kept.

    Yields:
        Jobs in the order of the names of their images.
    """
    for image in dataset.images:
        try:
            target = out / bids_target(image.path.name, scale)
        except InputError:  # which is the refusal
            target = out / image.name
        there = image.path.stat() if image.path.exists() else None
        job = Job(
            key=job_key(image.name, None),
            name=image.name,
            source=str(image.path),
            target=str(target),
            size=there.st_size if there else 0,
        )
        yield FoundJob(job, there.st_mtime_ns if there else 0, image.refusal or "")


def write_dataset_files(out: Path, dataset: BidsDataset) -> None:
    """Write dataset_description.json, .bidsignore and README.md, before the first image.

    A description that this program has written for the same raw dataset is kept; another version
    of the program adds itself to GeneratedBy. Lines of .bidsignore and a README that are there
    stay. participants.tsv stays in the raw dataset, which Sources names.

    Args:
        out: folder of the derivative dataset, created where it is missing.
        dataset: the raw dataset.

    Raises:
        InputError: the folder holds a dataset of another program or of another raw dataset, or
            other files.
        OSError: a file cannot be written.
    """
    description = _description(out, dataset)
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / DESCRIPTION, description)
    ignored = out / ".bidsignore"
    lines = ignored.read_text(encoding="utf-8").splitlines() if ignored.exists() else []
    if missing := [line for line in _IGNORED if line not in lines]:
        _write(ignored, "\n".join([*lines, *missing, ""]))
    if not any((out / name).exists() for name in _READMES):
        _write(out / "README.md", _readme(dataset.description))


def write_bids_sidecar(source: Path, target: Path, record: Mapping[str, Any]) -> None:
    """Write the JSON file beside a restored image, unless it is there and says the same.

    To be called after the image was written, and for one of an earlier run too.

    Args:
        source: the raw image, in its dataset.
        target: the restored image, in the derivative dataset.
        record: JSON values of its restoration record.

    Raises:
        InputError: the source lies in no dataset, or a JSON file of it cannot be read.
        OSError: the file cannot be written.
    """
    source = source.absolute()
    dataset = dataset_of(source)
    if dataset is None:
        raise InputError(f"{source}: is not in a BIDS dataset; give the dataset that it is of")
    values = _kept(bids_metadata(source), record)
    values["Description"] = _described(record)
    values["Sources"] = [f"bids:{_RAW}:{source.relative_to(dataset).as_posix()}"]
    values["DeepLearning"] = True
    values["DeepLearningDetails"] = _details(values.get("DeepLearningDetails"), record)
    name = bids_name(target.name)
    if name is not None and "res" in name.entities:
        values["Resolution"] = _resolution(target, record)
    # Raw images are as they were acquired; one that is not has to say so.
    values["SkullStripped"] = values.get("SkullStripped") is True
    beside = target.with_name(target.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    _write_json(beside, values)


def _description(out: Path, dataset: BidsDataset) -> dict[str, Any]:
    """Return the description of the derivative dataset, of a former run where it is from one."""
    if os.path.lexists(out / DESCRIPTION):
        former = read_description(out)
        _check_former(out, former, dataset.root)
        return _with_this_version(former)
    if out.exists() and not (out.is_dir() and _is_unused(out)):
        raise InputError(f"{out}: holds files of something else; name a new or empty folder")
    raw = dataset.description
    carried = {
        field: raw[field]
        for field, kind in _CARRIED.items()
        if raw.get(field) and isinstance(raw[field], kind)
    }
    link = _link(dataset.root, out)
    known = {"DOI": raw.get("DatasetDOI"), "Version": raw.get("DatasetVersion")}
    told = {field: value for field, value in known.items() if isinstance(value, str) and value}
    return _with_this_version(
        {
            "Name": f"{_title(raw)}, restored",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "derivative",
            **carried,
            "GeneratedBy": [],
            "SourceDatasets": [{"URL": link, **told}],
            "DatasetLinks": {_RAW: link},
        }
    )


def _is_unused(folder: Path) -> bool:
    return all(name.startswith((".", "manifest")) for name in os.listdir(folder))


def _title(raw: Mapping[str, Any]) -> str:
    """Name of a dataset, in one line that can be encoded."""
    name = str(raw.get("Name") or "a dataset without a name")
    return " ".join(name.encode("utf-8", "replace").decode().split())


def _with_this_version(description: dict[str, Any]) -> dict[str, Any]:
    this = {"Name": _PROGRAM, "Version": version(_PROGRAM), "Description": NOTICE}
    generators = description["GeneratedBy"]
    return description | {"GeneratedBy": [*generators, *([] if this in generators else [this])]}


def _check_former(out: Path, former: Mapping[str, Any], root: Path) -> None:
    """Refuse a dataset that no earlier run has made of the same raw dataset."""
    generators = former.get("GeneratedBy")
    first = generators[0] if isinstance(generators, list) and generators else None
    name = first.get("Name") if isinstance(first, dict) else None
    if name != _PROGRAM:
        by = f"was made by {name}" if isinstance(name, str) else f"is not of {_PROGRAM}"
        raise InputError(f"{out}: the dataset there {by}; name another folder")
    links = former.get("DatasetLinks")
    link = links.get(_RAW) if isinstance(links, dict) else None
    if not isinstance(link, str) or _linked(link, out) != root.resolve():
        raise InputError(
            f"{out}: was made from another dataset ({link}); name another folder, or correct "
            f"DatasetLinks in its {DESCRIPTION} if the dataset was moved"
        )


def _link(root: Path, out: Path) -> str:
    """Return the raw dataset as a URI, relative to the derivative one where that is possible."""
    try:
        return quote(Path(os.path.relpath(root.resolve(), out.resolve())).as_posix())
    except ValueError:  # on another drive
        return root.resolve().as_uri()


def _linked(link: str, out: Path) -> Path:
    parts = urlsplit(link)
    if parts.scheme == "file":
        from urllib.request import url2pathname

        return Path(url2pathname(parts.path)).resolve()
    return (out.resolve() / unquote(link)).resolve()


def _kept(metadata: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what remains true of a restored image."""
    dropped = {*_REPLACED, *_OF_DATASET, *(_OF_GRID if record.get("scale") else ())}
    kept = {field: value for field, value in metadata.items() if field not in dropped}
    for field in ("ImageType", "ImageTypeText"):
        values = kept.get(field)
        if isinstance(values, list) and values[:1] == ["ORIGINAL"]:
            kept[field] = ["DERIVED", *values[1:]]
    return kept


def _described(record: Mapping[str, Any]) -> str:
    program, task = record.get("software", _PROGRAM), record.get("task")
    parts = [f"Restored by {program}, task {task}, weights {record.get('weights')}."]
    if record.get("scale"):
        parts.append(f"The grid is finer by {record['scale']:g} along both axes of each slice.")
    return " ".join([*parts, str(record.get("not_for") or NOTICE)])


def _details(former: Any, record: Mapping[str, Any]) -> str:
    """Return how a network was used, after what the source says of one."""
    digest = str(record.get("weights_sha256"))[:16]
    this = f"{record.get('software', _PROGRAM)}: Restore-RWKV, task {record.get('task')}, weights "
    this += f"{record.get('weights')} (SHA-256 {digest}...)"
    return f"{former}; {this}" if former else this


def _resolution(target: Path, record: Mapping[str, Any]) -> str:
    import nibabel

    header: Any = nibabel.load(target).header
    sizes = " x ".join(f"{size:.4g}" for size in header.get_zooms()[:3])
    return f"Voxels of {sizes} mm, a grid finer by {record['scale']:g} along both axes of a slice"


def _readme(raw: Mapping[str, Any]) -> str:
    return f"""\
# Restored images

Images of this dataset, restored by {_PROGRAM} with the Restore-RWKV network: {_title(raw)}

{NOTICE}

Each image has the name of its source with `desc-restored` added (`res-2x` and the like where its
grid is finer). The `.json` file beside it has the metadata of the source that still holds, and says
in `Sources` which image that is; its dataset is `{_RAW}` in `DatasetLinks` of
`{DESCRIPTION}`. The `.restoration.json` file says how the image was made: task,
weights with their digest, settings, versions, digests of input and output, and what changed.

Participants, and images that were not restored, are in the source dataset only.
"""


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=2) + "\n"
    if not path.is_file() or path.read_bytes() != text.encode():
        _write(path, text)


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
