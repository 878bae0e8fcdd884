"""Bi-WKV in plain PyTorch: O(T), any device, differentiable, traceable by torch.export.

Each token receives from its left a decayed sum over all tokens before it. Tokens are split into
groups; each group is summed, the sums of groups are treated as tokens of a coarser sequence, and so
on. A sum is stored as `(scale, a, b)`, which represents a * e^scale (denominator) and b * e^scale
(numerator), so no exponential overflows for any w, u and k.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_RADIX = 8  # sums per group in `_entering`, where every pair has its own scale
_CHUNK = 16  # tokens per group in `_chunked`, where a group shares one scale
_CHUNKED_FROM = 1024  # tokens; shorter sequences are computed pair by pair
_MAX_SPAN = 40.0  # scales within one chunk differ by at most e^40


class _Sums(NamedTuple):
    """Decayed sums (B, N, C); gradients do not flow through their scale."""

    scale: Tensor
    a: Tensor
    b: Tensor

    def flip(self) -> _Sums:
        return _Sums(*(x.flip(1) for x in self))

    def to_scale(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        factor = (self.scale - scale).exp()
        return self.a * factor, self.b * factor


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Compute eq. 8 of arXiv 2407.11087.

    Arguments, result and meaning of `causal` are those of `reference.bi_wkv`.
    """
    tokens = k.shape[1]
    wide = torch.float64 if k.dtype == torch.float64 else torch.float32
    w, u, k, values = (x.to(wide) for x in (w / tokens, u / tokens, k, v))
    size = values.detach().abs().amax((0, 1))
    size = torch.where(size > 0, size, torch.ones_like(size))  # keeps sums of huge values finite
    attend = _chunked if tokens >= _CHUNKED_FROM and not _is_extreme(w, u) else _pairwise
    largest = torch.finfo(wide).max  # a mean of the largest values may round to infinity
    y = (attend(w, u, k, values / size, causal) * size).clamp(-largest, largest)
    return y.to(v.dtype)


def _is_extreme(w: Tensor, u: Tensor) -> bool:
    """Return whether decay or bonus exceeds the range of one chunk; False while tracing."""
    if torch.compiler.is_compiling() or w.is_meta:
        return False
    with torch.no_grad():
        return bool(torch.maximum(w.abs().max() * _CHUNK, u.abs().max()) > _MAX_SPAN)


def _pairwise(w: Tensor, u: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention with a scale for every token; exact for any finite w, u, k."""
    here = _Sums(k, torch.ones_like(k), v)
    left = _entering(here, w)
    own_scale = _finite(k + u)
    parts = [left] if causal else [left, _entering(here.flip(), w).flip()]
    scale = own_scale.detach()
    for part in parts:
        scale = torch.maximum(scale, part.scale)
    own = (own_scale - scale).exp()
    weighed = [part.to_scale(scale) for part in parts]
    numerator = own * v + sum(b for _, b in weighed)
    return numerator / (own + sum(a for a, _ in weighed))


def _entering(sums: _Sums, step: Tensor) -> _Sums:
    """Sums that enter each of N elements from all before it; each step decays by e^-step (C,)."""
    batch, count, channels = sums.scale.shape
    radix = min(count, _RADIX)
    groups = -(-count // radix)
    row = torch.arange(radix + 1, device=step.device)[:, None]  # row `radix`: the whole group
    gap = (row - 1 - torch.arange(radix, device=step.device))[..., None]  # (radix + 1, radix, 1)
    scale, a, b = (
        x.reshape(batch, groups, 1, radix, channels) for x in _pad(sums, groups * radix - count)
    )
    logits = _finite(torch.where(gap >= 0, scale - gap * step, torch.finfo(step.dtype).min))
    top = logits.detach().amax(3)  # (B, groups, radix + 1, C)
    weight = (logits - top[:, :, :, None]).exp() * (gap >= 0)
    inside = _Sums(top, (weight * a).sum(3), (weight * b).sum(3))
    if groups > 1:
        coarse = _Sums(*(x[:, :, radix] for x in inside))
        outside = _Sums(*(x[:, :, None] for x in _entering(coarse, step * radix)))
        decayed = _finite(outside.scale - row * step)
        scale = torch.maximum(top, decayed.detach())
        a, b = inside.to_scale(scale)
        factor = (decayed - scale).exp()
        inside = _Sums(scale, a + outside.a * factor, b + outside.b * factor)
    return _Sums(*(x[:, :, :radix].flatten(1, 2)[:, :count] for x in inside))


def _chunked(w: Tensor, u: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention with one scale per chunk of tokens and two recurrences in it; moderate w and u."""
    # A traced graph may get larger w and u too: its results are then finite, but not exact.
    w, u = w.clamp(-_MAX_SPAN / _CHUNK, _MAX_SPAN / _CHUNK), u.clamp(-_MAX_SPAN, _MAX_SPAN)
    batch, tokens, channels = k.shape
    chunks = -(-tokens // _CHUNK)
    here = _pad(_Sums(k, torch.ones_like(k), v), chunks * _CHUNK - tokens)
    scale, a, b = (x.reshape(batch, chunks, _CHUNK, channels) for x in here)
    top = scale.detach().amax(2)
    weight = (scale - top[:, :, None]).exp()
    age = torch.arange(_CHUNK, device=k.device)[:, None]
    to_start, to_end = (-w * age).exp(), (-w * (_CHUNK - 1 - age)).exp()

    def summed(decay: Tensor) -> _Sums:
        return _Sums(top, (weight * decay * a).sum(2), (weight * decay * b).sum(2))

    left = _entering(summed(to_end), w * _CHUNK)
    right = _entering(summed(to_start).flip(), w * _CHUNK).flip()
    common = torch.maximum(top, left.scale if causal else torch.maximum(left.scale, right.scale))
    weight = (scale - common[:, :, None]).exp()
    terms = torch.cat([weight * a, weight * b], -1)  # (B, chunks, chunk, 2C)
    decay = (-w).exp().repeat(2)
    total = terms * u.exp().repeat(2)
    total = total + _recur(torch.cat(left.to_scale(common), -1), terms, decay)
    if not causal:
        after = _recur(torch.cat(right.to_scale(common), -1), terms.flip(2), decay)
        total = total + after.flip(2)
    denominator, numerator = total.flatten(1, 2)[:, :tokens].chunk(2, -1)
    return numerator / denominator


def _recur(state: Tensor, terms: Tensor, decay: Tensor) -> Tensor:
    """Compute the states before each term: s(0) = state, s(t + 1) = s(t) * decay + term(t)."""
    states = []
    for term in terms.unbind(2):
        states.append(state)
        state = state * decay + term
    return torch.stack(states, 2)


def _pad(sums: _Sums, extra: int) -> _Sums:
    """Append `extra` elements of weight 0."""
    if extra == 0:
        return sums
    scale, a, b = (torch.cat([x, x[:, -1:].expand(-1, extra, -1)], 1) for x in sums)
    real = (torch.arange(scale.shape[1], device=scale.device) < scale.shape[1] - extra)[:, None]
    return _Sums(scale, a * real, b * real)


def _finite(x: Tensor) -> Tensor:
    """Clamp to finite values, since differences of infinities would be NaN."""
    limit = torch.finfo(x.dtype).max / 4
    return x.clamp(-limit, limit)
