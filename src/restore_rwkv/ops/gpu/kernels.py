"""Triton kernels of the Bi-WKV attention (eq. 8 of arXiv 2407.11087), forward and backward.

  1. summarise: for each piece, the sums of e^k and e^k v, decayed to either edge;
  2. carry: a scan over pieces, in float64, gives the sums that enter each piece from either side;
  3. finish: for each piece, a scan over its chunks and recurrences inside them give the outputs.
A sum over many tokens is represented as one token: its log weight (float64) and the mean of its
values, which cannot overflow. A program whose channels all pass `is_plain` takes the fast path, any
other the steep one; the choice is made on the GPU, without synchronising with the host.

Backward: with D_t the denominator of output t and gy_t its gradient, output t contributes to
    gv_i: e^(k_i - ...) gy_t / D_t    and    gk_i: e^(k_i - ...) gy_t (v_i - y_t) / D_t.
So the gradients are again decayed sums over the tokens before and after, with keys -log D_t and two
values, gy_t and -gy_t y_t: the same three steps apply, with the saved states of the forward pass.
The gradient of w weights a pair by the number of tokens between the two. It is summed token by
token: each adds the product of the sums that arrive from before and from after it.
"""

# mypy: ignore-errors
# ruff: noqa: N803

from typing import Any, NamedTuple

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
    load_tiles,
    lower,
    steep_gradient_chunks,
    steep_gradient_sums,
    steep_gradients,
    steep_outputs,
    steep_sides,
    steep_sums,
)
from restore_rwkv.ops.gpu.tiles import (
    FAR,
    SMALL,
    Inputs,
    decay_of,
    enlarge,
    load_gradient_sum,
    load_piece,
    load_rows,
    own_sums,
    parameter,
    place,
    store_rows,
    store_tile,
    sum_offsets,
)

_CARRY_SPAN = tl.constexpr(256.0)  # pieces of one group differ by at most e^256, in float64


class Line(NamedTuple):
    """Work of a program of `carry`: some channels of all pieces, from one side."""

    batch: Any
    side: Any
    channel: Any
    pieces: Any
    channels: Any


@triton.jit(do_not_specialize=["tokens", "columns", "channels"])
def summarise(parameters, k, v, sums, tokens, columns, channels, cut: tl.constexpr):
    """Step 1: sum each piece, decayed to the token after it (side 0) and before it (side 1)."""
    piece = place(tokens, columns, channels, cut)
    keys, values = load_rows(k, piece, -float("inf"), cut), load_rows(v, piece, 0.0, cut)
    step = decay_of(parameters, piece)
    if is_plain(step, step * 0, tokens, size_of(values, cut.CHUNK)):
        result = plain_sums(keys, values, step, cut)
    else:
        inputs = Inputs(parameters, k, v)
        result = steep_sums(load_tiles(inputs, piece, step, step * 0, cut), cut)
    at = own_sums(piece)
    for side in tl.static_range(2):
        here = at + side * channels
        tl.store(sums.log + here, result[3 * side], mask=piece.inside)
        tl.store(sums.weight + here, result[3 * side + 1], mask=piece.inside)
        tl.store(sums.means[0] + here, result[3 * side + 2], mask=piece.inside)


@triton.jit(do_not_specialize=["tokens", "channels"])
def carry(
    parameters, sums, entering, tokens, channels,
    PIECE: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr, MEANS: tl.constexpr,
):  # fmt: skip
    """Step 2: scan over pieces for the sums that enter each from its left (0) and right (1).

    On side 1, pieces are numbered from the last. A sum has MEANS means: one of values, or two of
    output gradients.
    """
    pieces, blocks = tl.cdiv(tokens, PIECE), tl.cdiv(channels, BLOCK)
    program = tl.program_id(0)
    channel = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    side, batch = program // blocks % 2, (program // blocks // 2).to(tl.int64)
    line = Line(batch, side, channel, pieces, channels)
    step = parameter(parameters.w, parameters.w_stride, channel, channels, tokens) * PIECE
    state = tl.full((BLOCK,), -float("inf"), tl.float64)
    first_mean, second_mean = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    if tl.max(tl.abs(step), 0) * tl.minimum(pieces, GROUP) <= _CARRY_SPAN:
        for start in range(0, pieces, GROUP):
            state, first_mean, second_mean = carry_group(
                sums, entering, state, first_mean, second_mean, step, start, line, GROUP, MEANS
            )
    else:
        for n in range(0, pieces):
            state, first_mean, second_mean = carry_one(
                sums, entering, state, first_mean, second_mean, step, n, line, MEANS
            )


