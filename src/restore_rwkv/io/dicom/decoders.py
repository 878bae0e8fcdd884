"""Decoding of one compressed frame, which runs in a child process (`restore_rwkv.io.child`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from restore_rwkv.io.dicom.codestreams import (
    StreamHeader,
    decode_jpeg2000,
    decode_jpeg_ls,
    decode_rle,
    jpeg2000_header,
    jpeg_ls_header,
)
from restore_rwkv.io.dicom.jpeg_dct import decode_sequential
from restore_rwkv.io.dicom.jpeg_lossless import decode_lossless
from restore_rwkv.io.dicom.jpeg_stream import check_size, parse_jpeg

_LOSSLESS = 3  # SOF3


def decode(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Decode one frame of one grey image.

    Args:
        request: "family" (RLE, JPEG, JPEG-LS or JPEG 2000), "rows", "columns" and "allocated", the
            bits of each value, as the header states them.
        data: the compressed frame.

    Returns:
        "precision", "signed" and "exact" of the stream (see `StreamHeader`) and the "dtype" of its
        values; and the values, row after row.

    Raises:
        ValueError: The stream is damaged, not supported, or does not agree with the header.
    """
    rows, columns, allocated = (int(request[key]) for key in ("rows", "columns", "allocated"))
    pixels, header = _decoded(str(request["family"]), data, rows, columns, allocated)
    if header.precision > allocated:
        raise ValueError(
            f"it has {header.precision} bits for each pixel, and the header {allocated}"
        )
    facts = {
        "precision": header.precision,
        "signed": header.signed,
        "exact": header.exact,
        "dtype": pixels.dtype.newbyteorder("<").str,
    }
    return facts, pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()


def _decoded(
    family: str, data: bytes, rows: int, columns: int, allocated: int
) -> tuple[npt.NDArray[np.integer], StreamHeader]:
    if family == "RLE":
        pixels = decode_rle(data, rows, columns, allocated // 8)
        return pixels, StreamHeader(rows, columns, 1, allocated, False, True)
    if family == "JPEG":
        stream = parse_jpeg(data, rows, columns)
        exact = stream.process == _LOSSLESS
        header = StreamHeader(rows, columns, 1, stream.precision, False, exact)
        return decode_lossless(stream) if exact else decode_sequential(stream), header
    is_2000 = family == "JPEG 2000"
    header = jpeg2000_header(data) if is_2000 else jpeg_ls_header(data)
    check_size((header.rows, header.columns, header.components), rows, columns)
    return decode_jpeg2000(data, header) if is_2000 else decode_jpeg_ls(data, header), header
