"""Rays through slices: geometries, the projector with its exact adjoint, and filter kernels."""

from restore_rwkv.physics.rays.geometry import FanBeam, ParallelBeam
from restore_rwkv.physics.rays.kernel import Kernel
from restore_rwkv.physics.rays.projection import Projector

__all__ = ["FanBeam", "Kernel", "ParallelBeam", "Projector"]
