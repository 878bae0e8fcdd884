from __future__ import annotations

import numpy as np
import pytest

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.measures.catalogue import all_measures
from restore_rwkv.evaluation.measures.measure import NoScoreError, Setting
from restore_rwkv.evaluation.physical import (
    PHYSICAL_MEASURES,
    TISSUE_RANGES,
    Sphere,
    recovery_coefficients,
    tissue_mean_shift,
)
from restore_rwkv.physics.ct.tissue import TISSUES
from restore_rwkv.tasks import get_task

BY_NAME = {measure.name: measure for measure in PHYSICAL_MEASURES}
CT = Setting(task=get_task("ct-denoise"), pixel_mm=(0.7, 0.7), peak=900.0)
PET = Setting(task=get_task("pet-synth"), pixel_mm=(2.0, 2.0), peak=10.0)


def test_every_measure_says_what_it_is() -> None:
    assert set(BY_NAME) <= set(all_measures())
    assert len(BY_NAME) == len(PHYSICAL_MEASURES)
    for measure in PHYSICAL_MEASURES:
        assert all((measure.equation, measure.source, measure.blind_to, measure.title))
        assert measure.bounds[0] < measure.bounds[1]
    assert BY_NAME["suv-mean-bias"].suits(get_task("pet-synth"))
    assert not BY_NAME["hu-shift.fat"].suits(get_task("pet-synth"))


def tissues() -> np.ndarray:
    """Bands of 20 columns of each tissue, and 20 of water between."""
    image = np.zeros((2, 40, 220))
    for index, value in enumerate((-1000, -700, -100, 60, 800)):
        image[:, :, 40 * index + 20 : 40 * index + 40] = value
    return image


def test_the_shift_of_each_tissue_is_found_and_edges_are_left_out() -> None:
    truth = tissues()
    shifted = truth.copy()
    shifts = dict(zip(TISSUE_RANGES, (3.0, -4.0, 5.0, -6.0, 7.0), strict=True))
    for index, shift in enumerate(shifts.values()):
        shifted[:, :, 40 * index + 20 : 40 * index + 40] += shift
    for tissue, shift in shifts.items():
        found = BY_NAME[f"hu-shift.{tissue}"].compute(shifted, truth, CT)
        if tissue == "soft-tissue":  # water is in its range too
            assert shift < found < 0
        else:
            assert found == pytest.approx(shift, abs=1e-9)


def test_noise_of_the_truth_does_not_shift_a_tissue() -> None:
    noise = 20 * np.random.default_rng(0).standard_normal(tissues().shape)
    found = BY_NAME["hu-shift.fat"].compute(tissues(), tissues() + noise, CT)
    assert abs(found) < 2.5  # three standard errors


def test_a_tissue_that_is_not_there_has_no_shift() -> None:
    water = np.zeros((2, 40, 40))
    with pytest.raises(NoScoreError, match="0 voxels of bone"):
        BY_NAME["hu-shift.bone"].compute(water, water, CT)
    assert BY_NAME["hu-shift.soft-tissue"].compute(water + 2, water, CT) == 2
    with pytest.raises(ConfigError, match="'brain' is unknown"):
        tissue_mean_shift(water, water, "brain")
    with pytest.raises(InputError, match="equal"):
        tissue_mean_shift(water, water[1:], "fat")


def test_ranges_of_air_and_bone_are_those_of_the_record() -> None:
    assert (TISSUE_RANGES["air"], TISSUE_RANGES["bone"]) == (TISSUES["air"], TISSUES["bone"])


def hot() -> np.ndarray:
    truth = np.ones((12, 40, 40))
    truth[2:8, 5:15, 5:15] = 10
    truth[2:8, 25:35, 25:35] = 8
    truth[10, 2:4, 30:32] = 10  # too small for a region
    return truth


def test_the_bias_of_hot_regions_has_one_weight_for_each() -> None:
    truth = hot()
    restored = truth.copy()
    restored[:8, :20, :20] *= 0.9
    restored[:8, 20:, 20:] *= 1.3
    restored[8:] = 0
    assert BY_NAME["suv-mean-bias"].compute(restored, truth, PET) == pytest.approx(10)
    total = BY_NAME["activity-bias"].compute(1.25 * truth, truth, PET)
    assert total == pytest.approx(25)


def test_pet_without_activity_has_no_bias() -> None:
    nothing = np.zeros((4, 20, 20))
    for name in ("suv-mean-bias", "activity-bias"):
        with pytest.raises(NoScoreError):
            BY_NAME[name].compute(nothing, nothing, PET)
    dots = nothing.copy()
    dots[1, 3, 3] = 10
    with pytest.raises(NoScoreError, match="no hot region"):
        BY_NAME["suv-mean-bias"].compute(dots, dots, PET)


