"""Mean spectra of several scans: their level, their frequencies, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from restore_rwkv.evaluation.study.spectra import SpectrumMeans


def noise(seed: int, shape: tuple[int, int, int], sigma: float) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, sigma, shape).astype(np.float32)


def test_white_noise_has_its_variance_per_frequency_at_every_size_and_pixel() -> None:
    means = SpectrumMeans()
    for number, (shape, pixel) in enumerate([((6, 64, 48), (1.0, 1.0)), ((3, 96, 96), (0.5, 0.5))]):
        truth = np.zeros(shape, np.float32)
        sigma = 3.0 / pixel[0]  # so that sigma^2 dx dy is 9 for both
        means.add("ct", truth, {"input": noise(number, shape, sigma), "truth": truth}, pixel)
    given, same = means.spectra()
    assert (given.task, given.method, given.per_mm) == ("ct", "input", True)
    assert given.frequency[-1] <= 0.5  # that of the coarser pixels
    assert np.mean(given.power) == pytest.approx(9.0, rel=0.05)
    assert not same.power.any()


def test_scans_count_by_their_slices() -> None:
    means = SpectrumMeans()
    for count, sigma in ((30, 1.0), (10, 3.0)):
        truth = np.zeros((count, 32, 32), np.float32)
        means.add("ct", truth, {"x": noise(count, truth.shape, sigma)}, None)
    (spectrum,) = means.spectra()
    assert np.mean(spectrum.power) == pytest.approx(0.75 * 1 + 0.25 * 9, rel=0.06)


def test_one_unknown_pixel_turns_all_frequencies_into_cycles_per_pixel() -> None:
    means = SpectrumMeans()
    truth = np.zeros((2, 32, 32), np.float32)
    for pixel in ((0.7, 0.7), None):
        means.add("ct", truth, {"x": noise(0, truth.shape, 2.0)}, pixel)
    (spectrum,) = means.spectra()
    assert not spectrum.per_mm
    assert np.mean(spectrum.power) == pytest.approx(4.0, rel=0.15)


def test_scans_of_few_pixels_have_no_spectrum() -> None:
    means = SpectrumMeans()
    truth = np.zeros((2, 4, 32), np.float32)
    means.add("ct", truth, {"x": truth}, None)
    assert means.spectra() == ()
