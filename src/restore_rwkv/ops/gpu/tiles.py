"""Where the Triton kernels find tokens and sums, and their arithmetic of exponents.

A program handles BLOCK channels of a piece of P chunks of CHUNK tokens. `rows` are a tuple of CHUNK
tiles (P, BLOCK), each with one token of every chunk: what follows along a chunk stays inside a
thread. Where that does not matter, a piece is one tile (P, CHUNK, BLOCK).
"""

# mypy: ignore-errors
# ruff: noqa: D103, N803, RUF005

from typing import Any, NamedTuple

import triton
import triton.language as tl

FAR = tl.constexpr(1e300)  # exponents are cut off here, so that their differences are finite
SMALL = tl.constexpr(2.0**-20)  # times the largest values, of which sums then stay finite


class Cut(NamedTuple):
    """The constants of a kernel: in which type it computes, and how it cuts the tokens.

    A chunk crosses the end of a row of the image never (WRAP = 0), at most once (1), or often (2).
    """

    REAL: Any
    CHUNK: int
    P: int
    BLOCK: int
    WRAP: int


class Parameters(NamedTuple):
    """w and u (channels,) in memory. Flat: Triton 3.5 forgets constants in tuples of tuples."""

    w: Any
    w_stride: int
    u: Any
    u_stride: int


class Image(NamedTuple):
    """A tensor in memory, with its strides; flat as `Parameters` are."""

    data: Any
    batch: int
    row: int
    column: int
    channel: int


class Inputs(NamedTuple):
    """What the operator is called with."""

    parameters: Parameters
    k: Image
    v: Image


class Sums(NamedTuple):
    """Sums of pieces in memory (batch, pieces, 2, channels).

    Log weights, rests of the weights, and one or two means: of values, or of output gradients.
    """

    log: Any
    weight: Any
    means: Any


class Entering(NamedTuple):
    """Sums of all that is before and after a piece, in memory; as `Sums`, with weights of 1."""

    log: Any
    means: Any


class Piece(NamedTuple):
    """What a program works on: where it is, and the sizes of the whole."""

    batch: Any
    number: Any
    channel: Any  # (BLOCK,)
    inside: Any  # (BLOCK,): whether there is such a channel
    first: Any  # (P, 1): the first token of each chunk
    lengths: Any  # (P, 1): how many tokens it has
    pieces: Any
    tokens: Any
    columns: Any
    channels: Any


class Loaded(NamedTuple):
    """What an output depends on: rows of the piece, parameters, the tokens before and after it.

    (Triton's tuples have a `values` of their own.)
    """

    k: Any
    v: Any
    step: Any  # w/T (BLOCK,)
    bonus: Any  # u/T (BLOCK,)
    left: Any  # log weight (BLOCK,)
    left_mean: Any
    right: Any
    right_mean: Any


class Sum(NamedTuple):
    """A sum with its scale: e^scale times (a, b), or times 1 and the means a, b."""

    scale: Any
    a: Any
    b: Any


@triton.jit
def clip(x):
    return tl.minimum(tl.maximum(x, -FAR), FAR)


@triton.jit
def ratio(x, REAL: tl.constexpr):
    """e^x of a difference of exponents, at most e^64: more is met only where sums cancel it."""
    return tl.exp(tl.minimum(tl.maximum(x, -1000.0), 64.0).to(REAL))


@triton.jit
def enlarge(x, REAL: tl.constexpr):
    """Return x / SMALL: a mean that rounding may have pushed over the largest number."""
    most = 3.4028234663852886e38 if tl.float32 == REAL else 1.7976931348623157e308
    return tl.minimum(tl.maximum(x, -most * SMALL), most * SMALL) / SMALL


