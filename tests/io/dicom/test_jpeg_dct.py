"""Sequential JPEG of 8 and 12 bits against an encoder of its own, Pillow's and that of dcmtk."""

from __future__ import annotations

import io
import random
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

from restore_rwkv.io.dicom.jpeg_dct import decode_sequential
from restore_rwkv.io.dicom.jpeg_stream import parse_jpeg
from tests.helpers.jpeg_dct import encode
from tests.helpers.synthetic_series import SeriesWriter
from tests.helpers.tools import needs


def decode(stream: bytes, rows: int, columns: int) -> np.ndarray:
    return decode_sequential(parse_jpeg(stream, rows, columns))


def smooth(bits: int, rows: int = 37, columns: int = 50) -> np.ndarray:
    y, x = np.mgrid[:rows, :columns]
    noise = np.random.default_rng(0).normal(0, 0.02, (rows, columns))
    image = 0.5 + 0.5 * np.sin(x / 7) * np.cos(y / 9) + noise
    return np.rint(image.clip(0, 1) * ((1 << bits) - 1)).astype(np.uint16)


CODED = encode(smooth(8), 8)


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("restart", [0, 3])
def test_pixels_are_within_the_rounding_of_their_coefficients(bits: int, restart: int) -> None:
    pixels = smooth(bits)
    decoded = decode(encode(pixels, bits, restart=restart), *pixels.shape)
    # Coefficients are rounded by at most 0.5 each, with weights of at most 1/4: seen 1.
    assert np.abs(decoded.astype(int) - pixels).max() <= 2


def test_a_block_may_end_with_its_last_coefficient_and_hold_long_runs_of_zeros() -> None:
    pixels = np.random.default_rng(1).integers(0, 4096, (16, 16)).astype(np.uint16)
    decoded = decode(encode(pixels, 12), 16, 16)
    assert np.abs(decoded.astype(int) - pixels).max() <= 2
    checks = (np.indices((16, 16)).sum(0) % 2 * 4095).astype(np.uint16)
    assert np.abs(decode(encode(checks, 12, step=20), 16, 16).astype(int) - checks).max() <= 200


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_agrees_with_pillow_on_its_streams(quality: int) -> None:
    stream = io.BytesIO()
    Image.fromarray(smooth(8).astype(np.uint8)).save(stream, "JPEG", quality=quality)
    theirs = np.asarray(Image.open(stream)).astype(int)
    # Both round what the transform gives; libjpeg's is of integers.
    assert np.abs(decode(stream.getvalue(), *theirs.shape) - theirs).max() <= 1


@needs("dcmcjpeg", "dcmdjpeg")
def test_agrees_with_dcmtk_on_twelve_bits(write_series: SeriesWriter, tmp_path: Path) -> None:
    def positive(k: int, dataset: pydicom.Dataset) -> None:
        pixels = smooth(12, dataset.Rows, dataset.Columns)
        dataset.PixelData = pixels.tobytes()
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0

    source = sorted(write_series(positive).glob("*.dcm"))[0]
    subprocess.run(["dcmcjpeg", "+ee", source, tmp_path / "c.dcm"], check=True)
    subprocess.run(["dcmdjpeg", tmp_path / "c.dcm", tmp_path / "d.dcm"], check=True)
    (frame,) = generate_frames(pydicom.dcmread(tmp_path / "c.dcm").PixelData, number_of_frames=1)
    theirs = pydicom.dcmread(tmp_path / "d.dcm").pixel_array.astype(int)
    assert np.abs(decode(frame, *theirs.shape) - theirs).max() <= 1


def test_parameters_of_the_scan_that_are_wrong_in_published_files_do_not_matter() -> None:
    frames = []
    for name in ("JPGExtended.dcm", "JPEG-lossy.dcm"):  # the same image; the latter says Se = 0
        dataset = pydicom.dcmread(get_testdata_file(name, download=False))
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        frames.append(decode(frame, 1024, 256))
    np.testing.assert_array_equal(*frames)
    assert frames[0].max() == 264


def test_damaged_streams_are_refused_or_decoded_but_never_hang() -> None:
    pixels = smooth(12, 24, 24)
    stream = encode(pixels, 12, step=4)
    random.seed(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(stream)
        damaged[random.randrange(700, len(damaged))] ^= 1 << random.randrange(8)
        try:
            assert decode(bytes(damaged), 24, 24).shape == (24, 24)
        except ValueError:
            refused += 1
    assert refused > 100  # others change a value, and the codes behind it stay in step


def test_every_truncation_is_refused() -> None:
    stream = encode(smooth(8, 16, 16), 8)
    for length in range(len(stream) - 4):
        with pytest.raises(ValueError, match=r"end|header|begin|table|left"):
            decode(stream[:length], 16, 16)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (CODED.replace(b"\xff\xc1", b"\xff\xc2"), "progressive JPEG is not"),
        (CODED.replace(b"\xff\xc1", b"\xff\xc9"), "arithmetic coding is not"),
        (CODED.replace(b"\xff\xc1\0\x0b\x08", b"\xff\xc1\0\x0b\x0a"), "10 bits"),
        (CODED.replace(b"\xff\xdb", b"\xff\xe0"), "quantisation table is missing"),
        (CODED.replace(b"\xff\xc4", b"\xff\xe0"), "Huffman table is missing"),
        (CODED[:-2] + b"\xff\xda\0\x08", "several scans"),
        (encode(smooth(8), 8, restart=3).replace(b"\xff\xd1", b"\xff\xd2"), "out of order"),
        (encode(smooth(8, 40, 50), 8), "it states 40 x 50 pixels, and the header 37 x 50"),
    ],
    ids=range(8),
)
def test_what_is_wrong_is_said(stream: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(stream, 37, 50)
