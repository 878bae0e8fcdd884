"""Allocator settings of the C library for programs that compute on CPUs; needs no PyTorch."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks; otherwise every operation maps its pages again (2x in time).

    Call it from programs, not from libraries: it applies to the whole process. Has no effect
    without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never return the end of the heap to the system
        # M_MMAP_THRESHOLD, limited in older glibc. Blocks above it are slower, but leave no holes.
        mallopt(-3, 2**31 - 1) or mallopt(-3, 2**25)
