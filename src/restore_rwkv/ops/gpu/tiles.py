"""Where the Triton kernels find tokens and sums, and their arithmetic of exponents.

A program handles BLOCK channels of a piece of P chunks of CHUNK tokens. `rows` are a tuple of CHUNK
tiles (P, BLOCK), each with one token of every chunk: what follows along a chunk stays inside a
thread. Where that does not matter, a piece is one tile (P, CHUNK, BLOCK).
"""

# mypy: ignore-errors
# ruff: noqa: D103, N803, RUF005

import triton
import triton.language as tl

FAR = tl.constexpr(1e300)  # exponents are cut off here, so that their differences are finite
SMALL = tl.constexpr(2.0**-20)  # times the largest values, of which sums then stay finite


@triton.jit
def clip(x):
    return tl.minimum(tl.maximum(x, -FAR), FAR)


@triton.jit
def narrow(x, REAL: tl.constexpr):
    """e^x of a difference of exponents, at most e^64: more is met only where sums cancel it."""
    return tl.exp(tl.minimum(tl.maximum(x, -1000.0), 64.0).to(REAL))


@triton.jit
def enlarge(x, REAL: tl.constexpr):
    """Return x / SMALL: a mean that rounding may have pushed over the largest number."""
    most = 3.4028234663852886e38 if tl.float32 == REAL else 1.7976931348623157e308
    return tl.minimum(tl.maximum(x, -most * SMALL), most * SMALL) / SMALL


@triton.jit
def place(tokens, channels, CHUNK: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Batch, piece, channels of this program; first token of its chunks, and how many they have.

    Programs that share rows of memory are close together.
    """
    blocks, pieces = tl.cdiv(channels, BLOCK), tl.cdiv(tokens, CHUNK * P)
    program = tl.program_id(0)
    channel = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    piece = (program // blocks % pieces).to(tl.int64)
    first = (piece * P + tl.arange(0, P)[:, None]) * CHUNK
    count = tl.minimum(tl.maximum(tokens - first, 0), CHUNK).to(tl.int32)
    return (program // blocks // pieces).to(tl.int64), piece, channel, first, count


@triton.jit
def parameter(pointer, stride, channel, channels, tokens):
    """w/T or u/T (BLOCK,) in float64."""
    x = tl.load(pointer + tl.minimum(channel, channels - 1).to(tl.int64) * stride)
    return clip(x.to(tl.float64) * (1.0 / tokens.to(tl.float64)))


@triton.jit
def origin(batch, first, channel, columns, strides):
    """Where the first tokens of chunks lie in an image (batch, row, column, channel)."""
    token = first // columns * strides[1] + first % columns * strides[2]
    return batch * strides[0] + token + channel.to(tl.int64)[None, :] * strides[3]


@triton.jit
def token_offset(t: tl.constexpr, first, columns, strides, WRAP: tl.constexpr):
    """How far the t-th token of a chunk lies from its first.

    A chunk crosses the end of a row of the image never (WRAP = 0), at most once (1), or often (2).
    """
    offset = tl.full((), t, tl.int64) * strides[2]
    if WRAP > 0:
        column = (first % columns).to(tl.int32) + t
        jump = strides[1] - columns.to(tl.int64) * strides[2]
        if WRAP == 1:
            offset += tl.where(column >= columns, jump, 0)
        else:
            offset += column // columns * jump
    return offset


@triton.jit
def load_rows(
    pointer, strides, batch, first, count, channel, channels, columns, other,
    REAL: tl.constexpr, CHUNK: tl.constexpr, WRAP: tl.constexpr,
):  # fmt: skip
    """The tokens of all chunks. Channels beyond the last read the last: harmless, never stored."""
    at = origin(batch, first, tl.minimum(channel, channels - 1), columns, strides)
    rows = ()
    for t in tl.static_range(CHUNK):
        here = pointer + (at + token_offset(t, first, columns, strides, WRAP))
        rows = rows + (tl.load(here, mask=t < count, other=other).to(REAL),)
    return rows


@triton.jit
def store_rows(
    pointer, strides, rows, batch, first, count, channel, channels, columns,
    CHUNK: tl.constexpr, WRAP: tl.constexpr,
):  # fmt: skip
    at = origin(batch, first, channel, columns, strides)
    count = tl.where((channel < channels)[None, :], count, 0)
    for t in tl.static_range(CHUNK):
        here = pointer + (at + token_offset(t, first, columns, strides, WRAP))
        tl.store(here, rows[t], mask=t < count)


@triton.jit
def tile_origin(batch, first, channel, columns, strides, CHUNK: tl.constexpr):
    """Where all tokens of the piece lie (P, CHUNK, BLOCK)."""
    column = (first % columns).to(tl.int32)[:, :, None] + tl.arange(0, CHUNK)[None, :, None]
    row = (first // columns)[:, :, None] + column // columns
    token = row * strides[1] + (column % columns).to(tl.int64) * strides[2]
    return batch * strides[0] + token + channel.to(tl.int64)[None, None, :] * strides[3]


@triton.jit
def load_tile(
    pointer, strides, batch, first, count, channel, channels, columns, other, CHUNK: tl.constexpr
):
    """The piece as one tile (P, CHUNK, BLOCK)."""
    at = tile_origin(batch, first, tl.minimum(channel, channels - 1), columns, strides, CHUNK)
    inside = tl.arange(0, CHUNK)[None, :, None] < count[:, :, None]
    return tl.load(pointer + at, mask=inside, other=other)


@triton.jit
def store_tile(
    pointer, strides, tile, batch, first, count, channel, channels, columns, CHUNK: tl.constexpr
):
    at = tile_origin(batch, first, channel, columns, strides, CHUNK)
    inside = tl.arange(0, CHUNK)[None, :, None] < count[:, :, None]
    tl.store(pointer + at, tile, mask=inside & (channel < channels)[None, None, :])


@triton.jit
def load_row(pointer, strides, batch, token, channel, channels, columns, inside):
    at = origin(batch, token, tl.minimum(channel, channels - 1), columns, strides)
    return tl.load(pointer + at, mask=inside, other=0.0)


@triton.jit
def sum_offsets(batch, piece, side, channel, pieces, channels):
    """Where a sum lies in (batch, pieces, 2, channels)."""
    return ((batch * pieces + piece) * 2 + side) * channels + channel


@triton.jit
def load_sum(log, mean, at, inside):
    """The log weight of a sum and the mean of its values (BLOCK,)."""
    return tl.load(log + at, mask=inside, other=0.0), tl.load(mean + at, mask=inside, other=0.0)
