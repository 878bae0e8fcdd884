"""Bi-WKV as written in its equation: O(T^2), the reference for testing all kernels."""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS = 64  # queries evaluated together; bounds memory to B x 64 x T x C


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Evaluate eq. 8 of arXiv 2407.11087 term by term, as a softmax over all tokens.

    Args:
        w: decay (C,), as trained; it is divided by T here.
        u: bonus of the current token (C,), as trained; it is divided by T here.
        k: keys (B, T, C).
        v: values (B, T, C).
        causal: ignore the tokens after the current one (Uni-WKV).

    Returns:
        (B, T, C), differentiable in all four arguments; reduced precisions run in float32.
    """
    tokens, dtype = k.shape[1], k.dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    w, u, k, v = (x.to(wide) for x in (w, u, k, v))
    rows = [
        bi_wkv_rows(w, u, k, v, torch.arange(start, min(start + _ROWS, tokens)), causal)
        for start in range(0, tokens, _ROWS)
    ]
    return torch.cat(rows, dim=1).to(dtype)


def bi_wkv_rows(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, rows: Tensor, causal: bool = False
) -> Tensor:
    """Evaluate only the outputs of the tokens in `rows` (R,); return (B, R, C)."""
    tokens = k.shape[1]
    rows = rows.to(k.device)
    offset = torch.arange(tokens, device=k.device) - rows[:, None]  # (R, T)
    steps = (offset.abs() - 1).to(k.dtype) / tokens
    exponent = torch.where((offset == 0)[..., None], u / tokens, -steps[..., None] * w)  # (R, T, C)
    logits = exponent + k[:, None]  # (B, R, T, C)
    if causal:
        logits = logits.masked_fill((offset > 0)[..., None], -torch.inf)
    return (logits.softmax(dim=2) * v[:, None]).sum(dim=2)
