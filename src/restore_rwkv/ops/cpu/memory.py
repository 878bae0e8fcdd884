"""The allocator of the C library, tuned for programs that compute on CPUs. Needs no PyTorch."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks, or each operation pays for its pages anew (2x in time).

    For programs, not for libraries: it holds for the whole process. Without glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never give the end of the heap back
        # M_MMAP_THRESHOLD, limited in older glibc. Blocks above it cost time and leave no holes.
        mallopt(-3, 2**31 - 1) or mallopt(-3, 2**25)
