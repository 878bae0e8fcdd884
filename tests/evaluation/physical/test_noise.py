from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.measures.measure import NoScoreError, Setting
from restore_rwkv.evaluation.physical import (
    PHYSICAL_MEASURES,
    noise_power_spectrum,
    noise_spectrum_distance,
)
from restore_rwkv.tasks import get_task

DISTANCE = next(measure for measure in PHYSICAL_MEASURES if measure.name == "nps-distance")
MR = Setting(task=get_task("mri-sr"), pixel_mm=(1.0, 1.0), peak=110.0)


def white(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("detrend", ["none", "mean", "plane", "quadratic"])
def test_the_integral_of_the_spectrum_is_the_variance(detrend: str) -> None:
    noise = 7 * white(5, 40, 24) + 3
    spectrum = noise_power_spectrum(noise, (0.7, 0.5), detrend=detrend)
    if detrend == "none":
        expected = np.mean(noise**2)
    elif detrend == "mean":
        expected = np.mean(noise.var(axis=(1, 2)))
    else:
        y, x = (part.ravel() for part in np.indices((40, 24)).astype(float))
        terms = [np.ones_like(x), x, y, x * x, x * y, y * y]
        basis = np.stack(terms[: 3 if detrend == "plane" else 6], axis=1)
        flat = noise.reshape(5, -1).T
        fit = basis @ np.linalg.lstsq(basis, flat, rcond=None)[0]
        expected = np.mean((flat - fit) ** 2)
    assert spectrum.variance == pytest.approx(expected, rel=1e-9)


def test_white_noise_has_its_variance_times_the_area_of_a_pixel_at_each_frequency() -> None:
    spectrum = noise_power_spectrum(3 * white(400, 32, 32), (0.5, 0.8), detrend="mean")
    # 400 images, 32 pixels and more in a ring: 2 % is four standard deviations of the first ring.
    np.testing.assert_allclose(spectrum.radial[1:], 9 * 0.4, rtol=0.04)
    assert spectrum.frequency[-1] <= 0.5 / 0.8
    assert spectrum.mean_frequency == pytest.approx(spectrum.frequency.mean(), rel=0.01)


def test_the_peak_of_a_wave_is_at_its_frequency() -> None:
    row = np.sin(2 * np.pi * np.arange(64) * 8 / 64)
    spectrum = noise_power_spectrum(np.tile(row, (64, 1)), (0.5, 0.5))
    assert spectrum.peak_frequency == pytest.approx(8 / 32)
    assert spectrum.power[32, 40] == spectrum.power.max()


def test_the_distance_of_spectra_sees_texture_and_not_level() -> None:
    fine, again = (noise_power_spectrum(white(200, 32, 32, seed=s), (1, 1)) for s in (0, 1))
    louder = noise_power_spectrum(9 * white(200, 32, 32), (1, 1))
    coarse = noise_power_spectrum(gaussian_filter(white(200, 32, 32), (0, 1, 1)), (1, 1))
    assert noise_spectrum_distance(fine, louder) == pytest.approx(0, abs=1e-12)
    assert noise_spectrum_distance(fine, again) < 0.03
    assert noise_spectrum_distance(fine, coarse) > 0.8
    with pytest.raises(InputError, match="other frequencies"):
        noise_spectrum_distance(fine, noise_power_spectrum(white(9, 16, 16), (1, 1)))


@pytest.mark.parametrize(("detrend", "kept"), [("plane", 0.86), ("quadratic", 0.59)])
def test_a_fit_takes_of_the_first_ring_what_the_documentation_says(
    detrend: str, kept: float
) -> None:
    spectrum = noise_power_spectrum(white(800, 32, 32), (1, 1), detrend=detrend)
    # 6400 values of an exponential distribution in the first ring: three standard errors.
    assert spectrum.radial[0] == pytest.approx(kept, abs=0.04)
    assert 0.94 - 0.03 < spectrum.radial[1] < 1.03


@pytest.mark.parametrize("pixel", [(0.3, 5.0), (5.0, 0.5)])
def test_slices_of_long_pixels_have_rings_and_a_distance(pixel: tuple[float, float]) -> None:
    fine = white(200, 32, 32)
    coarse = gaussian_filter(fine, (0, 1.5, 1.5))
    spectra = [noise_power_spectrum(images, pixel) for images in (fine, coarse)]
    assert len(spectra[0].frequency) == 16
    assert spectra[0].frequency[-1] == pytest.approx(0.5 / 5)
    assert noise_spectrum_distance(*spectra) > 0.2
    wave = np.tile(np.sin(2 * np.pi * np.arange(32) * 4 / 32), (32, 1))
    found = noise_power_spectrum(wave, pixel, detrend="mean")
    if pixel[1] == 5:
        assert found.peak_frequency == pytest.approx(4 / 32 / 5)
    else:  # 4 / 16 per mm is beyond the Nyquist frequency of the rows
        assert found.radial.sum() < 1e-20


def test_images_that_have_no_spectrum_are_refused() -> None:
    for images, pixel in ((white(4, 4), (1, 1)), (white(9), (1, 1)), (white(16, 16), (0, 1))):
        with pytest.raises(InputError):
            noise_power_spectrum(images, pixel)
    with pytest.raises(InputError, match="not finite"):
        noise_power_spectrum(np.full((16, 16), np.nan), (1, 1))
    with pytest.raises(ConfigError, match="detrend 'linear' is unknown; give none, mean, plane"):
        noise_power_spectrum(white(16, 16), (1, 1), detrend="linear")
    nothing = noise_power_spectrum(np.zeros((16, 16)), (1, 1))
    with pytest.raises(NoScoreError, match="no noise"):
        noise_spectrum_distance(nothing, nothing)
    with pytest.raises(NoScoreError, match="no noise"):
        _ = nothing.mean_frequency


def body(noise: np.ndarray) -> np.ndarray:
    image = np.zeros_like(noise)
    image[:, 24:-24, 24:-24] = 100
    return image + noise


def test_the_measure_compares_texture_in_flat_regions_of_the_body() -> None:
    truth = body(white(6, 200, 200))
    same, smooth = body(2 * white(6, 200, 200, seed=1)), body(gaussian_filter(truth - 100, 1.0))
    smooth = gaussian_filter(truth, (0, 1, 1))
    near, far = (DISTANCE.compute(image, truth, MR) for image in (same, smooth))
    assert near < 0.15 < 0.8 < far
    # Noise in the air is not looked at.
    other = same.copy()
    other[:, :8] += 50 * white(6, 8, 200, seed=2)
    assert DISTANCE.compute(other, truth, MR) == near


def test_the_measure_says_why_it_has_no_value() -> None:
    truth = body(white(2, 200, 200))
    with pytest.raises(NoScoreError, match="restored image has no noise in flat regions"):
        DISTANCE.compute(body(np.zeros_like(truth)), truth, MR)
    with pytest.raises(NoScoreError, match="truth has no noise"):
        DISTANCE.compute(truth, body(np.zeros_like(truth)), MR)
    with pytest.raises(NoScoreError, match="too few"):
        DISTANCE.compute(truth[:, :40, :40], truth[:, :40, :40], MR)
    with pytest.raises(NoScoreError, match="smaller than 16 x 16"):
        DISTANCE.compute(truth[:, :10], truth[:, :10], MR)
