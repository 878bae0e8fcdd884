"""Decoding of JPEG Lossless (ITU-T T.81, process 14), the usual compression of older archives.

Of one grey component, with any of its seven predictors. The differences between pixels and their
prediction are Huffman codes of variable length: where the next one starts is known only when one is
decoded. All bit positions are looked up in a table at once, as if a code started at each; then the
chain of the true ones is followed, and the rest is arithmetic on whole arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

_SOI, _SOS, _DHT, _DRI, _SOF3 = 0xD8, 0xDA, 0xC4, 0xDD, 0xC3
_RESTARTS = range(0xD0, 0xD8)
_WINDOW = 16  # bits of the longest code

Int64Array = npt.NDArray[np.int64]


class JpegLosslessError(ValueError):
    """The data is damaged, or of a kind that is not decoded."""


@dataclass
class _Stream:
    """What the markers say.

    Attributes:
        rows, columns, precision: of the image; precision in bits.
        tables: code length and category for each 16 bits, by number of the Huffman table.
        restart: pixels between restart markers; 0 for none.
        predictor: selection value, 1 to 7.
        shift: point transform, bits that were dropped.
        table: number of the table of the scan.
        data: coded data of the scan, from its first byte.
    """

    rows: int = 0
    columns: int = 0
    precision: int = 0
    tables: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = field(
        default_factory=dict
    )
    restart: int = 0
    predictor: int = 0
    shift: int = 0
    table: int = 0
    data: bytes = b""


def decode_jpeg_lossless(data: bytes) -> npt.NDArray[np.uint16]:
    """Return the pixels (rows, columns) of a stream with one grey component.

    Raises:
        JpegLosslessError: The stream is damaged or truncated, of another process, or in colour.
    """
    stream = _parsed(data)
    if stream.restart % stream.columns:
        raise JpegLosslessError("its restart interval is not a whole number of rows")
    blocks = [
        _undo_prediction(_differences(part, count, stream).reshape(-1, stream.columns), stream)
        for part, count in _segments(stream)
    ]
    pixels = np.concatenate(blocks)
    return ((pixels & 0xFFFF) << stream.shift).astype(np.uint16)


def _parsed(data: bytes) -> _Stream:
    """Read the markers up to the coded data."""
    stream, place = _Stream(), 2
    if data[:2] != bytes((0xFF, _SOI)):
        raise JpegLosslessError("it does not start as a JPEG")
    while True:
        while data[place : place + 2] == b"\xff\xff":  # fill bytes
            place += 1
        head = data[place : place + 4]
        if len(head) < 4 or head[0] != 0xFF:
            raise JpegLosslessError("its markers are damaged or truncated")
        marker, length = head[1], int.from_bytes(head[2:4], "big")
        body = data[place + 4 : place + 2 + length]
        if length < 2 or len(body) != length - 2:
            raise JpegLosslessError("its markers are truncated")
        place += 2 + length
        if marker == _DHT:
            _add_tables(body, stream)
        elif marker == _DRI:
            stream.restart = int.from_bytes(body[:2], "big")
        elif marker == _SOS:
            _start_scan(body, stream)
            stream.data = data[place:]
            return stream
        elif marker == _SOF3:
            _start_frame(body, stream)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC8, 0xCC):
            raise JpegLosslessError("it is not of the lossless process")


def _start_frame(body: bytes, stream: _Stream) -> None:
    if len(body) < 6 or body[5] != 1:
        raise JpegLosslessError("it is not an image of one component")
    stream.precision = body[0]
    stream.rows, stream.columns = (int.from_bytes(body[i : i + 2], "big") for i in (1, 3))
    if not (2 <= stream.precision <= 16 and stream.rows and stream.columns):
        raise JpegLosslessError("its header gives no size, or an impossible precision")


def _start_scan(body: bytes, stream: _Stream) -> None:
    if not stream.rows:
        raise JpegLosslessError("a scan comes before the header")
    if len(body) < 6 or body[0] != 1:
        raise JpegLosslessError("it has several components in a scan")
    stream.table, stream.predictor, stream.shift = body[2] >> 4, body[3], body[5] & 15
    if stream.table not in stream.tables:
        raise JpegLosslessError("its Huffman table is missing")
    if not 1 <= stream.predictor <= 7 or stream.shift >= stream.precision:
        raise JpegLosslessError("its predictor or point transform is impossible")


def _add_tables(body: bytes, stream: _Stream) -> None:
    """Expand Huffman tables: the length and the category of the code that 16 bits begin with."""
    while body:
        if len(body) < 17:
            raise JpegLosslessError("a Huffman table is truncated")
        counts, number = body[1:17], body[0] & 15
        symbols = body[17 : 17 + sum(counts)]
        if len(symbols) < sum(counts) or any(symbol > 16 for symbol in symbols):
            raise JpegLosslessError("a Huffman table is damaged")
        lengths = np.zeros(1 << _WINDOW, np.int64)
        categories = np.zeros(1 << _WINDOW, np.int64)
        code = taken = 0
        for length, count in enumerate(counts, start=1):
            for symbol in symbols[taken : taken + count]:
                span = 1 << (_WINDOW - length)
                first = code << (_WINDOW - length)
                if first + span > 1 << _WINDOW:
                    raise JpegLosslessError("a Huffman table is damaged")
                lengths[first : first + span] = length
                categories[first : first + span] = symbol
                code += 1
            taken += count
            code <<= 1
        stream.tables[number] = lengths, categories
        body = body[17 + taken :]


def _segments(stream: _Stream) -> list[tuple[bytes, int]]:
    """Coded data between restart markers, and the number of pixels in each."""
    total = stream.rows * stream.columns
    per_segment = stream.restart or total
    data, start, place, parts = stream.data, 0, 0, []
    while True:
        place = data.find(b"\xff", place)
        if place < 0 or place + 1 >= len(data):
            parts.append(data[start:])
            break
        marker = data[place + 1]
        if marker == 0:
            place += 2
        elif marker == 0xFF:
            place += 1
        else:
            parts.append(data[start:place])
            if marker not in _RESTARTS:
                break
            start = place = place + 2
    counts = [min(per_segment, total - first) for first in range(0, total, per_segment)]
    if len(parts) < len(counts):
        raise JpegLosslessError("its data is truncated")
    return [
        (part.replace(b"\xff\x00", b"\xff"), count)
        for part, count in zip(parts, counts, strict=False)
    ]


def _differences(data: bytes, count: int, stream: _Stream) -> Int64Array:
    """Decode `count` differences."""
    lengths, categories = stream.tables[stream.table]
    bits = 8 * len(data)
    octets = np.frombuffer(data + bytes(4), np.uint8).astype(np.int64)
    # The 40 bits from each byte on: 32 from any of its bits on.
    words = (octets[:-4] << 32) | (octets[1:-3] << 24) | (octets[2:-2] << 16)
    words |= (octets[3:-1] << 8) | octets[4:]
    size = np.empty(bits, np.int64)
    for offset in range(8):
        window = (words >> (40 - _WINDOW - offset)) & 0xFFFF
        length, category = lengths[window], categories[window]
        extra = np.where(category == 16, 0, category)
        size[offset::8] = np.where(length == 0, bits + 1, length + extra)
    starts = _chain(size, count, bits)
    word, offset_of = words[starts >> 3], starts & 7
    window = (word >> (40 - _WINDOW - offset_of)) & 0xFFFF
    length, category = lengths[window], categories[window]
    low = words[np.minimum((starts + length) >> 3, len(words) - 1)]
    shift = 40 - ((starts + length) & 7) - category
    value = (low >> shift) & ((1 << category) - 1)
    negative = value < (1 << np.maximum(category - 1, 0))
    value = np.where(negative & (category > 0), value - (1 << category) + 1, value)
    return np.where(category == 16, 32768, value)


def _chain(size: Int64Array, count: int, bits: int) -> Int64Array:
    """Bit positions of `count` codes, each of which begins where the one before it ends."""
    following = (np.arange(bits) + size).tolist()
    starts, place = [0] * count, 0
    try:
        for k in range(count):
            starts[k] = place
            place = following[place]
    except IndexError:
        raise JpegLosslessError("its data is truncated or damaged") from None
    if place > bits:
        raise JpegLosslessError("its data is truncated or damaged")
    return np.array(starts, np.int64)


def _undo_prediction(block: Int64Array, stream: _Stream) -> Int64Array:
    """Pixels (rows, columns) of differences, modulo 65536; the first row begins anew."""
    block = block.copy()
    block[0, 0] += 1 << (stream.precision - stream.shift - 1)
    block[:, 0] = np.cumsum(block[:, 0])  # the first column is predicted from above ...
    if stream.predictor == 1:
        return np.cumsum(block, axis=1) & 0xFFFF
    block[0] = np.cumsum(block[0])  # ... and the first row from the left, by all predictors
    if stream.predictor == 2:
        block[:, 1:] = np.cumsum(block[:, 1:], axis=0)
        return block & 0xFFFF
    return _row_by_row(block & 0xFFFF, stream.predictor)


def _row_by_row(block: Int64Array, predictor: int) -> Int64Array:
    """Undo predictors that look above and to the left; row 0 and column 0 are done."""
    columns = block.shape[1]
    above = block[0].tolist()
    for i in range(1, len(block)):
        row = block[i].tolist()
        for j in range(1, columns):
            a, b, c = row[j - 1], above[j], above[j - 1]
            if predictor == 3:
                guess = c
            elif predictor == 4:
                guess = a + b - c
            elif predictor == 5:
                guess = a + ((b - c) >> 1)
            elif predictor == 6:
                guess = b + ((a - c) >> 1)
            else:
                guess = (a + b) >> 1
            row[j] = (row[j] + guess) & 0xFFFF
        block[i] = row
        above = row
    return block
