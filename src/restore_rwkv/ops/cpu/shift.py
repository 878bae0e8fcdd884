"""LayerNorm followed by Omni-Shift on CPUs, with gradients.

Binds `shift.c` and `shift_backward.c`. Only for float32; `takes` checks whether a call is
supported, and the caller runs plain PyTorch if it is not. Second derivatives are refused.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from restore_rwkv.ops import eager
from restore_rwkv.ops.cpu import binding as cpu
from restore_rwkv.ops.cpu.pointwise import has_hooks

_BRANCHES = 5  # kernels of side 1 to 9, as in shift.h


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "rows", "columns", "channels", "side")),
        ("threads", ctypes.c_int64),
        ("launch", ctypes.c_void_p),
        ("epsilon", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias")),
        ("branches", ctypes.c_void_p * _BRANCHES),
        *((name, ctypes.c_void_p) for name in ("alpha", "y")),
        *((name, ctypes.c_void_p) for name in ("mean", "inverse", "gy", "gx")),
        *((name, ctypes.c_void_p) for name in ("gweight", "gbias")),
        ("gbranches", ctypes.c_void_p * _BRANCHES),
        *((name, ctypes.c_void_p) for name in ("galpha", "work")),
        *((name, ctypes.c_int64) for name in ("next", "workers")),
    )


def takes(x: Tensor, norm: nn.Module, *parameters: Tensor) -> bool:
    """Return whether the kernels support tokens x (B, H, W, C) with this norm and parameters."""
    if type(norm) is not nn.LayerNorm or has_hooks(norm) or not cpu.available():
        return False
    if x.device.type != "cpu" or not x.is_contiguous() or x.numel() == 0:
        return False
    channels = x.shape[-1]
    if norm.normalized_shape != (channels,) or norm.weight is None or norm.bias is None:
        return False
    if any(t.dtype != torch.float32 for t in (x, norm.weight, norm.bias, *parameters)):
        return False
    if any(p.dim() == 4 and p.shape[-1] // 2 >= _BRANCHES for p in parameters):
        return False
    return bool(cpu.library(x.dtype).pointwise_takes(ctypes.c_int64(channels)))


def norm_and_shift(
    x: Tensor, norm: nn.LayerNorm, branches: Sequence[Tensor], alpha: Tensor | None = None
) -> Tensor:
    """Return the depth-wise convolution of norm(x), zero padded.

    Args:
        x: (B, H, W, C), float32 and contiguous.
        norm: LayerNorm over the channels.
        branches: kernels (C, 1, k, k) with odd k up to 9, the largest last.
        alpha: factors of the identity and of the branches, (1 + len(branches),); their sum is the
            kernel. None if there is one branch, which is the kernel.
    """
    parameters = (norm.weight, norm.bias, *branches)
    if not eager.records_gradients(x, *parameters, *(() if alpha is None else (alpha,))):
        y = torch.empty_like(x)
        arrays = {"x": x, "weight": norm.weight, "bias": norm.bias, "alpha": alpha, "y": y}
        _run("shift_forward", arrays, branches, epsilon=norm.eps)
        return y
    shifted: Tensor = _NormAndShift.apply(x, alpha, norm.eps, *parameters)  # type: ignore[no-untyped-call]
    return shifted


class _NormAndShift(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        alpha: Tensor | None,
        epsilon: float,
        weight: Tensor,
        bias: Tensor,
        *branches: Tensor,
    ) -> Tensor:
        y = torch.empty_like(x)
        mean, inverse = cpu.empty(2, *x.shape[:3])
        inputs = {"x": x, "weight": weight, "bias": bias, "alpha": alpha}
        results = {"mean": mean, "inverse": inverse, "y": y}
        _run("shift_forward", inputs | results, branches, epsilon=epsilon)
        ctx.save_for_backward(x, alpha, weight, bias, mean, inverse, *branches)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, weight, bias, mean, inverse, *branches = ctx.saved_tensors
        gx, gweight, gbias, *gbranches = (cpu.empty(*t.shape) for t in (x, weight, bias, *branches))
        galpha = None if alpha is None else cpu.empty(*alpha.shape)
        inputs = {"x": x, "weight": weight, "bias": bias, "alpha": alpha, "gy": gy}
        results = {"gx": gx, "gweight": gweight, "gbias": gbias, "galpha": galpha}
        arrays = {**inputs, **results, "mean": mean, "inverse": inverse}
        _run("shift_backward", arrays, branches, gbranches)
        return gx, galpha, None, gweight, gbias, *gbranches


def _run(
    name: str,
    arrays: Mapping[str, Tensor | None],
    branches: Sequence[Tensor],
    gbranches: Sequence[Tensor] = (),
    epsilon: float = 0.0,
) -> None:
    given = {name: x.contiguous() for name, x in arrays.items() if x is not None}
    kernels = [branch.contiguous() for branch in branches]
    x, side = given["x"], kernels[-1].shape[-1]
    threads, launch = cpu.threads_for(x)
    addresses = {name: array.data_ptr() for name, array in given.items()}
    job = _Job(*x.shape, side, threads, launch, epsilon, **addresses)
    _place(job.branches, kernels)
    _place(job.gbranches, gbranches)
    library = cpu.library(x.dtype)
    backward = ctypes.c_int64(name == "shift_backward")
    work = cpu.empty(library.shift_work(ctypes.byref(job), backward))
    job.work = work.data_ptr()
    getattr(library, name)(ctypes.byref(job))


def _place(places: Any, kernels: Sequence[Tensor]) -> None:
    for kernel in kernels:
        places[kernel.shape[-1] // 2] = kernel.data_ptr()
