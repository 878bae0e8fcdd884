"""The public operators: check the arguments, choose a backend, run it."""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.ops import cumulative, eager, portable, reference
from restore_rwkv.ops.cpu import binding as cpu
from restore_rwkv.ops.gpu import launch as gpu
from restore_rwkv.ops.machine import BACKENDS, KERNELS_SWITCH

_logger = logging.getLogger(__name__)
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def bi_wkv(
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    backend: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """Bi-WKV attention, eq. 8 of arXiv 2407.11087, in O(T) time and memory.

    For every channel, with distances in tokens and T the number of tokens:

        y_t = (sum_{i != t} exp(-(|t-i|-1) w/T + k_i) v_i + exp(u/T + k_t) v_t)
            / (sum_{i != t} exp(-(|t-i|-1) w/T + k_i)     + exp(u/T + k_t))

    Args:
        w: decay (C,), as trained; the operator divides it by T.
        u: bonus of the current token (C,), as trained; the operator divides it by T.
        k: keys, (B, T, C), or (B, H, W, C) for tokens that run along the rows of an image.
            Any strides: `k.transpose(1, 2)` runs along its columns without a copy.
        v: values, same shape and type as k.
        backend: "auto" (the fastest for the device), "cpu" (C kernel), "triton" (GPU kernels),
            "torch" (plain PyTorch, any device) or "reference" (the equation itself, O(T^2)).
        out: tensor like v for the result; may be v itself, which saves a third of the memory and
            its traffic. Only without gradients.

    Returns:
        Tensor like k, differentiable in all four arguments. Reduced precisions are computed in
        float32. Any finite input gives a finite output; the same input gives the same output.

    Raises:
        OperatorError: wrong shape, type or device, or a backend that is unknown or cannot run.

    Example:
        >>> k, v = torch.randn(2, 64, 8), torch.randn(2, 64, 8)
        >>> bi_wkv(torch.zeros(8), torch.zeros(8), k, v).shape
        torch.Size([2, 64, 8])
    """
    _check(w, u, k, v)
    recorded = backend == "auto" and cumulative.is_recorded()
    backend = "cumulative" if recorded else _choose(backend, k.device)
    if out is not None:
        _check_out(out, w, u, k, v)
    if backend not in ("cpu", "triton"):
        y = _sequence(w, u, k, v, backend, causal=False)
        return y if out is None else out.copy_(y)
    run = cpu.bi_wkv if backend == "cpu" else gpu.bi_wkv
    if k.dim() == 4:
        return run(w, u, k, v, out)
    y = run(w, u, k.unsqueeze(1), v.unsqueeze(1), None if out is None else out.unsqueeze(1))
    return y.squeeze(1) if out is None else out


def uni_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, *, backend: str = "auto") -> Tensor:
    """Uni-WKV: as `bi_wkv`, but each token attends only to itself and the tokens before it.

    This is the causal attention of RWKV-4 in the form of eq. 8, for the paper's ablation (table 5).
    The backends are "torch" and "reference"; arguments, result and errors are as for `bi_wkv`.
    """
    _check(w, u, k, v)
    if backend in ("cpu", "triton"):
        raise OperatorError(f'backend "{backend}" has no uni_wkv; use backend="torch"')
    backend = "torch" if backend == "auto" else _choose(backend, k.device)
    return _sequence(w, u, k, v, backend, causal=True)


def available_backends() -> dict[str, bool]:
    """Map each backend to whether it can run here; `ops.machine` does so without PyTorch."""
    kernels = {"cpu": cpu.available, "triton": gpu.available}
    return {name: name not in kernels or kernels[name]() for name in BACKENDS}


def _sequence(w: Tensor, u: Tensor, k: Tensor, v: Tensor, backend: str, causal: bool) -> Tensor:
    """Run a backend that accepts only (B, T, C), or (B, H, W, C) without other strides."""
    if backend == "cumulative":
        rows = (x if x.dim() == 4 else x.unsqueeze(1) for x in (k, v))
        return cumulative.bi_wkv(w, u, *rows).reshape(k.shape)
    run = reference.bi_wkv if backend == "reference" else portable.bi_wkv
    return run(w, u, k.flatten(1, -2), v.flatten(1, -2), causal).reshape(k.shape)


