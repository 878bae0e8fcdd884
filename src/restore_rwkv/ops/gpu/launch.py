"""Bi-WKV on GPUs: launches the Triton kernels and registers them as a PyTorch operator.

k and v are read twice, since the attention is bidirectional: the first output already depends on
all tokens. The second read comes from the cache of the GPU if they fit (50 MB on an H100). Triton
is imported when the operator first runs, and compiles each kernel at its first launch.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from restore_rwkv.ops import eager
from restore_rwkv.ops.machine import has_triton

DEVICES = ("cpu", "cuda", "xpu")  # "cpu" only with Triton's interpreter
_GROUP = 512  # pieces that the scan over pieces processes at once
_CARRY_CHANNELS = 4  # channels per program of that scan: one memory sector in float64


class _Layout(NamedTuple):
    """Division of a program's piece, `tokens` x `block` channels: a thread per chunk and channel.

    Longer chunks need more registers; shorter ones have more overhead per token. `registers` limits
    the registers of the rare steep path, which may spill, so that it does not reduce the occupancy
    of the plain path.
    """

    chunk: int
    chunks: int
    block: int
    registers: int

    @property
    def tokens(self) -> int:
        return self.chunk * self.chunks

    def options(self, device: torch.device) -> dict[str, int]:
        """Options of a launch; only the compiler for NVIDIA GPUs supports a register limit."""
        options = {"num_warps": self.chunks * self.block // 32}
        other = torch.version.hip is not None or device.type == "xpu"
        return options if other else {**options, "maxnreg": self.registers}


class _Layouts(NamedTuple):
    summarise: _Layout
    finish: _Layout
    gradients: _Layout


_LAYOUTS = _Layouts(_Layout(16, 8, 16, 96), _Layout(16, 8, 16, 128), _Layout(16, 8, 16, 168))
# The interpreter's time depends on the number of operations, not on the size of a tile.
_INTERPRETED = _Layouts(*[_Layout(4, 16, 32, 0)] * 3)


def interpreted() -> bool:
    """Return whether Triton's interpreter runs the kernels on the CPU: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


_INSTALLED = has_triton()


def installed() -> bool:
    """Return whether a version of Triton that can compile the kernels is installed."""
    return _INSTALLED


def available() -> bool:
    """Return whether the kernels can run on this machine."""
    return installed() and (torch.cuda.is_available() or interpreted())


@functools.cache
def _module(name: str) -> ModuleType:
    """Import a module of this package that needs Triton."""
    return importlib.import_module(f"restore_rwkv.ops.gpu.{name}")


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Type in which the kernels compute for a type of inputs."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _stored(dtype: torch.dtype) -> torch.dtype:
    """Type that the kernels store: wide in Triton's interpreter, which misrounds bfloat16."""
    return _wide(dtype) if interpreted() else dtype


def _like(x: Tensor) -> Tensor:
    """Allocate an output with the memory layout of x."""
    return torch.empty_like(x, dtype=_stored(x.dtype))


def _on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Context that makes the device of x current, since Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _layouts() -> _Layouts:
    return _INTERPRETED if interpreted() else _LAYOUTS


