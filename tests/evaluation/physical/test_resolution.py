from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ncx2

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.measures.measure import NoScoreError
from restore_rwkv.evaluation.physical import contrast_to_noise, task_transfer_function


def blurred_disc(
    centre: tuple[float, float], pixel: tuple[float, float], sigma: float, radius: float = 15.0
) -> np.ndarray:
    """A disc convolved with a Gaussian, exactly: mass of a shifted Gaussian within the disc."""
    y, x = ((np.arange(128) - c) * p for c, p in zip(centre, pixel, strict=True))
    squared = y[:, None] ** 2 + x**2
    return 40 + 25 * ncx2.cdf((radius / sigma) ** 2, 2, squared / sigma**2)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 1.6])
@pytest.mark.parametrize("pixel", [(0.6, 0.6), (0.6, 0.7)])
def test_a_disc_with_a_gaussian_edge_has_the_transfer_function_of_the_gaussian(
    sigma: float, pixel: tuple[float, float]
) -> None:
    centre = (63.3, 64.1)
    found = task_transfer_function(blurred_disc(centre, pixel, sigma), centre, 15.0, pixel)
    expected = np.exp(-2 * (np.pi * sigma * found.frequency) ** 2)
    np.testing.assert_allclose(found.value, expected, atol=0.02)
    assert found.f50 == pytest.approx(np.sqrt(np.log(2) / 2) / np.pi / sigma, rel=0.02)
    if expected[-1] < 0.08:
        assert found.f10 == pytest.approx(np.sqrt(np.log(10) / 2) / np.pi / sigma, rel=0.02)
    assert found.contrast == pytest.approx(25, rel=0.01)
    assert found.value[0] == pytest.approx(1)


@pytest.mark.parametrize(("share", "error"), [(0.1, 0.0), (0.2, 0.0), (0.3, 0.03)])
def test_wide_tails_are_hidden_as_far_as_the_documentation_says(share: float, error: float) -> None:
    disc = blurred_disc((63.5, 63.5), (0.6, 0.6), 10 * share)
    found = task_transfer_function(disc, (63.5, 63.5), 15.0, (0.6, 0.6), margin_mm=10.0)
    exact = np.sqrt(np.log(2) / 2) / np.pi / (10 * share)
    assert found.f50 / exact - 1 == pytest.approx(error, abs=0.01)


def test_realisations_are_averaged() -> None:
    disc = blurred_disc((63.5, 63.5), (0.6, 0.6), 1.0)
    noise = np.random.default_rng(0).standard_normal((40, 128, 128)) * 10
    plain = task_transfer_function(disc, (63.5, 63.5), 15.0, (0.6, 0.6))
    noisy = task_transfer_function(disc + noise, (63.5, 63.5), 15.0, (0.6, 0.6))
    assert noisy.f50 == pytest.approx(plain.f50, rel=0.1)


def test_an_edge_that_cannot_be_measured_is_refused() -> None:
    disc = blurred_disc((63.5, 63.5), (0.6, 0.6), 1.0)
    with pytest.raises(InputError, match="out of the image"):
        task_transfer_function(disc, (20.0, 63.5), 15.0, (0.6, 0.6))
    with pytest.raises(InputError, match="margin"):
        task_transfer_function(disc, (63.5, 63.5), 15.0, (0.6, 0.6), margin_mm=16.0)
    with pytest.raises(InputError, match="margin"):
        task_transfer_function(disc, (63.5, 63.5), 1.0, (0.6, 0.6))
    with pytest.raises(InputError, match="finite"):
        task_transfer_function(np.full((128, 128), np.nan), (63.5, 63.5), 15.0, (0.6, 0.6))
    with pytest.raises(NoScoreError, match="no contrast"):
        task_transfer_function(np.full((128, 128), 7.0), (63.5, 63.5), 15.0, (0.6, 0.6))
    sharp = task_transfer_function(
        blurred_disc((63.5, 63.5), (0.6, 0.6), 0.3), (63.5, 63.5), 15.0, (0.6, 0.6)
    )
    with pytest.raises(NoScoreError, match=r"stays above 0\.1"):
        _ = sharp.f10


def test_contrast_over_noise_is_that_of_its_definition() -> None:
    generator = np.random.default_rng(0)
    image = generator.normal(10, 4, (100, 100))
    inside = np.zeros((100, 100), dtype=bool)
    inside[40:60, 40:60] = True
    image[inside] += 12
    outside = ~inside
    assert contrast_to_noise(image, inside, outside) == pytest.approx(3, rel=0.05)
    assert contrast_to_noise(-image, inside, outside) == contrast_to_noise(image, inside, outside)
    # A region of integers is the same region, and no list of indices.
    as_numbers = contrast_to_noise(image, inside.astype(np.uint8), outside.astype(float))
    assert as_numbers == contrast_to_noise(image, inside, outside)
    with pytest.raises(InputError, match="inside has values beside 0 and 1"):
        contrast_to_noise(image, 2 * inside.astype(int), outside)
    # The mean of equal values is rounded, and their standard deviation 1e-17.
    with pytest.raises(NoScoreError, match="no noise"):
        contrast_to_noise(np.where(inside, 0.3, 0.1), inside, outside)
    with pytest.raises(NoScoreError, match="no pixels"):
        contrast_to_noise(image, inside & outside, outside)
    with pytest.raises(NoScoreError, match="no noise"):
        contrast_to_noise(inside.astype(float), inside, outside)
    with pytest.raises(InputError, match="equal shapes"):
        contrast_to_noise(image, inside[:50], outside)
