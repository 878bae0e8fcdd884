"""What a JSON file beside a NIfTI file says of it, as dcm2niix and BIDS write them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

_log = logging.getLogger(__name__)
_LARGEST = 1 << 20  # bytes; dcm2niix writes some thousands
_MODALITIES = ("CT", "MR", "PT")
_PET_UNITS = {"bqml": "Bq/ml", "bq/ml": "Bq/ml", "gml": "SUV", "g/ml": "SUV", "suv": "SUV"}


def read_sidecar(path: Path) -> tuple[str | None, str | None]:
    """Return the modality and the unit that scan.json says of scan.nii.gz.

    Args:
        path: The NIfTI file; the JSON file need not exist.

    Returns:
        "CT", "MR", "PT" or None from "Modality"; of PET, "Bq/ml", "SUV" or None from "Units". A
        file that is no JSON object is left out with a warning.
    """
    sidecar = (path.with_suffix("") if path.suffix.lower() == ".gz" else path).with_suffix(".json")
    if not sidecar.is_file():
        return None, None
    try:
        with sidecar.open("rb") as stream:
            record = json.loads(stream.read(_LARGEST + 1)[:_LARGEST])
    except (OSError, ValueError, RecursionError):  # no text and no JSON are ValueErrors
        record = None
    if not isinstance(record, dict):
        _log.warning("%s: no JSON object that can be read, and left out", sidecar.name)
        return None, None
    modality = record.get("Modality")
    if modality not in _MODALITIES:
        return None, None
    unit = _PET_UNITS.get(str(record.get("Units")).lower()) if modality == "PT" else None
    return modality, unit
