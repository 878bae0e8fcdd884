from __future__ import annotations

import numpy as np
import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.measures.measure import NoScoreError
from restore_rwkv.evaluation.physical import (
    difference_of_gaussian_channels,
    hotelling_observer,
    laguerre_gauss_channels,
)

SIDE = 32


def signal(side: int = SIDE, spread: float = 3.0) -> np.ndarray:
    place = np.arange(side) - (side - 1) / 2
    return np.exp(-(place[:, None] ** 2 + place**2) / (2 * spread**2))


def images(count: int, seed: int, add: np.ndarray | float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, SIDE, SIDE)) + add


def test_in_white_noise_d_prime_is_the_energy_of_the_signal_that_the_channels_pass() -> None:
    known = 0.3 * signal()
    # A Laguerre-Gauss channel of this spread is the signal itself, so that nothing is lost.
    channels = laguerre_gauss_channels(SIDE, 3.0 * np.sqrt(2 * np.pi), count=4)
    found = hotelling_observer(images(1500, 1, known), images(1500, 2), channels)
    ideal = np.sqrt(np.sum(known**2))
    assert found.low < ideal < found.high
    assert found.d_prime == pytest.approx(ideal, rel=0.06)
    assert found.auc_low < found.auc < found.auc_high
    dense = hotelling_observer(
        images(1500, 1, known), images(1500, 2), difference_of_gaussian_channels(SIDE)
    )
    assert dense.d_prime == pytest.approx(ideal, rel=0.08)


def test_laguerre_gauss_channels_do_not_depend_on_each_other() -> None:
    channels = laguerre_gauss_channels(96, 20.0).reshape(6, -1)
    np.testing.assert_allclose(channels @ channels.T, np.eye(6), atol=1e-6)


def test_dense_channels_pass_the_bands_of_their_source() -> None:
    channels = difference_of_gaussian_channels(257)
    spectra = np.abs(np.fft.fft2(channels))[:, 0, :128]
    frequency = np.arange(128) / 257
    # The last one reaches beyond the Nyquist frequency, and is folded back by 0.04 of its peak.
    for index, tolerance in ((4, 0.001), (6, 0.001), (8, 0.01), (9, 0.04)):
        scale = 0.005 * 1.4**index
        band = np.exp(-((frequency / (1.67 * scale)) ** 2) / 2) - np.exp(
            -((frequency / scale) ** 2) / 2
        )
        found = spectra[index] / spectra[index].max()
        np.testing.assert_allclose(found, band / band.max(), atol=tolerance)


def test_without_a_signal_d_prime_is_near_zero_and_the_interval_holds_it() -> None:
    channels = difference_of_gaussian_channels(SIDE)
    found = hotelling_observer(images(100, 3), images(120, 4), channels)
    assert found.low == 0
    assert found.d_prime < 0.5
    assert found.auc_low == 0.5


@pytest.mark.parametrize("strength", [0.0, 0.25])
def test_the_interval_covers_the_truth_as_often_as_it_says(strength: float) -> None:
    channels = laguerre_gauss_channels(SIDE, 3.0 * np.sqrt(2 * np.pi), count=5)
    known = strength * signal()
    outputs = np.tensordot(channels, known, axes=2)
    flat = channels.reshape(5, -1)
    true = np.sqrt(outputs @ np.linalg.solve(flat @ flat.T, outputs))
    covered, values = 0, []
    for seed in range(200):
        found = hotelling_observer(
            images(30, 2 * seed + 10, known), images(40, 2 * seed + 11), channels
        )
        covered += found.low <= true <= found.high
        values.append(found.d_prime)
    # 190 of 200 are expected; 181 to 198 has 99 % of a binomial distribution.
    assert 181 <= covered <= 198
    if strength:
        assert np.mean(values) == pytest.approx(true, rel=0.06)


def test_images_that_cannot_be_observed_are_refused() -> None:
    channels = laguerre_gauss_channels(SIDE, 8.0)
    with pytest.raises(InputError, match="too few"):
        hotelling_observer(images(4, 0), images(4, 1), channels)
    with pytest.raises(InputError, match="shape"):
        hotelling_observer(images(20, 0)[:, 1:], images(20, 1), channels)
    with pytest.raises(InputError, match="not finite"):
        hotelling_observer(images(20, 0, np.nan), images(20, 1), channels)
    with pytest.raises(InputError, match="confidence"):
        hotelling_observer(images(20, 0), images(20, 1), channels, confidence=1.0)
    with pytest.raises(NoScoreError, match="do not vary"):
        hotelling_observer(np.zeros((20, SIDE, SIDE)), np.ones((20, SIDE, SIDE)), channels)
    with pytest.raises(NoScoreError, match="depend on each other"):
        hotelling_observer(images(20, 0), images(20, 1), channels[[0, 1, 1]])
    with pytest.raises(NoScoreError, match="above 300"):
        hotelling_observer(images(20, 0, 1e4 * signal()), images(20, 1), channels)
    for invalid in (
        lambda: difference_of_gaussian_channels(2),
        lambda: laguerre_gauss_channels(SIDE, 0.0),
    ):
        with pytest.raises(InputError, match="channels"):
            invalid()
