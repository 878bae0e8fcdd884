"""Stored values of every transfer syntax, cut to the bits that are stored."""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from restore_rwkv.errors import InputError
from restore_rwkv.io import read_volume
from restore_rwkv.io.dicom.files import read_up_to_pixels
from restore_rwkv.io.dicom.layout import Layout, Numbers, stored_values
from restore_rwkv.io.dicom.pixels import PixelReader
from tests.helpers.jpeg_dct import encode as encode_dct
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


@pytest.mark.parametrize(("syntax", "bits"), [(JPEGBaseline8Bit, 8), (JPEGExtended12Bit, 12)])
def test_jpeg_of_8_and_12_bits_is_read(syntax: str, bits: int) -> None:
    smooth = (np.add.outer(np.arange(40), np.arange(36)) << (bits - 7)).astype(np.uint16)
    dataset = image(smooth, bits)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([encode_dct(smooth, bits)])
    with PixelReader() as pixels:
        assert np.abs(pixels.stored(dataset, "a.dcm").astype(int) - smooth).max() <= 1


@pytest.mark.parametrize("name", ["J2K_pixelrep_mismatch", "693_J2KI", "JPEG2000", "MR_small_RLE"])
@pytest.mark.parametrize("twice", [False, True])
def test_published_files_are_read_as_pydicom_reads_them(name: str, twice: bool) -> None:
    dataset = dcmread(get_testdata_file(f"{name}.dcm", download=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of signs that differ between stream and header
        truth = dataset.pixel_array
    if twice:  # as two frames
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        dataset.PixelData = encapsulate([frame, frame])
        dataset.NumberOfFrames = 2
        truth = np.stack([truth, truth])
    with PixelReader() as pixels:
        np.testing.assert_array_equal(pixels.stored(dataset, "a.dcm"), truth)


def test_fragments_and_offset_tables_do_not_matter() -> None:
    dataset = compressed(SIGNED, JPEGLosslessSV1, 16, True)
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    extended, offsets, lengths = encapsulate_extended([stream, stream])
    with PixelReader() as pixels:
        dataset.PixelData = encapsulate([stream], fragments_per_frame=3)
        np.testing.assert_array_equal(pixels.stored(dataset, "a.dcm"), SIGNED)
        dataset.PixelData, dataset.NumberOfFrames = extended, 2
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
        np.testing.assert_array_equal(pixels.stored(dataset, "a.dcm"), [SIGNED, SIGNED])


def test_eight_bits_in_words_of_the_other_byte_order_are_read() -> None:
    odd = np.arange(15, dtype=np.uint8).reshape(3, 5)
    dataset = image(odd, 8)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    swapped = np.append(odd, 0).astype(np.uint8).view("<u2").astype(">u2").tobytes()
    dataset["PixelData"] = DataElement("PixelData", "OW", swapped)
    with PixelReader() as pixels:
        np.testing.assert_array_equal(pixels.stored(dataset, "a.dcm"), odd)


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
            "a.dcm: holds 2880 bytes .* says 4320000 .*; copy the file",
        ),
        (change(image(BASE), Rows=20), "holds 2880 bytes .* says 1440 "),
        (change(image(BASE), PixelData=b""), "holds 0 bytes"),
        (change(image(BASE), BitsAllocated=12), "BitsAllocated is 12"),
        (change(image(BASE), BitsStored=17), "BitsStored 17, HighBit 15 and BitsAllocated 16"),
        (change(image(BASE), BitsStored=0, HighBit=0), "BitsStored 0, HighBit 0"),
        (change(image(BASE), Columns=0), "not an image that can be read"),
        (change(image(BASE), SamplesPerPixel=3), "a colour image"),
        (other_syntax(MPEG2MPML), "compressed as MPEG2 .*, which is not decoded; convert it"),
        (other_syntax(JPEG2000Lossless), "its JPEG 2000 Lossless data cannot be decoded .*begin"),
        (other_syntax(JPEGLSLossless), "does not begin as JPEG-LS"),
        (other_syntax(RLELossless), "0 segments"),
        (
            change(compressed(BASE, JPEGLSLossless, 16, False), Rows=41),
            "it states 40 x 36 pixels, and the header 41 x 36",
        ),
        (
            change(
                compressed(BASE, JPEG2000Lossless, 16, False),
                BitsAllocated=8,
                BitsStored=8,
                HighBit=7,
            ),
            "it has 11 bits for each pixel, and the header 8",
        ),
        (
            change(
                compressed(BASE, RLELossless, 16, False), BitsAllocated=8, BitsStored=8, HighBit=7
            ),
            "2 segments, and 8 bits need 1",
        ),
        (
            change(compressed(BASE, JPEG2000Lossless, 16, False), NumberOfFrames=2),
            "1 frame.s., and the header states 2|cannot be decoded",
        ),
        (
            change(compressed(BASE, JPEGLSLossless, 16, False), Rows=8000, Columns=8000),
            "bytes cannot hold the 128000000 of its pixels",
        ),
    ],
    ids=range(17),
)
def test_pixels_that_do_not_fit_the_header_are_refused(dataset: Dataset, message: str) -> None:
    with PixelReader() as pixels, pytest.raises(InputError, match=message):
        pixels.stored(dataset, "a.dcm")


