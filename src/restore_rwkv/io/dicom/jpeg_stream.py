"""Markers, Huffman tables and bits of a JPEG stream (ITU-T T.81), read strictly.

The decoders in `jpeg_lossless` and `jpeg_dct` build on it. Errors are ValueErrors whose message
fits behind "cannot be decoded".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]

_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_UNSUPPORTED = {
    0xC2: "progressive JPEG",
    0xC5: "hierarchical JPEG",
    0xC6: "hierarchical JPEG",
    0xC7: "hierarchical JPEG",
    0xC9: "arithmetic coding",
    0xCA: "arithmetic coding",
    0xCB: "arithmetic coding",
    0xCD: "arithmetic coding",
    0xCE: "arithmetic coding",
    0xCF: "arithmetic coding",
}
_SOI, _EOI, _SOS, _DHT, _DQT, _DNL, _DRI = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xDC, 0xDD
_RST0, _RST7 = 0xD0, 0xD7
_MOST_LEFT_BITS = 15  # behind the last code: padding to a byte, and a byte of some encoders


@dataclass(frozen=True, eq=False)
class Huffman:
    """A code, as tables over the next 16 bits: length of the code (0 if it is none) and symbol."""

    lengths: Bytes
    symbols: Bytes

    def only(self, valid: npt.NDArray[np.bool_]) -> Huffman:
        """Return the code without the symbols (0 to 255) that are not valid."""
        return Huffman(np.where(valid[self.symbols], self.lengths, np.uint8(0)), self.symbols)

    def steps(self, sizes: Bytes) -> Bytes:
        """Return the bits from one code to the next, where `sizes` bits follow each symbol."""
        return np.where(self.lengths > 0, self.lengths + sizes[self.symbols], np.uint8(0))


@dataclass(eq=False)
class JpegStream:
    """One scan of one component and all that its decoder needs.

    Attributes:
        process: n of the marker SOFn: 0 and 1 are sequential, 3 is lossless.
        selection, high, low: Ss, Se and Ah * 16 + Al of the scan.
        segments: entropy-coded bytes between restart markers, without stuffed zeros.
    """

    process: int = -1
    precision: int = 0
    rows: int = 0
    columns: int = 0
    quantisation_index: int = 0
    restart_interval: int = 0
    selection: int = 0
    end: int = 0
    approximation: int = 0
    dc_index: int = 0
    ac_index: int = 0
    dc: dict[int, Huffman] = field(default_factory=dict)
    ac: dict[int, Huffman] = field(default_factory=dict)
    quantisation: dict[int, npt.NDArray[np.uint16]] = field(default_factory=dict)
    segments: list[bytes] = field(default_factory=list)


def check_size(stated: tuple[int, int, int], rows: int, columns: int) -> None:
    """Compare rows, columns and components of a stream with the header's.

    Raises:
        ValueError: They differ, or there are several components.
    """
    if stated[2] != 1:
        raise ValueError(f"it has {stated[2]} components, and the header says grey")
    if stated[:2] != (rows, columns):
        raise ValueError(
            f"it states {stated[0]} x {stated[1]} pixels, and the header {rows} x {columns}"
        )


def parse_jpeg(data: bytes, rows: int, columns: int) -> JpegStream:
    """Split a JPEG stream of one grey image into tables and entropy-coded segments.

    Args:
        data: the stream, from its first marker; bytes behind its end are ignored.
        rows: number of rows that the header states.
        columns: number of columns that the header states.

    Raises:
        ValueError: It is damaged, of another size, or of a kind that is not supported.
    """
    stream = JpegStream()
    if data[:2] != bytes((0xFF, _SOI)):
        raise ValueError("it does not begin as JPEG")
    at = 2
    while True:
        at, marker, body = _segment(data, at)
        if marker in _SOF:
            _frame(stream, marker, body, rows, columns)
        elif marker == _DHT:
            _huffman_tables(stream, body)
        elif marker == _DQT:
            _quantisation_tables(stream, body)
        elif marker == _DRI:
            stream.restart_interval = int.from_bytes(_exactly(body, 2), "big")
        elif marker == _SOS:
            _scan(stream, body)
            stream.segments = _entropy_coded(data, at)
            return stream


def _segment(data: bytes, at: int) -> tuple[int, int, bytes]:
    """Position behind the marker segment at a position, its marker and its body."""
    while data[at : at + 2] == b"\xff\xff":  # fill bytes
        at += 1
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] in (0, _SOI, _EOI):
        raise ValueError("its header is damaged")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    end = at + 2 + length
    if length < 2 or end > len(data):
        raise ValueError("its header is damaged")
    return end, data[at + 1], data[at + 4 : end]


def _exactly(body: bytes, length: int) -> bytes:
    if len(body) != length:
        raise ValueError("its header is damaged")
    return body


def _frame(stream: JpegStream, marker: int, body: bytes, rows: int, columns: int) -> None:
    if marker in _UNSUPPORTED:
        raise ValueError(f"{_UNSUPPORTED[marker]} is not supported")
    if stream.process >= 0 or len(body) < 6:
        raise ValueError("its header is damaged")
    precision, high, wide, components = struct.unpack(">BHHB", body[:6])
    check_size((high, wide, components), rows, columns)
    _exactly(body, 9)
    stream.process, stream.precision = marker - 0xC0, precision
    stream.rows, stream.columns, stream.quantisation_index = high, wide, body[8]


def _huffman_tables(stream: JpegStream, body: bytes) -> None:
    while body:
        counts = body[1:17]
        symbols = body[17 : 17 + sum(counts)]
        if len(counts) < 16 or len(symbols) < sum(counts) or body[0] >> 4 > 1:
            raise ValueError("a Huffman table is damaged")
        tables = stream.ac if body[0] >> 4 else stream.dc
        tables[body[0] & 15] = huffman(counts, symbols)
        body = body[17 + len(symbols) :]


def huffman(counts: bytes, symbols: bytes) -> Huffman:
    """Tables of a code, from the number of codes of each length 1 to 16 and their symbols.

    Raises:
        ValueError: There are more codes than bits allow.
    """
    lengths, values = np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.uint8)
    low, index = 0, 0
    for length, count in enumerate(counts, start=1):
        for _ in range(count):
            high = low + (1 << (16 - length))
            if high > 1 << 16:
                raise ValueError("a Huffman table is damaged")
            lengths[low:high], values[low:high] = length, symbols[index]
            low, index = high, index + 1
    return Huffman(lengths, values)


def _quantisation_tables(stream: JpegStream, body: bytes) -> None:
    while body:
        wide, index = body[0] >> 4, body[0] & 15
        length = 128 if wide else 64
        values = np.frombuffer(body[1 : 1 + length], ">u2" if wide else "u1").astype(np.uint16)
        if wide > 1 or len(values) < 64 or not values.all():
            raise ValueError("a quantisation table is damaged")
        stream.quantisation[index] = values
        body = body[1 + length :]


def _scan(stream: JpegStream, body: bytes) -> None:
    if stream.process < 0 or not body:
        raise ValueError("its header is damaged")
    if body[0] != 1:
        raise ValueError(f"a scan has {body[0]} components, and its image has one")
    _, _, tables, stream.selection, stream.end, stream.approximation = _exactly(body, 6)
    stream.dc_index, stream.ac_index = tables >> 4, tables & 15


def _entropy_coded(data: bytes, start: int) -> list[bytes]:
    """Split the bytes behind a scan's header at restart markers, and remove stuffed zeros."""
    coded = np.frombuffer(data, np.uint8, offset=start)
    found = np.flatnonzero(coded[:-1] == 0xFF)
    following = coded[found + 1]
    markers = found[(following != 0) & (following != 0xFF)]
    segments, begin = [], 0
    for place in markers.tolist():
        marker = int(coded[place + 1])
        segments.append(_unstuffed(data[start + begin : start + place]))
        begin = place + 2
        if not _RST0 <= marker <= _RST7:
            if marker == _EOI:
                return segments
            raise ValueError("it has several scans" if marker != _DNL else "DNL is not supported")
        if marker - _RST0 != (len(segments) - 1) % 8:
            raise ValueError("its restart markers are out of order")
    segments.append(_unstuffed(data[start + begin :]))  # the end marker is missing
    return segments


