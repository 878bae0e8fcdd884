"""All modalities. A new one is a file in this folder and an entry here."""

from __future__ import annotations

from restore_rwkv.tasks.ct import CT
from restore_rwkv.tasks.modality import Modality
from restore_rwkv.tasks.mri import MRI
from restore_rwkv.tasks.pet import PET

MODALITIES: dict[str, Modality] = {modality.code: modality for modality in (MRI(), CT(), PET())}
"""All modalities by DICOM's code."""