@triton.jit
def carry_group(
    sums, entering, state, first_mean, second_mean, step, start, line,
    GROUP: tl.constexpr, MEANS: tl.constexpr,
):  # fmt: skip
    """Scan GROUP pieces at once; row n sums all pieces before n, so loads are offset by one."""
    row = tl.arange(0, GROUP)[:, None]
    n = start + row
    inside = (n < line.pieces) & (line.channel < line.channels)[None, :]
    before = tl.where(line.side == 0, n - 1, line.pieces - n)
    source = sum_offsets(
        line.batch, before, line.side, line.channel[None, :], line.pieces, line.channels
    )
    target = source + tl.where(line.side == 0, 2, -2) * line.channels
    have = inside & (n > 0)
    exponent = tl.load(sums.log + source, mask=have, other=-float("inf")) + step[None, :] * row
    top = tl.maximum(tl.maximum(tl.max(exponent, 0), state - step), -FAR)
    x = tl.load(sums.weight + source, mask=have, other=0.0).to(tl.float64) * tl.exp(exponent - top)
    old = tl.exp(state - step - top)
    total, final = tl.cumsum(x, 0) + old[None, :], tl.sum(x, 0) + old
    log_total = tl.where(total > 0, tl.log(tl.where(total > 0, total, 1.0)), -float("inf"))
    log_final = tl.where(final > 0, tl.log(tl.where(final > 0, final, 1.0)), -float("inf"))
    total, final = tl.where(total > 0, total, 1.0), tl.where(final > 0, final, 1.0)
    tl.store(entering.log + target, top - step[None, :] * row + log_total, mask=inside)
    state = top - step * (GROUP - 1) + log_final
    for value in tl.static_range(MEANS):
        old_mean = first_mean if value == 0 else second_mean
        means = tl.load(sums.means[value] + source, mask=have, other=0.0).to(tl.float64)
        y, old_y = x * (means * SMALL), old * (old_mean * SMALL)
        new_mean = enlarge((tl.sum(y, 0) + old_y) / final, tl.float64)
        behind = enlarge((tl.cumsum(y, 0) + old_y[None, :]) / total, tl.float64)
        tl.store(entering.means[value] + target, behind, mask=inside)
        if value == 0:
            first_mean = new_mean
        else:
            second_mean = new_mean
    return state, first_mean, second_mean


@triton.jit
def carry_one(sums, entering, state, first_mean, second_mean, step, n, line, MEANS: tl.constexpr):
    """Store the sum that enters piece n, then add the sum of that piece."""
    real = line.channel < line.channels
    piece = tl.where(line.side == 0, n, line.pieces - 1 - n)
    at = sum_offsets(line.batch, piece, line.side, line.channel, line.pieces, line.channels)
    tl.store(entering.log + at, state, mask=real)
    tl.store(entering.means[0] + at, first_mean, mask=real)
    key = tl.load(sums.log + at, mask=real, other=0.0)
    state = lower(state, step)
    top = tl.maximum(state, key)
    keep, add = tl.exp(state - top), tl.exp(key - top)
    add *= tl.load(sums.weight + at, mask=real, other=1.0).to(tl.float64)
    total = keep + add
    state = top + tl.log(total)
    keep, add = keep / total * SMALL, add / total * SMALL
    new = tl.load(sums.means[0] + at, mask=real, other=0.0).to(tl.float64)
    first_mean = enlarge(first_mean * keep + new * add, tl.float64)
    if MEANS == 2:
        tl.store(entering.means[1] + at, second_mean, mask=real)
        new = tl.load(sums.means[1] + at, mask=real, other=0.0).to(tl.float64)
        second_mean = enlarge(second_mean * keep + new * add, tl.float64)
    return state, first_mean, second_mean


