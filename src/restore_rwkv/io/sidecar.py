"""What the files beside an image, and its name, say of it: as in dcm2niix, BIDS and our records."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.statements import already_restored, deep_learning, image_type_findings
from restore_rwkv.io.findings import Finding
from restore_rwkv.io.inheritance import inherited_files

_log = logging.getLogger(__name__)
_LARGEST = 1 << 20  # bytes; those of dcm2niix have a few thousand
_RESTORED = ".restoration.json"
_SUFFIXES = (".json", _RESTORED, ".degradation.json")
_RECORD = "restore-rwkv record"  # beginning of the format of every record
_MODALITIES = ("CT", "MR", "PT")
_PET_UNITS = {"bqml": "Bq/ml", "bq/ml": "Bq/ml", "gml": "SUV", "g/ml": "SUV", "suv": "SUV"}
# Modality of each row of the table of tasks, which lies above this room; a test compares them.
_OF_TASK = {"mri-sr": "MR", "ct-denoise": "CT", "pet-synth": "PT"}
# Suffixes of BIDS (https://bids-specification.readthedocs.io): of images, then of other things.
_BIDS_MR = ("T1w", "T2w", "PDw", "FLAIR", "T2starw", "PDT2", "inplaneT1", "inplaneT2", "angio")
_BIDS_FORMER = ("T2star", "FLASH", "PD")  # deprecated, in older datasets
BIDS_IMAGES = dict.fromkeys((*_BIDS_MR, *_BIDS_FORMER), "MR") | {"pet": "PT", "ct": "CT"}
"""Modality of the images of BIDS that are looked at as such, by their suffix."""
_BIDS = BIDS_IMAGES | dict.fromkeys(("bold", "dwi", "epi", "sbref"), "MR")
_BIDS_MAP = re.compile(r"(?:(?:T1|T2|T2star|R1|R2|R2star|PD|MTR|MTsat|M0|S0)map|fieldmap|Chimap)")
_BIDS_PHASE = re.compile(r"part-phase(?=_)|(?<=_)phase(?:1|2|diff)?(?=\.)")
_BIDS_LABELS = re.compile(r"(?:dseg|probseg|mask)")


@dataclass(frozen=True)
class Sidecar:
    """What is known of an image that its file does not say.

    Attributes:
        modality: "CT", "MR", "PT", or None.
        unit: for PET "Bq/ml", "SUV" or None; else None.
        findings: what speaks against restoring the image.
    """

    modality: str | None
    unit: str | None
    findings: tuple[Finding, ...] = ()


def read_sidecar(path: Path) -> Sidecar:
    """Return what the files beside scan.nii.gz, and its name, say of it.

    Args:
        path: The image. Read are scan.json and the records that this program writes beside its
            outputs, if they exist; of an image of a BIDS dataset also the JSON files that it
            inherits from, where scan.json does not say otherwise.

    Returns:
        The modality from "Modality", from the task of a record, or from the suffix of BIDS in the
        file's name (scan_T1w.nii.gz), the first that says it; for PET the unit from "Units". A file
        that is not a JSON object is ignored with a warning.
    """
    inner = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    records = {suffix: _record(inner.with_suffix(suffix)) for suffix in _SUFFIXES}
    records[".json"] = (
        _inherited(path.absolute(), inner.with_suffix(".json").name) | records[".json"]
    )
    findings = (
        *_of_dcm2niix(records[".json"]),
        *_of_record(inner.with_suffix(_RESTORED).name, path.name, records[_RESTORED]),
        *_of_name(inner.name),
    )
    for record in records.values():
        modality = record.get("Modality", record.get("modality"))
        if modality is None and str(record.get("format")).startswith(_RECORD):
            modality = _OF_TASK.get(str(record.get("task")))
        if modality in _MODALITIES:
            return Sidecar(modality, _unit(record) if modality == "PT" else None, findings)
    modality = _BIDS.get(_suffix(inner.name))  # of which BIDS wants no "Modality"
    return Sidecar(modality, _unit(records[".json"]) if modality == "PT" else None, findings)


def _unit(record: dict[str, Any]) -> str | None:
    return _PET_UNITS.get(str(record.get("Units", record.get("unit"))).lower())


def _suffix(name: str) -> str:
    """Return the suffix that BIDS gives a file: what follows the last underscore of its name."""
    before, _, suffix = Path(name).stem.rpartition("_")
    return suffix if before else ""


def _of_name(name: str) -> list[Finding]:
    suffix = _suffix(name)
    told = [
        ("derived-map", _BIDS_MAP.fullmatch(suffix), "a map computed from images"),
        ("phase", _BIDS_PHASE.search(name), "the phase of a complex image"),
        ("label-map", _BIDS_LABELS.fullmatch(suffix), "labels"),
    ]
    return [
        Finding("unfit", kind, f"{match[0]} in its name is {words} in BIDS; give the image itself")
        for kind, match, words in told
        if match
    ]


def _of_dcm2niix(record: dict[str, Any]) -> list[Finding]:
    found: list[Finding] = []
    for field in ("ImageType", "ImageTypeText"):
        values = record.get(field)
        if isinstance(values, list):
            found += (f for f in image_type_findings(map(str, values)) if f not in found)
    details = record.get("DeepLearningDetails")
    told = record.get("DeepLearning") is True or bool(details)
    if told and not any(finding.kind == "deep-learning" for finding in found):
        words = f"DeepLearning {details or 'true'} in its JSON"
        found.append(deep_learning(" ".join(words.split())))
    return found


def _of_record(name: str, image: str, record: dict[str, Any]) -> list[Finding]:
    if not str(record.get("format")).startswith(_RECORD):
        return []
    if record.get("output") not in (None, image):  # of another file of the same stem
        return []
    return [already_restored(f"{name} beside it")]


def _inherited(image: Path, own: str) -> dict[str, Any]:
    """Join what the JSON files of a BIDS dataset say of an image, but for its own of that name."""
    try:
        files = inherited_files(image)
    except InputError as error:
        _log.warning("%s; ignored", error)
        return {}
    joined: dict[str, Any] = {}
    for file in files:
        if file.name != own:
            joined |= _record(file)
    return joined


def _record(sidecar: Path) -> dict[str, Any]:
    if not sidecar.is_file():
        return {}
    try:
        with sidecar.open("rb") as stream:
            record = json.loads(stream.read(_LARGEST + 1)[:_LARGEST])
    except (OSError, ValueError, RecursionError):  # ValueError: not text, or not JSON
        record = None
    if not isinstance(record, dict):
        _log.warning("%s: ignored, not a readable JSON object", sidecar.name)
        return {}
    return record
