"""Stored pixels: slopes that clip nothing, numbers that stay within their bits, lossy once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.encoding import (
    Padding,
    PixelFormat,
    mark_lossy,
    pet_slope,
    pixel_format,
    to_stored,
)
from tests.helpers.derivable_series import classic, of

_SIGNED = PixelFormat(np.dtype("<i2"), -32768, 32767, None)
_UNSIGNED = PixelFormat(np.dtype("<u2"), 0, 65535, None)


@pytest.mark.parametrize("kind", [_SIGNED, _UNSIGNED, PixelFormat(np.dtype("u1"), 0, 255, None)])
@pytest.mark.parametrize("largest", [1e-45, 3.3e-30, 0.7, 1.0, 32767.0, 1e5 / 3, 3.4e38])
def test_pet_slope_clips_nothing_and_wastes_nothing(kind: PixelFormat, largest: float) -> None:
    largest = float(np.float32(largest))
    text = pet_slope(largest, kind)
    steps = min(32767, kind.high)
    assert len(text) <= 16
    assert float(text) * steps >= largest
    assert float(text) * steps == pytest.approx(largest, rel=1e-8)
    values = np.array([[largest, largest / 2]], np.float32)
    pixels, clipped = to_stored(values, (float(text), 0.0), kind, None)
    assert (pixels.max(), clipped) == (steps, 0)


def test_negative_pet_needs_signed_pixels() -> None:
    values = np.array([[-3.0, 1.0]], np.float32)
    slope = float(pet_slope(3.0, _SIGNED))
    pixels, clipped = to_stored(values, (slope, 0.0), _SIGNED, None)
    assert (pixels.tolist(), clipped) == ([[-32767, 10922]], 0)
    pixels, clipped = to_stored(values, (slope, 0.0), _UNSIGNED, None)
    assert (pixels[0, 0], clipped) == (0, 1)


@pytest.mark.parametrize(
    ("padding", "value", "expected"),
    [
        ((0, 0), 0.2, 1),  # nothing lies below 0
        ((0, 5), 2.0, 6),
        ((10, 20), 11.0, 9),
        ((10, 20), 19.0, 21),
        ((65535, 65535), 65535.0, 65534),
        ((7, 7), 7.0, 8),
        ((7, 7), 6.6, 6),
        ((7, 7), 8.2, 8),
    ],
)
def test_values_that_meet_the_padding_move_just_outside(
    padding: tuple[int, int], value: float, expected: int
) -> None:
    kind = PixelFormat(np.dtype("<u2"), 0, 65535, padding)
    pixels, clipped = to_stored(np.full((1, 1), value, np.float32), (1.0, 0.0), kind, None)
    assert (pixels.item(), clipped) == (expected, 0)


def test_padding_keeps_its_number_and_is_never_counted_as_clipped() -> None:
    kind = PixelFormat(np.dtype("<u2"), 0, 4095, (0, 5))
    padding = Padding(np.array([[True, False]]), np.array([[3, 77]], np.uint16))
    pixels, clipped = to_stored(np.full((1, 2), 1e7, np.float32), (1.0, 0.0), kind, padding)
    assert (pixels.tolist(), clipped) == ([[3, 4095]], 1)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"BitsStored": 12, "PixelRepresentation": 0}, ("<u2", 0, 4095)),
        ({"BitsStored": 12, "PixelRepresentation": 1}, ("<i2", -2048, 2047)),
        ({"BitsAllocated": 8, "BitsStored": 8, "PixelRepresentation": 0}, ("|u1", 0, 255)),
    ],
)
def test_numbers_stay_within_the_bits_that_are_stored(
    elements: dict[str, int], expected: tuple[str, int, int]
) -> None:
    header = classic("CT", 0)
    header.update(of(**elements))
    kind = pixel_format(header, "a.dcm")
    assert (kind.dtype.str, kind.low, kind.high) == expected


@pytest.mark.parametrize(
    ("value", "limit", "signed", "expected"),
    [
        (63536, None, True, (-2000, -2000)),
        (-2000, None, True, (-2000, -2000)),
        (63536, None, False, (63536, 63536)),
        (0, 100, False, (0, 100)),
        (100, 0, False, (0, 100)),
    ],
)
def test_padding_is_read_with_the_sign_of_the_pixels(
    value: int, limit: int | None, signed: bool, expected: tuple[int, int]
) -> None:
    header = classic("CT", 0)
    header.PixelRepresentation = int(signed)
    header.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    if limit is not None:
        header.add_new("PixelPaddingRangeLimit", "US", limit)
    assert pixel_format(header, "a.dcm").padding == expected


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PhotometricInterpretation": "RGB"}, "colour"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"BitsAllocated": 64}, "cells of 64"),
        ({"BitsStored": 20}, "20 bits in cells of 16"),
    ],
)
def test_pixels_that_cannot_be_written_are_refused(
    elements: dict[str, object], reason: str
) -> None:
    header = classic("CT", 0)
    header.update(of(**elements))
    with pytest.raises(InputError, match=reason):
        pixel_format(header, "a.dcm")


@pytest.mark.parametrize(
    ("syntax", "stated", "expected"),
    [
        ("1.2.840.10008.1.2.1", None, (None, None)),
        ("1.2.840.10008.1.2.1", "01", ("01", None)),  # with loss before, not compressed now
        ("1.2.840.10008.1.2.4.70", None, (None, None)),
        ("1.2.840.10008.1.2.4.90", "00", ("00", None)),
        ("1.2.840.10008.1.2.4.91", "00", ("00", None)),
        ("1.2.840.10008.1.2.4.91", None, ("01", "ISO_15444_1")),
        ("1.2.840.10008.1.2.4.81", None, ("01", "ISO_14495_1")),
        ("1.2.840.10008.1.2.4.50", "00", ("01", "ISO_10918_1")),
        ("1.2.840.10008.1.2.4.51", None, ("01", "ISO_10918_1")),
    ],
)
def test_once_lossy_is_always_lossy(
    tmp_path: Path, syntax: str, stated: str | None, expected: tuple[str | None, str | None]
) -> None:
    header = classic("CT", 0)
    if stated is not None:
        header.LossyImageCompression = stated
    path = tmp_path / "source.dcm"
    path.write_bytes(bytes(96))
    mark_lossy(header, syntax, path)
    found = (header.get("LossyImageCompression"), header.get("LossyImageCompressionMethod"))
    assert found == expected
    if expected[1] is not None:
        assert header.LossyImageCompressionRatio == 24 * 20 * 2 / 96


def test_ratio_and_method_that_the_source_states_stay(tmp_path: Path) -> None:
    header: Dataset = classic("CT", 0)
    header.LossyImageCompression = "01"
    header.LossyImageCompressionRatio = [10, 4]
    header.LossyImageCompressionMethod = ["ISO_10918_1", "ISO_15444_1"]
    mark_lossy(header, "1.2.840.10008.1.2.4.91", tmp_path / "unread.dcm")
    assert list(header.LossyImageCompressionRatio) == [10, 4]
    assert list(header.LossyImageCompressionMethod) == ["ISO_10918_1", "ISO_15444_1"]
