"""Triton kernels of the Bi-WKV attention (eq. 8 of arXiv 2407.11087), forward and backward.

  1. summarise: per piece, the sums of e^k and e^k v decayed to either edge;
  2. carry: a scan over pieces, in float64, gives what enters each piece from left and right;
  3. finish: per piece, a scan over its chunks, then recurrences inside them, give the outputs.
A sum over many tokens travels as one token: its log weight (float64) and the mean of its values,
which cannot overflow. A program whose channels are all plain takes the fast path, any other the
steep one: that is decided where the numbers are, without asking the host.

Backward: with D_t the denominator of output t and gy_t its gradient, token i takes from it
    gv_i: e^(k_i - ...) gy_t / D_t    and    gk_i: e^(k_i - ...) gy_t (v_i - y_t) / D_t.
So the gradients are again decayed sums over tokens before and after, of keys -log D_t and of two
values, gy_t and -gy_t y_t: the three steps serve again, and the states of the first pass are kept.
The gradient of w weighs a pair by the number of tokens between its two; each of these counts one,
as the product of what comes from before it and from after it.
"""

# mypy: ignore-errors
# ruff: noqa: N803

import triton
import triton.language as tl

from restore_rwkv.ops.gpu.plain import (
    LARGEST,
    attend_plain,
    is_plain,
    plain_gradient_sums,
    plain_gradients,
    plain_outputs,
    plain_sums,
    size_of,
)
from restore_rwkv.ops.gpu.steep import (
    lower,
    steep_gradient_chunks,
    steep_gradient_sums,
    steep_gradients,
    steep_outputs,
    steep_side,
    steep_sums,
    wide,
)
from restore_rwkv.ops.gpu.tiles import (
    FAR,
    SMALL,
    enlarge,
    load_rows,
    load_sum,
    load_tile,
    parameter,
    place,
    store_rows,
    store_tile,
    sum_offsets,
)

_CARRY_SPAN = tl.constexpr(256.0)  # e^256 at most between the pieces of one group, in float64


@triton.jit(do_not_specialize=["tokens", "columns", "channels"])
def summarise(
    w, k, v, log, weight, mean,
    tokens, columns, channels, w_stride, k_strides, v_strides,
    REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr,
    WRAP: tl.constexpr,
):  # fmt: skip
    """Step 1: sums of each piece, decayed to the token after it (0) and before it (1)."""
    batch, piece, channel, first, count = place(tokens, channels, CHUNK, P, BLOCK)
    keys = load_rows(
        k, k_strides, batch, first, count, channel, channels, columns, -float("inf"),
        REAL, CHUNK, WRAP,
    )  # fmt: skip
    values = load_rows(
        v, v_strides, batch, first, count, channel, channels, columns, 0.0, REAL, CHUNK, WRAP
    )
    step = parameter(w, w_stride, channel, channels, tokens)
    if is_plain(step, step * 0, tokens, size_of(values, CHUNK)):
        sums = plain_sums(keys, values, step, REAL, CHUNK, P)
    else:
        key_tile = load_tile(
            k, k_strides, batch, first, count, channel, channels, columns, -float("inf"), CHUNK
        )
        value_tile = load_tile(
            v, v_strides, batch, first, count, channel, channels, columns, 0.0, CHUNK
        )
        sums = steep_sums(key_tile, value_tile, step, REAL, CHUNK, P)
    real = channel < channels
    at = sum_offsets(batch, piece, 0, channel, tl.cdiv(tokens, CHUNK * P), channels)
    for side in tl.static_range(2):
        tl.store(log + at + side * channels, sums[3 * side], mask=real)
        tl.store(weight + at + side * channels, sums[3 * side + 1], mask=real)
        tl.store(mean + at + side * channels, sums[3 * side + 2], mask=real)


@triton.jit(do_not_specialize=["tokens", "channels", "pitch"])
def carry(
    w, log, weight, mean, entering_log, entering_mean, tokens, channels, w_stride, pitch,
    PIECE: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr, MEANS: tl.constexpr,
):  # fmt: skip
    """Step 2: what enters each piece from its left (0) and right (1).

    The n-th piece that is met is counted from the last one for the side 1. `pitch` lies between
    the MEANS means of one sum: one of values, or two of output gradients.
    """
    pieces, blocks = tl.cdiv(tokens, PIECE), tl.cdiv(channels, BLOCK)
    program = tl.program_id(0)
    channel = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    side, batch = program // blocks % 2, (program // blocks // 2).to(tl.int64)
    step = parameter(w, w_stride, channel, channels, tokens) * PIECE
    state = tl.full((BLOCK,), -float("inf"), tl.float64)
    first_mean, second_mean = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    if tl.max(tl.abs(step), 0) * tl.minimum(pieces, GROUP) <= _CARRY_SPAN:
        for start in range(0, pieces, GROUP):
            state, first_mean, second_mean = carry_group(
                log, weight, mean, entering_log, entering_mean, state, first_mean, second_mean,
                step, batch, start, side, channel, pieces, channels, pitch, GROUP, MEANS,
            )  # fmt: skip
    else:
        for n in range(0, pieces):
            state, first_mean, second_mean = carry_one(
                log, weight, mean, entering_log, entering_mean, state, first_mean, second_mean,
                step, batch, n, side, channel, pieces, channels, pitch, MEANS,
            )  # fmt: skip


