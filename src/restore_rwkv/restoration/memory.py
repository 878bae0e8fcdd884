"""Memory that a restoration needs, and memory that is free."""

from __future__ import annotations

from pathlib import Path

import torch

from restore_rwkv.restoration.tiles import Tiling

# Measured as the peak of a process (tests/restoration/test_memory.py compares):
_PROCESS = 370 << 20  # Python, PyTorch, nibabel and pydicom, and a network of a few megabytes
_WEIGHT = 8  # bytes: as read and in the inference form
_COPIES = 2  # of the volume: as read and restored
_COPIES_FOR_SCALING = 4  # while the robust scaling is found, before the network runs
_CGROUP = Path("/sys/fs/cgroup")


def expected_memory(
    volume_bytes: int, tiling: Tiling, parameters: int, *, robust: bool, masked: bool = False
) -> int:
    """Return the largest resident memory of a process that restores one volume, in bytes.

    On a GPU this is the memory of both, the activations of the network on the GPU.

    Args:
        volume_bytes: size of the volume in float32.
        tiling: how its slices are run.
        parameters: number of weights of the network.
        robust: whether the scaling is found from the values of the volume.
        masked: whether voxels without a value were filled.
    """
    held = volume_bytes if masked else 0  # the mask, and what filling took
    running = _COPIES * volume_bytes + tiling.memory + held
    scaling = _COPIES_FOR_SCALING * volume_bytes + held if robust else 0
    return _PROCESS + _WEIGHT * parameters + max(running, scaling)


def free_memory(device: torch.device) -> int:
    """Return the memory in bytes that a process can still take on a device.

    On Linux this includes the limit of the control group, as containers set it.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    available = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no such limit: "max"
        return available
    return min(available, max(0, limit - used))
