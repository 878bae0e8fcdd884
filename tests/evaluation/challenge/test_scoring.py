from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from restore_rwkv.evaluation.challenge.lesions import Lesion, plant
from restore_rwkv.evaluation.challenge.painting import PaintSearch, Shown
from restore_rwkv.evaluation.challenge.scoring import Probe
from restore_rwkv.io import Volume
from restore_rwkv.tasks import get_task
from tests.helpers.challenges import MRI

SCAN = Volume(np.full((64, 64, 9), 50.0, np.float32), np.diag([1.0, 1.0, 4.0, 1.0]), unit="HU")
LESION = Lesion(centre=(32, 32, 4), radius=5.0, contrast=10.0, edge=0.6)
PROBE = Probe.of(SCAN, LESION, axis=2)
CT = get_task("ct-denoise")
EVERYWHERE = np.ones(SCAN.data.shape, dtype=bool)


def noise(seed: int, sd: float = 12.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sd, SCAN.data.shape)


def test_a_filter_finds_the_contrast_of_its_lesion_and_no_background() -> None:
    found = PROBE.contrast(plant(SCAN, [LESION]).data)
    # The smooth edge of the lesion reaches into what it is compared with.
    assert found == pytest.approx(10, rel=0.03)
    assert PROBE.contrast(SCAN.data + 100) == pytest.approx(0, abs=1e-3)


def search(low: np.ndarray, truth: np.ndarray = SCAN.data) -> PaintSearch:
    return PaintSearch(SCAN.with_data(truth), SCAN.with_data(low), CT, radius=5.0)


def shown(image: np.ndarray, low: np.ndarray, truth: np.ndarray = SCAN.data) -> Shown:
    (found,) = search(low, truth).at(SCAN.with_data(image), [(32, 32, 4)], EVERYWHERE)
    return found


@pytest.mark.parametrize("sd", [0.7, 1.5, 3.0])
def test_noise_that_remains_or_is_smoothed_is_never_painted(sd: float) -> None:
    for seed in range(10):
        low = SCAN.data + noise(seed)
        assert shown(low, low).painted <= 1e-9
        smooth = gaussian_filter(low, (sd, sd, 0))
        assert shown(smooth, low).painted < 0


@pytest.mark.parametrize("contrast", [10.0, -10.0])
@pytest.mark.parametrize("away", [0, 7])
def test_a_lesion_that_neither_input_nor_truth_has_is_painted(contrast: float, away: int) -> None:
    made_up = Lesion(centre=(32 + away, 32, 4), radius=5.0, contrast=contrast, edge=0.6)
    found = shown(plant(SCAN, [made_up]).data, SCAN.data + noise(3, sd=3))
    assert found.painted > 7
    assert found.contrast == pytest.approx(contrast, rel=0.05)
    assert abs(found.of_truth) < 1e-6


def test_what_the_truth_or_the_input_shows_is_not_painted() -> None:
    lesion = plant(SCAN, [LESION]).data
    # Around a lesion what it is compared with holds the lesion, which looks a little darker.
    assert shown(lesion, SCAN.data, lesion).painted < 1e-6
    assert shown(lesion, lesion).painted < 1e-6


def test_what_an_image_has_lost_is_not_painted() -> None:
    lesion = plant(SCAN, [LESION]).data
    assert shown(SCAN.data, lesion, lesion).painted < 1e-6


def test_contrasts_of_mri_are_in_percent_of_what_is_there() -> None:
    scan = Volume(np.full((64, 64, 9), 800.0, np.float32), SCAN.affine, modality="MR")
    made_up = Lesion(centre=(32, 32, 4), radius=5.0, contrast=20.0, relative=True, edge=0.3)
    searched = PaintSearch(scan, scan, MRI, radius=5.0)
    (found,) = searched.at(plant(scan, [made_up]), [(32, 32, 4)], EVERYWHERE)
    assert found.painted == pytest.approx(20, rel=0.02)
