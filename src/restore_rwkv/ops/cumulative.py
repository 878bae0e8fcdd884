"""Bi-WKV as cumulative sums along rows and over rows: a small graph for images of any size.

The export to ONNX records this form. It has no recursion over tokens and no branches, so one graph
serves every height and width, but it is bound to moderate decays.

With `w` and `u` divided by T, and `p_i` the place of token i from the middle of the image, the sum
over the tokens before t is `exp(w - w p_t) sum_{i < t} exp(w p_i + k_i) v_i`, and that over those
after it likewise with -w: cumulative sums of terms whose exponents reach half of w as trained. They
are taken along each row, and then over the sums of the rows, so that a sum over 512 x 512 tokens is
rounded about a thousand times, not 262,144 times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

STEEPEST = 40.0
"""Largest |w|, as trained, that this form computes in float32, whatever the keys.

Keys are taken relative to the largest one of the image, and a term below e^-87.3, the smallest
normal number, is lost. Lost terms are largest beside the rest where t is at one end of the image,
the largest key at the other, and w > 0: each is at most e^(1.5 w - 87.3) of the result. For this
bound all of them in an image of a million tokens are 1.4e-6 of the result. The largest sum,
T e^|w|, stays below 1e24.
"""

LARGEST_BONUS = 60.0
"""Largest |u|, as trained: e^|u| is the weight of an image of one token, far from under- and
overflow, and in larger images the bonus is less than half of it."""

_recordings = 0  # blocks of `recorded` that run; a plain number, as torch.compile reads no other


@contextmanager
def recorded() -> Iterator[None]:
    """Within the block, `ops.bi_wkv` with backend "auto" runs in this form, in all threads."""
    global _recordings
    _recordings += 1
    try:
        yield
    finally:
        _recordings -= 1


def is_recorded() -> bool:
    """Return whether the call is within a block of `recorded`."""
    return _recordings > 0


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute eq. 8 of arXiv 2407.11087 for |w| up to `STEEPEST` and |u| up to `LARGEST_BONUS`.

    Args:
        w: decay (C,), as trained; it is divided by T here.
        u: bonus of the current token (C,), as trained; it is divided by T here.
        k: keys (B, H, W, C), float32 or float64.
        v: values, like k.

    Returns:
        Tensor like v.
    """
    height, width = k.shape[1:3]
    tokens = height * width
    row = torch.arange(height, dtype=k.dtype, device=k.device)[:, None, None]
    column = torch.arange(width, dtype=k.dtype, device=k.device)[:, None]
    place = (row * width + column - (tokens - 1) / 2) / tokens  # (H, W, 1), from -1/2 to 1/2
    weight = (k - k.amax((1, 2), keepdim=True)).exp()
    terms = torch.cat([weight * v, weight], -1)
    rising = (place * torch.cat([w, w])).exp()
    falling = 1 / rising
    before: Tensor = sums_beside(terms * rising, False)
    after: Tensor = sums_beside(terms * falling, True)
    step, bonus = ((torch.cat([x, x]) / tokens).exp() for x in (w, u))
    sums = (before * falling + after * rising) * step + terms * bonus
    numerator, denominator = sums.chunk(2, -1)
    return numerator / denominator


# An operator of its own, for which the export writes ONNX's CumSum that starts at either end and
# leaves out the token itself. Their difference would not do: it loses small neighbours.
@torch.library.custom_op("restore_rwkv::sums_beside", mutates_args=())
def sums_beside(x: Tensor, after: bool) -> Tensor:
    """Sums (B, H, W, C) over the tokens before each one, row by row, or over those after it."""
    if after:
        backwards: Tensor = sums_beside(x.flip((1, 2)), False)
        return backwards.flip((1, 2))
    rows = x.cumsum(2)
    totals = rows[:, :, -1:].cumsum(1)
    return F.pad(rows, (0, 0, 1, 0))[:, :, :-1] + F.pad(totals, (0, 0, 0, 0, 1, 0))[:, :-1]


@sums_beside.register_fake
def _(x: Tensor, after: bool) -> Tensor:
    return torch.empty_like(x)
