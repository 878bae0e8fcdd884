"""Bi-WKV on CPUs: binds the C kernel of `bi_wkv.c` and registers it as a PyTorch operator.

It is C rather than Numba: no JIT pause at the first call, no dependency that lags behind new Python
versions, and 16 channels processed together in registers. The library is optional (the package
installs without it on a machine without a compiler) and is bound with ctypes, so it works with
every version of torch. docs/operator.md explains this choice.
"""

from __future__ import annotations

import ctypes
import functools
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore_rwkv.ops import eager
from restore_rwkv.ops.machine import SWITCHED_OFF, built_kernels

_MAX_CHUNK = 64  # tokens per chunk, vectors per chunk and block, as in tiles.h
_SUMS = 5
_STATES = 7
_PARALLEL_FROM = 32_768  # elements; below this, waking a second thread costs more than it saves
_RESCUE = 2.0**-80  # factor on values so large that sums of them may overflow


class _Image(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("stride", ctypes.c_int64 * 4))


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "rows", "columns", "channels", "chunk")),
        ("threads", ctypes.c_int64),
        ("launch", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("w", "u")),
        *((name, _Image) for name in ("k", "v", "y", "gy", "gk", "gv")),
        *((name, ctypes.c_void_p) for name in ("constants", "summary", "state", "gradient_state")),
        *((name, ctypes.c_void_p) for name in ("gw_terms", "gu_terms", "gw", "gu")),
        ("overflow", ctypes.c_int64),
    )


_WIDTHS = {"AVX512": ("_avx512", "_avx2", ""), "AVX2": ("_avx2", "")}
_BUILDS = {
    torch.float32: built_kernels(*_WIDTHS.get(torch.backends.cpu.get_cpu_capability(), ("",))),
    torch.float64: built_kernels("_f64"),
}


def switched_off() -> bool:
    """Return whether the environment disables the kernels."""
    return SWITCHED_OFF


def available() -> bool:
    """Return whether the kernels are built on this machine and enabled."""
    return not switched_off() and None not in _BUILDS.values()


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL:
    """Load the kernels compiled for float32 or float64."""
    return _bound(_BUILDS[dtype])


def _bound(path: Path | None) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name in ("bi_wkv_lanes", "pointwise_work", "shift_work"):
        if hasattr(library, name):  # the fused passes are built for float32 only
            getattr(library, name).restype = ctypes.c_int64
    chunk_length = library.bi_wkv_chunk_length
    chunk_length.restype = ctypes.c_int64
    chunk_length.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    return library


@functools.cache
def _lanes(dtype: torch.dtype) -> int:
    """Channels per block."""
    return int(library(dtype).bi_wkv_lanes())


