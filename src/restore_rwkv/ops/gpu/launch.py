"""Bi-WKV on GPUs: launches the Triton kernels and registers them as a PyTorch operator.

k and v are read twice, since the attention looks both ways: all of them enter what reaches the
first token. The second time they come from the cache of the GPU where they fit (50 MB on an H100).
Triton is imported when the operator first runs, and compiles a kernel at its first launch.
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

DEVICES = ("cpu", "cuda", "xpu")  # the CPU by Triton's interpreter alone
_GROUP = 512  # pieces that the scan over pieces takes at once
_CARRY_CHANNELS = 4  # channels of a program of that scan: one sector of memory in float64


class _Layout(NamedTuple):
    """How a program cuts its piece of `tokens` x `block` channels; one thread per chunk, channel.

    More tokens in a chunk need more registers, fewer make more of the work per chunk. `registers`
    keeps the rare steep path, which may spill, from taking threads off the plain one.
    """

    chunk: int
    chunks: int
    block: int
    registers: int

    @property
    def tokens(self) -> int:
        return self.chunk * self.chunks

    def options(self, device: torch.device) -> dict[str, int]:
        """Options of a launch; only compilers for NVIDIA know of a limit to registers."""
        options = {"num_warps": self.chunks * self.block // 32}
        other = torch.version.hip is not None or device.type == "xpu"
        return options if other else {**options, "maxnreg": self.registers}


class _Layouts(NamedTuple):
    summarise: _Layout
    finish: _Layout
    gradients: _Layout


_LAYOUTS = _Layouts(_Layout(16, 8, 16, 96), _Layout(16, 8, 16, 128), _Layout(16, 8, 16, 168))
# The interpreter's time goes with the number of operations, not with the size of a tile.
_INTERPRETED = _Layouts(*[_Layout(4, 16, 32, 0)] * 3)


def interpreted() -> bool:
    """Whether Triton runs on the CPU here, as in tests: slow, but every kernel runs."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _is_installed() -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:  # under another name, as for other GPUs
        return True
    return tuple(map(int, version.split(".")[:2])) >= (3, 5)


_INSTALLED = _is_installed()


def installed() -> bool:
    """Whether a Triton that can compile the kernels is installed."""
    return _INSTALLED


def available() -> bool:
    """Whether the kernels can run on this machine."""
    return installed() and (torch.cuda.is_available() or interpreted())


@functools.cache
def _kernels() -> ModuleType:
    """The kernels, which import Triton."""
    return importlib.import_module("restore_rwkv.ops.gpu.kernels")


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What a type is computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _stored(dtype: torch.dtype) -> torch.dtype:
    """What the kernels store for a type: Triton's interpreter rounds to bfloat16 wrongly."""
    return _wide(dtype) if interpreted() else dtype


def _like(x: Tensor) -> Tensor:
    """An output that lies in memory as x does."""
    return torch.empty_like(x, dtype=_stored(x.dtype))


def _on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _layouts() -> _Layouts:
    return _INTERPRETED if interpreted() else _LAYOUTS


