"""Time and peak memory of calls, as `profile_network` and the benchmarks measure them."""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_NEW_MARK = Path("/proc/self/clear_refs")


def seconds(call: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """Time one call, until the device has finished."""
    kind = torch.device(device).type
    start = time.perf_counter()
    call()
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - start


def peak_bytes(call: Callable[[], object], device: torch.device | str = "cpu") -> int | None:
    """Return the peak memory of a call above that before it: of the GPU, or resident.

    None where the system has no peak counter that can be reset (all but Linux and CUDA).
    """
    gc.collect()
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    if kind != "cpu" or not _NEW_MARK.exists():
        call()
        return None
    # Freed blocks that the heap still holds would hide as much of what the call takes.
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
    _NEW_MARK.write_text("5")
    before = kibibytes(_STATUS, "VmRSS")
    call()
    return 1024 * (kibibytes(_STATUS, "VmHWM") - before)


def kibibytes(path: Path, key: str) -> int:
    """Return a size of a file of /proc in KiB.

    Raises:
        OSError: the file has no such key.
    """
    found = re.search(rf"^{key}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{path}: has no {key}")
    return int(found[1])
