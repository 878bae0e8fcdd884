"""Decoder of lossless JPEG (ITU-T T.81, annex H; DICOM .57 and .70) in NumPy.

A code's position depends on all codes before it. The length of the code that would begin at a bit
is looked up for all bits at once, and plain Python only follows the chain of positions. Everything
else is done on whole rows or images.
"""

from __future__ import annotations

from itertools import pairwise, repeat

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

_BLOCK = 1 << 17  # bytes whose bits are looked up at once
# A symbol is the number of bits behind it, but 16 has none and means a difference of 32768.
_SIZES = np.array([*range(16), *[0] * 240], np.uint8)
_VALID = np.arange(256) <= 16

Image = npt.NDArray[np.int64]


def decode_lossless(stream: JpegStream) -> npt.NDArray[np.uint16]:
    """Return the pixels of a lossless stream, rows by columns.

    Raises:
        ValueError: The stream is damaged, or uses what the standard does not allow.
    """
    point_transform = stream.approximation & 15
    bits = stream.precision - point_transform
    if not 2 <= stream.precision <= 16 or bits < 1:
        raise ValueError(f"a precision of {stream.precision} bits is not allowed")
    if not 1 <= stream.selection <= 7 or stream.end or stream.approximation >> 4:
        raise ValueError(f"there is no predictor {stream.selection}")
    if stream.dc_index not in stream.dc:
        raise ValueError("a Huffman table is missing")
    table = stream.dc[stream.dc_index].only(_VALID)
    parts = []
    for segment, rows in zip(stream.segments, _rows_of_segments(stream), strict=True):
        differences = _differences(segment, table, rows * stream.columns)
        image = differences.reshape(rows, stream.columns)
        image[0, 0] += 1 << (bits - 1)  # the prediction of a first pixel
        parts.append(undo_prediction(image, stream.selection))
    pixels = np.concatenate(parts)
    if int(pixels.max()) >> bits:
        raise ValueError(f"it holds values of more than {bits} bits")
    return (pixels << point_transform).astype(np.uint16)


def _rows_of_segments(stream: JpegStream) -> list[int]:
    """Rows in each segment; a restart begins a row."""
    interval = stream.restart_interval
    if interval % stream.columns:
        raise ValueError(f"a restart interval of {interval} pixels is not allowed")
    each = interval // stream.columns or stream.rows
    rows = [min(each, stream.rows - first) for first in range(0, stream.rows, each)]
    if len(rows) != len(stream.segments):
        raise ValueError(f"it has {len(stream.segments)} parts in place of {len(rows)}")
    return rows


def _differences(segment: bytes, table: Huffman, count: int) -> Image:
    """Return the coded differences of a segment."""
    if count > 8 * len(segment):
        raise ValueError("it ends before its last pixel")
    at, end = _chain(segment, table.steps(_SIZES), count)
    values, symbols = coded_values(segment, at, table, _SIZES)
    check_end(end, segment)
    values[symbols == 16] = 32768
    return values


def _chain(segment: bytes, steps: Bytes, count: int) -> tuple[Positions, int]:
    """Return the bit at which each of `count` codes begins, and the bit behind the last."""
    data = np.frombuffer(segment + bytes(4), np.uint8)
    parts: list[Positions] = []
    found = at = first = 0
    while True:
        lookup = steps[windows(data[first : first + _BLOCK + 2])].tobytes()
        positions: list[int] = []
        append = positions.append
        try:
            for _ in repeat(None, count - found):
                append(at)
                at += lookup[at]  # 0 where there is no code: the chain stays there
        except IndexError:  # on to the next block
            positions.pop()
        parts.append(np.array(positions, np.int64) + 8 * first)
        found += len(positions)
        if found == count:
            return np.concatenate(parts), at + 8 * first
        first, at = first + _BLOCK, at - 8 * _BLOCK
        if first >= len(segment):
            raise ValueError("it ends before its last pixel")


def undo_prediction(differences: Image, selection: int) -> Image:
    """Return the pixels of which each is its difference plus its prediction, modulo 65536.

    A pixel is predicted from its neighbours, T.81 table H.1: a is left of it, b above it, c above
    a. In the first row that is a and in the first column b, for each selection.

    Args:
        differences: (rows, columns); that of the first pixel is its value.
        selection: 1 for a, 2 for b, 3 for c, 4 for a + b - c, 5 for a + (b - c) / 2,
            6 for b + (a - c) / 2, 7 for (a + b) / 2.
    """
    pixels: Image = differences.copy()
    np.cumsum(pixels[0], out=pixels[0])
    if selection == 1:
        np.cumsum(pixels[:, 0], out=pixels[:, 0])
    if selection in (1, 4):
        np.cumsum(pixels[1:], axis=1, out=pixels[1:])
    if selection in (2, 4):
        np.cumsum(pixels, axis=0, out=pixels)
    if selection in (3, 5, 6, 7):
        _undo_by_rows(pixels, selection)
    pixels &= 0xFFFF
    return pixels


def _undo_by_rows(pixels: Image, selection: int) -> None:
    """Undo in place the predictions for which a row needs the values of the one above."""
    pixels[0] &= 0xFFFF
    for above, row in pairwise(pixels):
        row[0] += above[0]
        if selection == 3:
            row[1:] += above[:-1]
        elif selection == 5:
            row[1:] += (above[1:] - above[:-1]) >> 1
            np.cumsum(row, out=row)
        else:
            undo = _row_6 if selection == 6 else _row_7
            row[:] = undo(row.tolist(), above.tolist())
        row &= 0xFFFF


def _row_6(row: list[int], above: list[int]) -> list[int]:
    a = row[0] & 0xFFFF
    out = [a]
    for difference, b, c in zip(row[1:], above[1:], above[:-1], strict=True):
        a = (difference + b + ((a - c) >> 1)) & 0xFFFF
        out.append(a)
    return out


def _row_7(row: list[int], above: list[int]) -> list[int]:
    a = row[0] & 0xFFFF
    out = [a]
    for difference, b in zip(row[1:], above[1:], strict=True):
        a = (difference + ((a + b) >> 1)) & 0xFFFF
        out.append(a)
    return out
