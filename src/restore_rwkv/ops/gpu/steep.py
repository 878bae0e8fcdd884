"""Bi-WKV of a piece of tokens in Triton for any finite input: steep decays, huge bonuses or values.

Every pair of tokens in a chunk, and of chunks in a piece, has its own weight; every sum has its own
scale in float64. Slower than `plain`, and rarely needed. Values are multiplied by SMALL.
"""

# mypy: ignore-errors
# ruff: noqa: D103, N803

from typing import Any, NamedTuple

import triton
import triton.language as tl

from restore_rwkv.ops.gpu.tiles import (
    FAR,
    SMALL,
    Sum,
    clip,
    enlarge,
    load_row,
    load_tile,
    ratio,
    store_row,
)


class Tile(NamedTuple):
    """Tokens of a piece (P, CHUNK, BLOCK), and the parameters (BLOCK,)."""

    k: Any
    v: Any
    w: Any
    u: Any


class Sides(NamedTuple):
    """Sums (P, BLOCK) that enter each chunk: over the tokens before and after it."""

    left: Sum
    right: Sum


@triton.jit
def wide(keys):
    """Keys in float64, clipped; tokens that do not exist keep minus infinity."""
    keys = keys.to(tl.float64)
    return tl.where(keys > -float("inf"), clip(keys), keys)


@triton.jit
def load_tiles(inputs, piece, step, bonus, cut: tl.constexpr):
    keys = load_tile(inputs.k, piece, -float("inf"), cut.CHUNK)
    values = load_tile(inputs.v, piece, 0.0, cut.CHUNK)
    return Tile(wide(keys), values.to(cut.REAL) * SMALL, step, bonus)


@triton.jit
def lower(scale, step):
    """Scale of a sum after a decay; the scale of an empty sum stays minus infinity."""
    return tl.where(scale > -float("inf"), clip(scale - clip(step)), scale)


@triton.jit
def steep_chunks(keys, w, side: tl.constexpr, cut: tl.constexpr):
    """Scale of each chunk's sum, decayed to its end (0) or start (1), and weight of each token."""
    token = tl.arange(0, cut.CHUNK)[None, :, None]
    age = (cut.CHUNK - 1 - token) if side == 0 else token
    logit = lower(keys, w[None, None, :] * age)
    top = tl.max(logit, 1)
    return top, ratio(logit - tl.maximum(top, -FAR)[:, None, :], cut.REAL)


@triton.jit
def steep_piece(scale, w, side: tl.constexpr, cut: tl.constexpr):
    """Do the same as `steep_chunks` for the chunks of a piece."""
    chunk = tl.arange(0, cut.P)[:, None]
    logit = lower(scale, w[None, :] * (((cut.P - 1 - chunk) if side == 0 else chunk) * cut.CHUNK))
    top = tl.max(logit, 0)
    return top, ratio(logit - tl.maximum(top, -FAR)[None, :], cut.REAL)


@triton.jit
def steep_sums(x, cut: tl.constexpr):
    """Compute `plain_sums` for any finite input."""
    scale, e = steep_chunks(x.k, x.w, 0, cut)
    end_log, factor = steep_piece(scale, x.w, 0, cut)
    end = tl.sum(tl.sum(e, 1) * factor, 0)
    end_mean = enlarge(tl.sum(tl.sum(e * x.v, 1) * factor, 0) / end, cut.REAL)
    scale, e = steep_chunks(x.k, x.w, 1, cut)
    start_log, factor = steep_piece(scale, x.w, 1, cut)
    start = tl.sum(tl.sum(e, 1) * factor, 0)
    start_mean = enlarge(tl.sum(tl.sum(e * x.v, 1) * factor, 0) / start, cut.REAL)
    return end_log, end, end_mean, start_log, start, start_mean


@triton.jit
def steep_enter(scale, entering, w, side: tl.constexpr, cut: tl.constexpr):
    """Scale of the sum that enters each chunk, and the factors of its parts.

    The factors are those of the sums of the other chunks (P, P, BLOCK) and of the sum that enters
    the piece. `scale` is that of the chunks' sums, `entering` that of the sum entering the piece.
    """
    other, chunk = tl.arange(0, cut.P)[:, None, None], tl.arange(0, cut.P)[None, :, None]
    gap = (chunk - 1 - other) if side == 0 else (other - 1 - chunk)
    logit = lower(scale[:, None, :], w[None, None, :] * (gap * cut.CHUNK))
    logit = tl.where(gap >= 0, logit, -float("inf"))
    chunk = tl.arange(0, cut.P)[:, None]
    passed = (chunk if side == 0 else cut.P - 1 - chunk) * cut.CHUNK
    far = lower(entering[None, :], w[None, :] * passed)
    top = tl.maximum(tl.max(logit, 0), far)
    finite = tl.maximum(top, -FAR)
    return top, ratio(logit - finite[None, :, :], cut.REAL), ratio(far - finite, cut.REAL)