def _unstuffed(segment: bytes) -> bytes:
    return segment.rstrip(b"\xff").replace(b"\xff\x00", b"\xff")


def windows(data: Bytes) -> npt.NDArray[np.uint16]:
    """Return the 16 bits that begin at each bit of all but the last two bytes."""
    wide = data.astype(np.uint32)
    words = (wide[:-2] << 16) | (wide[1:-1] << 8) | wide[2:]
    shifts = np.arange(8, 0, -1, dtype=np.uint32)
    return ((words[:, None] >> shifts) & 0xFFFF).astype(np.uint16).ravel()


def coded_values(
    segment: bytes, at: Positions, table: Huffman, sizes: Bytes
) -> tuple[npt.NDArray[np.int64], Bytes]:
    """Return the numbers behind the codes at some bits, and the symbols of the codes.

    Args:
        segment: entropy-coded bytes.
        at: bit at which each code begins.
        table: the code.
        sizes: bits of the number behind each symbol 0 to 255.

    Raises:
        ValueError: There is no valid code at one of the bits.
    """
    data = np.frombuffer(segment + bytes(8), np.uint8)
    byte, offset = at >> 3, at & 7
    bits = np.zeros(len(at), np.int64)
    for k in range(5):
        bits = (bits << 8) | data[byte + k]
    window = (bits >> (24 - offset)) & 0xFFFF
    lengths, symbols = table.lengths[window], table.symbols[window]
    if not lengths.all():
        raise ValueError("it holds a code that its tables lack")
    size = sizes[symbols].astype(np.int64)
    raw = (bits >> (40 - offset - lengths - size)) & ((1 << size) - 1)
    negative = raw < (1 << size) >> 1  # T.81, F.2.2.1: EXTEND
    return raw - np.where(negative, (1 << size) - 1, 0), symbols


def check_end(bits: int, segment: bytes) -> None:
    """Check that the last code of a segment ends where the segment ends.

    Raises:
        ValueError: It ends too early or too late, which damage inside mostly leads to.
    """
    left = 8 * len(segment) - bits
    if left < 0:
        raise ValueError("it ends before its last pixel")
    if left > _MOST_LEFT_BITS:
        raise ValueError(f"{left} bits are left behind its last pixel")
