"""Streams of JPEG 2000, JPEG-LS and RLE that are cut, damaged, or state what they do not hold."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from jpeg_ls import encode_array as encode_jpeg_ls
from openjpeg.utils import encode_array as encode_jpeg_2000

from restore_rwkv.io.dicom.codestreams import (
    StreamHeader,
    decode_jpeg2000,
    decode_jpeg_ls,
    decode_rle,
    jpeg2000_header,
    jpeg_ls_header,
)

IMAGE = np.random.default_rng(0).integers(0, 4096, (40, 36)).astype(np.uint16)
JPEG_2000 = bytes(encode_jpeg_2000(IMAGE, bits_stored=12))
JPEG_LS = bytes(encode_jpeg_ls(IMAGE))
RLE = struct.pack("<16I", 2, 64, 70, *[0] * 13) + b"\x01\x0a\x0b\xff\x00\x00" + b"\x02\1\2\3\x00\4"


def test_headers_say_size_precision_and_whether_values_are_exact() -> None:
    assert jpeg2000_header(JPEG_2000) == StreamHeader(40, 36, 1, 12, False, True)
    lossy = bytes(encode_jpeg_2000(IMAGE, bits_stored=12, compression_ratios=[4]))
    assert jpeg2000_header(lossy) == StreamHeader(40, 36, 1, 12, False, False)
    signed = bytes(encode_jpeg_2000(IMAGE.astype(np.int16)))
    assert jpeg2000_header(signed).signed
    assert jpeg_ls_header(JPEG_LS) == StreamHeader(40, 36, 1, 12, False, True)
    near = bytes(encode_jpeg_ls(IMAGE, lossy_error=3))
    assert jpeg_ls_header(near) == StreamHeader(40, 36, 1, 12, False, False)


def test_checked_streams_are_decoded() -> None:
    for data, header, decode in (
        (JPEG_2000, jpeg2000_header(JPEG_2000), decode_jpeg2000),
        (JPEG_LS, jpeg_ls_header(JPEG_LS), decode_jpeg_ls),
    ):
        np.testing.assert_array_equal(decode(data, header), IMAGE)


def test_jpeg_2000_in_a_file_format_of_its_own_is_decoded() -> None:
    boxes = struct.pack(">I4sI", 12, b"jP  ", 0x0D0A870A) + struct.pack(">I4s", 20, b"ftyp")
    boxes += b"jp2 \0\0\0\0jp2 "
    image_header = struct.pack(">I4s2IH4B", 22, b"ihdr", 40, 36, 1, 11, 7, 0, 0)
    colour = struct.pack(">I4s3BI", 15, b"colr", 1, 0, 0, 17)
    boxes += struct.pack(">I4s", 45, b"jp2h") + image_header + colour
    wrapped = boxes + struct.pack(">I4s", 8 + len(JPEG_2000), b"jp2c") + JPEG_2000
    header = jpeg2000_header(wrapped)
    assert (header.rows, header.columns) == (40, 36)
    np.testing.assert_array_equal(decode_jpeg2000(wrapped, header), IMAGE)


def test_every_truncation_of_jpeg_2000_is_refused() -> None:
    for length in range(len(JPEG_2000) - 2):  # the end marker may be missing
        with pytest.raises(ValueError, match=r"ends|begin|damaged"):
            jpeg2000_header(JPEG_2000[:length])
    assert jpeg2000_header(JPEG_2000[:-2] + b"\xff\xd9\0") == jpeg2000_header(JPEG_2000[:-2])


def test_every_truncation_of_jpeg_ls_is_refused() -> None:
    for length in range(len(JPEG_LS) - 1):
        with pytest.raises(ValueError, match=r"ends|begin|damaged|end is missing"):
            jpeg_ls_header(JPEG_LS[:length])


def test_more_tiles_than_are_allowed_are_refused_before_decoding() -> None:
    tiny = JPEG_2000[:24] + struct.pack(">2I", 1, 1) + JPEG_2000[32:]
    huge = tiny[:8] + struct.pack(">2I", 1 << 20, 1 << 20) + tiny[16:]
    with pytest.raises(ValueError, match="more tiles than are allowed"):
        jpeg2000_header(huge)


def test_tables_of_values_in_jpeg_ls_are_refused() -> None:
    table = b"\xff\xf8\0\x05\2\1\1"
    with pytest.raises(ValueError, match="tables of values"):
        jpeg_ls_header(JPEG_LS[:2] + table + JPEG_LS[2:])


def test_runs_and_literals_of_rle_are_unpacked() -> None:
    # 2 literals and twice 0; 3 literals and 1. The high bytes come first.
    expected = [[0x0A01, 0x0B02], [3, 4]]
    assert decode_rle(RLE, 2, 2, 2).tolist() == expected


@pytest.mark.parametrize(
    ("data", "size", "message"),
    [
        (RLE[:40], 2, "ends within its header"),
        (RLE, 1, "it has 2 segments, and 8 bits need 1"),
        (RLE[:-1], 2, "ends before its last pixel"),
        (RLE[:64] + b"\x01\x0a\x0b\xf0\x00\x00" + RLE[70:], 2, "does not end with its last pixel"),
        (RLE[:8] + struct.pack("<I", 9999) + RLE[12:], 2, "ends|does not end"),
    ],
)
def test_damaged_rle_is_refused(data: bytes, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_rle(data, 2, 2, size)
