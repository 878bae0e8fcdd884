"""Bi-WKV of a piece of tokens in Triton for any finite input: steep decays, huge bonuses or values.

Every pair of tokens of a chunk, and of chunks of a piece, is weighed by itself; every sum has its
own scale in float64. Slower than `plain`, and rare. Values come times SMALL.
"""

# mypy: ignore-errors
# ruff: noqa: D103, N803

import triton
import triton.language as tl

from restore_rwkv.ops.gpu.tiles import (
    FAR,
    SMALL,
    clip,
    enlarge,
    load_row,
    narrow,
    origin,
)


@triton.jit
def wide(keys):
    """Keys in float64, cut off; tokens that are not there keep minus infinity."""
    keys = keys.to(tl.float64)
    return tl.where(keys > -float("inf"), clip(keys), keys)


@triton.jit
def lower(scale, step):
    """The scale of a sum after a decay; that of an empty sum stays minus infinity."""
    return tl.where(scale > -float("inf"), clip(scale - clip(step)), scale)


@triton.jit
def steep_chunks(keys, w, side: tl.constexpr, REAL: tl.constexpr, CHUNK: tl.constexpr):
    """Scale of the sum of each chunk, decayed to its end (0) or start (1), and of each token."""
    token = tl.arange(0, CHUNK)[None, :, None]
    age = (CHUNK - 1 - token) if side == 0 else token
    logit = lower(keys, w[None, None, :] * age)
    top = tl.max(logit, 1)
    return top, narrow(logit - tl.maximum(top, -FAR)[:, None, :], REAL)


@triton.jit
def steep_piece(scale, w, side: tl.constexpr, REAL: tl.constexpr, CHUNK: tl.constexpr,
                P: tl.constexpr):  # fmt: skip
    """As `steep_chunks`, for the chunks of a piece."""
    chunk = tl.arange(0, P)[:, None]
    logit = lower(scale, w[None, :] * (((P - 1 - chunk) if side == 0 else chunk) * CHUNK))
    top = tl.max(logit, 0)
    return top, narrow(logit - tl.maximum(top, -FAR)[None, :], REAL)


@triton.jit
def steep_sums(keys, values, w, REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr):
    """As `plain_sums`, for any finite input; keys and values (P, CHUNK, BLOCK)."""
    keys, values = wide(keys), values.to(REAL) * SMALL
    scale, x = steep_chunks(keys, w, 0, REAL, CHUNK)
    end_log, factor = steep_piece(scale, w, 0, REAL, CHUNK, P)
    end = tl.sum(tl.sum(x, 1) * factor, 0)
    end_mean = enlarge(tl.sum(tl.sum(x * values, 1) * factor, 0) / end, REAL)
    scale, x = steep_chunks(keys, w, 1, REAL, CHUNK)
    start_log, factor = steep_piece(scale, w, 1, REAL, CHUNK, P)
    start = tl.sum(tl.sum(x, 1) * factor, 0)
    start_mean = enlarge(tl.sum(tl.sum(x * values, 1) * factor, 0) / start, REAL)
    return end_log, end, end_mean, start_log, start, start_mean


@triton.jit
def steep_enter(scale, entering, w, side: tl.constexpr, REAL: tl.constexpr, CHUNK: tl.constexpr,
                P: tl.constexpr):  # fmt: skip
    """What enters each chunk: its scale, factors of the sums of others (P, P, BLOCK), of a piece.

    `scale` belongs to the sums of the chunks, `entering` is the scale of what enters the piece.
    """
    other, chunk = tl.arange(0, P)[:, None, None], tl.arange(0, P)[None, :, None]
    gap = (chunk - 1 - other) if side == 0 else (other - 1 - chunk)
    logit = lower(scale[:, None, :], w[None, None, :] * (gap * CHUNK))
    logit = tl.where(gap >= 0, logit, -float("inf"))
    chunk = tl.arange(0, P)[:, None]
    far = lower(entering[None, :], w[None, :] * ((chunk if side == 0 else P - 1 - chunk) * CHUNK))
    top = tl.maximum(tl.max(logit, 0), far)
    finite = tl.maximum(top, -FAR)
    return top, narrow(logit - finite[None, :, :], REAL), narrow(far - finite, REAL)


