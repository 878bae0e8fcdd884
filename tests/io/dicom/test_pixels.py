"""Stored values of every transfer syntax, cut to the bits that are stored."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from restore_rwkv.errors import InputError
from restore_rwkv.io import read_volume
from restore_rwkv.io.dicom.files import read_up_to_pixels
from restore_rwkv.io.dicom.pixels import PixelReader, stored_bits
from tests.helpers.jpeg_lossless import encode
from tests.helpers.synthetic_series import SeriesWriter, stored_slice
from tests.helpers.tools import needs

ROWS, COLUMNS = 40, 36
BASE = np.random.default_rng(0).integers(0, 2000, (ROWS, COLUMNS)).astype(np.uint16)
OVERLAY = BASE | np.uint16(0x1000)  # a bit above the 12 stored
SIGNED = BASE.astype(np.int16) - np.int16(1000)


def image(pixels: np.ndarray, stored: int = 16, signed: bool = False) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = stored, stored - 1
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = pixels.tobytes()
    return dataset


def compressed(pixels: np.ndarray, syntax: str, stored: int, signed: bool) -> Dataset:
    """An image whose stream has 16 bits, whatever its header says is stored."""
    dataset = image(pixels.view(np.uint16))
    dataset.SOPInstanceUID = "1.2.3"
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        predictor = 1 if syntax == JPEGLosslessSV1 else 6
        dataset.PixelData = encapsulate([encode(pixels.view(np.uint16), 16, predictor)])
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax == JPEG2000Lossless:
        dataset.PixelData = encapsulate([encode_array(pixels.view(np.uint16))])
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = stored, stored - 1
    dataset.PixelRepresentation = int(signed)
    return dataset


SYNTAXES = [JPEG2000Lossless, JPEGLSLossless, JPEGLossless, JPEGLosslessSV1, RLELossless]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)
def test_bits_above_those_stored_do_not_count_after_any_decoder(syntax: str) -> None:
    with PixelReader() as pixels:
        for data, stored, signed, truth in (
            (OVERLAY, 12, False, BASE),
            (SIGNED & 0xFFF, 12, True, SIGNED),  # the sign is not extended
            (SIGNED, 16, True, SIGNED),
        ):
            dataset = compressed(data, syntax, stored, signed)
            np.testing.assert_array_equal(pixels.stored(dataset, "a.dcm"), truth)


@pytest.mark.parametrize(
    ("data", "stored", "high", "signed", "truth"),
    [
        (OVERLAY, 12, 11, False, BASE),
        (SIGNED & 0xFFF, 12, 11, True, SIGNED),
        (BASE << 4, 12, 15, False, BASE),  # stored from the top
        (BASE.astype(np.uint32) | np.uint32(1 << 31), 16, 15, False, BASE),
        (BASE.astype(np.uint8), 8, 7, False, BASE & 0xFF),
    ],
)
def test_bits_above_those_stored_do_not_count_without_compression(
    data: np.ndarray, stored: int, high: int, signed: bool, truth: np.ndarray
) -> None:
    dataset = image(data, stored, signed)
    dataset.HighBit = high
    with PixelReader() as pixels:
        np.testing.assert_array_equal(pixels.stored(dataset, "a.dcm"), truth)


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRBigEndian,
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRLittleEndian,
    ],
    ids=lambda uid: uid.keyword,
)
def test_every_uncompressed_syntax_is_read(syntax: str, tmp_path: Path) -> None:
    dataset = image(SIGNED, 16, signed=True)
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    big = syntax == ExplicitVRBigEndian
    if big:
        dataset.PixelData = SIGNED.astype(">i2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with PixelReader() as pixels:
        stored = pixels.stored(read_up_to_pixels(tmp_path / "a.dcm"), "a.dcm")
    np.testing.assert_array_equal(stored, SIGNED)


@needs("dcmcjpls")
def test_streams_that_dcmtk_makes_of_overlays_are_right(
    write_series: SeriesWriter, tmp_path: Path
) -> None:
    for source in sorted(write_series().glob("*.dcm")):
        target = tmp_path / "jls" / source.name
        target.parent.mkdir(exist_ok=True)
        subprocess.run(["dcmcjpls", source, target], check=True)
    np.testing.assert_array_equal(
        read_volume(tmp_path / "jls").data, read_volume(source.parent).data
    )


def test_grey_jpeg_is_read_and_twelve_bits_are_refused_by_name() -> None:
    import io

    from PIL import Image

    stream = io.BytesIO()
    smooth = np.add.outer(np.arange(40), np.arange(36)).astype(np.uint8)
    Image.fromarray(smooth).save(stream, "JPEG", quality=95)
    dataset = image(smooth, 8)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([stream.getvalue()])
    with PixelReader() as pixels:
        stored = pixels.stored(dataset, "a.dcm")
        assert np.abs(stored.astype(int) - smooth).max() <= 3
        twelve = bytearray(stream.getvalue())
        twelve[twelve.index(b"\xff\xc0") + 4] = 12
        dataset.PixelData = encapsulate([bytes(twelve)])
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        with pytest.raises(InputError, match="JPEG with 12 bits is not decoded; use dcmdjpeg"):
            pixels.stored(dataset, "a.dcm")


def change(dataset: Dataset, **values: object) -> Dataset:
    for key, value in values.items():
        setattr(dataset, key, value)
    return dataset


def other_syntax(syntax: str) -> Dataset:
    dataset = image(BASE)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([b"\0" * 64])
    return dataset


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            change(image(BASE), Rows=60000),
            "a.dcm: holds 2880 bytes of pixel data, .* it has 4320000;",
        ),
        (change(image(BASE), PixelData=b""), "has no pixel data"),
        (change(image(BASE), BitsAllocated=12), "pixels of 12 bits"),
        (change(image(BASE), BitsStored=17), "BitsStored 17, HighBit 15 and BitsAllocated 16"),
        (change(image(BASE), Columns=0), "not an image that is read"),
        (other_syntax(MPEG2MPML), "compressed as MPEG2 .*, which is not decoded; convert it"),
        (other_syntax(JPEG2000Lossless), "cannot be decoded"),
        (other_syntax(JPEGLSLossless), "its header is damaged or missing"),
        (other_syntax(RLELossless), "0 segments"),
        (
            change(compressed(BASE, JPEGLSLossless, 16, False), Rows=41),
            "it has 40 rows, and the file says 41",
        ),
        (
            change(
                compressed(BASE, RLELossless, 16, False), BitsAllocated=8, BitsStored=8, HighBit=7
            ),
            "2 segments for pixels of 8 bits",
        ),
        (
            change(compressed(BASE, JPEG2000Lossless, 16, False), NumberOfFrames=2),
            "1 compressed frame|damaged",
        ),
    ],
    ids=range(12),
)
def test_pixels_that_do_not_fit_the_header_are_refused(dataset: Dataset, message: str) -> None:
    with PixelReader() as pixels, pytest.raises(InputError, match=message):
        pixels.stored(dataset, "a.dcm")


def test_a_sign_is_extended_from_the_highest_stored_bit() -> None:
    header = change(Dataset(), BitsAllocated=16, BitsStored=4, HighBit=3, PixelRepresentation=1)
    values = np.arange(16, dtype=np.uint16).reshape(1, 4, 4)
    expected = [*range(8), *range(-8, 0)]
    assert stored_bits(values, header, "a.dcm").ravel().tolist() == expected


def test_a_compressed_series_is_read_as_the_uncompressed_one(write_series: SeriesWriter) -> None:
    folder = write_series()
    truth = read_volume(folder)
    for k, file in enumerate(sorted(folder.glob("*.dcm"))):
        dataset = dcmread(file)
        dataset.compress(RLELossless if k % 2 else JPEGLSLossless, generate_instance_uid=False)
        dataset.save_as(file)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.data, truth.data)
    assert stored_slice(0).shape == volume.data.shape[1::-1]
