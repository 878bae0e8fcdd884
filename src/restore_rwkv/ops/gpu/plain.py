"""Bi-WKV of a piece of tokens on one scale, in Triton: one exponential per element.

For channels and values that `is_plain` accepts: nothing overflows there, and what underflows is
negligible. The decay is rounded once per step only inside a chunk.
"""

# mypy: ignore-errors
# ruff: noqa: D103, N803, RUF005

import triton
import triton.language as tl

from restore_rwkv.ops.gpu.tiles import (
    narrow,
)

LARGEST = tl.constexpr(1e9)  # values: sums of them, and products with gradients, stay finite
_TOTAL = tl.constexpr(20.0)  # |w|: e^20 at most between any two tokens
_STEP = tl.constexpr(1 / 8)  # |w|/T: e^16 at most between two tokens of a piece of 128
_BONUS = tl.constexpr(16.0)  # |u|/T


@triton.jit
def largest(rows, CHUNK: tl.constexpr):
    top = rows[0]
    for t in tl.static_range(1, CHUNK):
        top = tl.maximum(top, rows[t])
    return top


@triton.jit
def size_of(rows, CHUNK: tl.constexpr):
    """The largest absolute value (P, BLOCK)."""
    top = tl.abs(rows[0])
    for t in tl.static_range(1, CHUNK):
        top = tl.maximum(top, tl.abs(rows[t]))
    return top


@triton.jit
def is_plain(w, u, tokens, size):
    """Whether all channels of a piece stay in range on one scale (false for NaN)."""
    worst = tl.abs(w) * tl.maximum(tokens.to(tl.float64) / _TOTAL, 1 / _STEP)
    worst = tl.maximum(tl.max(worst, 0), tl.max(tl.abs(u), 0) / _BONUS)
    return (worst <= 1.0) & (tl.max(size) <= LARGEST)


@triton.jit
def exponentials(keys, top, CHUNK: tl.constexpr):
    e = ()
    for t in tl.static_range(CHUNK):
        e = e + (tl.exp(keys[t] - top),)
    return e


@triton.jit
def products(a, b, CHUNK: tl.constexpr):
    both = ()
    for t in tl.static_range(CHUNK):
        both = both + (a[t] * b[t],)
    return both


@triton.jit
def decayed_sums(rows, decay, CHUNK: tl.constexpr):
    """Sums of each chunk, decayed to the token after it and before it."""
    end, start = rows[0], rows[CHUNK - 1]
    for t in tl.static_range(1, CHUNK):
        end = end * decay + rows[t]
        start = start * decay + rows[CHUNK - 1 - t]
    return end, start


@triton.jit
def chunk_weights(w, REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr):
    """e^(w i) and e^(-w i) for the positions i of chunks about the middle of the piece."""
    position = tl.arange(0, P).to(REAL)[:, None] - (P - 1) / 2
    exponent = (w * CHUNK).to(REAL)[None, :] * position
    return tl.exp(exponent), tl.exp(-exponent)


@triton.jit
def enter_chunks(sums, entering, up, down, w, side: tl.constexpr, CHUNK: tl.constexpr,
                 P: tl.constexpr):  # fmt: skip
    """What enters each chunk from a side, given the sums of the chunks and what enters the piece.

    A chunk's own sum is taken away again: what that rounds off is small beside its own tokens.
    """
    here, away = (up, down) if side == 0 else (down, up)
    x = sums * here
    total = tl.cumsum(x, 0, reverse=side == 1) - x
    step = (w * CHUNK).to(sums.dtype)
    total += (entering * tl.exp(step * (-(P + 1) / 2)))[None, :]
    return total * away * tl.exp(step)[None, :]


@triton.jit
def plain_sums(keys, values, w, REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr):
    """Log weight, rest of the weight, mean of a piece: decayed to its end, then to its start."""
    top = tl.max(largest(keys, CHUNK), 0)
    e = exponentials(keys, top[None, :], CHUNK)
    decay = tl.exp(-w).to(REAL)[None, :]
    end, start = decayed_sums(e, decay, CHUNK)
    end_value, start_value = decayed_sums(products(e, values, CHUNK), decay, CHUNK)
    up, down = chunk_weights(w, REAL, CHUNK, P)
    edge = tl.exp((w * CHUNK).to(REAL) * (-(P - 1) / 2))
    end, start = tl.sum(end * up, 0), tl.sum(start * down, 0)
    end_mean = tl.sum(end_value * up, 0) / end
    start_mean = tl.sum(start_value * down, 0) / start
    log = top.to(tl.float64)
    return log, end * edge, end_mean, log, start * edge, start_mean


