"""Bi-WKV on CPUs: binds the C kernel of `bi_wkv.c` and registers it as a PyTorch operator.

C rather than Numba: no JIT pause at the first call, no dependency that trails new Python versions,
and 16 channels in step in registers. The library is optional (a machine without a compiler installs
without it) and is bound with ctypes, so it fits every version of torch. The figures behind this
choice are in docs/operator.md.
"""

from __future__ import annotations

import ctypes
import functools
import math
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

_LANES = 16  # channels per block, MAX_CHUNK tokens per chunk, as in bi_wkv.c
_MAX_CHUNK = 64
_STATES = 7
_MAX_SPAN = 16.0  # e^16 at most between the scales of one chunk: far from overflow in float32
_PARALLEL_FROM = 32_768  # elements; below this, waking a second thread costs more than it gives
_RESCUE = 2.0**-80  # applied to values so large that a float32 sum of them overflows


class _Image(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("stride", ctypes.c_int64 * 4))


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "rows", "columns", "channels", "chunk")),
        ("threads", ctypes.c_int64),
        ("launch", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("w", "u")),
        *((name, _Image) for name in ("k", "v", "y", "gy", "gk", "gv")),
        *((name, ctypes.c_void_p) for name in ("summary", "state", "gradient_state", "gw", "gu")),
        ("next", ctypes.c_int64),
        ("overflow", ctypes.c_int64),
    )


def _built(stems: tuple[str, ...]) -> Path | None:
    """The first of these builds of the kernel that lies beside this file."""
    names = (f"_bi_wkv{stem}{suffix}" for stem in stems for suffix in EXTENSION_SUFFIXES)
    return next((path for path in map(Path(__file__).with_name, names) if path.exists()), None)


_WIDTHS = {"AVX512": ("_avx512", "_avx2", ""), "AVX2": ("_avx2", "")}
_BUILDS = {
    torch.float32: _built(_WIDTHS.get(torch.backends.cpu.get_cpu_capability(), ("",))),
    torch.float64: _built(("_f64",)),
}


def available() -> bool:
    """Whether the kernel was built on this machine."""
    return None not in _BUILDS.values()


@functools.cache
def _library(dtype: torch.dtype) -> ctypes.CDLL:
    """The kernel compiled for float32 or float64."""
    return ctypes.CDLL(str(_BUILDS[dtype]))


@functools.cache
def _launcher() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that torch itself uses, if there is one."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not library.exists():
        return None
    symbol = getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None)
    return None if symbol is None else ctypes.cast(symbol, ctypes.c_void_p).value


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
        self.tokens, self.dtype = rows * columns, k.dtype
        self.w = (w.double() / self.tokens).contiguous()
        self.u = (u.double() / self.tokens).contiguous()
        chunk = _chunk_length(self.w, self.u)
        pieces = batch * -(-self.tokens // chunk)
        self.lanes = (pieces, -(-channels // _LANES), _LANES)
        self.summary = k.new_empty((*self.lanes[:2], 5, _LANES))
        self.state = k.new_empty((*self.lanes[:2], _STATES, _LANES))
        parallel = k.numel() >= _PARALLEL_FROM
        self.job = _Job(
            *(batch, rows, columns, channels, chunk),
            torch.get_num_threads() if parallel else 1,
            _launcher() if parallel else None,
            *(self.w.data_ptr(), self.u.data_ptr()),
            *(_image(k), _image(v)),
            summary=self.summary.data_ptr(),
            state=self.state.data_ptr(),
        )

    def run(self, name: str) -> bool:
        """Run a function of the kernel; returns whether sums of values overflowed."""
        getattr(_library(self.dtype), name)(ctypes.byref(self.job))
        return bool(self.job.overflow)


@torch.library.custom_op("restore_rwkv::bi_wkv", mutates_args=(), device_types="cpu")
def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Forward kernel: w, u (C,); k, v (B, H, W, C) of one type, any strides; returns y as k."""
    k_wide, v_wide = _wide(k), _wide(v)
    work = _Work(w, u, k_wide, v_wide)
    y = torch.empty_like(k_wide)
    work.job.y = _image(y)
    if work.run("bi_wkv_forward"):
        small = v_wide * _RESCUE
        work.job.v = _image(small)
        work.run("bi_wkv_forward")
        largest = torch.finfo(y.dtype).max  # a mean of such values may be rounded to infinity
        y.div_(_RESCUE).clamp_(-largest, largest)
    return y.to(k.dtype)


@bi_wkv.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.empty_like(k)


@torch.library.custom_op("restore_rwkv::bi_wkv_backward", mutates_args=(), device_types="cpu")
def bi_wkv_backward(
    gy: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward kernel: gradients of sum(y * gy) with respect to w, u, k and v."""
    gy_wide, k_wide, v_wide = _wide(gy), _wide(k), _wide(v)
    work = _Work(w, u, k_wide, v_wide)
    gk, gv = torch.empty_like(k_wide), torch.empty_like(v_wide)
    gw, gu = (k.new_empty(work.lanes, dtype=torch.float64) for _ in range(2))
    gradient_state = torch.empty_like(work.state)
    job = work.job
    job.gy, job.gk, job.gv = _image(gy_wide), _image(gk), _image(gv)
    job.gradient_state = gradient_state.data_ptr()
    job.gw, job.gu = gw.data_ptr(), gu.data_ptr()
    if work.run("bi_wkv_backward"):
        small = v_wide * _RESCUE
        job.v = _image(small)
        work.run("bi_wkv_backward")
        for gradient in (gw, gu, gk):
            gradient /= _RESCUE
    channels = k.shape[3]
    gw_sum = gw.sum(0).flatten()[:channels] / -work.tokens
    gu_sum = gu.sum(0).flatten()[:channels] / work.tokens
    return gw_sum.to(w.dtype), gu_sum.to(u.dtype), gk.to(k.dtype), gv.to(v.dtype)


@bi_wkv_backward.register_fake
def _(
    gy: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(w), torch.empty_like(u), torch.empty_like(k), torch.empty_like(v)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _backward(ctx, gy):  # type: ignore[no-untyped-def]
    return bi_wkv_backward(gy, *ctx.saved_tensors)


bi_wkv.register_autograd(_backward, setup_context=_setup_context)
