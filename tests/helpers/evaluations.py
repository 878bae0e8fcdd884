"""Small prepared sets and folders of images for evaluations."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data import SetWriter

AFFINE = np.diag([0.8, 0.8, 3.0, 1.0])


def ct_set(folder: Path, patients: str = "ab", slices: int = 3) -> Path:
    """A set of noise around soft tissue, with more noise in the low quality."""
    generator = np.random.default_rng(0)
    with SetWriter(folder, "noise", "ct-denoise") as writer:
        for patient in patients:
            high = generator.uniform(-100, 100, (slices, 16, 24)).astype(np.float32)
            low = high + generator.normal(0, 20, high.shape).astype(np.float32)
            writer.add(f"{patient}-1", patient, "test", high, low)
    return folder


def body(seed: int = 0, shape: tuple[int, ...] = (20, 24, 3)) -> NDArray[np.float32]:
    """Something like a CT of soft tissue in air, in HU."""
    image = np.full(shape, -1000.0)
    image[4:16, 4:20] = 40
    return np.float32(image + np.random.default_rng(seed).normal(0, 10, shape))


def write_images(folder: Path, images: dict[str, NDArray[np.float32]]) -> Path:
    """Images by path: NIfTI with one affine, or arrays."""
    for name, image in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".npy"):
            np.save(path, image)
        else:
            nib.save(nib.Nifti1Image(image, AFFINE), path)
    return folder
