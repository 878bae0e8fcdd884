"""Both mixes of a block on CPUs, with gradients, as few passes of the C kernels.

The functions are those of `pointwise` and `binding` with their backward passes. They save arrays of
C channels and compute the hidden layer of the channel mix again. Second derivatives are refused.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from restore_rwkv.ops import eager
from restore_rwkv.ops.cpu import binding, pointwise


def mix_tokens(
    x: Tensor,
    residual: Tensor,
    gamma: Tensor,
    decay: Tensor,
    first: Tensor,
    weights: Sequence[Tensor],
    scans: Sequence[str],
) -> Tensor:
    """Return residual + gamma * output (sigmoid(receptance x) * Re-WKV(key x, value x)).

    Args:
        x: (B, H, W, C), float32 and contiguous, as `residual`.
        residual: (B, H, W, C).
        gamma: (C,).
        decay: of the scans, (M, C).
        first: bonus of the scans, (M, C).
        weights: of key, value, receptance and output, each (C, C).
        scans: "rows" or "columns" for each scan; each one attends to the results of the last.
    """
    if not eager.records_gradients(x, residual, gamma, decay, first, *weights):
        key, value, receptance, output = weights
        k, v = pointwise.project(x, key, value)
        for scan, w, u in zip(scans, decay, first, strict=True):
            k_along, v_along = _along(scan, k, v)
            binding.forward(w, u, k_along, v_along, out=v_along)
        return pointwise.gate(x, v, receptance, output, residual, gamma)[0]
    y: Tensor = _MixTokens.apply(x, residual, gamma, decay, first, *weights, scans)  # type: ignore[no-untyped-call]
    return y


def _along(scan: str, *images: Tensor) -> list[Tensor]:
    """Images (B, H, W, C) with the axis of the scan as the last but one."""
    return [x.transpose(1, 2) if scan == "columns" else x for x in images]


class _MixTokens(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        gamma: Tensor,
        decay: Tensor,
        first: Tensor,
        *rest: Any,
    ) -> Tensor:
        key, value, receptance, output, scans = rest
        k, v = pointwise.project(x, key, value)
        values, states = [], []
        for scan, w, u in zip(scans, decay, first, strict=True):
            values.append(v)
            y, state = binding.forward(w, u, *_along(scan, k, v))
            states.append(state)
            (v,) = _along(scan, y)
        y, sigmoid, product = pointwise.gate(x, v, receptance, output, residual, gamma, True)
        ctx.scans = scans
        weights = (gamma, decay, first, key, value, receptance, output)
        ctx.save_for_backward(*weights, x, k, sigmoid, product, *values, *states)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        saved, count = ctx.saved_tensors, len(ctx.scans)
        gamma, decay, first, key, value, receptance, output, x, k, sigmoid, product = saved[:11]
        values, states = saved[11 : 11 + count], saved[11 + count :]
        gx, gv, greceptance, goutput, ggamma = pointwise.gate_backward(
            gy, x, sigmoid, product, receptance, output, gamma
        )
        gdecay, gfirst, gks = torch.empty_like(decay), torch.empty_like(first), []
        for i in reversed(range(count)):
            gy_v, k_i, v_i = _along(ctx.scans[i], gv, k, values[i])
            gw, gu, gk, gv = binding.backward(gy_v, decay[i], first[i], k_i, v_i, states[i])
            gdecay[i], gfirst[i] = gw, gu
            gk, gv = _along(ctx.scans[i], gk, gv)
            gks.append(gk)
        gk = functools.reduce(Tensor.add_, gks)
        gx, gkey, gvalue = pointwise.project_backward(gx, gk, gv, x, key, value)
        return gx, gy, ggamma, gdecay, gfirst, gkey, gvalue, greceptance, goutput, None


def mix_channels(
    x: Tensor, residual: Tensor, gamma: Tensor, key: Tensor, receptance: Tensor, value: Tensor
) -> Tensor:
    """Return residual + gamma * sigmoid(receptance x) * (value relu(key x)^2).

    Args:
        x: (B, H, W, C), float32 and contiguous, as `residual`.
        residual: (B, H, W, C).
        gamma: (C,).
        key: weight (hidden, C).
        receptance: weight (C, C).
        value: weight (C, hidden).
    """
    if not eager.records_gradients(x, residual, gamma, key, receptance, value):
        return pointwise.mix_channels(x, key, receptance, value, residual, gamma)[0]
    y: Tensor = _MixChannels.apply(x, residual, gamma, key, receptance, value)  # type: ignore[no-untyped-call]
    return y


class _MixChannels(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        gamma: Tensor,
        key: Tensor,
        receptance: Tensor,
        value: Tensor,
    ) -> Tensor:
        y, *saved = pointwise.mix_channels(x, key, receptance, value, residual, gamma, True)
        ctx.save_for_backward(x, *saved, key, receptance, value, gamma)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, ...]:
        gx, *weights, ggamma = pointwise.mix_channels_backward(gy, *ctx.saved_tensors)
        return gx, gy, ggamma, *weights