class _Launch:
    """What all kernels of one call share."""

    def __init__(self, w: Tensor, u: Tensor, k: Tensor, *others: Tensor) -> None:
        self.kernels: Any = _kernels()
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

    def sums(self, means: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Buffers: log weights, rests of the weights, means."""
        shape = (self.batch, self.pieces, 2, self.channels)
        return (
            self.k.new_empty(shape, dtype=torch.float64),
            self.k.new_empty(shape, dtype=self.dtype),
            self.k.new_empty((means, *shape), dtype=self.dtype),
        )

    def wrap(self, chunk: int) -> int:
        """How often a chunk crosses the end of a row: 0 never, 1 at most once, 2 often."""
        if self.columns == self.tokens or self.columns % chunk == 0:
            return 0
        return 1 if self.columns >= chunk else 2

    def run(self, kernel: Any, layout: _Layout, *arguments: Any) -> None:
        """Launch a kernel that handles pieces; `arguments` are all up to the constants."""
        programs = self.batch * self.pieces * -(-self.channels // layout.block)
        constants = (self.real, layout.chunk, layout.chunks, layout.block, self.wrap(layout.chunk))
        kernel[(programs,)](*arguments, *constants, **layout.options(self.k.device))

    def carry(self, log: Tensor, weight: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """What enters each piece from both sides, given the sums of the pieces."""
        entering_log, entering_mean = torch.empty_like(log), torch.empty_like(mean)
        blocks = -(-self.channels // _CARRY_CHANNELS)
        self.kernels.carry[(self.batch * 2 * blocks,)](
            *(self.w, log, weight, mean, entering_log, entering_mean),
            *(self.tokens, self.channels, self.w.stride(0), log.numel()),
            *(self.layouts.finish.tokens, _GROUP, _CARRY_CHANNELS, len(mean)),
            num_warps=8,
        )
        return entering_log, entering_mean


def forward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the forward kernels.

    Args:
        w: decay (C,).
        u: bonus (C,).
        k: keys (B, H, W, C), any strides.
        v: values, as k.
        out: where to write y, of the type of k; may be v.

    Returns:
        y, as k, and what `backward` needs: log weights and means of the tokens before and after
        each piece of tokens.
    """
    with _on_device_of(k):
        y = out if out is not None and out.dtype == _stored(k.dtype) else _like(k)
        launch = _Launch(w, u, k, v, y)
        sizes = launch.tokens, launch.columns, launch.channels
        sums = launch.sums()
        launch.run(
            *(launch.kernels.summarise, launch.layouts.summarise),
            *(w, k, v, *sums, *sizes, w.stride(0), k.stride(), v.stride()),
        )
        log, mean = launch.carry(*sums)
        launch.run(
            *(launch.kernels.finish, launch.layouts.finish),
            *(w, u, k, v, y, log, mean, *sizes),
            *(w.stride(0), u.stride(0), k.stride(), v.stride(), y.stride()),
        )
    if out is not None and y is not out:
        out.copy_(y)
    return out if out is not None else y.to(k.dtype), log, mean


def backward(
    gy: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor, log: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the backward kernels: gradients of sum(y * gy) with respect to w, u, k and v."""
    with _on_device_of(k):
        gk, gv = _like(k), _like(v)
        launch = _Launch(w, u, k, v, gy, gk, gv)
        kernels, layout = launch.kernels, launch.layouts.gradients
        sizes = launch.tokens, launch.columns, launch.channels
        strides = w.stride(0), u.stride(0), k.stride(), v.stride(), gy.stride()
        sums = launch.sums(2)
        pitch = sums[0].numel()
        launch.run(
            *(kernels.summarise_gradients, layout),
            *(w, u, k, v, gy, log, mean, *sums, *sizes, pitch, *strides),
        )
        entering = launch.carry(*sums)
        part = k.new_empty((2, launch.batch * launch.pieces, launch.channels), dtype=torch.float64)
        launch.run(
            *(kernels.finish_gradients, layout, w, u, k, v, gy, gk, gv, log, mean, *entering),
            *(part, *sizes, pitch, part[0].numel(), *strides, gk.stride(), gv.stride()),
        )
        gw, gu = part[0].sum(0), part[1].sum(0)
    return gw.to(w.dtype), gu.to(u.dtype), gk.to(k.dtype), gv.to(v.dtype)


@torch.library.custom_op("restore_rwkv::bi_wkv_triton", mutates_args=(), device_types=DEVICES)
def operator(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The registered form of `forward`."""
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
    """The registered form of `backward`."""
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
    """Differentiable y as k; arguments as for `forward`."""
    if out is None or not eager.is_eager(w, u, k, v):
        y: Tensor = operator(w, u, k, v)[0]
        return y if out is None else out.copy_(y)
    return forward(w, u, k, v, out)[0]
