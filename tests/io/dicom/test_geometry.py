"""The grid of a series: what is accepted, and what is refused by name."""

from __future__ import annotations

import logging

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from restore_rwkv.errors import InputError
from restore_rwkv.io import DicomSource, read_volume
from tests.helpers.synthetic_series import (
    COLUMN,
    COLUMNS,
    NORMAL,
    ORIGIN,
    ROW,
    ROWS,
    SLICES,
    SPACING,
    STEP,
    Change,
    SeriesWriter,
    change_third,
    lps,
    slope_of,
    stored_slice,
)


def no_change(k: int, dataset: Dataset) -> None:
    """Leave the slice as it is."""


def uneven(k: int, dataset: Dataset) -> None:
    shift = STEP * k + (0.4 if k == 2 else 0)
    dataset.ImagePositionPatient = [f"{x:.10g}" for x in ORIGIN + shift * NORMAL]


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_one_grid(
    write_series: SeriesWriter,
) -> None:
    def rounded(k: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [round(float(x), 1) for x in ORIGIN + 7.0 * k * NORMAL]

    volume = read_volume(write_series(rounded))
    first, last = ORIGIN, ORIGIN + 7.0 * (SLICES - 1) * NORMAL
    np.testing.assert_allclose(lps(volume, 0, 0, 0), first.round(1), atol=1e-8)
    np.testing.assert_allclose(lps(volume, 0, 0, SLICES - 1), last.round(1), atol=1e-8)


def tilted(degrees: float) -> Change:
    def change(k: int, dataset: Dataset) -> None:
        shift = STEP * NORMAL + np.tan(np.radians(degrees)) * STEP * COLUMN
        dataset.ImagePositionPatient = [f"{x:.10g}" for x in ORIGIN + k * shift]

    return change


@pytest.mark.parametrize("degrees", [-25.0, 10.0, 30.0])
def test_a_tilted_stack_is_read_and_keeps_its_positions(
    write_series: SeriesWriter, caplog: pytest.LogCaptureFixture, degrees: float
) -> None:
    with caplog.at_level(logging.INFO):
        volume = read_volume(write_series(tilted(degrees)))
    assert isinstance(volume.source, DicomSource)
    assert volume.source.tilt == pytest.approx(abs(degrees), abs=1e-6)
    assert caplog.text.count(f"a stack tilted by {abs(degrees):.1f} degrees, kept") == 1
    for k, file in enumerate(volume.source.files):
        corner = np.array(pydicom.dcmread(file).ImagePositionPatient, float)
        np.testing.assert_allclose(lps(volume, 0, 0, k), corner, atol=1e-8)
        last = corner + ROW * SPACING[1] * (COLUMNS - 1) + COLUMN * SPACING[0] * (ROWS - 1)
        np.testing.assert_allclose(lps(volume, COLUMNS - 1, ROWS - 1, k), last, atol=1e-8)
        np.testing.assert_array_equal(volume.data[..., k].T, stored_slice(k) * slope_of(k) - 10 - k)


def test_a_straight_stack_has_no_tilt(write_series: SeriesWriter) -> None:
    volume = read_volume(write_series())
    assert isinstance(volume.source, DicomSource)
    assert volume.source.tilt == 0.0


def sideways(k: int, dataset: Dataset) -> None:
    shift = (0, 0, 1.5, 3)[k] * COLUMN + STEP * k * NORMAL
    dataset.ImagePositionPatient = [f"{x:.10g}" for x in ORIGIN + shift]


@pytest.mark.parametrize(
    ("change", "slices", "reason"),
    [
        (
            no_change,
            (0, 1, 3),
            r"1 slice\(s\) missing, the first between IM0_1\.dcm and IM1_3\.dcm",
        ),
        (no_change, (0, 1, 4, 5), r"2 slice\(s\) missing"),
        (
            change_third(ImagePositionPatient=[f"{x:.10g}" for x in ORIGIN + STEP * NORMAL]),
            (0, 1, 2),
            r"IM0_1\.dcm and IM3_2\.dcm lie at the same position",
        ),
        (
            uneven,
            (0, 1, 2, 3),
            r"slice spacing varies from 2.100 to 2.900 mm, IM3_2\.dcm lies 0.40 mm off",
        ),
        (sideways, (0, 1, 2, 3), r"unevenly \(the tilt varies\), IM0_1\.dcm lies 1\.00 mm off"),
        (tilted(60), (0, 1, 2, 3), "shifted sideways, by 60 degrees against their normal"),
        (change_third(Rows=4), (0, 1, 2, 3), r"sizes \(rows, columns\) differ"),
        (change_third(PixelSpacing=[0.8, 0.6]), (0, 1, 2, 3), "pixel spacings differ"),
        (
            change_third(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
            (0, 1, 2),
            "orientations differ",
        ),
        (change_third(ImagePositionPatient=None), (0, 1, 2), "ImagePositionPatient is missing"),
        (
            change_third(ImageOrientationPatient=None),
            (0, 1, 2),
            "ImageOrientationPatient is missing",
        ),
        (change_third(PixelSpacing=None), (0, 1, 2), "PixelSpacing is missing"),
        (change_third(PixelSpacing=[0, 0]), (2,), "PixelSpacing or ImageOrientationPatient is inv"),
        (change_third(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), (2,), "is invalid"),
        (change_third(Rows=0), (0, 1, 2), "Rows or Columns is 0"),
        (change_third(FrameOfReferenceUID="1.2.9"), (0, 1, 2), "frames of reference"),
    ],
)
def test_broken_series_are_refused(
    write_series: SeriesWriter, change: Change, slices: tuple[int, ...], reason: str
) -> None:
    folder = write_series(change, slices=slices)
    with pytest.raises(InputError, match=reason):
        read_volume(folder)
