"""JPEG Lossless against an encoder of its own and that of dcmtk, and damaged streams."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames

from restore_rwkv.io.dicom.jpeg_lossless import decode_lossless
from restore_rwkv.io.dicom.jpeg_stream import parse_jpeg
from tests.helpers.jpeg_lossless import encode
from tests.helpers.synthetic_series import SeriesWriter
from tests.helpers.tools import needs

RNG = np.random.default_rng(0)


def decode(stream: bytes, rows: int = 13, columns: int = 9) -> np.ndarray:
    return decode_lossless(parse_jpeg(stream, rows, columns))


def image(bits: int, rows: int = 13, columns: int = 9) -> np.ndarray:
    return RNG.integers(0, 1 << bits, (rows, columns), dtype=np.uint16)


CODED, RESTARTED = encode(image(8), 8), encode(image(8), 8, rows=4)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [2, 8, 12, 16])
def test_every_predictor_and_precision_is_exact(predictor: int, bits: int) -> None:
    pixels = image(bits)
    np.testing.assert_array_equal(decode(encode(pixels, bits, predictor)), pixels)


def test_differences_of_half_the_range_are_exact() -> None:
    pixels = np.array([[32768, 0, 32768], [0, 65535, 32767]], np.uint16)
    np.testing.assert_array_equal(decode(encode(pixels, 16), 2, 3), pixels)


@pytest.mark.parametrize("predictor", [1, 4, 6])
def test_restart_markers_begin_anew(predictor: int) -> None:
    pixels = image(12, rows=24)
    stream = encode(pixels, 12, predictor, rows=2)
    assert stream.count(b"\xff\xd7") == 1
    np.testing.assert_array_equal(decode(stream, 24), pixels)


def test_dropped_bits_are_zero() -> None:
    pixels = image(12)
    np.testing.assert_array_equal(decode(encode(pixels, 12, shift=3)), pixels >> 3 << 3)


def test_streams_longer_than_one_block_of_look_up_are_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = image(16, 40, 50)
    stream = encode(pixels, 16, 5)
    for block in (1, 7, 64, 4096):
        monkeypatch.setattr("restore_rwkv.io.dicom.jpeg_lossless._BLOCK", block)
        np.testing.assert_array_equal(decode(stream, 40, 50), pixels)


@needs("dcmcjpeg")
@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [8, 16])
def test_streams_of_dcmtk_are_exact(
    write_series: SeriesWriter, tmp_path: Path, predictor: int, bits: int
) -> None:
    def with_bits(k: int, dataset: pydicom.Dataset) -> None:
        pixels = image(bits, dataset.Rows, dataset.Columns).astype(f"u{bits // 8}").tobytes()
        dataset.PixelData = pixels + bytes(len(pixels) % 2)
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0

    source = sorted(write_series(with_bits).glob("*.dcm"))[0]
    options = ["+el", "+sv", str(predictor)] if predictor > 1 else ["+e1"]
    subprocess.run(["dcmcjpeg", *options, source, tmp_path / "c.dcm"], check=True)
    (frame,) = generate_frames(pydicom.dcmread(tmp_path / "c.dcm").PixelData, number_of_frames=1)
    truth = pydicom.dcmread(source).pixel_array
    np.testing.assert_array_equal(decode(frame, *truth.shape), truth)


def test_every_truncation_is_refused() -> None:
    stream = encode(image(12), 12)
    for length in range(len(stream) - 3):  # the end marker, and a byte that may be padding
        with pytest.raises(ValueError, match=r"end|header|begin|table|left"):
            decode(stream[:length])


def test_damaged_streams_are_refused_or_decoded_but_never_hang() -> None:
    stream = encode(image(12, 20, 20), 12)
    random.seed(0)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(stream)
        for _ in range(random.randrange(1, 4)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        try:
            assert decode(bytes(damaged), 20, 20).shape == (20, 20)
        except ValueError:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"", "does not begin as JPEG"),
        (b"\xff\xd8\xff", "header is damaged"),
        (CODED[:-60], "ends before its last pixel"),
        (CODED[:-2] + bytes(3) + b"\xff\xd9", "bits are left behind"),
        (encode(image(8, 14), 8), "it states 14 x 9 pixels, and the header 13 x 9"),
        (CODED.replace(b"\xff\xc3\0\x0b\x08", b"\xff\xc3\0\x0b\x06"), "than 6 bits"),
        (CODED.replace(b"\xff\xc4\x00", b"\xff\xc4\xff"), "header is damaged"),
        (CODED.replace(b"\xff\xc4", b"\xff\xe0"), "Huffman table is missing"),
        (RESTARTED.replace(b"\xff\xd1", b"\xff\xd2"), "out of order"),
        (
            encode(image(8), 8, rows=4).replace(b"\xff\xdd\0\4\0\x24", b"\xff\xdd\0\4\0\x23"),
            "35 pixels",
        ),
        (CODED.replace(b"\1\1\0\1\0\0", b"\1\1\0\x09\0\0"), "no predictor 9"),
        (CODED.replace(b"\1\1\x11\0", b"\3\1\x11\0"), "has 3 components"),
    ],
    ids=range(12),
)
def test_what_is_wrong_is_said(stream: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(stream)
