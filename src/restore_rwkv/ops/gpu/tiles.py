"""Addresses of tokens and sums in the Triton kernels, and arithmetic on exponents.

A program handles BLOCK channels of a piece of P chunks of CHUNK tokens. `rows` is a tuple of CHUNK
tiles (P, BLOCK), each with one token of every chunk, so that recurrences along a chunk stay inside
a thread. Where that does not matter, a piece is one tile (P, CHUNK, BLOCK).
"""

# mypy: ignore-errors
# ruff: noqa: D103, N803, RUF005

from typing import Any, NamedTuple

import triton
import triton.language as tl

FAR = tl.constexpr(1e300)  # exponents are clipped to this, so that their differences are finite
SMALL = tl.constexpr(2.0**-20)  # factor that keeps sums of the largest values finite


class Cut(NamedTuple):
    """Constants of a kernel: the type of its arithmetic, and how tokens are divided.

    A chunk crosses the end of an image row never (WRAP = 0), at most once (1), or several times
    (2).
    """

    REAL: Any
    CHUNK: int
    P: int
    BLOCK: int
    WRAP: int


class Parameters(NamedTuple):
    """w and u (channels,) in memory. Flat, since Triton 3.5 loses constants in nested tuples."""

    w: Any
    w_stride: int
    u: Any
    u_stride: int


class Image(NamedTuple):
    """Tensor in memory, with its strides; flat, as `Parameters`."""

    data: Any
    batch: int
    row: int
    column: int
    channel: int


class Inputs(NamedTuple):
    """Arguments of the operator."""

    parameters: Parameters
    k: Image
    v: Image


class Sums(NamedTuple):
    """Sums of pieces in memory (batch, pieces, 2, channels).

    Log weights, remaining weights, and one or two means: of values, or of output gradients.
    """

    log: Any
    weight: Any
    means: Any


class Entering(NamedTuple):
    """Sums over all tokens before and after a piece, in memory; as `Sums`, with weights of 1."""

    log: Any
    means: Any


class Piece(NamedTuple):
    """Piece that a program handles: its position, and the sizes of the whole input."""

    batch: Any
    number: Any
    channel: Any  # (BLOCK,)
    inside: Any  # (BLOCK,): whether the channel exists
    first: Any  # (P, 1): first token of each chunk
    lengths: Any  # (P, 1): number of tokens in each chunk
    pieces: Any
    tokens: Any
    columns: Any
    channels: Any


class Loaded(NamedTuple):
    """Inputs of an output: rows of the piece, parameters, sums of the tokens before and after it.

    (The rows of v are not called `values`, since Triton's tuples have an attribute of that name.)
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
    """Sum with its scale: e^scale times (a, b), or a weight e^scale with the means a, b."""

    scale: Any
    a: Any
    b: Any


@triton.jit
def clip(x):
    return tl.minimum(tl.maximum(x, -FAR), FAR)


@triton.jit
def ratio(x, REAL: tl.constexpr):
    """e^x of a difference of exponents, at most e^64; larger ones occur only where sums cancel."""
    return tl.exp(tl.minimum(tl.maximum(x, -1000.0), 64.0).to(REAL))


@triton.jit
def enlarge(x, REAL: tl.constexpr):
    """Return x / SMALL, a mean, clipped since rounding may push it above the largest number."""
    most = 3.4028234663852886e38 if tl.float32 == REAL else 1.7976931348623157e308
    return tl.minimum(tl.maximum(x, -most * SMALL), most * SMALL) / SMALL


@triton.jit
def place(tokens, columns, channels, cut: tl.constexpr):
    """Piece of this program. Neighbouring programs share rows of memory."""
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
    """Channel to read: the last for channels beyond it, whose results are never stored."""
    return tl.minimum(piece.channel, piece.channels - 1)


@triton.jit
def origin(image, piece, first, channel):
    """Offsets of tokens in an image (batch, row, column, channel)."""
    token = first // piece.columns * image.row + first % piece.columns * image.column
    return piece.batch * image.batch + token + channel.to(tl.int64)[None, :] * image.channel


@triton.jit
def token_offset(t: tl.constexpr, image, piece, WRAP: tl.constexpr):
    """Distance in memory of the t-th token of a chunk from its first."""
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
    """Load the tokens of all chunks; `other` beyond the last token."""
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
    """Offsets of all tokens of the piece (P, CHUNK, BLOCK)."""
    columns = piece.columns
    column = (piece.first % columns).to(tl.int32)[:, :, None] + tl.arange(0, CHUNK)[None, :, None]
    row = (piece.first // columns)[:, :, None] + column // columns
    token = row * image.row + (column % columns).to(tl.int64) * image.column
    return piece.batch * image.batch + token + channel.to(tl.int64)[None, None, :] * image.channel


@triton.jit
def load_tile(image, piece, other, CHUNK: tl.constexpr):
    """Load the piece as one tile (P, CHUNK, BLOCK)."""
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
    """Load the t-th tokens of all chunks (P, BLOCK)."""
    at = origin(image, piece, piece.first + t, present_channel(piece))
    return tl.load(image.data + at, mask=t < piece.lengths, other=0.0)


@triton.jit
def store_row(t, image, row, piece):
    at = origin(image, piece, piece.first + t, piece.channel)
    tl.store(image.data + at, row, mask=(t < piece.lengths) & piece.inside[None, :])


@triton.jit
def sum_offsets(batch, number, side, channel, pieces, channels):
    """Offset of a sum in (batch, pieces, 2, channels)."""
    return ((batch * pieces + number) * 2 + side) * channels + channel


@triton.jit
def own_sums(piece):
    """Offset of a piece's sum for side 0; that for side 1 is larger by `channels`."""
    return sum_offsets(piece.batch, piece.number, 0, piece.channel, piece.pieces, piece.channels)


@triton.jit
def load_sum(entering, at, inside):
    """Load the log weight of a sum and the mean of its values (BLOCK,)."""
    log = tl.load(entering.log + at, mask=inside, other=0.0)
    return log, tl.load(entering.means[0] + at, mask=inside, other=0.0)


@triton.jit
def load_gradient_sum(entering, at, inside):
    """Load the log weight of a sum and the means of gy and -gy y (BLOCK,)."""
    log, mean_a = load_sum(entering, at, inside)
    return Sum(log, mean_a, tl.load(entering.means[1] + at, mask=inside, other=0.0))


@triton.jit
def load_piece(inputs, entering, piece, cut: tl.constexpr):
    """Load everything that the outputs of a piece depend on."""
    keys = load_rows(inputs.k, piece, -float("inf"), cut)
    values = load_rows(inputs.v, piece, 0.0, cut)
    at = own_sums(piece)
    left, left_mean = load_sum(entering, at, piece.inside)
    right, right_mean = load_sum(entering, at + piece.channels, piece.inside)
    step, bonus = decay_of(inputs.parameters, piece), bonus_of(inputs.parameters, piece)
    return Loaded(keys, values, step, bonus, left, left_mean, right, right_mean)
