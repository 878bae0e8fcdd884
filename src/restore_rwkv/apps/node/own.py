"""Whether this program made an image, by what its header says.

Such series come back from archives that the node both sends to and receives from; restoring them
again would never end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MANUFACTURER, _DERIVATION, _EQUIPMENT = "00080070", "00082111", "0018A001"
TAGS = (_MANUFACTURER, _DERIVATION, _EQUIPMENT)
"""Tags of the elements that say so, as DICOM JSON writes them."""


def made_here(header: Dataset) -> bool:
    """Whether a header says that this program made the image: a restored one, or a map."""
    from restore_rwkv.io.dicom.statements import RESTORED_BY, findings_of

    if str(header.get("Manufacturer", "")).lower().startswith(RESTORED_BY):
        return True
    return any(finding.kind == "already-restored" for finding in findings_of([header]))


def is_made_here(path: Path) -> bool:
    """Whether this program made what a file holds; False where its header cannot be read."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    from restore_rwkv.io.decoding import DECODING_ERRORS

    tags: list[Any] = [int(tag, 16) for tag in TAGS]
    try:
        return made_here(dcmread(path, stop_before_pixels=True, specific_tags=tags))
    except (*DECODING_ERRORS, InvalidDicomError):  # the worker will say why
        return False


def says_made_here(metadata: Mapping[str, Any]) -> bool:
    """Whether metadata, as DICOM JSON, say so; False where they cannot be read."""
    from pydicom.dataset import Dataset

    for tag in TAGS:
        try:
            if made_here(Dataset.from_json({tag: metadata[tag]})):
                return True
        except Exception:  # missing, or not DICOM JSON, of which pydicom raises errors of all kinds
            continue
    return False
