"""Decoders of compressed DICOM pixels, which run in a child process (see `io.child`).

Each has a permissive licence. The stream's own header is checked against that of the file before
anything is decoded, so that a few bytes cannot ask for all memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from restore_rwkv.io.dicom.jpeg_lossless import decode_jpeg_lossless

Pixels = npt.NDArray[np.generic]

_UID = "1.2.840.10008.1.2."
_SIZE_MARKERS = (
    *range(0xC0, 0xC4),
    *range(0xC5, 0xC8),
    *range(0xC9, 0xCC),
    *range(0xCD, 0xD0),
    0xF7,
)


class StreamError(ValueError):
    """A stream cannot be what its file says."""


def decode(request: dict[str, Any], data: bytes) -> Pixels:
    """Return the pixels (rows, columns) of one frame, as the stream stores them.

    Args:
        request: "syntax", UID of the transfer syntax; "rows", "columns" and "bits" (allocated) of
            the file.
        data: The compressed frame.

    Raises:
        StreamError: The stream has another size than the file says.
        ValueError: It is damaged, or of a kind that is not decoded; decoders raise others too.
    """
    pixels = DECODERS[request["syntax"]](data, request)
    if pixels.shape != (request["rows"], request["columns"]):
        raise StreamError(
            f"it holds {' x '.join(map(str, pixels.shape))} pixels, and the file says "
            f"{request['rows']} x {request['columns']}"
        )
    return pixels


def _jpeg_2000(data: bytes, request: dict[str, Any]) -> Pixels:
    from openjpeg import utils

    _require_size(utils.get_parameters(data), request)
    return np.asarray(utils.decode(data))


def _jpeg_ls(data: bytes, request: dict[str, Any]) -> Pixels:
    from jpeg_ls import CharLS

    _require_size(_jpeg_header(data), request)
    values, header = CharLS.decode_buffer(data)
    kind = np.dtype("<u2" if header["bits_per_sample"] > 8 else "u1")
    return np.frombuffer(values, kind).reshape(header["height"], header["width"])


def _jpeg(data: bytes, request: dict[str, Any]) -> Pixels:
    from PIL import Image

    header = _jpeg_header(data)
    _require_size(header, request)
    if header["precision"] != 8:
        raise StreamError(f"JPEG with {header['precision']} bits is not decoded; use dcmdjpeg")
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return np.asarray(image)


def _jpeg_lossless(data: bytes, request: dict[str, Any]) -> Pixels:
    _require_size(_jpeg_header(data), request)
    return decode_jpeg_lossless(data)


def _rle(data: bytes, request: dict[str, Any]) -> Pixels:
    """Undo the run lengths of each byte of the pixels (DICOM PS3.5, annex G)."""
    count = int.from_bytes(data[:4], "little")
    if count * 8 != request["bits"]:
        raise StreamError(f"it has {count} segments for pixels of {request['bits']} bits")
    starts = [int.from_bytes(data[4 * k + 4 : 4 * k + 8], "little") for k in range(count)]
    size = request["rows"] * request["columns"]
    octets = [
        _unpacked(data[start:end], size)
        for start, end in zip(starts, [*starts[1:], len(data)], strict=True)
    ]
    values = np.stack([np.frombuffer(part, np.uint8) for part in octets[::-1]], axis=1)
    pixels = values.reshape(-1).view(f"<u{count}")
    return pixels.reshape(request["rows"], request["columns"])


def _unpacked(data: bytes, size: int) -> bytes:
    out, place = bytearray(), 0
    while len(out) < size:
        if place >= len(data):
            raise StreamError("its data is truncated")
        head = data[place]
        if head < 128:
            out += data[place + 1 : place + head + 2]
            place += head + 2
        else:
            out += data[place + 1 : place + 2] * (257 - head) if head > 128 else b""
            place += 2 if head > 128 else 1
    return bytes(out[:size])


def _jpeg_header(data: bytes) -> dict[str, int]:
    """Size, precision and components of a JPEG or JPEG-LS stream."""
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            break
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xFF:
            place += 1
            continue
        if marker in _SIZE_MARKERS and place + 10 <= len(data):
            return {
                "precision": data[place + 4],
                "rows": int.from_bytes(data[place + 5 : place + 7], "big"),
                "columns": int.from_bytes(data[place + 7 : place + 9], "big"),
                "samples_per_pixel": data[place + 9],
            }
        place += 2 + length
    raise StreamError("its header is damaged or missing")


def _require_size(header: dict[str, Any], request: dict[str, Any]) -> None:
    for key in ("rows", "columns"):
        if header[key] != request[key]:
            raise StreamError(f"it has {header[key]} {key}, and the file says {request[key]}")
    if header["samples_per_pixel"] != 1:
        raise StreamError("it holds colours")
    if header["precision"] > request["bits"]:
        raise StreamError(
            f"it has {header['precision']} bits, and the file allocates {request['bits']}"
        )


DECODERS: dict[str, Callable[[bytes, dict[str, Any]], Pixels]] = {
    f"{_UID}5": _rle,
    **dict.fromkeys((f"{_UID}4.50", f"{_UID}4.51"), _jpeg),
    **dict.fromkeys((f"{_UID}4.57", f"{_UID}4.70"), _jpeg_lossless),
    **dict.fromkeys((f"{_UID}4.80", f"{_UID}4.81"), _jpeg_ls),
    **dict.fromkeys((f"{_UID}4.90", f"{_UID}4.91"), _jpeg_2000),
    **dict.fromkeys((f"{_UID}4.201", f"{_UID}4.202", f"{_UID}4.203"), _jpeg_2000),
}
"""By UID of the transfer syntax."""
