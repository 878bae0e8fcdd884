"""JPEG Lossless against an encoder of its own and that of dcmtk, and damaged streams."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames

from restore_rwkv.io.dicom.jpeg_lossless import JpegLosslessError, decode_jpeg_lossless
from tests.helpers.jpeg_lossless import encode
from tests.helpers.synthetic_series import SeriesWriter
from tests.helpers.tools import needs

RNG = np.random.default_rng(0)


def image(bits: int, rows: int = 13, columns: int = 9) -> np.ndarray:
    return RNG.integers(0, 1 << bits, (rows, columns), dtype=np.uint16)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [2, 8, 12, 16])
def test_every_predictor_and_precision_is_exact(predictor: int, bits: int) -> None:
    pixels = image(bits)
    np.testing.assert_array_equal(decode_jpeg_lossless(encode(pixels, bits, predictor)), pixels)


def test_differences_of_half_the_range_are_exact() -> None:
    pixels = np.array([[32768, 0, 32768], [0, 65535, 32767]], np.uint16)
    np.testing.assert_array_equal(decode_jpeg_lossless(encode(pixels, 16)), pixels)


@pytest.mark.parametrize("predictor", [1, 4])
def test_restart_markers_begin_anew(predictor: int) -> None:
    pixels = image(12, rows=24)
    stream = encode(pixels, 12, predictor, rows=2)
    assert stream.count(b"\xff\xd7") == 1
    np.testing.assert_array_equal(decode_jpeg_lossless(stream), pixels)


def test_dropped_bits_are_zero() -> None:
    pixels = image(12)
    stream = encode(pixels, 12, shift=3)
    np.testing.assert_array_equal(decode_jpeg_lossless(stream), pixels >> 3 << 3)


@needs("dcmcjpeg")
@pytest.mark.parametrize(
    "options", [("+e1",), ("+el", "+sv", "2"), ("+el", "+sv", "6")], ids=" ".join
)
def test_streams_of_another_encoder_are_exact(
    write_series: SeriesWriter, tmp_path: Path, options: tuple[str, ...]
) -> None:
    source = sorted(write_series().glob("*.dcm"))[0]
    subprocess.run(["dcmcjpeg", *options, source, tmp_path / "c.dcm"], check=True)
    compressed = pydicom.dcmread(tmp_path / "c.dcm")
    (frame,) = generate_frames(compressed.PixelData, number_of_frames=1)
    truth = pydicom.dcmread(source).pixel_array
    np.testing.assert_array_equal(decode_jpeg_lossless(frame), truth.view(np.uint16))


def test_damaged_streams_are_refused_or_decoded_but_never_hang() -> None:
    stream = encode(image(12, 20, 20), 12)
    random.seed(0)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(stream)
        for _ in range(random.randrange(1, 4)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        damaged = damaged[: random.randrange(len(damaged) // 2, len(damaged) + 1)]
        try:
            pixels = decode_jpeg_lossless(bytes(damaged))
        except JpegLosslessError:
            refused += 1
        else:
            assert pixels.size <= 8 * len(damaged)  # a code has at least one bit
    assert refused > 1000


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"", "does not start as a JPEG"),
        (b"\xff\xd8\xff", "truncated"),
        (encode(image(8), 8)[:-60], "truncated"),
        (encode(image(8), 8).replace(b"\xff\xc3", b"\xff\xc0"), "not of the lossless process"),
        (encode(image(8), 8).replace(b"\xff\xc4\x00", b"\xff\xc4\xff"), "truncated"),
    ],
    ids=["empty", "start", "half", "baseline", "table"],
)
def test_what_is_wrong_is_said(stream: bytes, message: str) -> None:
    with pytest.raises(JpegLosslessError, match=message):
        decode_jpeg_lossless(stream)