@triton.jit
def carry_group(
    log, weight, mean, entering_log, entering_mean, state, first_mean, second_mean,
    step, batch, start, side, channel, pieces, channels, pitch,
    GROUP: tl.constexpr, MEANS: tl.constexpr,
):  # fmt: skip
    """GROUP pieces at once: row n sums up all pieces before n, so the loads are one behind."""
    row = tl.arange(0, GROUP)[:, None]
    n = start + row
    inside = (n < pieces) & (channel < channels)[None, :]
    before = tl.where(side == 0, n - 1, pieces - n)
    source = sum_offsets(batch, before, side, channel[None, :], pieces, channels)
    target = source + tl.where(side == 0, 2, -2) * channels
    have = inside & (n > 0)
    exponent = tl.load(log + source, mask=have, other=-float("inf")) + step[None, :] * row
    top = tl.maximum(tl.maximum(tl.max(exponent, 0), state - step), -FAR)
    x = tl.load(weight + source, mask=have, other=0.0).to(tl.float64) * tl.exp(exponent - top)
    old = tl.exp(state - step - top)
    total, final = tl.cumsum(x, 0) + old[None, :], tl.sum(x, 0) + old
    log_total = tl.where(total > 0, tl.log(tl.where(total > 0, total, 1.0)), -float("inf"))
    log_final = tl.where(final > 0, tl.log(tl.where(final > 0, final, 1.0)), -float("inf"))
    total, final = tl.where(total > 0, total, 1.0), tl.where(final > 0, final, 1.0)
    tl.store(entering_log + target, top - step[None, :] * row + log_total, mask=inside)
    state = top - step * (GROUP - 1) + log_final
    for value in tl.static_range(MEANS):
        old_mean = first_mean if value == 0 else second_mean
        means = tl.load(mean + value * pitch + source, mask=have, other=0.0).to(tl.float64)
        y, old_y = x * (means * SMALL), old * (old_mean * SMALL)
        new_mean = enlarge((tl.sum(y, 0) + old_y) / final, tl.float64)
        entering = enlarge((tl.cumsum(y, 0) + old_y[None, :]) / total, tl.float64)
        tl.store(entering_mean + value * pitch + target, entering, mask=inside)
        if value == 0:
            first_mean = new_mean
        else:
            second_mean = new_mean
    return state, first_mean, second_mean


@triton.jit
def carry_one(
    log, weight, mean, entering_log, entering_mean, state, first_mean, second_mean,
    step, batch, n, side, channel, pieces, channels, pitch, MEANS: tl.constexpr,
):  # fmt: skip
    """Store what enters piece n, then add that piece."""
    real = channel < channels
    piece = tl.where(side == 0, n, pieces - 1 - n)
    at = sum_offsets(batch, piece, side, channel, pieces, channels)
    tl.store(entering_log + at, state, mask=real)
    tl.store(entering_mean + at, first_mean, mask=real)
    key = tl.load(log + at, mask=real, other=0.0)
    state = lower(state, step)
    top = tl.maximum(state, key)
    keep, add = tl.exp(state - top), tl.exp(key - top)
    add *= tl.load(weight + at, mask=real, other=1.0).to(tl.float64)
    total = keep + add
    state = top + tl.log(total)
    keep, add = keep / total * SMALL, add / total * SMALL
    new = tl.load(mean + at, mask=real, other=0.0).to(tl.float64)
    first_mean = enlarge(first_mean * keep + new * add, tl.float64)
    if MEANS == 2:
        tl.store(entering_mean + pitch + at, second_mean, mask=real)
        new = tl.load(mean + pitch + at, mask=real, other=0.0).to(tl.float64)
        second_mean = enlarge(second_mean * keep + new * add, tl.float64)
    return state, first_mean, second_mean


