"""Choice of the slice axis of a scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from restore_rwkv.errors import ConfigError
from restore_rwkv.io import Volume, acquisition_axis, plane_axis

if TYPE_CHECKING:
    from restore_rwkv.tasks.table import Task

PlaneChoice = Literal["auto", "axial", "coronal", "sagittal"]


def slice_axis(volume: Volume, task: Task, plane: PlaneChoice = "auto") -> int:
    """Return the array axis across the slices of a plane; "auto" is the plane of the task.

    This is the axis nearest to the normal of the plane. For a single slice it is the axis of length
    1, and for an image without geometry the last axis.

    Raises:
        ConfigError: an anatomical plane is requested, but the image has no geometry.
    """
    if plane != "auto":
        if volume.affine is None:
            raise ConfigError(
                f"plane {plane}: {volume.name} has no geometry; leave plane at auto, which takes "
                "slices across the last axis"
            )
        return plane_axis(volume.affine, plane)
    if 1 in volume.data.shape:
        return max(axis for axis in range(3) if volume.data.shape[axis] == 1)
    if volume.affine is None or volume.spacing is None:
        return 2
    if task.plane == "acquisition":
        return acquisition_axis(volume.spacing)
    return plane_axis(volume.affine, task.plane)