def test_declared_pixels_are_refused_before_memory_is_taken_for_them(
    write_series: SeriesWriter,
) -> None:
    folder = write_series(lambda k, dataset: change(dataset, Rows=8000, Columns=8000) and None)
    with pytest.raises(InputError, match=r"its \d+ bytes cannot hold .*1 x 8000 x 8000 pixels"):
        read_volume(folder)


def layout(stored: int, signed: bool, high: int | None = None) -> Layout:
    return Layout(1, 4, 1, 16, stored, stored - 1 if high is None else high, signed)


@pytest.mark.parametrize(
    ("numbers", "layout", "expected"),
    [
        # The sign comes from the highest stored bit, whatever the bits above it are.
        (Numbers(np.array([7, 8, 15, 23]), 16), layout(4, True), [7, -8, -1, 7]),
        (Numbers(np.array([-1, 5, -8, 7]), 16, signed=True), layout(4, True), [-1, 5, -8, 7]),
        # A stream's two's complement of another sign than the header's.
        (
            Numbers(np.array([-1, 0, -2048, 5]), 12, signed=True),
            layout(12, False),
            [4095, 0, 2048, 5],
        ),
        # Lossy compression goes beyond the range: clipped, not wrapped around.
        (Numbers(np.array([4097, 0, 1, 2]), 16, exact=False), layout(12, False), [4095, 0, 1, 2]),
        (
            Numbers(np.array([2050, -2050, 1, 2]), 16, signed=True, exact=False),
            layout(12, True),
            [2047, -2048, 1, 2],
        ),
        # Bits from the top of the word, in a stream of whole words and of the stored bits only.
        (Numbers(np.array([16, 32, 0xFFF0, 15]), 16), layout(12, False, 15), [1, 2, 4095, 0]),
        (Numbers(np.array([1, 2, 4095, 0]), 12), layout(12, False, 15), [1, 2, 4095, 0]),
        # Fewer bits than are stored, none of which could be a sign.
        (Numbers(np.array([0, 1, 2047, 5]), 12), layout(16, True), [0, 1, 2047, 5]),
        (Numbers(np.array([0, 1, 4095, 5]), 12), layout(16, False), [0, 1, 4095, 5]),
    ],
)
def test_stored_bits_and_their_sign_decide(
    numbers: Numbers, layout: Layout, expected: list[int]
) -> None:
    assert stored_values(numbers, layout).tolist() == expected


@pytest.mark.parametrize(
    ("numbers", "layout"),
    [
        (Numbers(np.array([0, 1, 2048, 5]), 12), layout(16, True)),  # 2048 or -2048
        (Numbers(np.array([0, -1, 8, 5]), 12, signed=True), layout(16, False)),
        (Numbers(np.array([0, 1, 2, 5]), 8, exact=False), layout(12, False)),  # scaled, perhaps
        (Numbers(np.array([0, 1, 2, 5]), 13), layout(12, False, 15)),
    ],
)
def test_bits_that_leave_the_values_open_are_refused(numbers: Numbers, layout: Layout) -> None:
    with pytest.raises(ValueError, match=r"it has (un)?signed values of \d+ bits, and the header"):
        stored_values(numbers, layout)


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
