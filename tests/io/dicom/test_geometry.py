"""The grid of a series: what is accepted, and what is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from restore_rwkv.errors import InputError
from restore_rwkv.io import read_volume
from tests.helpers.synthetic_series import (
    NORMAL,
    ORIGIN,
    SLICES,
    STEP,
    Change,
    SeriesWriter,
    change_third,
    lps,
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
        (uneven, (0, 1, 2, 3), "slice spacing varies from 2.100 to 2.900 mm"),
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