@triton.jit(do_not_specialize=["tokens", "columns", "channels"])
def finish(
    w, u, k, v, y, log, mean,
    tokens, columns, channels, w_stride, u_stride, k_strides, v_strides, y_strides,
    REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr,
    WRAP: tl.constexpr,
):  # fmt: skip
    """Step 3: the outputs of each piece."""
    batch, piece, channel, first, count = place(tokens, channels, CHUNK, P, BLOCK)
    keys = load_rows(
        k, k_strides, batch, first, count, channel, channels, columns, -float("inf"),
        REAL, CHUNK, WRAP,
    )  # fmt: skip
    values = load_rows(
        v, v_strides, batch, first, count, channel, channels, columns, 0.0, REAL, CHUNK, WRAP
    )
    real = channel < channels
    at = sum_offsets(batch, piece, 0, channel, tl.cdiv(tokens, CHUNK * P), channels)
    left, left_mean = load_sum(log, mean, at, real)
    right, right_mean = load_sum(log, mean, at + channels, real)
    step = parameter(w, w_stride, channel, channels, tokens)
    bonus = parameter(u, u_stride, channel, channels, tokens)
    means = tl.maximum(tl.abs(left_mean), tl.abs(right_mean))
    size = tl.maximum(size_of(values, CHUNK), means[None, :])
    if is_plain(step, bonus, tokens, size):
        out = plain_outputs(
            keys, values, step, bonus, left, right, left_mean, right_mean, REAL, CHUNK, P
        )
        store_rows(y, y_strides, out, batch, first, count, channel, channels, columns, CHUNK, WRAP)
    else:
        key_tile = load_tile(
            k, k_strides, batch, first, count, channel, channels, columns, -float("inf"), CHUNK
        )
        value_tile = load_tile(
            v, v_strides, batch, first, count, channel, channels, columns, 0.0, CHUNK
        )
        steep_outputs(
            y, y_strides, key_tile, value_tile, step, bonus, left, right, left_mean, right_mean,
            batch, first, count, channel, channels, columns, REAL, CHUNK, P,
        )  # fmt: skip


@triton.jit(do_not_specialize=["tokens", "columns", "channels", "pitch"])
def summarise_gradients(
    w, u, k, v, gy, log, mean, new_log, new_weight, new_mean,
    tokens, columns, channels, pitch, w_stride, u_stride, k_strides, v_strides, gy_strides,
    REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr,
    WRAP: tl.constexpr,
):  # fmt: skip
    """Step 1 of the backward pass; `log` and `mean` are what enters each piece."""
    batch, piece, channel, first, count = place(tokens, channels, CHUNK, P, BLOCK)
    keys = load_rows(
        k, k_strides, batch, first, count, channel, channels, columns, -float("inf"),
        REAL, CHUNK, WRAP,
    )  # fmt: skip
    values = load_rows(
        v, v_strides, batch, first, count, channel, channels, columns, 0.0, REAL, CHUNK, WRAP
    )
    gradients = load_rows(
        gy, gy_strides, batch, first, count, channel, channels, columns, 0.0, REAL, CHUNK, WRAP
    )
    real = channel < channels
    at = sum_offsets(batch, piece, 0, channel, tl.cdiv(tokens, CHUNK * P), channels)
    left, left_mean = load_sum(log, mean, at, real)
    right, right_mean = load_sum(log, mean, at + channels, real)
    step = parameter(w, w_stride, channel, channels, tokens)
    bonus = parameter(u, u_stride, channel, channels, tokens)
    size = tl.maximum(tl.abs(left_mean), tl.abs(right_mean))[None, :]
    size = tl.maximum(size, tl.maximum(size_of(values, CHUNK), size_of(gradients, CHUNK)))
    if is_plain(step, bonus, tokens, size):
        attention = attend_plain(
            keys, values, step, bonus, left, right, left_mean, right_mean, REAL, CHUNK, P
        )
        sums = plain_gradient_sums(attention, values, gradients, step, count, REAL, CHUNK, P)
    else:
        key_tile = load_tile(
            k, k_strides, batch, first, count, channel, channels, columns, -float("inf"), CHUNK
        )
        value_tile = load_tile(
            v, v_strides, batch, first, count, channel, channels, columns, 0.0, CHUNK
        )
        key_tile, value_tile = wide(key_tile), value_tile.to(REAL) * SMALL
        scale, a, b = steep_side(key_tile, value_tile, step, left, left_mean, 0, REAL, CHUNK, P)
        after, after_a, after_b = steep_side(
            key_tile, value_tile, step, right, right_mean, 1, REAL, CHUNK, P
        )
        chunks = steep_gradient_chunks(
            gy, gy_strides, key_tile, value_tile, step, bonus, scale, a, b, after, after_a, after_b,
            batch, first, count, channel, channels, columns, REAL, CHUNK,
        )  # fmt: skip
        sums = steep_gradient_sums(chunks, step, REAL, CHUNK, P)
    for side in tl.static_range(2):
        here = at + side * channels
        tl.store(new_log + here, sums[4 * side], mask=real)
        tl.store(new_weight + here, sums[4 * side + 1], mask=real)
        tl.store(new_mean + here, sums[4 * side + 2], mask=real)
        tl.store(new_mean + pitch + here, sums[4 * side + 3], mask=real)