@triton.jit
def steep_side(x, entering, entering_mean, side: tl.constexpr, cut: tl.constexpr):
    """Sum that enters each chunk from a side."""
    scale, e = steep_chunks(x.k, x.w, side, cut)
    a, b = tl.sum(e, 1), tl.sum(e * x.v, 1)
    scale, factor, far = steep_enter(scale, entering, x.w, side, cut)
    a = tl.sum(factor * a[:, None, :], 0) + far
    b = tl.sum(factor * b[:, None, :], 0) + far * (entering_mean * SMALL)[None, :]
    return Sum(scale, a, b)


@triton.jit
def steep_sides(x, loaded, cut: tl.constexpr):
    return Sides(
        steep_side(x, loaded.left, loaded.left_mean, 0, cut),
        steep_side(x, loaded.right, loaded.right_mean, 1, cut),
    )


@triton.jit
def steep_row(t, x, sides, cut: tl.constexpr):
    """Weights of the tokens (P, CHUNK, BLOCK) and of the left and right sums in the t-th outputs.

    Returns the scale of these weights first.
    """
    offset = tl.arange(0, cut.CHUNK)[None, :, None] - t
    step = tl.where(offset == 0, -x.u[None, None, :], x.w[None, None, :] * (tl.abs(offset) - 1))
    logit = lower(x.k, step)
    left = lower(sides.left.scale, x.w[None, :] * t)
    right = lower(sides.right.scale, x.w[None, :] * (cut.CHUNK - 1 - t))
    top = tl.maximum(tl.maximum(tl.max(logit, 1), tl.maximum(left, right)), -FAR)
    left, right = ratio(left - top, cut.REAL), ratio(right - top, cut.REAL)
    return top, ratio(logit - top[:, None, :], cut.REAL), left, right


@triton.jit
def steep_outputs(y, inputs, loaded, piece, cut: tl.constexpr):
    """Compute and store the outputs of a piece."""
    x = load_tiles(inputs, piece, loaded.step, loaded.bonus, cut)
    sides = steep_sides(x, loaded, cut)
    for t in range(0, tl.max(piece.lengths)):
        _, e, before, after = steep_row(t, x, sides, cut)
        total = tl.sum(e, 1) + before * sides.left.a + after * sides.right.a
        result = tl.sum(e * x.v, 1) + before * sides.left.b + after * sides.right.b
        store_row(t, y, enlarge(result / tl.where(total > 0, total, 1.0), cut.REAL), piece)


@triton.jit
def steep_output(t, x, sides, lengths, cut: tl.constexpr):
    """-log D and y of each chunk's t-th token; its weights of the tokens, left and right sums."""
    top, e, before, after = steep_row(t, x, sides, cut)
    total = tl.sum(e, 1) + before * sides.left.a + after * sides.right.a
    total = tl.where(t < lengths, total, 1.0)
    e, before, after = e / total[:, None, :], before / total, after / total
    y = tl.sum(e * x.v, 1) + before * sides.left.b + after * sides.right.b
    log = tl.where(t < lengths, -top - tl.log(total.to(tl.float64)), -float("inf"))
    return log, y, e, before, after


@triton.jit
def absorb(scale, sum_0, sum_a, sum_b, key, a, b, REAL: tl.constexpr):
    """Add e^key times (1, a, b) to sums that are multiples of e^scale."""
    top = tl.maximum(scale, key)
    finite = tl.maximum(top, -FAR)
    keep, add = ratio(scale - finite, REAL), ratio(key - finite, REAL)
    return top, sum_0 * keep + add, sum_a * keep + add * a, sum_b * keep + add * b


@triton.jit
def steep_gradient_chunks(gy, x, sides, piece, cut: tl.constexpr):
    """For each chunk, scale and sums of (1, gy, -gy y) / D; at its end, then at its start."""
    zero = tl.zeros(sides.left.scale.shape, cut.REAL)
    end = tl.full(sides.left.scale.shape, -float("inf"), tl.float64)
    start = end
    end_0, end_a, end_b, start_0, start_a, start_b = zero, zero, zero, zero, zero, zero
    for t in range(0, tl.max(piece.lengths)):
        key, y, _, _, _ = steep_output(t, x, sides, piece.lengths, cut)
        row = load_row(t, gy, piece).to(cut.REAL)
        end, end_0, end_a, end_b = absorb(
            lower(end, x.w[None, :]), end_0, end_a, end_b, key, row, -row * y, cut.REAL
        )
        start, start_0, start_a, start_b = absorb(
            start, start_0, start_a, start_b, lower(key, x.w[None, :] * t), row, -row * y, cut.REAL
        )
    return end, end_0, end_a, end_b, start, start_0, start_a, start_b