@triton.jit
def place(tokens, columns, channels, cut: tl.constexpr):
    """The piece of this program. Programs that share rows of memory are close together."""
    blocks, pieces = tl.cdiv(channels, cut.BLOCK), tl.cdiv(tokens, cut.CHUNK * cut.P)
    program = tl.program_id(0)
    channel = (program % blocks) * cut.BLOCK + tl.arange(0, cut.BLOCK)
    number = (program // blocks % pieces).to(tl.int64)
    first = (number * cut.P + tl.arange(0, cut.P)[:, None]) * cut.CHUNK
    lengths = tl.minimum(tl.maximum(tokens - first, 0), cut.CHUNK).to(tl.int32)
    batch = (program // blocks // pieces).to(tl.int64)
    return Piece(
        batch, number, channel, channel < channels, first, lengths,
        pieces, tokens, columns, channels,
    )  # fmt: skip


@triton.jit
def parameter(pointer, stride, channel, channels, tokens):
    """w/T or u/T (BLOCK,) in float64."""
    x = tl.load(pointer + tl.minimum(channel, channels - 1).to(tl.int64) * stride)
    return clip(x.to(tl.float64) * (1.0 / tokens.to(tl.float64)))


@triton.jit
def decay_of(parameters, piece):
    """w/T of the channels of a piece."""
    return parameter(parameters.w, parameters.w_stride, piece.channel, piece.channels, piece.tokens)


@triton.jit
def bonus_of(parameters, piece):
    """u/T of the channels of a piece."""
    return parameter(parameters.u, parameters.u_stride, piece.channel, piece.channels, piece.tokens)


@triton.jit
def present_channel(piece):
    """Channels beyond the last read the last: harmless, never stored."""
    return tl.minimum(piece.channel, piece.channels - 1)


@triton.jit
def origin(image, piece, first, channel):
    """Where tokens lie in an image (batch, row, column, channel)."""
    token = first // piece.columns * image.row + first % piece.columns * image.column
    return piece.batch * image.batch + token + channel.to(tl.int64)[None, :] * image.channel


@triton.jit
def token_offset(t: tl.constexpr, image, piece, WRAP: tl.constexpr):
    """How far the t-th token of a chunk lies from its first."""
    offset = tl.full((), t, tl.int64) * image.column
    if WRAP > 0:
        column = (piece.first % piece.columns).to(tl.int32) + t
        jump = image.row - piece.columns.to(tl.int64) * image.column
        if WRAP == 1:
            offset += tl.where(column >= piece.columns, jump, 0)
        else:
            offset += column // piece.columns * jump
    return offset


@triton.jit
def load_rows(image, piece, other, cut: tl.constexpr):
    """The tokens of all chunks; `other` where there is none."""
    at = origin(image, piece, piece.first, present_channel(piece))
    rows = ()
    for t in tl.static_range(cut.CHUNK):
        here = image.data + (at + token_offset(t, image, piece, cut.WRAP))
        rows = rows + (tl.load(here, mask=t < piece.lengths, other=other).to(cut.REAL),)
    return rows


@triton.jit
def store_rows(image, rows, piece, cut: tl.constexpr):
    at = origin(image, piece, piece.first, piece.channel)
    lengths = tl.where(piece.inside[None, :], piece.lengths, 0)
    for t in tl.static_range(cut.CHUNK):
        here = image.data + (at + token_offset(t, image, piece, cut.WRAP))
        tl.store(here, rows[t], mask=t < lengths)


@triton.jit
def tile_origin(image, piece, channel, CHUNK: tl.constexpr):
    """Where all tokens of the piece lie (P, CHUNK, BLOCK)."""
    columns = piece.columns
    column = (piece.first % columns).to(tl.int32)[:, :, None] + tl.arange(0, CHUNK)[None, :, None]
    row = (piece.first // columns)[:, :, None] + column // columns
    token = row * image.row + (column % columns).to(tl.int64) * image.column
    return piece.batch * image.batch + token + channel.to(tl.int64)[None, None, :] * image.channel


@triton.jit
def load_tile(image, piece, other, CHUNK: tl.constexpr):
    """The piece as one tile (P, CHUNK, BLOCK)."""
    at = tile_origin(image, piece, present_channel(piece), CHUNK)
    there = tl.arange(0, CHUNK)[None, :, None] < piece.lengths[:, :, None]
    return tl.load(image.data + at, mask=there, other=other)


@triton.jit
def store_tile(image, tile, piece, CHUNK: tl.constexpr):
    at = tile_origin(image, piece, piece.channel, CHUNK)
    there = tl.arange(0, CHUNK)[None, :, None] < piece.lengths[:, :, None]
    tl.store(image.data + at, tile, mask=there & piece.inside[None, None, :])


@triton.jit
def load_row(t, image, piece):
    """The t-th tokens of all chunks (P, BLOCK)."""
    at = origin(image, piece, piece.first + t, present_channel(piece))
    return tl.load(image.data + at, mask=t < piece.lengths, other=0.0)


@triton.jit
def store_row(t, image, row, piece):
    at = origin(image, piece, piece.first + t, piece.channel)
    tl.store(image.data + at, row, mask=(t < piece.lengths) & piece.inside[None, :])


@triton.jit
def sum_offsets(batch, number, side, channel, pieces, channels):
    """Where a sum lies in (batch, pieces, 2, channels)."""
    return ((batch * pieces + number) * 2 + side) * channels + channel


@triton.jit
def own_sums(piece):
    """Where the sum of a piece for the side 0 lies; that for the side 1 lies `channels` behind."""
    return sum_offsets(piece.batch, piece.number, 0, piece.channel, piece.pieces, piece.channels)


@triton.jit
def load_sum(entering, at, inside):
    """The log weight of a sum and the mean of its values (BLOCK,)."""
    log = tl.load(entering.log + at, mask=inside, other=0.0)
    return log, tl.load(entering.means[0] + at, mask=inside, other=0.0)


@triton.jit
def load_gradient_sum(entering, at, inside):
    """The log weight of a sum and the means of gy and -gy y (BLOCK,)."""
    log, mean_a = load_sum(entering, at, inside)
    return Sum(log, mean_a, tl.load(entering.means[1] + at, mask=inside, other=0.0))


@triton.jit
def load_piece(inputs, entering, piece, cut: tl.constexpr):
    """What all outputs of a piece depend on."""
    keys = load_rows(inputs.k, piece, -float("inf"), cut)
    values = load_rows(inputs.v, piece, 0.0, cut)
    at = own_sums(piece)
    left, left_mean = load_sum(entering, at, piece.inside)
    right, right_mean = load_sum(entering, at + piece.channels, piece.inside)
    step, bonus = decay_of(inputs.parameters, piece), bonus_of(inputs.parameters, piece)
    return Loaded(keys, values, step, bonus, left, left_mean, right, right_mean)
