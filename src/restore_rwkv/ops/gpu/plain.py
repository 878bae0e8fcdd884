"""Bi-WKV of a piece of tokens with one scale, in Triton: one exponential per element.

For channels and values that `is_plain` accepts: nothing overflows there, and terms that underflow
are negligible. The decay is rounded once per step inside a chunk only.
"""

# mypy: ignore-errors
# ruff: noqa: D103, N803, RUF005

import triton
import triton.language as tl

from restore_rwkv.ops.gpu.tiles import ratio

LARGEST = tl.constexpr(1e9)  # |v|: sums of values, and products with gradients, stay finite
_TOTAL = tl.constexpr(20.0)  # |w|: any two tokens differ by at most e^20
_STEP = tl.constexpr(1 / 8)  # |w|/T: two tokens of a piece of 128 differ by at most e^16
_BONUS = tl.constexpr(16.0)  # |u|/T


@triton.jit
def largest(rows, CHUNK: tl.constexpr):
    top = rows[0]
    for t in tl.static_range(1, CHUNK):
        top = tl.maximum(top, rows[t])
    return top


@triton.jit
def size_of(rows, CHUNK: tl.constexpr):
    """Largest absolute value (P, BLOCK)."""
    top = tl.abs(rows[0])
    for t in tl.static_range(1, CHUNK):
        top = tl.maximum(top, tl.abs(rows[t]))
    return top


@triton.jit
def is_plain(w, u, tokens, size):
    """Return whether all channels of a piece stay in range with one scale (false for NaN)."""
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
def chunk_weights(w, cut: tl.constexpr):
    """e^(w i) and e^(-w i) for the positions i of chunks relative to the middle of the piece."""
    position = tl.arange(0, cut.P).to(cut.REAL)[:, None] - (cut.P - 1) / 2
    exponent = (w * cut.CHUNK).to(cut.REAL)[None, :] * position
    return tl.exp(exponent), tl.exp(-exponent)


@triton.jit
def enter_chunks(sums, entering, up, down, w, side: tl.constexpr, cut: tl.constexpr):
    """Sums that enter each chunk from a side, given the chunks' sums and the piece's entering sum.

    A chunk's own sum is subtracted again: the rounding error is small beside its own tokens.
    """
    here, away = (up, down) if side == 0 else (down, up)
    x = sums * here
    total = tl.cumsum(x, 0, reverse=side == 1) - x
    step = (w * cut.CHUNK).to(sums.dtype)
    total += (entering * tl.exp(step * (-(cut.P + 1) / 2)))[None, :]
    return total * away * tl.exp(step)[None, :]


@triton.jit
def plain_sums(keys, values, w, cut: tl.constexpr):
    """Log weight, remaining weight, mean of a piece: decayed to its end, then to its start."""
    top = tl.max(largest(keys, cut.CHUNK), 0)
    e = exponentials(keys, top[None, :], cut.CHUNK)
    decay = tl.exp(-w).to(cut.REAL)[None, :]
    end, start = decayed_sums(e, decay, cut.CHUNK)
    end_value, start_value = decayed_sums(products(e, values, cut.CHUNK), decay, cut.CHUNK)
    up, down = chunk_weights(w, cut)
    edge = tl.exp((w * cut.CHUNK).to(cut.REAL) * (-(cut.P - 1) / 2))
    end, start = tl.sum(end * up, 0), tl.sum(start * down, 0)
    end_mean = tl.sum(end_value * up, 0) / end
    start_mean = tl.sum(start_value * down, 0) / start
    log = top.to(tl.float64)
    return log, end * edge, end_mean, log, start * edge, start_mean


@triton.jit
def attend_plain(x, cut: tl.constexpr):
    """For each token, e^k and the sums over the tokens before and after it; all with one scale.

    Returns e, left a, left b, right a, right b (right sums last token first), the scale, the
    decay of one step and the bonus.
    """
    top = tl.maximum(tl.max(largest(x.k, cut.CHUNK), 0), tl.maximum(x.left, x.right).to(cut.REAL))
    e = exponentials(x.k, top[None, :], cut.CHUNK)
    ev = products(e, x.v, cut.CHUNK)
    decay = tl.exp(-x.step).to(cut.REAL)[None, :]
    up, down = chunk_weights(x.step, cut)
    left, right = ratio(x.left - top, cut.REAL), ratio(x.right - top, cut.REAL)
    end, start = decayed_sums(e, decay, cut.CHUNK)
    a = enter_chunks(end, left, up, down, x.step, 0, cut)
    after_a = enter_chunks(start, right, up, down, x.step, 1, cut)
    end, start = decayed_sums(ev, decay, cut.CHUNK)
    b = enter_chunks(end, left * x.left_mean, up, down, x.step, 0, cut)
    after_b = enter_chunks(start, right * x.right_mean, up, down, x.step, 1, cut)
    left_a, left_b, right_a, right_b = (a,), (b,), (after_a,), (after_b,)
    for t in tl.static_range(cut.CHUNK - 1):
        after_a = after_a * decay + e[cut.CHUNK - 1 - t]
        after_b = after_b * decay + ev[cut.CHUNK - 1 - t]
        right_a, right_b = right_a + (after_a,), right_b + (after_b,)
    for t in tl.static_range(cut.CHUNK - 1):
        a, b = a * decay + e[t], b * decay + ev[t]
        left_a, left_b = left_a + (a,), left_b + (b,)
    return e, left_a, left_b, right_a, right_b, top, decay, tl.exp(x.bonus).to(cut.REAL)[None, :]