class _Launch:
    """State shared by all kernels of one call."""

    def __init__(self, w: Tensor, u: Tensor, k: Tensor, *others: Tensor) -> None:
        self.kernels: Any = _module("kernels")
        self.tiles: Any = _module("tiles")
        self.layouts = _layouts()
        self.w, self.u, self.k = w, u, k
        self.batch, rows, columns, self.channels = k.shape
        self.tokens = rows * columns
        images = (k, *others)
        one_row = all(rows == 1 or x.stride(1) == columns * x.stride(2) for x in images)
        self.columns = self.tokens if one_row else columns
        self.dtype = _wide(k.dtype)
        self.real = getattr(self.kernels.tl, str(self.dtype).removeprefix("torch."))
        self.pieces = -(-self.tokens // self.layouts.finish.tokens)

    def means(self, count: int) -> tuple[Tensor, ...]:
        """Allocate means (1, batch, pieces, 2, channels), separately so that each is aligned."""
        shape = (1, self.batch, self.pieces, 2, self.channels)
        return tuple(self.k.new_empty(shape, dtype=self.dtype) for _ in range(count))

    def sums(self, means: int = 1) -> Any:
        """Allocate the sums of pieces."""
        shape = (self.batch, self.pieces, 2, self.channels)
        log = self.k.new_empty(shape, dtype=torch.float64)
        weight = self.k.new_empty(shape, dtype=self.dtype)
        return self.tiles.Sums(log, weight, self.means(means))

    def image(self, x: Tensor) -> Any:
        """Tensor in the form that kernels accept."""
        return self.tiles.Image(x, *x.stride())

    def parameters(self) -> Any:
        """Parameters w and u in the form that kernels accept."""
        return self.tiles.Parameters(self.w, self.w.stride(0), self.u, self.u.stride(0))

    def wrap(self, chunk: int) -> int:
        """Number of row ends that a chunk may cross: 0 none, 1 at most one, 2 several."""
        if self.columns == self.tokens or self.columns % chunk == 0:
            return 0
        return 1 if self.columns >= chunk else 2

    def run(self, kernel: Any, layout: _Layout, *arguments: Any) -> None:
        """Launch a kernel that handles pieces; `arguments` are those that precede the sizes."""
        programs = self.batch * self.pieces * -(-self.channels // layout.block)
        counts = (layout.chunk, layout.chunks, layout.block, self.wrap(layout.chunk))
        cut = self.tiles.Cut(self.real, *map(self.kernels.tl.constexpr, counts))
        sizes = self.tokens, self.columns, self.channels
        kernel[(programs,)](*arguments, *sizes, cut, **layout.options(self.k.device))

    def carry(self, sums: Any) -> Any:
        """Compute the sums that enter each piece from both sides, given the sums of the pieces."""
        count = len(sums.means)
        entering = self.tiles.Entering(torch.empty_like(sums.log), self.means(count))
        blocks = -(-self.channels // _CARRY_CHANNELS)
        self.kernels.carry[(self.batch * 2 * blocks,)](
            *(self.parameters(), sums, entering, self.tokens, self.channels),
            *(self.layouts.finish.tokens, _GROUP, _CARRY_CHANNELS, count),
            num_warps=8,
        )
        return entering


def forward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the forward kernels.

    Args:
        w: decay (C,).
        u: bonus (C,).
        k: keys (B, H, W, C), any strides.
        v: values, same shape and type as k.
        out: tensor for y, of the type of k; may be v.

    Returns:
        y, like k, and the state for `backward`: log weights and means of the tokens before and
        after each piece.
    """
    with _on_device_of(k):
        y = out if out is not None and out.dtype == _stored(k.dtype) else _like(k)
        launch = _Launch(w, u, k, v, y)
        kernels, layouts = launch.kernels, launch.layouts
        inputs = (launch.parameters(), *map(launch.image, (k, v)))
        sums = launch.sums()
        launch.run(kernels.summarise, layouts.summarise, *inputs, sums)
        entering = launch.carry(sums)
        launch.run(kernels.finish, layouts.finish, *inputs, launch.image(y), entering)
    if out is not None and y is not out:
        out.copy_(y)
    return out if out is not None else y.to(k.dtype), entering.log, entering.means[0]


def backward(
    gy: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor, log: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the backward kernels: gradients of sum(y * gy) with respect to w, u, k and v."""
    with _on_device_of(k):
        gk, gv = _like(k), _like(v)
        launch = _Launch(w, u, k, v, gy, gk, gv)
        kernels, layout = launch.kernels, launch.layouts.gradients
        inputs = (launch.parameters(), *map(launch.image, (k, v, gy)))
        entering = launch.tiles.Entering(log, (mean,))
        sums = launch.sums(2)
        launch.run(kernels.summarise_gradients, layout, *inputs, entering, sums)
        shape = (launch.batch * launch.pieces, launch.channels)
        parts = tuple(k.new_empty(shape, dtype=torch.float64) for _ in range(2))
        gradients_entering = launch.carry(sums)
        launch.run(
            *(kernels.finish_gradients, layout, *inputs),
            *(launch.image(gk), launch.image(gv), entering, gradients_entering, parts),
        )
        gw, gu = (part.sum(0) for part in parts)
    return gw.to(w.dtype), gu.to(u.dtype), gk.to(k.dtype), gv.to(v.dtype)


@torch.library.custom_op("restore_rwkv::bi_wkv_triton", mutates_args=(), device_types=DEVICES)
def operator(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Registered operator that runs `forward`."""
    return forward(w, u, k, v)


@operator.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, rows, columns, channels = k.shape
    pieces = -(-rows * columns // _layouts().finish.tokens)
    shape = (batch, pieces, 2, channels)
    log = k.new_empty(shape, dtype=torch.float64)
    return torch.empty_like(k), log, k.new_empty((1, *shape), dtype=_wide(k.dtype))


@torch.library.custom_op(
    "restore_rwkv::bi_wkv_triton_backward", mutates_args=(), device_types=DEVICES
)
def backward_operator(
    gy: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor, log: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Registered operator that runs `backward`."""
    return backward(gy, w, u, k, v, log, mean)


@backward_operator.register_fake
def _(
    gy: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor, log: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(w), torch.empty_like(u), torch.empty_like(k), torch.empty_like(v)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs, *output[1:])


def _backward(ctx, gy, *_):  # type: ignore[no-untyped-def]
    return backward_operator(gy, *ctx.saved_tensors)


operator.register_autograd(_backward, setup_context=_setup_context)


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, out: Tensor | None = None) -> Tensor:
    """Return y like k, differentiable; arguments as for `forward`."""
    if out is None or not eager.is_eager(w, u, k, v):
        y: Tensor = operator(w, u, k, v)[0]
        return y if out is None else out.copy_(y)
    return forward(w, u, k, v, out)[0]
