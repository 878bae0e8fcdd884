"""The device that a network runs on."""

from __future__ import annotations

from pathlib import Path

import torch

from restore_rwkv.errors import ConfigError
from restore_rwkv.model.header import is_exported


def find_device(name: str) -> torch.device:
    """Device of that name; "auto" is the fastest one here.

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.
    """
    if not isinstance(name, str):
        raise ConfigError(f"device is {name!r}; give its name: auto, cpu, cuda or mps")
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, here in present.items() if here)
    kind = name.split(":")[0]
    if kind not in present:
        raise ConfigError(f"device {name!r} is unknown; use auto, {', '.join(present)}")
    if not present[kind]:
        raise ConfigError(f"device {name!r} is not on this machine; use cpu or auto")
    try:
        device = torch.device(name)
        count = torch.cuda.device_count() if kind == "cuda" else 1
        if device.index is not None and device.index >= count:
            raise ConfigError(f"device {name!r} is not on this machine; use {kind} or auto")
        return device
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is not a device of torch; use auto or cpu") from error


def device_for(name: str, weights: Path | None) -> torch.device:
    """Device of that name for weights; an exported network runs on the CPU.

    Args:
        name: as for `find_device`.
        weights: a weight file or an exported network; None for the own weights of tasks.

    Raises:
        ConfigError: as `find_device`, or the device is not for an exported network.
    """
    if weights is None or not is_exported(weights):
        return find_device(name)
    if name == "auto":
        return torch.device("cpu")
    device = find_device(name)
    if device.type != "cpu":
        raise ConfigError(
            f"device is {name!r}, and {weights.name} runs in ONNX Runtime on the CPU; leave device "
            "out, or give the weight file it was made from"
        )
    return device