def phantom() -> tuple[np.ndarray, list[Sphere], np.ndarray]:
    place = np.indices((60, 60, 24))
    truth = np.full((60, 60, 24), 2.0)
    spheres = [
        Sphere(centre=(15, 15, 12), diameter_mm=20.0),
        Sphere(centre=(45.5, 15, 12), diameter_mm=30.0),
    ]
    near = np.zeros(truth.shape, dtype=bool)
    for sphere in spheres:
        distance = 2 * np.sqrt(sum((p - c) ** 2 for p, c in zip(place, sphere.centre, strict=True)))
        truth[distance <= sphere.diameter_mm / 2] = 8
        near |= distance <= sphere.diameter_mm / 2 + 4
    return truth, spheres, ~near


def test_recovery_is_that_of_the_spheres() -> None:
    truth, spheres, background = phantom()
    perfect = recovery_coefficients(truth, truth, spheres, background, (2.0, 2.0, 2.0))
    for one, sphere in zip(perfect, spheres, strict=True):
        assert (one.mean, one.maximum, one.diameter_mm) == (1, 1, sphere.diameter_mm)
        assert one.contrast == pytest.approx(100)
        assert one.background_variability == pytest.approx(0, abs=1e-9)
    # Half of the contrast: 2 + 3 of 8, and a ratio of 2.5 instead of 4.
    half = recovery_coefficients((truth + 2) / 2, truth, spheres, background, (2.0, 2.0, 2.0))
    assert half[0].mean == pytest.approx(5 / 8)
    assert half[0].contrast == pytest.approx(50)


def shared_phantom() -> tuple[np.ndarray, Sphere]:
    """A sphere of 8 in 2, whose voxels at the border hold shares of both."""
    place = (np.arange(30 * 4) + 0.5) / 4 - 0.5 - 14.2
    squared = (2 * place) ** 2
    inside = squared[:, None, None] + squared[:, None] + squared <= 5**2
    share = inside.reshape(30, 4, 30, 4, 30, 4).mean(axis=(1, 3, 5))
    return 2 + 6 * share, Sphere(centre=(14.2, 14.2, 14.2), diameter_mm=10.0)


def test_a_perfect_image_recovers_spheres_that_share_their_border() -> None:
    truth, sphere = shared_phantom()
    background = truth == 2
    (found,) = recovery_coefficients(truth, truth, [sphere], background, (2.0, 2.0, 2.0))
    assert (found.mean, found.maximum) == (1, 1)
    assert found.contrast == pytest.approx(100)
    image = truth.copy()
    image[14, 14, 14] = 10  # one hot voxel in the middle, of 8
    (found,) = recovery_coefficients(image, truth, [sphere], background, (2.0, 2.0, 2.0))
    assert found.maximum == pytest.approx(10 / 8)


def test_a_background_of_numbers_is_the_same_region() -> None:
    truth, spheres, background = phantom()
    noisy = truth + np.random.default_rng(0).standard_normal(truth.shape)
    arguments = noisy, truth, spheres
    expected = recovery_coefficients(*arguments, background, (2.0, 2.0, 2.0))
    assert recovery_coefficients(*arguments, background.astype(int), (2.0, 2.0, 2.0)) == expected
    with pytest.raises(InputError, match="background has values beside 0 and 1"):
        recovery_coefficients(*arguments, 3 * background.astype(int), (2.0, 2.0, 2.0))


def test_a_sphere_as_active_as_the_background_has_no_contrast() -> None:
    truth = np.full((30, 30, 30), 0.1)
    truth[14, 14, 14] += 1e-12
    sphere = Sphere(centre=(14, 14, 14), diameter_mm=10.0)
    (found,) = recovery_coefficients(2 * truth, truth, [sphere], truth == 0.1, (2.0, 2.0, 2.0))
    assert found.contrast is None


def test_background_variability_is_that_of_means_over_discs() -> None:
    truth, spheres, background = phantom()
    noise = np.random.default_rng(0).standard_normal(truth.shape)
    small, large = recovery_coefficients(truth + noise, truth, spheres, background, (2.0, 2.0, 2.0))
    pixels = np.pi * 5**2  # in a disc of 20 mm, of noise of 1 on 2
    assert small.background_variability == pytest.approx(100 / np.sqrt(pixels) / 2, rel=0.4)
    assert large.background_variability is None or (
        large.background_variability < small.background_variability
    )
    assert small.maximum > 1.1


def test_spheres_that_cannot_be_measured_are_refused() -> None:
    truth, spheres, background = phantom()
    outside = [Sphere(centre=(200, 0, 0), diameter_mm=10.0)]
    with pytest.raises(InputError, match="no voxel"):
        recovery_coefficients(truth, truth, outside, background, (2.0, 2.0, 2.0))
    with pytest.raises(InputError, match="equal"):
        recovery_coefficients(truth, truth[1:], spheres, background, (2.0, 2.0, 2.0))
    with pytest.raises(InputError, match="not finite"):
        recovery_coefficients(np.nan * truth, truth, spheres, background, (2.0, 2.0, 2.0))
    with pytest.raises(NoScoreError, match="background"):
        recovery_coefficients(truth, truth, spheres, background & False, (2.0, 2.0, 2.0))
