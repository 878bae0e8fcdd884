"""Matrix products of a block, fused with its element-wise operations, for few channels on CPUs.

Binds `pointwise.c`. Only for float32 without gradients; `takes` checks whether a call is supported,
and the caller runs plain PyTorch if it is not.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from restore_rwkv.ops.cpu import binding as cpu


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "channels", "hidden", "threads")),
        ("launch", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("x", "z", "residual", "gamma")),
        *((name, ctypes.c_void_p) for name in ("first", "second", "third", "y", "y2")),
        ("next", ctypes.c_int64),
    )


def takes(x: Tensor, *layers: nn.Linear) -> bool:
    """Return whether the kernels support tokens x (B, H, W, C) with these layers."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or not x.is_contiguous():
        return False
    if not cpu.available() or not all(map(_is_ordinary, layers)):
        return False
    channels, hidden = x.shape[-1], max(layer.out_features for layer in layers)
    takes = cpu.library(x.dtype).pointwise_takes
    return bool(takes(*(ctypes.c_int64(n) for n in (x.numel() // channels, channels, hidden))))


def _is_ordinary(layer: nn.Linear) -> bool:
    """Return whether a layer is only a float32 product: no subclass, no bias, and no hooks."""
    if type(layer) is not nn.Linear or layer.weight.dtype != torch.float32:
        return False
    return layer.bias is None and not (layer._forward_hooks or layer._forward_pre_hooks)


def project(x: Tensor, first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return first(x) and second(x), for layers that keep the number of channels.

    Here and in the functions below, x is (B, H, W, C) and contiguous, and results are like x.
    """
    y, y2 = torch.empty(x.shape), torch.empty(x.shape)
    _run("pointwise_project", x, 0, first=_weight(first), second=_weight(second), y=y, y2=y2)
    return y, y2


def gate(
    x: Tensor, z: Tensor, receptance: nn.Linear, output: nn.Linear, residual: Tensor, gamma: Tensor
) -> Tensor:
    """Return residual + gamma * output(sigmoid(receptance(x)) * z)."""
    y = torch.empty(x.shape)
    layers = {"first": _weight(receptance), "second": _weight(output)}
    _run("pointwise_gate", x, 0, z=z, residual=residual, gamma=gamma, y=y, **layers)
    return y


def mix_channels(
    x: Tensor,
    key: nn.Linear,
    receptance: nn.Linear,
    value: nn.Linear,
    residual: Tensor,
    gamma: Tensor,
) -> Tensor:
    """Return residual + gamma * sigmoid(receptance(x)) * value(relu(key(x))^2)."""
    y = torch.empty(x.shape)
    layers = {"first": _weight(key), "second": _weight(receptance), "third": _weight(value)}
    hidden = key.out_features
    _run("pointwise_mix_channels", x, hidden, residual=residual, gamma=gamma, y=y, **layers)
    return y


def _weight(layer: nn.Linear) -> Tensor:
    """Weight of a layer as a contiguous (inputs, outputs)."""
    return layer.weight.t().contiguous()


def _run(name: str, x: Tensor, hidden: int, **arrays: Tensor) -> None:
    arrays = {name: array.contiguous() for name, array in {"x": x, **arrays}.items()}
    channels = x.shape[-1]
    threads, launch = cpu.threads_for(x)
    addresses = {name: array.data_ptr() for name, array in arrays.items()}
    job = _Job(x.numel() // channels, channels, hidden, threads, launch, **addresses)
    getattr(cpu.library(x.dtype), name)(ctypes.byref(job))