@triton.jit
def attend_plain(
    keys, values, w, u, left, right, left_mean, right_mean,
    REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Of each token e^k, and the sums over the tokens before and after it; all on one scale.

    Returns e, left a, left b, right a, right b (right sums last token first), the scale, the
    decay of one step and the bonus.
    """
    top = tl.maximum(tl.max(largest(keys, CHUNK), 0), tl.maximum(left, right).to(REAL))
    e = exponentials(keys, top[None, :], CHUNK)
    ev = products(e, values, CHUNK)
    decay = tl.exp(-w).to(REAL)[None, :]
    up, down = chunk_weights(w, REAL, CHUNK, P)
    left, right = narrow(left - top, REAL), narrow(right - top, REAL)
    end, start = decayed_sums(e, decay, CHUNK)
    a = enter_chunks(end, left, up, down, w, 0, CHUNK, P)
    after_a = enter_chunks(start, right, up, down, w, 1, CHUNK, P)
    end, start = decayed_sums(ev, decay, CHUNK)
    b = enter_chunks(end, left * left_mean, up, down, w, 0, CHUNK, P)
    after_b = enter_chunks(start, right * right_mean, up, down, w, 1, CHUNK, P)
    left_a, left_b, right_a, right_b = (a,), (b,), (after_a,), (after_b,)
    for t in tl.static_range(CHUNK - 1):
        after_a = after_a * decay + e[CHUNK - 1 - t]
        after_b = after_b * decay + ev[CHUNK - 1 - t]
        right_a, right_b = right_a + (after_a,), right_b + (after_b,)
    for t in tl.static_range(CHUNK - 1):
        a, b = a * decay + e[t], b * decay + ev[t]
        left_a, left_b = left_a + (a,), left_b + (b,)
    return e, left_a, left_b, right_a, right_b, top, decay, tl.exp(u).to(REAL)[None, :]


@triton.jit
def plain_outputs(
    keys, values, w, u, left, right, left_mean, right_mean,
    REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    e, left_a, left_b, right_a, right_b, _, _, bonus = attend_plain(
        keys, values, w, u, left, right, left_mean, right_mean, REAL, CHUNK, P
    )
    y = ()
    for t in tl.static_range(CHUNK):
        own = e[t] * bonus
        total = left_a[t] + right_a[CHUNK - 1 - t] + own
        y = y + ((left_b[t] + right_b[CHUNK - 1 - t] + own * values[t]) / total,)
    return y


@triton.jit
def output_gradients(attention, values, gy, count, CHUNK: tl.constexpr):
    """1/D, gy/D and -gy y/D of each token; 0 where there is none."""
    e, left_a, left_b, right_a, right_b, _, _, bonus = attention
    inverse, a, b = (), (), ()
    for t in tl.static_range(CHUNK):
        own = e[t] * bonus
        total = left_a[t] + right_a[CHUNK - 1 - t] + own
        result = left_b[t] + right_b[CHUNK - 1 - t] + own * values[t]
        one = tl.where(t < count, 1 / total, 0.0)
        inverse = inverse + (one,)
        a = a + (gy[t] * one,)
        b = b + (-gy[t] * one * result / total,)
    return inverse, a, b


@triton.jit
def plain_gradient_sums(
    attention, values, gy, w, count, REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr
):
    """Log weight, rest of the weight, means of gy and -gy y: at the end, then at the start."""
    inverse, a, b = output_gradients(attention, values, gy, count, CHUNK)
    decay, log = attention[6], -attention[5].to(tl.float64)
    up, down = chunk_weights(w, REAL, CHUNK, P)
    edge = tl.exp((w * CHUNK).to(REAL) * (-(P - 1) / 2))
    end, start = decayed_sums(inverse, decay, CHUNK)
    end, start = tl.sum(end * up, 0), tl.sum(start * down, 0)
    end_a, start_a = decayed_sums(a, decay, CHUNK)
    end_b, start_b = decayed_sums(b, decay, CHUNK)
    end_a, end_b = tl.sum(end_a * up, 0) / end, tl.sum(end_b * up, 0) / end
    start_a, start_b = tl.sum(start_a * down, 0) / start, tl.sum(start_b * down, 0) / start
    return log, end * edge, end_a, end_b, log, start * edge, start_a, start_b


@triton.jit
def plain_gradients(
    attention, values, gy, w, before, before_a, before_b, after, after_a, after_b, count,
    REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """gk, gv of a piece, and its parts of gw and gu (P, BLOCK).

    `before` and `after` are the scales of the gradient sums that enter from left and right, with
    their means of gy and -gy y. Their scale here is that of 1/D.
    """
    e, left_a, left_b, right_a, right_b, top, decay, bonus = attention
    _, a, b = output_gradients(attention, values, gy, count, CHUNK)
    up, down = chunk_weights(w, REAL, CHUNK, P)
    before, after = narrow(before + top, REAL), narrow(after + top, REAL)
    end, start = decayed_sums(a, decay, CHUNK)
    sum_a = enter_chunks(end, before * before_a, up, down, w, 0, CHUNK, P)
    later_a = enter_chunks(start, after * after_a, up, down, w, 1, CHUNK, P)
    end, start = decayed_sums(b, decay, CHUNK)
    sum_b = enter_chunks(end, before * before_b, up, down, w, 0, CHUNK, P)
    later_b = enter_chunks(start, after * after_b, up, down, w, 1, CHUNK, P)
    gw, gu = sum_a * 0, sum_a * 0
    part_a, part_b = (), ()
    for i in tl.static_range(CHUNK):
        gw += later_a * left_b[CHUNK - 1 - i] + later_b * left_a[CHUNK - 1 - i]
        part_a = part_a + (later_a + bonus * a[CHUNK - 1 - i],)
        part_b = part_b + (later_b + bonus * b[CHUNK - 1 - i],)
        later_a = later_a * decay + a[CHUNK - 1 - i]
        later_b = later_b * decay + b[CHUNK - 1 - i]
    gk, gv = (), ()
    for t in tl.static_range(CHUNK):
        gw += sum_a * right_b[CHUNK - 1 - t] + sum_b * right_a[CHUNK - 1 - t]
        gu += e[t] * bonus * (a[t] * values[t] + b[t])
        one = e[t] * (sum_a + part_a[CHUNK - 1 - t])
        gv = gv + (one,)
        gk = gk + (values[t] * one + e[t] * (sum_b + part_b[CHUNK - 1 - t]),)
        sum_a, sum_b = sum_a * decay + a[t], sum_b * decay + b[t]
    return gk, gv, (gw * decay).to(tl.float64), gu.to(tl.float64)
