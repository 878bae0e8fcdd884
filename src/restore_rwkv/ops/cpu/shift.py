"""LayerNorm followed by Omni-Shift on CPUs, with gradients.

Binds `shift.c` and `shift_backward.c`. Only for float32; `takes` checks whether a call is
supported, and the caller runs plain PyTorch if it is not. Second derivatives are refused.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from restore_rwkv.ops import eager
from restore_rwkv.ops.cpu import binding as cpu
from restore_rwkv.ops.cpu.pointwise import has_hooks


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "rows", "columns", "channels", "side")),
        ("threads", ctypes.c_int64),
        ("launch", ctypes.c_void_p),
        ("epsilon", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "kernel", "y")),
        *((name, ctypes.c_void_p) for name in ("mean", "inverse", "gy", "gx")),
        *((name, ctypes.c_void_p) for name in ("gweight", "gbias", "gkernel", "work")),
        *((name, ctypes.c_int64) for name in ("next", "workers")),
    )


def takes(x: Tensor, norm: nn.Module, *parameters: Tensor) -> bool:
    """Return whether the kernels support tokens x (B, H, W, C) with this norm and parameters."""
    if type(norm) is not nn.LayerNorm or has_hooks(norm) or not cpu.available():
        return False
    if x.dtype != torch.float32 or x.device.type != "cpu" or not x.is_contiguous():
        return False
    channels = x.shape[-1]
    if norm.normalized_shape != (channels,) or norm.weight is None or norm.bias is None:
        return False
    if any(parameter.dtype != torch.float32 for parameter in parameters):
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
    parameters = (norm.weight, norm.bias, alpha, *branches)
    if not eager.records_gradients(x, *(p for p in parameters if p is not None)):
        kernel = _merged(alpha, branches)
        return _forward(x, norm.weight, norm.bias, kernel, norm.eps, save=False)[0]
    y: Tensor = _NormAndShift.apply(x, norm.eps, *parameters)  # type: ignore[no-untyped-call]
    return y


def _middle(kernel: Tensor, side: int) -> Tensor:
    """The middle of a kernel, a view of (C, 1, side, side)."""
    border = (kernel.shape[-1] - side) // 2
    return kernel[..., border : border + side, border : border + side]


def _merged(alpha: Tensor | None, branches: Sequence[Tensor]) -> Tensor:
    if alpha is None:
        return branches[-1]
    kernel = alpha[-1] * branches[-1]
    for factor, branch in zip(alpha[1:-1], branches, strict=False):
        _middle(kernel, branch.shape[-1]).addcmul_(factor, branch)
    _middle(kernel, 1).add_(alpha[0])
    return kernel


def _merged_backward(
    gkernel: Tensor, alpha: Tensor | None, branches: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of alpha and of the branches."""
    if alpha is None:
        return None, gkernel
    parts = [_middle(gkernel, branch.shape[-1]) for branch in branches]
    galpha = [_middle(gkernel, 1).sum()]
    galpha += [(part * branch).sum() for part, branch in zip(parts, branches, strict=True)]
    gbranches = [factor * part for factor, part in zip(alpha[1:], parts, strict=True)]
    return torch.stack(galpha), *gbranches


class _NormAndShift(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        epsilon: float,
        weight: Tensor,
        bias: Tensor,
        alpha: Tensor | None,
        *branches: Tensor,
    ) -> Tensor:
        kernel = _merged(alpha, branches)
        y, mean, inverse = _forward(x, weight, bias, kernel, epsilon, save=True)
        ctx.save_for_backward(x, weight, bias, kernel, mean, inverse, alpha, *branches)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, kernel, mean, inverse, alpha, *branches = ctx.saved_tensors
        gx, gweight, gbias, gkernel = _backward(gy, x, weight, bias, kernel, mean, inverse)
        return gx, None, gweight, gbias, *_merged_backward(gkernel, alpha, branches)


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, kernel: Tensor, epsilon: float, save: bool
) -> tuple[Tensor, ...]:
    """Return y, and with `save` also the mean and the inverse deviation of every token."""
    results = {"y": torch.empty_like(x)}
    if save:
        results |= {"mean": x.new_empty(x.shape[:3]), "inverse": x.new_empty(x.shape[:3])}
    arrays = {"weight": weight, "bias": bias, "kernel": kernel}
    _run("shift_forward", x, epsilon, **arrays, **results)
    return tuple(results.values())


def _backward(
    gy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    kernel: Tensor,
    mean: Tensor,
    inverse: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, of weight and bias of the norm, and of the kernel."""
    gx, gweight, gbias = map(torch.empty_like, (x, weight, bias))
    gkernel = torch.empty(kernel.shape)
    arrays = {"gy": gy, "weight": weight, "bias": bias, "kernel": kernel}
    results = {"gx": gx, "gweight": gweight, "gbias": gbias, "gkernel": gkernel}
    _run("shift_backward", x, 0.0, mean=mean, inverse=inverse, **arrays, **results)
    return gx, gweight, gbias, gkernel


def _run(name: str, x: Tensor, epsilon: float, **arrays: Tensor) -> None:
    arrays = {name: array.contiguous() for name, array in {"x": x, **arrays}.items()}
    threads, launch = cpu.threads_for(x)
    addresses = {name: array.data_ptr() for name, array in arrays.items()}
    side = arrays["kernel"].shape[-1]
    job = _Job(*x.shape, side, threads, launch, epsilon, **addresses)
    library = cpu.library(x.dtype)
    backward = ctypes.c_int64(name == "shift_backward")
    work = torch.empty(library.shift_work(ctypes.byref(job), backward))
    job.work = work.data_ptr()
    getattr(library, name)(ctypes.byref(job))
