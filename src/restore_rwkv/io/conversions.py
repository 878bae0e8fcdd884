"""Images of nibabel and SimpleITK, and arrays, as volumes and back."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.affines import affine_of_columns, columns_in_lps
from restore_rwkv.io.missing import fill_missing
from restore_rwkv.io.volume import Volume, three_axes

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image
    from nibabel.spatialimages import SpatialImage

_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}


def as_volume(image: Any) -> Volume:
    """Return a volume from any image that Python programs have.

    Args:
        image: A `Volume`, which is returned as it is; a nibabel image; a SimpleITK image; or an
            array (X, Y) or (X, Y, Z), which has no geometry.

    Raises:
        InputError: It is something else, or not a three-dimensional image of real numbers.

    Example:
        >>> import numpy as np
        >>> as_volume(np.zeros((4, 5))).data.shape
        (4, 5, 1)
    """
    if isinstance(image, Volume):
        return image
    if isinstance(image, np.ndarray):
        return Volume(image)
    if type(image).__module__.startswith("SimpleITK"):
        return from_sitk(image)
    if hasattr(image, "affine") and hasattr(image, "dataobj"):
        return from_nibabel(image)
    raise InputError(
        f"{type(image).__name__}: not an image; give a Volume, an array, a nibabel or a "
        "SimpleITK image, or a path to read_volume"
    )


def from_nibabel(
    image: SpatialImage, unit: str | None = None, modality: str | None = None
) -> Volume:
    """Return a nibabel image as a volume; see `Volume.from_nibabel`."""
    from nibabel.analyze import AnalyzeImage
    from nibabel.nifti1 import Nifti1Pair

    name = type(image).__name__
    nifti = isinstance(image, Nifti1Pair)
    if isinstance(image, AnalyzeImage) and not nifti:
        raise InputError(f"{name}: does not say where left and right are; give a NIfTI image")
    if image.affine is None:
        raise InputError(f"{name}: has no affine; give one to nibabel, or use Volume(array)")
    shape = three_axes(tuple(int(length) for length in image.shape), name)  # before the voxels
    values, missing = fill_missing(np.asanyarray(image.dataobj).reshape(shape), name)
    affine = np.array(image.affine, np.float64)
    if nifti:
        affine[:3] *= _MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
    return Volume(values, affine, unit, modality, missing=missing)


def to_nibabel(volume: Volume) -> Nifti1Image:
    """Return a volume as a NIfTI image; see `Volume.to_nibabel`."""
    from nibabel.nifti1 import Nifti1Header, Nifti1Image
    from nibabel.nifti2 import Nifti2Image

    from restore_rwkv.io.nifti_write import nifti_header

    if volume.affine is None:
        raise InputError(f"{volume.name}: has no geometry; give the volume an affine")
    header, _ = nifti_header(volume)
    header.set_data_dtype(np.float32)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"] = header["cal_max"] = 0
    data = volume.data.reshape(header.get_data_shape())
    # With the header's own affine, so that nibabel leaves both of its affines as they are.
    kind = Nifti1Image if type(header) is Nifti1Header else Nifti2Image
    return kind(data, header.get_best_affine(), header)


def from_sitk(image: Any, unit: str | None = None, modality: str | None = None) -> Volume:
    """Return a SimpleITK image as a volume; see `Volume.from_sitk`."""
    sitk = _sitk()
    name = "SimpleITK image"
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{name}: has several channels; give one real value for each voxel")
    three_axes(image.GetSize(), name)
    axes = image.GetDimension()
    array = sitk.GetArrayFromImage(image)
    array = array.reshape(array.shape[-3:]).transpose()  # of z, y, x
    values, missing = fill_missing(array.reshape((*array.shape, 1)[:3]), name)
    if axes == 2:
        return Volume(values, None, unit, modality, missing=missing)
    direction = np.reshape(image.GetDirection(), (axes, axes))[:3, :3]
    columns = direction * np.array(image.GetSpacing()[:3])
    affine = affine_of_columns(columns, image.GetOrigin()[:3])
    return Volume(values, affine, unit, modality, missing=missing)


def to_sitk(volume: Volume) -> Any:
    """Return a volume as a SimpleITK image; see `Volume.to_sitk`."""
    sitk = _sitk()
    if volume.affine is None or volume.spacing is None:
        raise InputError(f"{volume.name}: has no geometry; give the volume an affine")
    columns, origin = columns_in_lps(volume.affine)
    image = sitk.GetImageFromArray(volume.data.transpose())
    image.SetSpacing(volume.spacing)
    image.SetDirection((columns / volume.spacing).ravel().tolist())
    image.SetOrigin(origin.tolist())
    return image


def _sitk() -> Any:
    """Return the package, which this one does not need otherwise."""
    try:
        return importlib.import_module("SimpleITK")
    except ImportError as error:
        raise InputError("SimpleITK is not installed; install it, or use NRRD files") from error
