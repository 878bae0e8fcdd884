"""What was done to the derived series of these tests."""

from __future__ import annotations

import pytest

from restore_rwkv.io.dicom.derived import Derivation


@pytest.fixture
def derivation() -> Derivation:
    """A derivation as the restorer would describe it."""
    return Derivation(
        task="mri-sr",
        description="slices restored one by one",
        weights="light-mri-sr.safetensors",
        weights_sha256="ab" * 32,
        notice="Not a medical device; for research only.",
    )
