"""How low-quality images come about: forward models of the scanners, in PyTorch."""

from __future__ import annotations

from restore_rwkv.physics.mri import (
    kspace_block,
    kspace_block_shape,
    kspace_crop,
    low_resolution,
    zero_fill,
)

__all__ = [
    "kspace_block",
    "kspace_block_shape",
    "kspace_crop",
    "low_resolution",
    "zero_fill",
]
