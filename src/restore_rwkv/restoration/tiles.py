"""Run a network on slices within a memory allowance: some at once, or one in tiles."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from restore_rwkv.errors import ConfigError, NoMemoryError
from restore_rwkv.model import InferenceNetwork, NetworkConfig
from restore_rwkv.ops import available_backends
from restore_rwkv.peers import PeerConfig

# Peak bytes per token and unit of `dim`, the allocator's share included: measured on a CPU with the
# C kernels, which overwrite v (benchmarks.scaling), and without them. ONNX Runtime takes at most
# 168.
_BYTES_IN_PLACE, _BYTES_OTHERWISE = 60, 208
_OVERLAP = 64  # pixels shared by neighbouring tiles, or a quarter of smaller tiles
_MIN_TILE = 192  # the results of smaller tiles differ too much from those of whole slices
# Pixels that run together on a CPU. More of them leave its caches: 16 slices of 256 x 256 take
# 0.88 s one by one and 1.02 s at once, 16 of 64 x 64 0.10 s one by one and 0.05 s in groups of 8.
_CPU_BATCH = 1 << 15


@dataclass(frozen=True)
class Tiling:
    """How a stack of slices is cut up for the network.

    Attributes:
        batch: slices (or tiles) that run together.
        tile: (rows, columns) of a tile; those of the slice where it fits whole.
        memory: bytes that the network's activations are expected to take.
    """

    batch: int
    tile: tuple[int, int]
    memory: int = 0


def choose_tiling(
    config: NetworkConfig,
    device: torch.device,
    stack: tuple[int, int, int],
    memory: int,
    *,
    exported: bool = False,
) -> Tiling:
    """Choose batch and tile so that the activations stay within the allowance.

    Args:
        config: of the network that is to run.
        device: where.
        stack: (N, H, W), slices with their rows and columns.
        memory: bytes allowed for activations, on top of weights and volume.
        exported: whether ONNX Runtime runs it.

    Raises:
        ConfigError: not even the smallest tile fits.
    """
    count, height, width = stack
    per_pixel, stride = bytes_per_pixel(config, device, exported), config.stride
    pixels = memory // per_pixel
    whole = _padded(height, stride) * _padded(width, stride)
    if whole <= pixels:
        together = min(pixels, _CPU_BATCH) if device.type == "cpu" else pixels
        batch = min(count, max(1, together // whole))
        return Tiling(batch, (height, width), batch * whole * per_pixel)
    fitting = [
        (rows, columns)
        for rows in _sides(height, stride)
        for columns in _sides(width, stride)
        if _padded(rows, stride) * _padded(columns, stride) <= pixels
    ]
    if not fitting:
        least = least_memory(config, device, (height, width), exported)
        raise ConfigError(
            f"memory: {memory / 2**20:.0f} MiB do not hold the smallest tile of slices of {height} "
            f"x {width} pixels; allow at least {math.ceil(least / 2**20)} MiB"
        )
    shape = (height, width)
    rows, columns = min(fitting, key=lambda tile: (pixels_of(tile, shape), -math.prod(tile)))
    return Tiling(1, (rows, columns), _padded(rows, stride) * _padded(columns, stride) * per_pixel)


def least_memory(
    config: NetworkConfig, device: torch.device, shape: tuple[int, int], exported: bool = False
) -> int:
    """Bytes that the activations take of the smallest tile of slices (H, W), one at a time."""
    stride = config.stride
    pixels = math.prod(_padded(_sides(side, stride)[-1], stride) for side in shape)
    return pixels * bytes_per_pixel(config, device, exported)


def _sides(length: int, stride: int) -> list[int]:
    """Whole length, and for each larger number of tiles the shortest side that covers it."""
    shortest = {1: length}
    for side in range(length // stride * stride, _MIN_TILE - 1, -stride):
        count = _count(length, side)
        if count > 1:
            shortest[count] = side
    return list(shortest.values())


def pixels_of(tile: tuple[int, int], shape: tuple[int, int]) -> int:
    """Pixels that the network runs over for a slice (H, W) in tiles, those shared counted twice."""
    counts = [_count(length, side) for length, side in zip(shape, tile, strict=True)]
    return math.prod(counts) * math.prod(tile)


def bytes_per_pixel(config: NetworkConfig, device: torch.device, exported: bool = False) -> int:
    """Peak memory of the activations per pixel of the input, in bytes."""
    if isinstance(config, PeerConfig):
        return config.bytes_per_pixel
    one_by_one = config.attention == "bi-wkv" and config.scan_mixing != "sum"
    kernels = device.type == "cpu" and available_backends()["cpu"] and not exported
    in_place = kernels and one_by_one
    per_token = config.dim * (_BYTES_IN_PLACE if in_place else _BYTES_OTHERWISE)
    return math.ceil(per_token / config.patch**2)


def _padded(length: int, stride: int) -> int:
    return math.ceil(length / stride) * stride


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Turn out-of-memory errors into a NoMemoryError that says what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch has its own kinds of RuntimeError
        if isinstance(error, RuntimeError) and not re.search(
            "(out of|allocate) memory", str(error)
        ):
            raise
        raise NoMemoryError(
            "memory: the machine has run out of it; allow less, or free some"
        ) from error


@_enough_memory()
def run(
    network: InferenceNetwork,
    slices: Tensor,
    tile: tuple[int, int],
    noise_level: float | None = None,
) -> Tensor:
    """Run a network on slices that fit into memory together, on the network's device.

    Args:
        network: in its inference form.
        slices: (N, C, H, W), float32, network values, on the CPU.
        tile: (rows, columns) of the tiles that a slice is cut into; (H, W) for whole slices.
        noise_level: of the noise to remove; None for a network that is not told.

    Returns:
        (N, C, H, W), float32, on the CPU.

    Raises:
        NoMemoryError: the machine or its GPU has too little free memory.
    """
    batch = slices.to(next(network.parameters()).device)
    with torch.inference_mode():
        whole = tile == tuple(slices.shape[2:])
        restored = (
            network(batch, noise_level) if whole else _blend(network, batch, tile, noise_level)
        )
        return restored.cpu()


def _blend(
    network: InferenceNetwork, image: Tensor, tile: tuple[int, int], noise_level: float | None
) -> Tensor:
    """Run overlapping tiles and average them with weights that fade towards inner tile borders."""
    height, width = image.shape[2:]
    total = torch.zeros_like(image)
    weight = image.new_zeros(height, width)
    for top, bottom in spans(height, tile[0]):
        for left, right in spans(width, tile[1]):
            weights = fade(top, bottom, height)[:, None] * fade(left, right, width)
            weights = weights.to(image)
            part = network(image[:, :, top:bottom, left:right].contiguous(), noise_level)
            total[:, :, top:bottom, left:right] += weights * part
            weight[top:bottom, left:right] += weights
    return total / weight


def _overlap(tile: int) -> int:
    return min(_OVERLAP, tile // 4)


def _count(length: int, tile: int) -> int:
    """Number of tiles that cover a length."""
    return 1 if tile >= length else math.ceil((length - tile) / (tile - _overlap(tile))) + 1


def spans(length: int, tile: int) -> Iterator[tuple[int, int]]:
    """Tiles of one length, evenly spread, that overlap by at least `_overlap(tile)`."""
    count = _count(length, tile)
    if count == 1:
        yield 0, length
        return
    for i in range(count):
        start = round(i * (length - tile) / (count - 1))
        yield start, start + tile


def fade(start: int, stop: int, length: int) -> Tensor:
    """Weight along one axis: 1 inside, a smooth ramp at borders inside the image."""
    size = stop - start
    position = torch.arange(size, dtype=torch.float32) + 0.5
    ramp = torch.full((size,), float("inf"))
    if start > 0:
        ramp = torch.minimum(ramp, position)
    if stop < length:
        ramp = torch.minimum(ramp, position.flip(0))
    return (ramp / _overlap(size)).clamp(max=1).mul(torch.pi / 2).sin().square()