@triton.jit(do_not_specialize=["tokens", "columns", "channels"])
def finish(parameters, k, v, y, entering, tokens, columns, channels, cut: tl.constexpr):
    """Step 3: compute the outputs of each piece."""
    piece = place(tokens, columns, channels, cut)
    inputs = Inputs(parameters, k, v)
    loaded = load_piece(inputs, entering, piece, cut)
    means = tl.maximum(tl.abs(loaded.left_mean), tl.abs(loaded.right_mean))
    size = tl.maximum(size_of(loaded.v, cut.CHUNK), means[None, :])
    if is_plain(loaded.step, loaded.bonus, tokens, size):
        store_rows(y, plain_outputs(loaded, cut), piece, cut)
    else:
        steep_outputs(y, inputs, loaded, piece, cut)


@triton.jit(do_not_specialize=["tokens", "columns", "channels"])
def summarise_gradients(
    parameters, k, v, gy, entering, sums, tokens, columns, channels, cut: tl.constexpr
):
    """Step 1 of the backward pass: sum the output gradients of each piece."""
    piece = place(tokens, columns, channels, cut)
    inputs = Inputs(parameters, k, v)
    loaded = load_piece(inputs, entering, piece, cut)
    gradients = load_rows(gy, piece, 0.0, cut)
    size = tl.maximum(tl.abs(loaded.left_mean), tl.abs(loaded.right_mean))[None, :]
    most = tl.maximum(size_of(loaded.v, cut.CHUNK), size_of(gradients, cut.CHUNK))
    if is_plain(loaded.step, loaded.bonus, tokens, tl.maximum(size, most)):
        attention = attend_plain(loaded, cut)
        result = plain_gradient_sums(
            attention, loaded.v, gradients, loaded.step, piece.lengths, cut
        )
    else:
        x = load_tiles(inputs, piece, loaded.step, loaded.bonus, cut)
        chunks = steep_gradient_chunks(gy, x, steep_sides(x, loaded, cut), piece, cut)
        result = steep_gradient_sums(chunks, loaded.step, cut)
    at = own_sums(piece)
    for side in tl.static_range(2):
        here = at + side * channels
        tl.store(sums.log + here, result[4 * side], mask=piece.inside)
        tl.store(sums.weight + here, result[4 * side + 1], mask=piece.inside)
        tl.store(sums.means[0] + here, result[4 * side + 2], mask=piece.inside)
        tl.store(sums.means[1] + here, result[4 * side + 3], mask=piece.inside)


@triton.jit(do_not_specialize=["tokens", "columns", "channels"])
def finish_gradients(
    parameters, k, v, gy, gk, gv, entering, gradients_entering, parts,
    tokens, columns, channels, cut: tl.constexpr,
):  # fmt: skip
    """Step 3 of the backward pass; each piece's terms of gw and gu go to `parts`, in float64."""
    piece = place(tokens, columns, channels, cut)
    inputs = Inputs(parameters, k, v)
    loaded = load_piece(inputs, entering, piece, cut)
    gradients = load_rows(gy, piece, 0.0, cut)
    at = own_sums(piece)
    before = load_gradient_sum(gradients_entering, at, piece.inside)
    after = load_gradient_sum(gradients_entering, at + channels, piece.inside)
    size = tl.maximum(tl.abs(loaded.left_mean), tl.abs(loaded.right_mean))
    size = tl.maximum(size, tl.maximum(tl.abs(before.a), tl.abs(after.a)))
    size = tl.maximum(size, tl.maximum(tl.abs(before.b), tl.abs(after.b)) / LARGEST)[None, :]
    most = tl.maximum(size_of(loaded.v, cut.CHUNK), size_of(gradients, cut.CHUNK))
    if is_plain(loaded.step, loaded.bonus, tokens, tl.maximum(size, most)):
        rows_k, rows_v, gw, gu = plain_gradients(
            attend_plain(loaded, cut), loaded.v, gradients, loaded.step,
            before, after, piece.lengths, cut,
        )  # fmt: skip
        store_rows(gk, rows_k, piece, cut)
        store_rows(gv, rows_v, piece, cut)
    else:
        tile_k, tile_v, gw, gu = steep_gradients(gy, inputs, loaded, before, after, piece, cut)
        store_tile(gk, tile_k, piece, cut.CHUNK)
        store_tile(gv, tile_v, piece, cut.CHUNK)
    here = (piece.batch * piece.pieces + piece.number) * channels + piece.channel
    scale = 1.0 / tokens.to(tl.float64)
    tl.store(parts[0] + here, tl.sum(gw, 0) * -scale, mask=piece.inside)
    tl.store(parts[1] + here, tl.sum(gu, 0) * scale, mask=piece.inside)