def _choose(backend: str, device: torch.device) -> str:
    if backend == "auto":
        backend = "torch" if eager.is_exporting() else _fastest(device)
        if not torch.compiler.is_compiling():
            _log_choice(backend, device.type)
    elif backend not in BACKENDS:
        raise OperatorError(f'backend "{backend}" is unknown; use auto, {", ".join(BACKENDS)}')
    if backend == "cpu":
        _check_cpu(device)
    elif backend == "triton":
        _check_triton(device)
    return backend


def _fastest(device: torch.device) -> str:
    if device.type == "cpu" and cpu.available():
        return "cpu"
    return "triton" if device.type == "cuda" and gpu.available() else "torch"


def _check_cpu(device: torch.device) -> None:
    if not cpu.available():
        if cpu.switched_off():
            raise OperatorError(
                f'backend "cpu": {KERNELS_SWITCH}=0 switches its kernel off; unset it, or use '
                'backend="torch"'
            )
        raise OperatorError(
            'backend "cpu": its kernel was not built here; install a C compiler and reinstall, '
            'or use backend="torch"'
        )
    if device.type != "cpu":
        raise OperatorError(f'backend "cpu" got tensors on {device}; use backend="torch"')


def _check_triton(device: torch.device) -> None:
    if not gpu.installed():
        raise OperatorError(
            'backend "triton": Triton 3.5 or newer is not installed; `pip install triton`, or '
            'use backend="torch"'
        )
    if device.type == "cpu" and not gpu.interpreted():
        raise OperatorError(
            'backend "triton" got tensors on cpu; move them to a GPU, use backend="cpu", or set '
            "TRITON_INTERPRET=1 to run its kernels in Triton's interpreter, for tests"
        )
    if device.type not in gpu.DEVICES:
        raise OperatorError(f'backend "triton" got tensors on {device}; use backend="torch"')


@functools.cache
def _log_choice(backend: str, device: str) -> None:
    if device == "cpu" and backend == "torch":
        why = f"{KERNELS_SWITCH}=0" if cpu.switched_off() else "no C kernel on this machine"
        _logger.warning("%s: bi_wkv runs in plain PyTorch, more slowly", why)
    elif device == "cuda" and backend == "torch":
        _logger.warning(
            "no Triton on this machine: bi_wkv on cuda runs in plain PyTorch, more slowly; "
            "`pip install triton`"
        )
    else:
        _logger.info("bi_wkv on %s runs on the backend %s", device, backend)


def _check(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
    if k.dim() not in (3, 4) or k.shape != v.shape or 0 in k.shape:
        raise OperatorError(
            f"k is {tuple(k.shape)} and v {tuple(v.shape)}; both must be the same (B, T, C) or "
            "(B, H, W, C), without an empty axis"
        )
    channels = k.shape[-1]
    if w.shape != (channels,) or u.shape != (channels,):
        raise OperatorError(
            f"w is {tuple(w.shape)} and u {tuple(u.shape)}; k has {channels} channels, so both "
            f"must be ({channels},)"
        )
    if k.dtype not in _DTYPES or v.dtype != k.dtype:
        raise OperatorError(
            f"k is {k.dtype} and v {v.dtype}; both must be one of float32, float64, bfloat16, "
            "float16"
        )
    if not (w.is_floating_point() and u.is_floating_point()):
        raise OperatorError(f"w is {w.dtype} and u {u.dtype}; both must be floating point")
    devices = {x.device for x in (w, u, k, v)}
    if len(devices) > 1:
        names = ", ".join(sorted(str(device) for device in devices))
        raise OperatorError(f"w, u, k, v lie on several devices ({names}); move them to one")


def _check_out(out: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
    if out.shape != v.shape or out.dtype != v.dtype or out.device != v.device:
        raise OperatorError(
            f"out is {tuple(out.shape)}, {out.dtype} on {out.device}; it must be like v: "
            f"{tuple(v.shape)}, {v.dtype} on {v.device}"
        )
    is_v = out.data_ptr() == v.data_ptr() and out.stride() == v.stride()
    places = {x.untyped_storage().data_ptr() for x in (k, v)}
    if eager.repeats_elements(out) or (not is_v and out.untyped_storage().data_ptr() in places):
        raise OperatorError(
            "out shares memory with k, another part of v, or itself; give v itself or a new tensor"
        )
    if eager.records_gradients(w, u, k, v, out):
        raise OperatorError("out: gradients are recorded; leave it out, or use torch.no_grad()")
