"""Modality and unit from the JSON file beside a NIfTI file, as in dcm2niix and BIDS."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)
_LARGEST = 1 << 20  # bytes; those of dcm2niix have a few thousand
_SUFFIXES = (".json", ".restoration.json", ".degradation.json")
_MODALITIES = ("CT", "MR", "PT")
_PET_UNITS = {"bqml": "Bq/ml", "bq/ml": "Bq/ml", "gml": "SUV", "g/ml": "SUV", "suv": "SUV"}


def read_sidecar(path: Path) -> tuple[str | None, str | None]:
    """Return the modality and the unit given by a JSON file beside scan.nii.gz.

    Args:
        path: The NIfTI file. Read are scan.json and the records that this program writes beside
            its outputs, if they exist.

    Returns:
        "CT", "MR", "PT" or None from "Modality"; for PET, "Bq/ml", "SUV" or None from "Units". A
        file that is not a JSON object is ignored with a warning.
    """
    inner = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    for suffix in _SUFFIXES:
        record = _record(inner.with_suffix(suffix))
        modality = record.get("Modality", record.get("modality"))
        if modality in _MODALITIES:
            units = str(record.get("Units", record.get("unit"))).lower()
            return modality, _PET_UNITS.get(units) if modality == "PT" else None
    return None, None


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