@triton.jit
def steep_side(
    keys, values, w, entering, entering_mean, side: tl.constexpr,
    REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Scale, a, b of what enters each chunk from a side."""
    scale, x = steep_chunks(keys, w, side, REAL, CHUNK)
    a, b = tl.sum(x, 1), tl.sum(x * values, 1)
    scale, factor, far = steep_enter(scale, entering, w, side, REAL, CHUNK, P)
    a = tl.sum(factor * a[:, None, :], 0) + far
    return scale, a, tl.sum(factor * b[:, None, :], 0) + far * (entering_mean * SMALL)[None, :]


@triton.jit
def steep_row(t, keys, w, u, left, right, REAL: tl.constexpr, CHUNK: tl.constexpr):
    """How the t-th tokens of all chunks weigh tokens (P, CHUNK, BLOCK), left and right sums.

    The scale of these factors comes first.
    """
    offset = tl.arange(0, CHUNK)[None, :, None] - t
    step = tl.where(offset == 0, -u[None, None, :], w[None, None, :] * (tl.abs(offset) - 1))
    logit = lower(keys, step)
    left, right = lower(left, w[None, :] * t), lower(right, w[None, :] * (CHUNK - 1 - t))
    top = tl.maximum(tl.maximum(tl.max(logit, 1), tl.maximum(left, right)), -FAR)
    left, right = narrow(left - top, REAL), narrow(right - top, REAL)
    return top, narrow(logit - top[:, None, :], REAL), left, right


@triton.jit
def steep_outputs(
    y, strides, keys, values, w, u, left, right, left_mean, right_mean,
    batch, first, count, channel, channels, columns,
    REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Stores the outputs of a piece, given as tiles (P, CHUNK, BLOCK)."""
    keys, values = wide(keys), values.to(REAL) * SMALL
    left, left_a, left_b = steep_side(keys, values, w, left, left_mean, 0, REAL, CHUNK, P)
    right, right_a, right_b = steep_side(keys, values, w, right, right_mean, 1, REAL, CHUNK, P)
    for t in range(0, tl.max(count)):
        _, x, before, after = steep_row(t, keys, w, u, left, right, REAL, CHUNK)
        total = tl.sum(x, 1) + before * left_a + after * right_a
        result = tl.sum(x * values, 1) + before * left_b + after * right_b
        out = enlarge(result / tl.where(total > 0, total, 1.0), REAL)
        at = origin(batch, first + t, channel, columns, strides)
        tl.store(y + at, out, mask=(t < count) & (channel < channels)[None, :])


@triton.jit
def steep_output(
    t, keys, values, w, u, left, left_a, left_b, right, right_a, right_b, count,
    REAL: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """-log D and y of the t-th token of each chunk; its weights of tokens, left and right sums."""
    top, x, before, after = steep_row(t, keys, w, u, left, right, REAL, CHUNK)
    total = tl.sum(x, 1) + before * left_a + after * right_a
    total = tl.where(t < count, total, 1.0)
    x, before, after = x / total[:, None, :], before / total, after / total
    y = tl.sum(x * values, 1) + before * left_b + after * right_b
    log = tl.where(t < count, -top - tl.log(total.to(tl.float64)), -float("inf"))
    return log, y, x, before, after


@triton.jit
def absorb(scale, sum_0, sum_a, sum_b, key, a, b, REAL: tl.constexpr):
    """Add e^key times (1, a, b) to sums of scale e^scale."""
    top = tl.maximum(scale, key)
    finite = tl.maximum(top, -FAR)
    keep, add = narrow(scale - finite, REAL), narrow(key - finite, REAL)
    return top, sum_0 * keep + add, sum_a * keep + add * a, sum_b * keep + add * b


@triton.jit
def steep_gradient_chunks(
    gy, gy_strides, keys, values, w, u, left, left_a, left_b, right, right_a, right_b,
    batch, first, count, channel, channels, columns, REAL: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Of each chunk the scale and sums of 1, gy, -gy y over D; at its end, then at its start."""
    zero = tl.zeros(left.shape, REAL)
    end = tl.full(left.shape, -float("inf"), tl.float64)
    start = end
    end_0, end_a, end_b, start_0, start_a, start_b = zero, zero, zero, zero, zero, zero
    for t in range(0, tl.max(count)):
        key, y, _, _, _ = steep_output(
            t, keys, values, w, u, left, left_a, left_b, right, right_a, right_b, count,
            REAL, CHUNK,
        )  # fmt: skip
        row = load_row(gy, gy_strides, batch, first + t, channel, channels, columns, t < count).to(
            REAL
        )
        end, end_0, end_a, end_b = absorb(
            lower(end, w[None, :]), end_0, end_a, end_b, key, row, -row * y, REAL
        )
        start, start_0, start_a, start_b = absorb(
            start, start_0, start_a, start_b, lower(key, w[None, :] * t), row, -row * y, REAL
        )
    return end, end_0, end_a, end_b, start, start_0, start_a, start_b


@triton.jit
def steep_gradient_sums(sums, w, REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr):
    """As `plain_gradient_sums`, from `steep_gradient_chunks`."""
    end_log, factor = steep_piece(sums[0], w, 0, REAL, CHUNK, P)
    end = tl.sum(sums[1] * factor, 0)
    end_a = tl.sum(sums[2] * factor, 0) / end
    end_b = enlarge(tl.sum(sums[3] * factor, 0) / end, REAL)
    start_log, factor = steep_piece(sums[4], w, 1, REAL, CHUNK, P)
    start = tl.sum(sums[5] * factor, 0)
    start_a = tl.sum(sums[6] * factor, 0) / start
    start_b = enlarge(tl.sum(sums[7] * factor, 0) / start, REAL)
    return end_log, end, end_a, end_b, start_log, start, start_a, start_b


@triton.jit
def enter_gradients(
    scale, a, b, entering, mean_a, mean_b, w, side: tl.constexpr,
    REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    scale, factor, far = steep_enter(scale, entering, w, side, REAL, CHUNK, P)
    a = tl.sum(factor * a[:, None, :], 0) + far * mean_a[None, :]
    b = tl.sum(factor * b[:, None, :], 0) + far * (mean_b * SMALL)[None, :]
    return scale, a, b


@triton.jit
def gradients_inside(
    gy, gy_strides, keys, values, w, u, left, left_a, left_b, right, right_a, right_b,
    batch, first, count, channel, channels, columns, REAL: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """gk, gv (P, CHUNK, BLOCK), gw, gu (P, BLOCK): from outputs of the chunk itself."""
    gk, gv = tl.zeros(keys.shape, REAL), tl.zeros(keys.shape, REAL)
    gw, gu = tl.zeros(left.shape, REAL), tl.zeros(left.shape, REAL)
    for t in range(0, tl.max(count)):
        _, y, x, before, after = steep_output(
            t, keys, values, w, u, left, left_a, left_b, right, right_a, right_b, count,
            REAL, CHUNK,
        )  # fmt: skip
        row = load_row(gy, gy_strides, batch, first + t, channel, channels, columns, t < count).to(
            REAL
        )
        x = x * row[:, None, :]
        difference = x * (values - y[:, None, :])
        gv += x
        gk += difference
        offset = tl.arange(0, CHUNK)[None, :, None] - t
        gu += tl.sum(tl.where(offset == 0, difference, 0.0), 1)
        gw += tl.sum(difference * tl.maximum(tl.abs(offset) - 1, 0), 1)
        gw += row * before * (left_b - left_a * y) * t
        gw += row * after * (right_b - right_a * y) * (CHUNK - 1 - t)
    return gk, gv, gw, gu


@triton.jit
def gradients_from(
    keys, values, age, scale, a, b, far, far_a, far_b, w, REAL: tl.constexpr, CHUNK: tl.constexpr
):
    """gk, gv, gw: from outputs on one side of the chunk, `age` tokens away and farther.

    Last in gw, pairs of them with the tokens on the other side, whose sums are `far`.
    """
    x = narrow(lower(keys, w[None, None, :] * age) + scale[:, None, :], REAL)
    gv = x * a[:, None, :]
    gk = gv * values + x * b[:, None, :]
    through = narrow(scale + lower(far, w[None, :] * CHUNK), REAL) * CHUNK
    return gk, gv, tl.sum(gk * age, 1) + through * (a * far_b + b * far_a)


@triton.jit
def steep_gradients(
    gy, gy_strides, keys, values, w, u, left, left_mean, right, right_mean,
    before, before_a, before_b, after, after_a, after_b,
    batch, first, count, channel, channels, columns,
    REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """As `plain_gradients`, for any finite input; tiles (P, CHUNK, BLOCK) in and out."""
    left, left_a, left_b = steep_side(keys, values, w, left, left_mean, 0, REAL, CHUNK, P)
    right, right_a, right_b = steep_side(keys, values, w, right, right_mean, 1, REAL, CHUNK, P)
    end, _, end_a, end_b, start, _, start_a, start_b = steep_gradient_chunks(
        gy, gy_strides, keys, values, w, u, left, left_a, left_b, right, right_a, right_b,
        batch, first, count, channel, channels, columns, REAL, CHUNK,
    )  # fmt: skip
    gk, gv, gw, gu = gradients_inside(
        gy, gy_strides, keys, values, w, u, left, left_a, left_b, right, right_a, right_b,
        batch, first, count, channel, channels, columns, REAL, CHUNK,
    )  # fmt: skip
    token = tl.arange(0, CHUNK)[None, :, None]
    before, before_a, before_b = enter_gradients(
        end, end_a, end_b, before, before_a, before_b, w, 0, REAL, CHUNK, P
    )
    gk_part, gv_part, gw_part = gradients_from(
        keys, values, token, before, before_a, before_b, right, right_a, right_b, w, REAL, CHUNK
    )
    gk, gv, gw = gk + gk_part, gv + gv_part, gw + gw_part
    after, after_a, after_b = enter_gradients(
        start, start_a, start_b, after, after_a, after_b, w, 1, REAL, CHUNK, P
    )
    gk_part, gv_part, gw_part = gradients_from(
        keys, values, CHUNK - 1 - token, after, after_a, after_b, left, left_a, left_b, w,
        REAL, CHUNK,
    )  # fmt: skip
    gw, gu = (gw + gw_part).to(tl.float64), gu.to(tl.float64)
    return (gk + gk_part) / SMALL, gv + gv_part, gw / SMALL, gu / SMALL
