"""Matrix products of a block, fused with its element-wise operations, on CPUs.

Binds `pointwise.c` and `pointwise_backward.c`. Only for float32; `takes` checks whether a call is
supported, and the caller runs plain PyTorch if it is not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from restore_rwkv.ops.cpu import binding as cpu

_BLOCK = 64  # tokens, as in pointwise.h


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "channels", "hidden", "threads", "groups")),
        ("launch", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("x", "z", "residual", "gamma")),
        *((name, ctypes.c_void_p) for name in ("first", "second", "third", "y", "y2")),
        *((name, ctypes.c_void_p) for name in ("sigmoid", "product", "gy", "gy2", "gx", "gz")),
        *((name, ctypes.c_void_p) for name in ("gfirst", "gsecond", "gthird", "ggamma", "work")),
        *((name, ctypes.c_int64) for name in ("next", "workers")),
    )


def takes(x: Tensor, gamma: Tensor, *layers: nn.Module) -> bool:
    """Return whether the kernels support tokens x (B, H, W, C) with these factors and layers."""
    if x.device.type != "cpu" or not x.is_contiguous() or x.numel() == 0:
        return False
    if x.dtype != torch.float32 or gamma.dtype != torch.float32:
        return False
    if not cpu.available() or not all(map(_is_ordinary, layers)):
        return False
    return bool(cpu.library(x.dtype).pointwise_takes(ctypes.c_int64(x.shape[-1])))


def _is_ordinary(layer: nn.Module) -> bool:
    """Return whether a layer is only a float32 product: no subclass, no bias, and no hooks."""
    if type(layer) is not nn.Linear or layer.weight.dtype != torch.float32:
        return False
    return layer.bias is None and not has_hooks(layer)


def has_hooks(module: nn.Module) -> bool:
    """Return whether a module has to be called, since others watch its calls."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def project(x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return first x and second x, for weights (C, C).

    Here and in the functions below, x is (B, H, W, C) and contiguous, results are like x, and
    weights are those of linear layers, (outputs, inputs).
    """
    y, y2 = torch.empty_like(x), torch.empty_like(x)
    _run("pointwise_project", x, first=first, second=second, y=y, y2=y2)
    return y, y2


def project_backward(
    gx: Tensor, gy: Tensor, gy2: Tensor, x: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, ...]:
    """Return gradients of x, added to `gx`, and of both weights of `project`."""
    results = {"y": x, "gfirst": first, "gsecond": second}
    arrays = {"gx": gx, "gy": gy, "gy2": gy2, "first": first, "second": second}
    return _gradients("pointwise_project_backward", x, results, **arrays)


def gate(
    x: Tensor,
    z: Tensor,
    receptance: Tensor,
    output: Tensor,
    residual: Tensor,
    gamma: Tensor,
    save: bool = False,
) -> tuple[Tensor, ...]:
    """Return residual + gamma * output (sigmoid(receptance x) * z).

    With `save`, also the sigmoid and its product with z, for the backward pass.
    """
    arrays = {"first": receptance, "second": output, "residual": residual, "gamma": gamma}
    return _with_saved("pointwise_gate", x, save, z=z, **arrays)


def gate_backward(
    gy: Tensor,
    x: Tensor,
    sigmoid: Tensor,
    product: Tensor,
    receptance: Tensor,
    output: Tensor,
    gamma: Tensor,
) -> tuple[Tensor, ...]:
    """Return gradients of x, z, both weights and gamma of `gate`."""
    results = {"gx": x, "gz": x, "gfirst": receptance, "gsecond": output, "ggamma": gamma}
    arrays = {"gy": gy, "sigmoid": sigmoid, "product": product, "gamma": gamma}
    weights = {"first": receptance, "second": output}
    return _gradients("pointwise_gate_backward", x, results, **arrays, **weights)


def mix_channels(
    x: Tensor,
    key: Tensor,
    receptance: Tensor,
    value: Tensor,
    residual: Tensor,
    gamma: Tensor,
    save: bool = False,
) -> tuple[Tensor, ...]:
    """Return residual + gamma * sigmoid(receptance x) * (value relu(key x)^2).

    With `save`, also the sigmoid and its product with the values, for the backward pass.
    """
    weights = {"first": key, "second": receptance, "third": value}
    return _with_saved("pointwise_mix_channels", x, save, **weights, residual=residual, gamma=gamma)


def mix_channels_backward(
    gy: Tensor,
    x: Tensor,
    sigmoid: Tensor,
    product: Tensor,
    key: Tensor,
    receptance: Tensor,
    value: Tensor,
    gamma: Tensor,
) -> tuple[Tensor, ...]:
    """Return gradients of x, the three weights and gamma of `mix_channels`."""
    results = {"gx": x, "gfirst": key, "gsecond": receptance, "gthird": value, "ggamma": gamma}
    arrays = {"gy": gy, "sigmoid": sigmoid, "product": product, "gamma": gamma}
    weights = {"first": key, "second": receptance, "third": value}
    return _gradients("pointwise_mix_channels_backward", x, results, **arrays, **weights)


def _with_saved(name: str, x: Tensor, save: bool, **arrays: Tensor) -> tuple[Tensor, ...]:
    results = {"y": torch.empty_like(x)}
    if save:
        results |= {"sigmoid": torch.empty_like(x), "product": torch.empty_like(x)}
    _run(name, x, **arrays, **results)
    return tuple(results.values())


def _gradients(
    name: str, x: Tensor, results: Mapping[str, Tensor], **arrays: Tensor
) -> tuple[Tensor, ...]:
    """Run a backward kernel; each of its results has the shape of that of `results`."""
    made = {result: cpu.empty(*like.shape) for result, like in results.items()}
    _run(name, x, **arrays, **made)
    return tuple(made.values())


def _run(name: str, x: Tensor, **arrays: Tensor) -> None:
    """Run a kernel; the hidden channels are the outputs of `first`. All results are contiguous."""
    arrays = {name: array.contiguous() for name, array in {"x": x, **arrays}.items()}
    channels = x.shape[-1]
    tokens, hidden = x.numel() // channels, arrays["first"].shape[0]
    threads, launch = cpu.threads_for(x)
    blocks, backward = -(-tokens // _BLOCK), name.endswith("_backward")
    # Every group sums gradients of its own, and these are added in a fixed order.
    groups = min(blocks, 1 if threads == 1 else 2 * threads) if backward else blocks
    addresses = {name: array.data_ptr() for name, array in arrays.items()}
    job = _Job(tokens, channels, hidden, threads, groups, launch, **addresses)
    library = cpu.library(x.dtype)
    work = cpu.empty(library.pointwise_work(ctypes.byref(job), ctypes.c_int64(backward)))
    job.work = work.data_ptr()
    getattr(library, name)(ctypes.byref(job))
