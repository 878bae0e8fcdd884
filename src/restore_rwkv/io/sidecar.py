"""What a JSON file beside a NIfTI file says of it, as dcm2niix and BIDS write them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)
_LARGEST = 1 << 20  # bytes; dcm2niix writes some thousands
_SUFFIXES = (".json", ".restoration.json", ".degradation.json")
_MODALITIES = ("CT", "MR", "PT")
_PET_UNITS = {"bqml": "Bq/ml", "bq/ml": "Bq/ml", "gml": "SUV", "g/ml": "SUV", "suv": "SUV"}


def read_sidecar(path: Path) -> tuple[str | None, str | None]:
    """Return the modality and the unit that a JSON file beside scan.nii.gz says of it.

    Args:
        path: The NIfTI file. Looked at are scan.json, and the record that this program writes
            beside its outputs; none of them need exist.

    Returns:
        "CT", "MR", "PT" or None from "Modality"; of PET, "Bq/ml", "SUV" or None from "Units". A
        file that is no JSON object is left out with a warning.
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
    except (OSError, ValueError, RecursionError):  # no text and no JSON are ValueErrors
        record = None
    if not isinstance(record, dict):
        _log.warning("%s: no JSON object that can be read, and left out", sidecar.name)
        return {}
    return record
