"""An image with its position in space, and the properties of its file that writers keep."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError
from restore_rwkv.io.affines import checked_affine, same_field_of_view
from restore_rwkv.io.findings import Finding
from restore_rwkv.io.missing import Mask, resampled_mask
from restore_rwkv.io.stored import Float32Array, Float64Array, Stored

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image
    from nibabel.spatialimages import SpatialImage


@dataclass(frozen=True, eq=False)
class Source:
    """Origin of a volume. Formats with headers extend this class.

    Attributes:
        path: File or folder that was read.
        shape: Shape of the image in the file, including axes of length 1.
        stored: Number format of the file, or None if its values have several.
        findings: What its header or the file beside it says against restoring the image.
        parts: All files that were read, where they are several (header and voxels of a pair).
    """

    path: Path
    shape: tuple[int, ...]
    stored: Stored | None
    findings: tuple[Finding, ...] = field(default=(), kw_only=True)
    parts: tuple[Path, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, eq=False)
class Volume:
    """A three-dimensional image in physical units.

    Attributes:
        data: float32, shape (X, Y, Z), in the voxel order of the file; two-dimensional images have
            shape (X, Y, 1). Other real types are converted.
        affine: (4, 4) float64; maps voxel indices (i, j, k, 1) to millimetres in RAS+ (x to the
            right, y to the front, z to the head). None for images without geometry.
        unit: "HU", "SUV", "Bq/ml", "a.u.", or None when unknown.
        modality: "CT", "MR", "PT", another of DICOM's codes, or None when unknown.
        source: The file it was read from, or None for your own array.
        suv_per_unit: SUV (by body weight) of a value of 1, for PET in Bq/ml whose files give it;
            else None.
        missing: bool, shape (X, Y, Z); where the file has no value (NaN outside the body), which
            the data fills; None where it has all.

    Raises:
        InputError: The data is not 2-D or 3-D, is empty, complex or not finite, the affine is not a
            finite, invertible 4 x 4 matrix, its spacing is impossible, `missing` has another shape
            or type, or the SUV of a value of 1 is not above 0.

    Example:
        >>> import numpy as np
        >>> Volume(np.zeros((4, 5, 6)), np.diag([1.0, 1.0, 2.5, 1.0])).spacing
        (1.0, 1.0, 2.5)
    """

    data: Float32Array
    affine: Float64Array | None = None
    unit: str | None = None
    modality: str | None = None
    source: Source | None = None
    suv_per_unit: float | None = None
    missing: Mask | None = None

    def __post_init__(self) -> None:
        where = self.name
        data = _as_three_axes(np.asarray(self.data), where)
        object.__setattr__(self, "data", data)
        if self.affine is not None:
            object.__setattr__(self, "affine", checked_affine(self.affine, where))
        if self.source is not None and three_axes(self.source.shape, where) != data.shape:
            raise InputError(
                f"{where}: the data has shape {data.shape} but its source has {self.source.shape}; "
                "set source=None for another grid"
            )
        mask = self.missing
        if mask is not None and (mask.shape != data.shape or mask.dtype != bool):
            raise InputError(
                f"{where}: missing is {mask.dtype} of shape {mask.shape}; "
                f"give bool of shape {data.shape}, or None"
            )
        factor = self.suv_per_unit
        if factor is not None and not 0 < factor < math.inf:
            raise InputError(f"{where}: the SUV of 1 is {factor:g}; give a number above 0, or None")

    @property
    def name(self) -> str:
        """Name of the file or folder it was read from, or "array"; for messages."""
        return self.source.path.name if self.source else "array"

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Distance between voxel centres along each array axis in mm, None without geometry."""
        if self.affine is None:
            return None
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return (x, y, z)

    def slices(self, axis: int) -> Float32Array:
        """Return the slices (N, H, W) across an array axis, as a view.

        Rows and columns are the other two axes in their order.
        """
        return np.moveaxis(self.data, axis, 0)

    def with_slices(self, stack: npt.NDArray[np.generic], axis: int) -> Volume:
        """Return this volume with other values, given as slices (N, H, W) across an array axis.

        Raises:
            InputError: The shape differs, or a value is not finite.
        """
        return self.with_data(np.moveaxis(stack, 0, axis))

    def with_data(self, array: npt.NDArray[np.generic]) -> Volume:
        """Return this volume with other values on the same grid.

        Args:
            array: Real values in the same unit, of the same shape (X, Y, Z).

        Raises:
            InputError: The shape differs, or a value is not finite.
        """
        if array.shape != self.data.shape:
            raise InputError(
                f"array: shape is {array.shape}, the volume's is {self.data.shape}; "
                "give one value for each voxel"
            )
        return replace(self, data=cast(Float32Array, array))  # __post_init__ converts

    def resampled(self, array: npt.NDArray[np.generic], affine: Float64Array | None) -> Volume:
        """Return this volume on another grid; its source stays, so that its header can be kept.

        Args:
            array: Real values in the same unit, shape (X, Y, Z) of the new grid.
            affine: (4, 4) of the new grid, voxel indices to mm in RAS+; None without geometry.

        Raises:
            InputError: A value is not finite, or the affine is unusable.
        """
        source = self.source
        if source is not None:
            axes = len(source.shape)
            shape = array.shape[:2] if axes == 2 and array.shape[2] == 1 else array.shape
            source = replace(source, shape=(*shape, *source.shape[3:]))
        missing = self.missing
        if missing is not None:
            if self.affine is not None and affine is not None:
                indices = np.linalg.solve(self.affine, affine)
            else:
                indices = same_field_of_view(np.eye(4), self.data.shape, array.shape)
            missing = resampled_mask(missing, indices, array.shape)
        return replace(
            self, data=cast(Float32Array, array), affine=affine, source=source, missing=missing
        )

    def with_missing(self) -> Float32Array:
        """Return the values, NaN where the file has none (a copy then)."""
        if self.missing is None:
            return self.data
        values: Float32Array = self.data.copy(order="K")
        values[self.missing] = np.nan
        return values

    @staticmethod
    def from_nibabel(
        image: SpatialImage, *, unit: str | None = None, modality: str | None = None
    ) -> Volume:
        """Return a nibabel image as a volume: values scaled, affine in mm.

        Args:
            image: Three-dimensional, of a format with orientation (NIfTI, MGH, MINC, ...).
            unit: Of its values, as in the attributes.
            modality: "CT", "MR", "PT" or None.

        Raises:
            InputError: The image has a time axis, colours, complex numbers, or no orientation.

        Example:
            >>> import nibabel, numpy as np
            >>> image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.diag([2, 2, 3, 1]))
            >>> Volume.from_nibabel(image, modality="MR").spacing
            (2.0, 2.0, 3.0)
        """
        from restore_rwkv.io.conversions import from_nibabel

        return from_nibabel(image, unit, modality)

    def to_nibabel(self) -> Nifti1Image:
        """Return a NIfTI image with this volume's values and affine.

        It has the header of the file where the volume was read from NIfTI.

        Raises:
            InputError: The volume has no affine.

        Example:
            >>> import numpy as np
            >>> Volume(np.zeros((4, 5, 6)), np.eye(4)).to_nibabel().shape
            (4, 5, 6)
        """
        from restore_rwkv.io.conversions import to_nibabel

        return to_nibabel(self)

    @staticmethod
    def from_sitk(image: Any, *, unit: str | None = None, modality: str | None = None) -> Volume:
        """Return a SimpleITK image as a volume; its LPS positions become RAS+.

        Args:
            image: Three-dimensional, with one real value a voxel; or two-dimensional, which gives
                a volume without geometry.
            unit: Of its values, as in the attributes.
            modality: "CT", "MR", "PT" or None.

        Raises:
            InputError: The image has four axes, several channels or complex numbers.

        Example:
            >>> import SimpleITK  # doctest: +SKIP
            >>> volume = Volume.from_sitk(SimpleITK.ReadImage("scan.nrrd"))  # doctest: +SKIP
        """
        from restore_rwkv.io.conversions import from_sitk

        return from_sitk(image, unit, modality)

    def to_sitk(self) -> Any:
        """Return a SimpleITK image with these values, spacing, direction and origin (LPS).

        Raises:
            InputError: SimpleITK is not installed, or the volume has no affine.

        Example:
            >>> import numpy as np
            >>> volume = Volume(np.zeros((4, 5, 6)), np.eye(4))
            >>> volume.to_sitk().GetSize()  # doctest: +SKIP
            (4, 5, 6)
        """
        from restore_rwkv.io.conversions import to_sitk

        return to_sitk(self)


