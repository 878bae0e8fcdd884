"""Decoder of sequential JPEG of one component (ITU-T T.81, annex F; DICOM .50 and .51) in NumPy.

8 and 12 bits. As in `jpeg_lossless`, code lengths are looked up for all bits at once, and plain
Python only follows the chain of codes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from restore_rwkv.io.dicom.jpeg_stream import (
    Bytes,
    Huffman,
    JpegStream,
    Positions,
    check_end,
    coded_values,
    windows,
)

_END_OF_BLOCK = 100  # further than any coefficient
# A symbol of a DC coefficient is the number of bits behind it.
_DC_SIZES = np.array([*range(16), *[0] * 240], np.uint8)
_DC_VALID = np.arange(256) < 16
# A symbol of an AC coefficient is 16 * zeros before it + bits behind it; 0xF0 is 16 zeros.
_AC_SIZES = (np.arange(256) & 15).astype(np.uint8)
_AC_VALID = (_AC_SIZES > 0) | np.isin(np.arange(256), (0, 0xF0))
_AC_ADVANCE = np.where(np.arange(256) == 0, _END_OF_BLOCK, (np.arange(256) >> 4) + 1).astype("u1")
_SLOTS = 128  # of a block; more than its coefficients, so that one too far on is seen


def _zigzag() -> npt.NDArray[np.intp]:
    """Place in a block, by rows, of each coefficient of a stream (T.81, figure 5)."""
    places = sorted(
        ((row + column, row if (row + column) % 2 else column, 8 * row + column))
        for row in range(8)
        for column in range(8)
    )
    return np.array([place for _, _, place in places])


def _cosines() -> npt.NDArray[np.float64]:
    """Matrix C of the transform: pixels = C' coefficients C (T.81, A.3.3)."""
    u, x = np.mgrid[:8, :8]
    scale = np.where(u == 0, np.sqrt(0.5), 1.0) / 2
    return np.asarray(scale * np.cos((2 * x + 1) * u * np.pi / 16))


def decode_sequential(stream: JpegStream) -> npt.NDArray[np.uint16]:
    """Return the pixels of a sequential stream, rows by columns.

    Raises:
        ValueError: The stream is damaged, or uses what the standard does not allow.
    """
    if stream.precision not in (8, 12):
        raise ValueError(f"a precision of {stream.precision} bits is not allowed")
    if stream.dc_index not in stream.dc or stream.ac_index not in stream.ac:
        raise ValueError("a Huffman table is missing")
    if stream.quantisation_index not in stream.quantisation:
        raise ValueError("a quantisation table is missing")
    down, across = -(-stream.rows // 8), -(-stream.columns // 8)
    total = down * across
    each = stream.restart_interval or total
    counts = [min(each, total - first) for first in range(0, total, each)]
    if len(counts) != len(stream.segments):
        raise ValueError(f"it has {len(stream.segments)} parts in place of {len(counts)}")
    blocks = np.concatenate(
        [_coefficients(stream, *part) for part in zip(stream.segments, counts, strict=True)]
    )
    blocks *= stream.quantisation[stream.quantisation_index]
    placed = np.empty((total, 64))
    placed[:, _zigzag()] = blocks
    cosines = _cosines()
    values = cosines.T @ placed.reshape(total, 8, 8) @ cosines + (1 << (stream.precision - 1))
    pixels = np.rint(values).clip(0, (1 << stream.precision) - 1).astype(np.uint16)
    image: npt.NDArray[np.uint16] = pixels.reshape(down, across, 8, 8).transpose(0, 2, 1, 3)
    return image.reshape(8 * down, 8 * across)[: stream.rows, : stream.columns]


def _coefficients(stream: JpegStream, segment: bytes, count: int) -> npt.NDArray[np.int64]:
    """Return the quantised coefficients of a segment's blocks, (count, 64) in stream order."""
    dc = stream.dc[stream.dc_index].only(_DC_VALID)
    ac = stream.ac[stream.ac_index].only(_AC_VALID)
    dc_at, ac_at, slots, end = _chain(segment, dc, ac, count)
    steps, _ = coded_values(segment, dc_at, dc, _DC_SIZES)
    values, symbols = coded_values(segment, ac_at, ac, _AC_SIZES)
    check_end(end, segment)
    coded = (symbols & 15) > 0
    block, place = np.divmod(slots[coded], _SLOTS)
    if (place > 63).any():
        raise ValueError("a block has more than 64 coefficients")
    blocks = np.zeros((count, 64), np.int64)
    blocks[block, place] = values[coded]
    blocks[:, 0] = np.cumsum(steps)
    return blocks


def _chain(
    segment: bytes, dc: Huffman, ac: Huffman, count: int
) -> tuple[Positions, Positions, Positions, int]:
    """Bits at which the codes of DC and AC coefficients begin, slots of the latter, and the end."""
    if 2 * count > 8 * len(segment):
        raise ValueError("it ends before its last pixel")
    window = windows(np.frombuffer(segment + bytes(4), np.uint8))
    dc_steps = dc.steps(_DC_SIZES)[window].tobytes()
    ac_steps = ac.steps(_AC_SIZES)[window].tobytes()
    advance: Bytes = np.where(ac.lengths > 0, _AC_ADVANCE[ac.symbols], np.uint8(_END_OF_BLOCK))
    advances = advance[window].tobytes()
    dc_at: list[int] = []
    ac_at: list[int] = []
    slots: list[int] = []
    at = 0
    try:
        for first in range(0, count * _SLOTS, _SLOTS):
            dc_at.append(at)
            at += dc_steps[at]
            place = 0
            while place < 63:
                place += advances[at]
                slots.append(first + place)
                ac_at.append(at)
                at += ac_steps[at]
    except IndexError:
        raise ValueError("it ends before its last pixel") from None
    return np.array(dc_at), np.array(ac_at), np.array(slots), at