@triton.jit
def steep_gradient_sums(sums, w, cut: tl.constexpr):
    """Compute `plain_gradient_sums` from the result of `steep_gradient_chunks`."""
    end_log, factor = steep_piece(sums[0], w, 0, cut)
    end = tl.sum(sums[1] * factor, 0)
    end_a = tl.sum(sums[2] * factor, 0) / end
    end_b = enlarge(tl.sum(sums[3] * factor, 0) / end, cut.REAL)
    start_log, factor = steep_piece(sums[4], w, 1, cut)
    start = tl.sum(sums[5] * factor, 0)
    start_a = tl.sum(sums[6] * factor, 0) / start
    start_b = enlarge(tl.sum(sums[7] * factor, 0) / start, cut.REAL)
    return end_log, end, end_a, end_b, start_log, start, start_a, start_b


@triton.jit
def enter_gradients(scale, a, b, entering, w, side: tl.constexpr, cut: tl.constexpr):
    scale, factor, far = steep_enter(scale, entering.scale, w, side, cut)
    a = tl.sum(factor * a[:, None, :], 0) + far * entering.a[None, :]
    b = tl.sum(factor * b[:, None, :], 0) + far * (entering.b * SMALL)[None, :]
    return Sum(scale, a, b)


@triton.jit
def gradients_inside(gy, x, sides, piece, cut: tl.constexpr):
    """gk, gv (P, CHUNK, BLOCK) and gw, gu (P, BLOCK) from the outputs of the chunk itself."""
    gk, gv = tl.zeros(x.k.shape, cut.REAL), tl.zeros(x.k.shape, cut.REAL)
    gw = tl.zeros(sides.left.scale.shape, cut.REAL)
    gu = tl.zeros(sides.left.scale.shape, cut.REAL)
    for t in range(0, tl.max(piece.lengths)):
        _, y, e, before, after = steep_output(t, x, sides, piece.lengths, cut)
        row = load_row(t, gy, piece).to(cut.REAL)
        e = e * row[:, None, :]
        difference = e * (x.v - y[:, None, :])
        gv += e
        gk += difference
        offset = tl.arange(0, cut.CHUNK)[None, :, None] - t
        gu += tl.sum(tl.where(offset == 0, difference, 0.0), 1)
        gw += tl.sum(difference * tl.maximum(tl.abs(offset) - 1, 0), 1)
        gw += row * before * (sides.left.b - sides.left.a * y) * t
        gw += row * after * (sides.right.b - sides.right.a * y) * (cut.CHUNK - 1 - t)
    return gk, gv, gw, gu


@triton.jit
def gradients_from(x, age, near, far, cut: tl.constexpr):
    """gk, gv, gw from the outputs on one side of the chunk, `age` tokens away or farther.

    `near` is the sum over those outputs. The last term of gw is for pairs of those outputs with the
    tokens on the other side, whose sums are `far`.
    """
    e = ratio(lower(x.k, x.w[None, None, :] * age) + near.scale[:, None, :], cut.REAL)
    gv = e * near.a[:, None, :]
    gk = gv * x.v + e * near.b[:, None, :]
    through = ratio(near.scale + lower(far.scale, x.w[None, :] * cut.CHUNK), cut.REAL) * cut.CHUNK
    return gk, gv, tl.sum(gk * age, 1) + through * (near.a * far.b + near.b * far.a)


@triton.jit
def steep_gradients(gy, inputs, loaded, before, after, piece, cut: tl.constexpr):
    """Compute `plain_gradients` for any finite input; return tiles (P, CHUNK, BLOCK)."""
    x = load_tiles(inputs, piece, loaded.step, loaded.bonus, cut)
    sides = steep_sides(x, loaded, cut)
    end, _, end_a, end_b, start, _, start_a, start_b = steep_gradient_chunks(
        gy, x, sides, piece, cut
    )
    gk, gv, gw, gu = gradients_inside(gy, x, sides, piece, cut)
    token = tl.arange(0, cut.CHUNK)[None, :, None]
    earlier = enter_gradients(end, end_a, end_b, before, x.w, 0, cut)
    gk_part, gv_part, gw_part = gradients_from(x, token, earlier, sides.right, cut)
    gk, gv, gw = gk + gk_part, gv + gv_part, gw + gw_part
    later = enter_gradients(start, start_a, start_b, after, x.w, 1, cut)
    gk_part, gv_part, gw_part = gradients_from(x, cut.CHUNK - 1 - token, later, sides.left, cut)
    gw, gu = (gw + gw_part).to(tl.float64), gu.to(tl.float64)
    return (gk + gk_part) / SMALL, gv + gv_part, gw / SMALL, gu / SMALL
