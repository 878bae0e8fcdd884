"""A network over a stack of slices within a memory allowance: whole slices in batches, or tiles."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from restore_rwkv.errors import ConfigError
from restore_rwkv.model import RestoreRWKV
from restore_rwkv.ops import available_backends

Progress = Callable[[int, int], None]

# Peak bytes per pixel and unit of `dim`, the allocator's share included: measured on a CPU with the
# C kernels, which overwrite v (benchmarks.scaling), and without them.
_BYTES_IN_PLACE, _BYTES_OTHERWISE = 96, 208
_STRIDE = 8
_OVERLAP = 64  # pixels shared by neighbouring tiles, or a quarter of smaller tiles
_MIN_TILE = 192  # the results of smaller tiles differ too much from those of whole slices


@dataclass(frozen=True)
class Plan:
    """How a stack of slices is cut up.

    Attributes:
        batch: slices (or tiles) that run together.
        tile: (rows, columns) of a tile; the whole slice where it fits.
    """

    batch: int
    tile: tuple[int, int]


def plan(network: RestoreRWKV, shape: tuple[int, int], memory: int) -> Plan:
    """Choose batch and tile so that the activations stay within the allowance.

    Args:
        network: what is to run.
        shape: (rows, columns) of a slice.
        memory: bytes allowed for activations, on top of weights and volume.

    Raises:
        ConfigError: not even the smallest tile fits.
    """
    per_pixel = bytes_per_pixel(network)
    pixels = memory // per_pixel
    whole = (math.ceil(shape[0] / _STRIDE) * _STRIDE) * (math.ceil(shape[1] / _STRIDE) * _STRIDE)
    if whole <= pixels:
        return Plan(pixels // whole, shape)
    side = int(math.sqrt(pixels)) // _STRIDE * _STRIDE
    if side < _MIN_TILE:
        least = _MIN_TILE**2 * per_pixel
        raise ConfigError(
            f"memory: {memory / 2**20:.0f} MiB hold no tile of {_MIN_TILE} x {_MIN_TILE} pixels; "
            f"allow at least {math.ceil(least / 2**20)} MiB"
        )
    rows = min(shape[0], side)
    columns = min(shape[1], pixels // (math.ceil(rows / _STRIDE) * _STRIDE) // _STRIDE * _STRIDE)
    return Plan(1, (rows, columns))


def bytes_per_pixel(network: RestoreRWKV) -> int:
    """Peak memory of the activations of a network, in bytes per pixel of what runs together."""
    on_cpu = next(network.parameters()).device.type == "cpu"
    config = network.config
    one_by_one = config.attention == "bi-wkv" and config.scan_mixing != "sum"
    in_place = on_cpu and available_backends()["cpu"] and one_by_one
    return (_BYTES_IN_PLACE if in_place else _BYTES_OTHERWISE) * config.dim


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Refuse, with the mend, what the memory of the machine or of its GPU does not hold."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch has its own kinds of RuntimeError
        if isinstance(error, RuntimeError) and not re.search(
            "(out of|allocate) memory", str(error)
        ):
            raise
        raise ConfigError(
            "memory: this machine has run out of it; allow less, or free some"
        ) from error


@_enough_memory()
def run(
    network: RestoreRWKV, slices: Tensor, plan: Plan, progress: Progress | None = None
) -> Tensor:
    """Restore a stack of slices on the network's device.

    Args:
        network: in its inference form.
        slices: (N, C, H, W), float32, network values, on the CPU.
        plan: from `plan`.
        progress: called with the number of slices done and the number of all.

    Returns:
        (N, C, H, W), float32, on the CPU.

    Raises:
        ConfigError: the machine or its GPU has less free memory than the plan takes.
    """
    restored = torch.empty_like(slices)
    device = next(network.parameters()).device
    tiled = plan.tile != tuple(slices.shape[2:])
    with torch.inference_mode():
        for start in range(0, len(slices), plan.batch):
            batch = slices[start : start + plan.batch].to(device)
            result = _blend(network, batch, plan.tile) if tiled else network(batch)
            restored[start : start + plan.batch] = result.cpu()
            if progress is not None:
                progress(min(start + plan.batch, len(slices)), len(slices))
    return restored


def _blend(network: RestoreRWKV, image: Tensor, tile: tuple[int, int]) -> Tensor:
    """Run overlapping tiles and average them with weights that fade towards inner tile borders."""
    height, width = image.shape[2:]
    total = torch.zeros_like(image)
    weight = image.new_zeros(height, width)
    for top, bottom in _spans(height, tile[0]):
        for left, right in _spans(width, tile[1]):
            fade = _fade(top, bottom, height)[:, None] * _fade(left, right, width)
            fade = fade.to(image)
            part = network(image[:, :, top:bottom, left:right].contiguous())
            total[:, :, top:bottom, left:right] += fade * part
            weight[top:bottom, left:right] += fade
    return total / weight


def _overlap(tile: int) -> int:
    return min(_OVERLAP, tile // 4)


def _spans(length: int, tile: int) -> Iterator[tuple[int, int]]:
    """Tiles of one length, evenly spread, that overlap by at least `_overlap(tile)`."""
    if tile >= length:
        yield 0, length
        return
    count = math.ceil((length - tile) / (tile - _overlap(tile))) + 1
    for i in range(count):
        start = round(i * (length - tile) / (count - 1))
        yield start, start + tile


def _fade(start: int, stop: int, length: int) -> Tensor:
    """Weight along one axis: 1 inside, a smooth ramp at borders inside the image."""
    size = stop - start
    position = torch.arange(size, dtype=torch.float32) + 0.5
    ramp = torch.full((size,), float("inf"))
    if start > 0:
        ramp = torch.minimum(ramp, position)
    if stop < length:
        ramp = torch.minimum(ramp, position.flip(0))
    return (ramp / _overlap(size)).clamp(max=1).mul(torch.pi / 2).sin().square()
