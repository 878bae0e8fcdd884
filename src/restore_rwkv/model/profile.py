"""What a network costs: parameters, multiply-accumulates, time and memory, by level."""

from __future__ import annotations

import copy
import statistics
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from restore_rwkv.errors import ConfigError
from restore_rwkv.model.macs import Level, Macs, count_levels, number_of, summed
from restore_rwkv.model.measuring import peak_bytes, seconds


@dataclass(frozen=True)
class Profile:
    """What one image costs.

    Attributes:
        height: rows of the image.
        width: columns of the image.
        training_parameters: number of weights of the form that is trained.
        parameters: number of weights of the inference form.
        macs: multiply-accumulates of the inference form.
        levels: its parts, in the order of the network; their sums are the two above.
        device: device of the times.
        seconds: duration of each repeat in the inference form, after a first call.
        peak: bytes that the first call took above network and input; None where the system does
            not report it.
    """

    height: int
    width: int
    training_parameters: int
    parameters: int
    macs: Macs
    levels: tuple[Level, ...]
    device: str
    seconds: tuple[float, ...]
    peak: int | None

    @property
    def median(self) -> float:
        """Median of the repeats, in seconds."""
        return statistics.median(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {
            "height": self.height,
            "width": self.width,
            "training_parameters": self.training_parameters,
            "parameters": self.parameters,
            "macs": self.macs.to_dict(),
            "levels": [
                {"name": level.name, "parameters": level.parameters, "macs": level.macs.to_dict()}
                for level in self.levels
            ],
            "device": self.device,
            "seconds": list(self.seconds),
            "seconds_median": self.median,
            "peak_bytes": self.peak,
        }


def profile_network(
    network: nn.Module, size: int = 256, *, device: torch.device | str = "cpu", repeats: int = 5
) -> Profile:
    """Measure what a network costs for one square image.

    Args:
        network: maps (B, C, H, W) to the same shape; C is `network.config.in_channels` where it has
            that, else 1. Not changed.
        size: rows and columns of the image.
        device: device to time on.
        repeats: timed calls, after a first one whose memory is measured.

    Raises:
        ConfigError: size or repeats are below 1.
        OperatorError: the network does not take an image of this size.

    Example:
        >>> from restore_rwkv.model import PRESETS, RestoreRWKV
        >>> profile_network(RestoreRWKV(PRESETS["light"]), 64, repeats=1).parameters
        1156961
    """
    for name, value in (("size", size), ("repeats", repeats)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; give a whole number from 1")
    inference = inference_form(network)
    levels = count_levels(inference, (size, size))
    times, peak = _measure(inference.to(device), size, torch.device(device), repeats)
    return Profile(
        height=size,
        width=size,
        training_parameters=number_of(_training_form(network).parameters()),
        parameters=number_of(inference.parameters()),
        macs=summed(level.macs for level in levels),
        levels=levels,
        device=str(device),
        seconds=times,
        peak=peak,
    )


def inference_form(network: nn.Module) -> nn.Module:
    """Return a copy for inference, by its `merged` where a network has it; without gradients."""
    merged = getattr(network, "merged", None)
    copied: nn.Module = merged() if callable(merged) else copy.deepcopy(network)
    return copied.eval().requires_grad_(False)


def _training_form(network: Any) -> nn.Module:
    """Return the form that is trained; of a merged network without content."""
    form: nn.Module = network
    if getattr(network, "is_merged", False):
        with torch.device("meta"):
            form = type(network)(network.config)
    return form


def _measure(
    network: nn.Module, size: int, device: torch.device, repeats: int
) -> tuple[tuple[float, ...], int | None]:
    """Return the duration of each repeat, and the peak memory of a call before them."""
    channels = getattr(getattr(network, "config", None), "in_channels", 1)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, channels, size, size, generator=generator).to(device)

    def call() -> None:
        network(image)

    with torch.inference_mode():
        small = min(size, 64)
        network(image[..., :small, :small])  # the libraries' one-time initialisation
        peak = peak_bytes(call, device)
        return tuple(seconds(call, device) for _ in range(repeats)), peak
