"""Small images that look like MRI, CT and PET, their files, and checks of what came out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tests.helpers.odd_files.case import OUTPUT

Array = NDArray[np.generic]
Edit = Callable[[nib.Nifti1Header], None]

SHAPE = (48, 40, 4)
AFFINE = np.array([[-1.0, 0, 0, 20], [0, 1, 0, -30], [0, 0, 3, 5], [0, 0, 0, 1]])


def _body(shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    """Return coordinates from -1 to 1 in the slices, and the fraction of a body in each voxel."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    body = gaussian_filter((x**2 / 0.7 + y**2 / 0.6 < 1).astype(float), 1.5)
    return x, y, body


def mri(shape: tuple[int, int, int] = SHAPE) -> Array:
    """Return a smooth magnitude image, whole numbers from 0 to some 1000, float64."""
    x, y, body = _body(shape)
    tissue = 650 + 120 * np.cos(5 * x) * np.cos(4 * y) - 300 * np.exp(-30 * (x**2 + y**2))
    gains = 1 + 0.1 * np.arange(shape[2])
    return np.rint((body * tissue)[..., None] * gains + 12 * body[..., None])


def ct(shape: tuple[int, int, int] = SHAPE) -> Array:
    """Return HU of a body with a darker lesion in air, with noise, whole numbers, float64."""
    x, y, body = _body(shape)
    tissue = 1040 - 60 * ((x - 0.3) ** 2 + y**2 < 0.03) + 12 * np.cos(4 * x)
    noise = np.random.default_rng(0).normal(0, 12, shape)
    return np.rint(np.maximum((body * tissue)[..., None] - 1000 + noise, -1024))


def pet(shape: tuple[int, int, int] = (48, 40, 12)) -> Array:
    """Return an activity with two hot spots, whole numbers from 0 to some 20000, float64."""
    x, y, body = _body(shape)
    spots = np.exp(-30 * ((x - 0.3) ** 2 + y**2)) + 0.6 * np.exp(-40 * ((x + 0.3) ** 2 + y**2))
    noise = np.random.default_rng(1).normal(1, 0.1, shape)
    return np.rint((body * (3000 + 15000 * spots))[..., None] * np.abs(noise))


def save_nifti(
    path: Path, data: Array, affine: Array = AFFINE, edit: Edit | None = None
) -> nib.Nifti1Image:
    """Write a NIfTI-1 file of the array's type, after ``edit(header)`` where it is given."""
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    if edit is not None:
        edit(image.header)
    nib.save(image, path)
    return image


def plain(folder: Path, name: str = "scan.nii.gz") -> Path:
    """Write the MRI as int16."""
    save_nifti(folder / name, mri().astype(np.int16))
    return folder / name


def _canonical(data: Array, affine: Array) -> tuple[Array, Array]:
    """Return an image with its axes as close to right, front and head as flips make them."""
    axes = data.reshape(*data.shape, *[1] * (3 - data.ndim)).astype(np.float64)
    image = nib.as_closest_canonical(nib.Nifti1Image(axes, affine))
    return np.asarray(image.dataobj), image.affine


def keeps(
    values: Array,
    affine: Array | None = AFFINE,
    *,
    name: str = OUTPUT,
    close: float = 1e-4,
    nan_kept: bool = False,
) -> Callable[[Path], None]:
    """Return a check that an output has these values at these places.

    The axes may run the other way, as long as the affine says so.

    Args:
        values: on the grid of the file.
        affine: voxel indices to mm in RAS+; None leaves it unchecked.
        name: of the output.
        nan_kept: whether NaN has to stay NaN; otherwise it may have been filled.
        close: largest difference, in units of the largest value. The tiny network returns its
            input; float32 and the scaling to its values and back change it by some 1e-6.
    """

    def check(folder: Path) -> None:
        image = nib.load(folder / name)
        data, wanted = np.asarray(image.dataobj, dtype=np.float64), values
        assert data.shape == wanted.shape, f"shape {data.shape}, not {wanted.shape}"
        if affine is not None:
            data, found = _canonical(data, image.affine)
            wanted, expected = _canonical(wanted, affine)
            off = float(np.abs(found - expected).max())
            assert off < 1e-3, f"the affine differs by {off:g} mm"
        filled = np.where(np.isnan(wanted), np.nan, data)
        assert np.array_equal(np.isnan(filled), np.isnan(wanted)), "NaN in other places"
        if nan_kept:
            assert np.isnan(data[np.isnan(wanted)]).all(), "NaN was filled"
        worst = float(np.nanmax(np.abs(filled - wanted)))
        bound = close * float(np.nanmax(np.abs(wanted)))
        assert worst <= bound, f"values differ by up to {worst:g}"

    return check


def finite(folder: Path) -> None:
    """Check that an output can be read, and has numbers only."""
    assert np.isfinite(np.asarray(nib.load(folder / OUTPUT).dataobj)).all(), "not all finite"
