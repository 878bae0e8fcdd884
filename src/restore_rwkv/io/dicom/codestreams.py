"""Headers of JPEG 2000 and JPEG-LS streams, and their decoding by OpenJPEG and CharLS; RLE.

Sizes are compared with those of the DICOM header before a decoder sees the stream: both decoders
allocate whatever a stream states. Errors are ValueErrors or RuntimeErrors whose message fits behind
"cannot be decoded".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

_SOC_SIZ = b"\xff\x4f\xff\x51"
_JP2 = b"\x00\x00\x00\x0cjP  "
_COD, _SOT, _EOC = 0xFF52, 0xFF90, b"\xff\xd9"
_IRREVERSIBLE = 0
_MOST_TILES = 65535
_SOF55, _LSE, _SOS = 0xF7, 0xF8, 0xDA


@dataclass(frozen=True)
class StreamHeader:
    """What a stream states of itself.

    Attributes:
        rows, columns, components: its size.
        precision: bits of each value.
        signed: whether the values are signed.
        exact: whether it gives the numbers that were encoded.
    """

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool
    exact: bool


def jpeg2000_header(data: bytes) -> StreamHeader:
    """Read the header of a JPEG 2000 codestream, also one in a JP2 file, and follow its tile parts.

    Raises:
        ValueError: It is damaged, or ends before its last tile part does.
    """
    start = data.find(_SOC_SIZ) if data.startswith(_JP2) else 0
    if start < 0 or data[start : start + 4] != _SOC_SIZ or len(data) < start + 48:
        raise ValueError("it does not begin as JPEG 2000")
    x1, y1, x0, y0, tile_x, tile_y = struct.unpack_from(">6I", data, start + 8)
    components, depth, step_x, step_y = struct.unpack_from(">H3B", data, start + 40)
    if (step_x, step_y) != (1, 1) or x1 <= x0 or y1 <= y0 or not (tile_x and tile_y):
        raise ValueError("its header is damaged")
    if -(-x1 // tile_x) * -(-y1 // tile_y) > _MOST_TILES:
        raise ValueError("its header states more tiles than are allowed")
    at, exact = start + 2, True
    while True:
        marker, length = struct.unpack_from(">HH", _at_least(data, at, 14), at)
        if marker == _SOT:
            break
        if marker < 0xFF00 or length < 2:
            raise ValueError("its header is damaged")
        if marker == _COD:
            exact = data[at + 13] != _IRREVERSIBLE
        at += 2 + length
    _follow_tile_parts(data, at)
    precision, signed = (depth & 0x7F) + 1, bool(depth >> 7)
    return StreamHeader(y1 - y0, x1 - x0, components, precision, signed, exact)


def _at_least(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise ValueError("it ends within its header")
    return data


def _follow_tile_parts(data: bytes, at: int) -> None:
    """Go from tile part to tile part: what is cut off would be decoded as blurred or black."""
    while data[at : at + 2] != _EOC:
        if at == len(data):
            return  # complete, though its end marker is missing
        marker, _, _, length = struct.unpack_from(">HHHI", _at_least(data, at, 12), at)
        if marker != _SOT or 0 < length < 14:
            raise ValueError("a tile part is damaged")
        if not length:  # up to the end marker
            at = data.rfind(_EOC)
            if at < 0:
                raise ValueError("it ends before its last tile part does")
            return
        at += length
        if at > len(data):
            raise ValueError("it ends before its last tile part does")


def decode_jpeg2000(data: bytes, header: StreamHeader) -> npt.NDArray[np.integer]:
    """Return the pixels of a checked stream, rows by columns."""
    from openjpeg.utils import decode_pixel_data

    return _pixels(bytes(decode_pixel_data(data, version=2)), header)


def jpeg_ls_header(data: bytes) -> StreamHeader:
    """Read the header of a JPEG-LS stream.

    Raises:
        ValueError: It is damaged, or its end is missing.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("it does not begin as JPEG-LS")
    at, frame = 2, None
    while True:
        _at_least(data, at, 4)
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = _at_least(data, at, 2 + length)[at + 4 : at + 2 + length]
        if data[at] != 0xFF or length < 2:
            raise ValueError("its header is damaged")
        if marker == _SOF55 and len(body) >= 6:
            frame = struct.unpack_from(">BHHB", body)
        elif marker == _LSE and body[:1] != b"\x01":
            raise ValueError("tables of values in JPEG-LS are not supported")
        elif marker == _SOS:
            break
        at += 2 + length
    if frame is None or len(body) < 6:
        raise ValueError("its header is damaged")
    if data.find(b"\xff\xd9", at) < 0:
        raise ValueError("its end is missing")
    precision, rows, columns, components = frame
    return StreamHeader(rows, columns, components, precision, False, body[-3] == 0)


def decode_jpeg_ls(data: bytes, header: StreamHeader) -> npt.NDArray[np.integer]:
    """Return the pixels of a checked stream, rows by columns."""
    from jpeg_ls import decode_pixel_data

    return _pixels(bytes(decode_pixel_data(data)[0]), header)


def _pixels(data: bytes, header: StreamHeader) -> npt.NDArray[np.integer]:
    size = 1 if header.precision <= 8 else 2 if header.precision <= 16 else 4
    dtype = np.dtype(f"<{'i' if header.signed else 'u'}{size}")
    pixels = np.frombuffer(data, dtype).reshape(header.rows, header.columns)
    return cast("npt.NDArray[np.integer]", pixels)


def decode_rle(data: bytes, rows: int, columns: int, size: int) -> npt.NDArray[np.integer]:
    """Return the pixels of an RLE frame (DICOM PS3.5, annex G), rows by columns.

    Args:
        data: the frame.
        rows: number of rows.
        columns: number of columns.
        size: bytes of each pixel; the frame has a segment for each, the highest first.

    Raises:
        ValueError: A segment is missing, or has more or less than one byte for each pixel.
    """
    if len(data) < 64:
        raise ValueError("it ends within its header")
    number, *offsets = struct.unpack_from("<16I", data)
    if number != size:
        raise ValueError(f"it has {number} segments, and {8 * size} bits need {size}")
    ends = [*offsets[1:number], len(data)]
    planes = [
        _unpacked(data[start:end], rows * columns)
        for start, end in zip(offsets[:number], ends, strict=True)
    ]
    together = np.stack([np.frombuffer(plane, np.uint8) for plane in planes], axis=-1)
    return together.view(f">u{size}").astype(f"<u{size}").reshape(rows, columns)


def _unpacked(segment: bytes, length: int) -> bytes:
    """Undo PackBits: n < 128 copies n + 1 bytes, n > 128 repeats a byte 257 - n times."""
    if 64 * len(segment) < length:
        raise ValueError("it ends before its last pixel")
    out = bytearray()
    at = 0
    while len(out) < length:
        if at + 1 >= len(segment):
            raise ValueError("it ends before its last pixel")
        count = segment[at]
        if count < 128:
            out += segment[at + 1 : at + 2 + count]
            at += 2 + count
        else:
            if count > 128:
                out += segment[at + 1 : at + 2] * (257 - count)
            at += 2 if count > 128 else 1
    if len(out) > length or at > len(segment):
        raise ValueError("a segment does not end with its last pixel")
    return bytes(out)
