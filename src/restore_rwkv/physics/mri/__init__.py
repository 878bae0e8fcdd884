"""MRI: central block of k-space, its noise, low resolution, thick slices, data consistency."""

from restore_rwkv.physics.mri.cartesian import CartesianMRI
from restore_rwkv.physics.mri.consistency import (
    disagreement,
    keep_measured,
    measured_part,
)
from restore_rwkv.physics.mri.corner_noise import corner_noise
from restore_rwkv.physics.mri.extent import KspaceExtent, kspace_extent
from restore_rwkv.physics.mri.kspace import (
    kspace_block,
    kspace_block_shape,
    kspace_noise,
    zero_fill,
)
from restore_rwkv.physics.mri.noise import noise_level, scan_noise
from restore_rwkv.physics.mri.resolution import (
    cubic_interpolate,
    fourier_interpolate,
    kspace_crop,
    low_resolution,
    reduce_resolution,
    thick_slices,
)

__all__ = [
    "CartesianMRI",
    "KspaceExtent",
    "corner_noise",
    "cubic_interpolate",
    "disagreement",
    "fourier_interpolate",
    "keep_measured",
    "kspace_block",
    "kspace_block_shape",
    "kspace_crop",
    "kspace_extent",
    "kspace_noise",
    "low_resolution",
    "measured_part",
    "noise_level",
    "reduce_resolution",
    "scan_noise",
    "thick_slices",
    "zero_fill",
]