@functools.cache
def _launcher() -> int | None:
    """Address of GOMP_parallel in torch's own OpenMP runtime, or None if it has none."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not library.exists():
        return None
    symbol = getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None)
    return None if symbol is None else ctypes.cast(symbol, ctypes.c_void_p).value


def threads_for(x: Tensor) -> tuple[int, int | None]:
    """Return the number of threads for a tensor, and the address of their launcher."""
    if x.numel() < _PARALLEL_FROM:
        return 1, None
    return torch.get_num_threads(), _launcher()


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Allocate contiguous memory of the CPU, whatever PyTorch's defaults are."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def _image(tensor: Tensor) -> _Image:
    return _Image(tensor.data_ptr(), tensor.stride())


def _wide(x: Tensor) -> Tensor:
    """Convert reduced precisions to float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class _Work:
    """A job and the buffers it points to; k and v are float32 or float64."""

    def __init__(self, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
        batch, rows, columns, channels = k.shape
        self.library, self.dtype, self.buffers = library(k.dtype), k.dtype, [k, v]
        w_address = self.keep(w.double().contiguous())
        u_address = self.keep(u.double().contiguous())
        chunk = self.library.bi_wkv_chunk_length(w_address, u_address, channels, rows * columns)
        self.lanes = _lanes(k.dtype)
        self.blocks = -(-channels // self.lanes)
        self.pieces = batch * -(-rows * columns // chunk)  # chunks of all images
        threads, launch = threads_for(k)
        self.job = _Job(
            *(batch, rows, columns, channels, chunk),
            *(threads, launch, w_address, u_address, _image(k), _image(v)),
            constants=self.room(self.blocks * 4, torch.float64),
            summary=self.room(self.pieces * self.blocks * _SUMS),
        )

    def keep(self, buffer: Tensor) -> int:
        """Keep a buffer alive as long as this object; return its address."""
        self.buffers.append(buffer)
        return buffer.data_ptr()

    def room(self, vectors: int, dtype: torch.dtype | None = None) -> int:
        """Allocate a buffer for that many vectors; return its address."""
        return self.keep(empty(vectors * self.lanes, dtype=dtype or self.dtype))

    def forward(self) -> bool:
        """Run the forward pass; return whether it stopped because sums of v might overflow."""
        self.library.bi_wkv_forward(ctypes.byref(self.job))
        return bool(self.job.overflow)

    def backward(self, recompute: bool) -> bool:
        """Run the backward pass; return whether its results are invalid because sums overflowed."""
        self.library.bi_wkv_backward(ctypes.byref(self.job), ctypes.c_int64(recompute))
        return bool(self.job.overflow)


def _empty_state(k: Tensor) -> Tensor:
    """Allocate the state for chunks of full length, (B, chunks, blocks, STATES, LANES)."""
    batch, rows, columns, channels = k.shape
    wide = torch.promote_types(k.dtype, torch.float32)
    lanes = _lanes(wide)
    chunks, blocks = -(-rows * columns // _MAX_CHUNK), -(-channels // lanes)
    return k.new_empty((batch, chunks, blocks, _STATES, lanes), dtype=wide)


def _rescue(v: Tensor) -> Tensor:
    """Factors (C,) that keep the sums of every channel finite."""
    limit = torch.finfo(v.dtype).max * 2.0**-48  # MAX_VALUE in bi_wkv.c
    return torch.where(v.abs().amax((0, 1, 2)) > limit, _RESCUE, 1.0).to(v.dtype)


def _is_missing(state: Tensor) -> bool:
    kind = ctypes.c_float if state.dtype == torch.float32 else ctypes.c_double
    return math.isinf(kind.from_address(state.data_ptr()).value)


def forward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run the forward kernel.

    Args:
        w: decay (C,).
        u: bonus (C,).
        k: keys (B, H, W, C), any strides.
        v: values, same shape and type as k.
        out: tensor for y, of the type of k; may be v.

    Returns:
        y, like k, and the state for `backward`, a ninth of the size of y; its first value is
        infinite if the backward pass has to recompute it.
    """
    k_wide, v_wide = _wide(k), _wide(v)
    work = _Work(w, u, k_wide, v_wide)
    y = out if out is not None and out.dtype == k_wide.dtype else torch.empty_like(k_wide)
    state = _empty_state(k)
    work.job.y = _image(y)
    full = work.job.chunk == _MAX_CHUNK
    work.job.state = state.data_ptr() if full else work.room(work.pieces * work.blocks * _STATES)
    rescued = work.forward()
    if rescued:
        factor = _rescue(v_wide)
        small = v_wide * factor
        work.job.v = _image(small)
        work.forward()
        largest = torch.finfo(y.dtype).max  # a mean of the largest values may round to infinity
        y.div_(factor).clamp_(-largest, largest)
    if rescued or not full:
        state.fill_(torch.inf)
    if out is not None and y is not out:
        out.copy_(y)
    elif out is not None and not out.is_inference():
        torch.autograd.graph.increment_version(out)  # otherwise autograd would miss the change
    return out if out is not None else y.to(k.dtype), state


def backward(
    gy: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the backward kernel: gradients of sum(y * gy) with respect to w, u, k and v."""
    gy_wide, k_wide, v_wide = _wide(gy), _wide(k), _wide(v)
    work = _Work(w, u, k_wide, v_wide)
    job = work.job
    gk, gv = torch.empty_like(k_wide), torch.empty_like(v_wide)
    gw, gu = (empty(k.shape[3], dtype=torch.float64) for _ in range(2))
    vectors = work.pieces * work.blocks
    job.gy, job.gk, job.gv = _image(gy_wide), _image(gk), _image(gv)
    job.gw, job.gu = gw.data_ptr(), gu.data_ptr()
    job.gw_terms, job.gu_terms = (work.room(vectors, torch.float64) for _ in range(2))
    job.gradient_state = work.room(vectors * _STATES)
    recompute = _is_missing(state)
    job.state = work.room(vectors * _STATES) if recompute else state.data_ptr()
    if work.backward(recompute):
        factor = _rescue(v_wide)
        small = v_wide * factor
        job.v, job.state = _image(small), work.room(vectors * _STATES)
        work.backward(recompute=True)
        for gradient in (gw, gu, gk):
            gradient /= factor
    return gw.to(w.dtype), gu.to(u.dtype), gk.to(k.dtype), gv.to(v.dtype)


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, out: Tensor | None = None) -> Tensor:
    """Return y like k, differentiable; arguments as for `forward`."""
    y: Tensor
    if not eager.is_eager(w, u, k, v):
        y = torch.ops.restore_rwkv.bi_wkv(w, u, k, v)[0]
        y = y if out is None else out.copy_(y)
    elif eager.records_gradients(w, u, k, v):
        y = _Eager.apply(w, u, k, v)  # type: ignore[no-untyped-call]
    else:
        y = forward(w, u, k, v, out)[0]
    return y


class _Eager(torch.autograd.Function):
    """The registered operator without torch's dispatcher, which takes longer than small kernels."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y, state = forward(w, u, k, v)
        ctx.save_for_backward(w, u, k, v, state)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, ...]:
        twice = torch.is_grad_enabled()  # double backward: only the registered operator rejects it
        run = torch.ops.restore_rwkv.bi_wkv_backward if twice else backward
        gradients: tuple[Tensor, ...] = run(gy, *ctx.saved_tensors)
        return gradients


def _fake_forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(k), _empty_state(k)


def _fake_backward(
    gy: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(w), torch.empty_like(u), torch.empty_like(k), torch.empty_like(v)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[1])


def _differentiate(ctx, gy, _):  # type: ignore[no-untyped-def]
    if gy is None:
        return None, None, None, None
    return torch.ops.restore_rwkv.bi_wkv_backward(gy, *ctx.saved_tensors)


def _refuse(ctx, *_):  # type: ignore[no-untyped-def]
    raise NotImplementedError("bi_wkv_backward has no derivative; use backend='torch' for it")


_LIBRARY = torch.library.Library("restore_rwkv", "FRAGMENT")  # type: ignore[no-untyped-call]
torch.library.define(
    "restore_rwkv::bi_wkv",
    "(Tensor w, Tensor u, Tensor k, Tensor v) -> (Tensor, Tensor)",
    lib=_LIBRARY,
)
torch.library.define(
    "restore_rwkv::bi_wkv_backward",
    "(Tensor gy, Tensor w, Tensor u, Tensor k, Tensor v, Tensor state)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    lib=_LIBRARY,
)
torch.library.impl("restore_rwkv::bi_wkv", "CPU", forward, lib=_LIBRARY)
torch.library.impl("restore_rwkv::bi_wkv_backward", "CPU", backward, lib=_LIBRARY)
torch.library.register_fake("restore_rwkv::bi_wkv", _fake_forward, lib=_LIBRARY)
torch.library.register_fake("restore_rwkv::bi_wkv_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_autograd(
    "restore_rwkv::bi_wkv", _differentiate, setup_context=_save, lib=_LIBRARY
)
torch.library.register_autograd("restore_rwkv::bi_wkv_backward", _refuse, lib=_LIBRARY)
