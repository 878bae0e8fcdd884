from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.challenge import Lesion, find_sites, plant
from restore_rwkv.evaluation.challenge.lesions import ball
from restore_rwkv.io import Volume
from tests.helpers.challenges import MRI, head


def water(spacing: tuple[float, float, float], value: float = 40.0) -> Volume:
    shape = [math.ceil(60 / side) for side in spacing]
    return Volume(np.full(shape, value, np.float32), np.diag([*spacing, 1.0]), unit="HU")


def test_the_closed_form_is_a_ball_under_a_gaussian() -> None:
    place = (np.arange(81) - 40) * 0.25
    distance = np.sqrt(place[:, None, None] ** 2 + place[:, None] ** 2 + place**2)
    numeric = gaussian_filter((distance <= 5).astype(float), 1.5 / 0.25, truncate=5)
    found = ball(np.abs(place), 5.0, 1.5)
    # The voxels of the numeric ball have steps of 0.25 mm.
    np.testing.assert_allclose(found, numeric[40, 40], atol=0.004)


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 5.0), (0.8, 0.8, 0.8), (1.0, 2.0, 7.0)])
@pytest.mark.parametrize("contrast", [10.0, -10.0])
def test_a_lesion_has_the_volume_of_its_ball_whatever_the_voxels(
    spacing: tuple[float, float, float], contrast: float
) -> None:
    scan = water(spacing)
    middle = tuple(n / 2 + 0.3 for n in scan.data.shape)
    lesion = Lesion(centre=(middle[0], middle[1], middle[2]), radius=5, contrast=contrast, edge=0.6)
    added = (plant(scan, [lesion]).data - scan.data).astype(float)
    # 0.6 % is the error of the samples within a voxel.
    expected = contrast * 4 / 3 * math.pi * 5**3
    assert added.sum() * np.prod(spacing) == pytest.approx(expected, rel=0.006)
    assert np.abs(added).max() <= abs(contrast) + 1e-3


def test_a_relative_lesion_is_in_percent_of_what_is_there() -> None:
    scan = Volume(np.full((40, 40, 9), 8.0, np.float32), np.diag([1.5, 1.5, 5, 1]), modality="MR")
    lesion = Lesion(centre=(20, 20, 4), radius=9, contrast=25, relative=True, edge=0.5)
    assert plant(scan, [lesion]).data[20, 20, 4] == pytest.approx(10, rel=0.01)


def test_no_value_falls_below_zero_where_a_lesion_has_no_uptake() -> None:
    data = np.full((40, 40, 9), 2.0, np.float32)
    data[20, 20, 4] = 0.5
    scan = Volume(data, np.diag([1.5, 1.5, 5, 1]), unit="SUV", modality="PT")
    cold = Lesion(centre=(20, 20, 4), radius=9, contrast=-100, relative=True, edge=0.5)
    assert plant(scan, [cold]).data.min() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contrast": 0.0}, "contrasts: 0 makes no lesion"),
        ({"contrast": math.nan}, "contrasts: nan makes no lesion"),
        ({"contrast": -120.0, "relative": True}, "more than there is"),
        ({"radius": 0.0}, "radii: 0 mm is no radius"),
    ],
)
def test_what_is_no_lesion_is_refused(changes: dict[str, float], message: str) -> None:
    values = {"centre": (5, 5, 5), "radius": 5.0, "contrast": 10.0} | changes
    with pytest.raises(ConfigError, match=message):
        Lesion(**values)  # type: ignore[arg-type]


def test_a_lesion_smaller_than_pixels_or_outside_is_refused() -> None:
    scan = water((0.7, 0.7, 5.0))
    with pytest.raises(InputError, match=r"0\.5 mm is below its pixels of 0\.7 mm"):
        plant(scan, [Lesion(centre=(40, 40, 6), radius=0.5, contrast=10)])
    with pytest.raises(InputError, match="lies outside"):
        plant(scan, [Lesion(centre=(40, 40, 90), radius=5, contrast=10)])
    with pytest.raises(InputError, match="has no geometry"):
        plant(Volume(scan.data), [Lesion(centre=(40, 40, 6), radius=5, contrast=10)])


def test_sites_lie_in_tissue_and_apart_from_each_other() -> None:
    scan = head()
    sites = find_sites(scan, MRI, 30, seed=1)
    assert len(sites) >= 5
    assert sites == find_sites(scan, MRI, 30, seed=1)
    assert sites != find_sites(scan, MRI, 30, seed=2)
    middle = np.asarray([63.5, 63.5])
    for number, site in enumerate(sites):
        # The disc has a radius of 82.6 mm, and a ball of 5 + 3 mm lies inside it.
        assert np.linalg.norm((np.asarray(site[:2]) - middle) * 1.5) < 82.6 - 8 + 2.5
        for other in sites[:number]:
            steps = (np.asarray(site) - np.asarray(other)) * [1.5, 1.5, 5]
            assert np.hypot(*steps[:2]) >= 35 or abs(steps[2]) >= 15


def test_a_scan_without_tissue_or_room_has_no_site() -> None:
    flat = Volume(np.ones((64, 64, 8), np.float32), np.diag([1.5, 1.5, 5, 1]), modality="MR")
    empty = flat.with_data(np.where(np.arange(64)[:, None, None] % 4 == 0, 900, 1) * flat.data)
    with pytest.raises(InputError, match="no homogeneous tissue that holds a lesion of 5 mm"):
        find_sites(empty, MRI, 5, 0)
    small = Volume(np.ones((9, 9, 1), np.float32), np.diag([1.5, 1.5, 5, 1]), modality="MR")
    with pytest.raises(InputError, match="too small for lesions of 5 mm"):
        find_sites(small, MRI, 5, 0)