def three_axes(shape: tuple[int, ...], where: str) -> tuple[int, int, int]:
    """Return the (X, Y, Z) of a 2-D or 3-D shape, without trailing axes of length 1.

    Raises:
        InputError: The image has another number of axes, or an axis without voxels.
    """
    if any(length < 1 for length in shape):
        raise InputError(f"{where}: an axis has no voxels, shape {shape}; export the image again")
    if len(shape) < 2:
        raise InputError(f"{where}: shape {shape} is not an image; give 2 or 3 axes")
    if any(length > 1 for length in shape[3:]):
        raise InputError(
            f"{where}: the image has {len(shape)} axes, shape {shape}; "
            "save one 3-D volume per time point or channel"
        )
    x, y, z = (*shape, 1)[:3]
    return (x, y, z)


def _as_three_axes(data: npt.NDArray[np.generic], where: str) -> Float32Array:
    if data.dtype.kind not in "iuf":
        raise InputError(
            f"{where}: values of type {data.dtype} are not supported; convert to real numbers"
        )
    shape = three_axes(data.shape, where)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are reported below
        values = data.astype(np.float32, copy=False).reshape(shape)
    slices = np.moveaxis(values, -1, 0) if values.flags.f_contiguous else values
    if not all(np.isfinite(part).all() for part in slices):  # no mask as large as the volume
        finite = np.isfinite(values)
        first = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), shape))
        raise InputError(
            f"{where}: {int(finite.size - finite.sum())} voxels are not finite, the first at "
            f"{first}; replace NaN and infinity"
        )
    return values


def one_line(error: Exception) -> str:
    """Return the message of a library on one line, for use inside a message of this package."""
    return " ".join(str(error).split())