@triton.jit(do_not_specialize=["tokens", "columns", "channels", "pitch", "parts"])
def finish_gradients(
    w, u, k, v, gy, gk, gv, log, mean, gradient_log, gradient_mean, part,
    tokens, columns, channels, pitch, parts,
    w_stride, u_stride, k_strides, v_strides, gy_strides, gk_strides, gv_strides,
    REAL: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr,
    WRAP: tl.constexpr,
):  # fmt: skip
    """Step 3 of the backward pass; `part` takes the terms of gw and gu of each piece, in float64.

    `log`, `mean`, `gradient_log`, `gradient_mean` are what enters each piece.
    """
    batch, piece, channel, first, count = place(tokens, channels, CHUNK, P, BLOCK)
    keys = load_rows(
        k, k_strides, batch, first, count, channel, channels, columns, -float("inf"),
        REAL, CHUNK, WRAP,
    )  # fmt: skip
    values = load_rows(
        v, v_strides, batch, first, count, channel, channels, columns, 0.0, REAL, CHUNK, WRAP
    )
    gradients = load_rows(
        gy, gy_strides, batch, first, count, channel, channels, columns, 0.0, REAL, CHUNK, WRAP
    )
    real = channel < channels
    pieces = tl.cdiv(tokens, CHUNK * P)
    at = sum_offsets(batch, piece, 0, channel, pieces, channels)
    left, left_mean = load_sum(log, mean, at, real)
    right, right_mean = load_sum(log, mean, at + channels, real)
    before, before_a = load_sum(gradient_log, gradient_mean, at, real)
    before_b = tl.load(gradient_mean + pitch + at, mask=real, other=0.0)
    after, after_a = load_sum(gradient_log, gradient_mean, at + channels, real)
    after_b = tl.load(gradient_mean + pitch + at + channels, mask=real, other=0.0)
    step = parameter(w, w_stride, channel, channels, tokens)
    bonus = parameter(u, u_stride, channel, channels, tokens)
    size = tl.maximum(tl.abs(left_mean), tl.abs(right_mean))
    size = tl.maximum(size, tl.maximum(tl.abs(before_a), tl.abs(after_a)))
    size = tl.maximum(size, tl.maximum(tl.abs(before_b), tl.abs(after_b)) / LARGEST)[None, :]
    size = tl.maximum(size, tl.maximum(size_of(values, CHUNK), size_of(gradients, CHUNK)))
    if is_plain(step, bonus, tokens, size):
        attention = attend_plain(
            keys, values, step, bonus, left, right, left_mean, right_mean, REAL, CHUNK, P
        )
        out_k, out_v, gw, gu = plain_gradients(
            attention, values, gradients, step, before, before_a, before_b,
            after, after_a, after_b, count, REAL, CHUNK, P,
        )  # fmt: skip
        store_rows(
            gk, gk_strides, out_k, batch, first, count, channel, channels, columns, CHUNK, WRAP
        )
        store_rows(
            gv, gv_strides, out_v, batch, first, count, channel, channels, columns, CHUNK, WRAP
        )
    else:
        key_tile = load_tile(
            k, k_strides, batch, first, count, channel, channels, columns, -float("inf"), CHUNK
        )
        value_tile = load_tile(
            v, v_strides, batch, first, count, channel, channels, columns, 0.0, CHUNK
        )
        tile_k, tile_v, gw, gu = steep_gradients(
            gy, gy_strides, wide(key_tile), value_tile.to(REAL) * SMALL, step, bonus,
            left, left_mean, right, right_mean,
            before, before_a, before_b, after, after_a, after_b,
            batch, first, count, channel, channels, columns, REAL, CHUNK, P,
        )  # fmt: skip
        store_tile(gk, gk_strides, tile_k, batch, first, count, channel, channels, columns, CHUNK)
        store_tile(gv, gv_strides, tile_v, batch, first, count, channel, channels, columns, CHUNK)
    here = (batch * pieces + piece) * channels + channel
    scale = 1.0 / tokens.to(tl.float64)
    tl.store(part + here, tl.sum(gw, 0) * -scale, mask=real)
    tl.store(part + parts + here, tl.sum(gu, 0) * scale, mask=real)