@triton.jit
def plain_outputs(x, cut: tl.constexpr):
    e, left_a, left_b, right_a, right_b, _, _, bonus = attend_plain(x, cut)
    y = ()
    for t in tl.static_range(cut.CHUNK):
        own = e[t] * bonus
        total = left_a[t] + right_a[cut.CHUNK - 1 - t] + own
        y = y + ((left_b[t] + right_b[cut.CHUNK - 1 - t] + own * x.v[t]) / total,)
    return y


@triton.jit
def output_gradients(attention, values, gy, lengths, CHUNK: tl.constexpr):
    """1/D, gy/D and -gy y/D of each token; 0 beyond the last token."""
    e, left_a, left_b, right_a, right_b, _, _, bonus = attention
    inverse, a, b = (), (), ()
    for t in tl.static_range(CHUNK):
        own = e[t] * bonus
        total = left_a[t] + right_a[CHUNK - 1 - t] + own
        result = left_b[t] + right_b[CHUNK - 1 - t] + own * values[t]
        reciprocal = tl.where(t < lengths, 1 / total, 0.0)
        inverse = inverse + (reciprocal,)
        a = a + (gy[t] * reciprocal,)
        b = b + (-gy[t] * reciprocal * result / total,)
    return inverse, a, b


@triton.jit
def plain_gradient_sums(attention, values, gy, w, lengths, cut: tl.constexpr):
    """Log weight, remaining weight, means of gy and -gy y: at the end, then at the start."""
    inverse, a, b = output_gradients(attention, values, gy, lengths, cut.CHUNK)
    decay, log = attention[6], -attention[5].to(tl.float64)
    up, down = chunk_weights(w, cut)
    edge = tl.exp((w * cut.CHUNK).to(cut.REAL) * (-(cut.P - 1) / 2))
    end, start = decayed_sums(inverse, decay, cut.CHUNK)
    end, start = tl.sum(end * up, 0), tl.sum(start * down, 0)
    end_a, start_a = decayed_sums(a, decay, cut.CHUNK)
    end_b, start_b = decayed_sums(b, decay, cut.CHUNK)
    end_a, end_b = tl.sum(end_a * up, 0) / end, tl.sum(end_b * up, 0) / end
    start_a, start_b = tl.sum(start_a * down, 0) / start, tl.sum(start_b * down, 0) / start
    return log, end * edge, end_a, end_b, log, start * edge, start_a, start_b


@triton.jit
def plain_gradients(attention, values, gy, w, before, after, lengths, cut: tl.constexpr):
    """gk, gv of a piece, and its parts of gw and gu (P, BLOCK).

    `before` and `after` are the gradient sums that enter from the left and the right, with means of
    gy and -gy y; their scale is that of 1/D.
    """
    e, left_a, left_b, right_a, right_b, top, decay, bonus = attention
    _, a, b = output_gradients(attention, values, gy, lengths, cut.CHUNK)
    up, down = chunk_weights(w, cut)
    left, right = ratio(before.scale + top, cut.REAL), ratio(after.scale + top, cut.REAL)
    end, start = decayed_sums(a, decay, cut.CHUNK)
    sum_a = enter_chunks(end, left * before.a, up, down, w, 0, cut)
    later_a = enter_chunks(start, right * after.a, up, down, w, 1, cut)
    end, start = decayed_sums(b, decay, cut.CHUNK)
    sum_b = enter_chunks(end, left * before.b, up, down, w, 0, cut)
    later_b = enter_chunks(start, right * after.b, up, down, w, 1, cut)
    gw, gu = sum_a * 0, sum_a * 0
    part_a, part_b = (), ()
    for i in tl.static_range(cut.CHUNK):
        gw += later_a * left_b[cut.CHUNK - 1 - i] + later_b * left_a[cut.CHUNK - 1 - i]
        part_a = part_a + (later_a + bonus * a[cut.CHUNK - 1 - i],)
        part_b = part_b + (later_b + bonus * b[cut.CHUNK - 1 - i],)
        later_a = later_a * decay + a[cut.CHUNK - 1 - i]
        later_b = later_b * decay + b[cut.CHUNK - 1 - i]
    gk, gv = (), ()
    for t in tl.static_range(cut.CHUNK):
        gw += sum_a * right_b[cut.CHUNK - 1 - t] + sum_b * right_a[cut.CHUNK - 1 - t]
        gu += e[t] * bonus * (a[t] * values[t] + b[t])
        gv_row = e[t] * (sum_a + part_a[cut.CHUNK - 1 - t])
        gv = gv + (gv_row,)
        gk = gk + (values[t] * gv_row + e[t] * (sum_b + part_b[cut.CHUNK - 1 - t]),)
        sum_a, sum_b = sum_a * decay + a[t], sum_b * decay + b[t]
    return gk, gv, (gw * decay).to(tl.float64), gu.to(tl.float64)
