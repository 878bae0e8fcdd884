"""Bi-WKV on CPUs: binds the C kernel of `bi_wkv.c` and registers it as a PyTorch operator.

C rather than Numba: no JIT pause at the first call, no dependency that trails new Python versions,
and 16 channels in step in registers. The library is optional (a machine without a compiler installs
without it) and is bound with ctypes, so it fits every version of torch. The figures behind this
choice are in docs/operator.md.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import math
from pathlib import Path

import torch
from torch import Tensor

_LANES = 16  # channels per block, MAX_CHUNK tokens per chunk, as in bi_wkv.c
_MAX_CHUNK = 64
_STATES = 7
_MAX_SPAN = 16.0  # e^16 at most between the scales of one chunk: far from overflow in float32
_PARALLEL_FROM = 32_768  # elements; below this, waking a second thread costs more than it gives
_RESCUE = 2.0**-64  # applied to values so large that a float32 sum of them overflows


class _Image(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("stride", ctypes.c_int64 * 4))


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "rows", "columns", "channels", "chunk")),
        ("threads", ctypes.c_int64),
        ("launch", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("w", "u")),
        *((name, _Image) for name in ("k", "v", "y", "gy", "gk", "gv")),
        *((name, ctypes.c_void_p) for name in ("state", "summary", "gradient_state", "gw", "gu")),
        ("next", ctypes.c_int64),
        ("overflow", ctypes.c_int64),
    )


@functools.cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernel compiled for float32 or float64, or None where it was not built."""
    widths = {"AVX512": ("_avx512", "_avx2", ""), "AVX2": ("_avx2", "")}
    stems = {
        torch.float32: widths.get(torch.backends.cpu.get_cpu_capability(), ("",)),
        torch.float64: ("_f64",),
    }
    for stem in stems[dtype]:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(__file__).with_name(f"_bi_wkv{stem}{suffix}")
            if path.exists():
                return ctypes.CDLL(str(path))
    return None


@functools.cache
def _launcher() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that torch itself uses, if there is one."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not library.exists():
        return None
    symbol = getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None)
    return None if symbol is None else ctypes.cast(symbol, ctypes.c_void_p).value


def available() -> bool:
    """Whether the kernel was built on this machine."""
    return _library(torch.float32) is not None and _library(torch.float64) is not None


def _image(tensor: Tensor) -> _Image:
    return _Image(tensor.data_ptr(), (ctypes.c_int64 * 4)(*tensor.stride()))


def _wide(x: Tensor) -> Tensor:
    """Reduced precisions are computed in float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _chunk_length(w: Tensor, u: Tensor) -> int:
    """Tokens per chunk so that decay and bonus (divided by T) stay in range inside a chunk."""
    if float(u.abs().max()) > _MAX_SPAN:
        return 1
    steepest = float(w.abs().max())
    fits = _MAX_SPAN / steepest if steepest > 0 else math.inf
    return next(n for n in (_MAX_CHUNK, 32, 16, 8, 4, 2, 1) if n <= fits or n == 1)


class _Work:
    """A job and the buffers it points to."""

    def __init__(self, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
        batch, rows, columns, channels = k.shape
        self.tokens = rows * columns
        self.w = (w.double() / self.tokens).contiguous()
        self.u = (u.double() / self.tokens).contiguous()
        self.chunk = _chunk_length(self.w, self.u)
        pieces = batch * -(-self.tokens // self.chunk)
        self.lanes = (pieces, -(-channels // _LANES), _LANES)
        self.summary = k.new_empty((*self.lanes[:2], 5, _LANES))
        parallel = k.numel() >= _PARALLEL_FROM
        self.job = _Job(
            *(batch, rows, columns, channels, self.chunk),
            torch.get_num_threads() if parallel else 1,
            _launcher() if parallel else None,
            *(self.w.data_ptr(), self.u.data_ptr()),
            *(_image(k), _image(v)),
            summary=self.summary.data_ptr(),
        )

    def run(self, name: str, dtype: torch.dtype) -> None:
        library = _library(dtype)
        assert library is not None  # dispatch refuses the backend where it was not built
        getattr(library, name)(ctypes.byref(self.job))


@torch.library.custom_op("restore_rwkv::bi_wkv", mutates_args=(), device_types="cpu")
def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Forward kernel: w, u (C,); k, v (B, H, W, C) of one type, any strides; returns y and state.

    The state holds what enters each chunk of tokens from both sides; the backward pass starts
    from it instead of from saved copies of the sums of every token.
    """
    k_wide, v_wide = _wide(k), _wide(v)
    work = _Work(w, u, k_wide, v_wide)
    y = torch.empty_like(k_wide)
    state = k_wide.new_empty((*work.lanes[:2], _STATES, _LANES))
    work.job.y = _image(y)
    work.job.state = state.data_ptr()
    work.run("bi_wkv_forward", k_wide.dtype)
    if work.job.overflow:
        small = v_wide * _RESCUE
        work.job.v = _image(small)
        work.run("bi_wkv_forward", k_wide.dtype)
        y /= _RESCUE
        state[:, :, [3, 6]] /= _RESCUE
    return y.to(k.dtype), state


@bi_wkv.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    blocks = -(-k.shape[3] // _LANES)
    pieces = torch.library.get_ctx().new_dynamic_size()  # the chunk length depends on w and u
    state_type = torch.float64 if k.dtype == torch.float64 else torch.float32
    return torch.empty_like(k), k.new_empty((pieces, blocks, _STATES, _LANES), dtype=state_type)


@torch.library.custom_op("restore_rwkv::bi_wkv_backward", mutates_args=(), device_types="cpu")
def bi_wkv_backward(
    gy: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward kernel: gradients of sum(y * gy) with respect to w, u, k and v."""
    gy_wide, k_wide, v_wide = _wide(gy), _wide(k), _wide(v)
    work = _Work(w, u, k_wide, v_wide)
    gk, gv = torch.empty_like(k_wide), torch.empty_like(v_wide)
    gw, gu = (k.new_empty(work.lanes, dtype=torch.float64) for _ in range(2))
    gradient_state = torch.empty_like(state)
    job = work.job
    job.gy, job.gk, job.gv = _image(gy_wide), _image(gk), _image(gv)
    job.state, job.gradient_state = state.data_ptr(), gradient_state.data_ptr()
    job.gw, job.gu = gw.data_ptr(), gu.data_ptr()
    work.run("bi_wkv_backward", k_wide.dtype)
    channels = k.shape[3]
    gw_sum = gw.sum(0).flatten()[:channels] / -work.tokens
    gu_sum = gu.sum(0).flatten()[:channels] / work.tokens
    return gw_sum.to(w.dtype), gu_sum.to(u.dtype), gk.to(k.dtype), gv.to(v.dtype)


@bi_wkv_backward.register_fake
def _(
    gy: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(w), torch.empty_like(u), torch.empty_like(k), torch.empty_like(v)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs, output[1])
    ctx.set_materialize_grads(True)


def _backward(ctx, gy, _):  # type: ignore[no-untyped-def]
    return bi_wkv_backward(gy, *ctx.saved_tensors)


bi_wkv.register_autograd(_backward, setup_context=_setup_context)
