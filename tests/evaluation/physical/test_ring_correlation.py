from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.physical.ring_correlation import (
    fourier_ring_correlation,
    scan_ring_correlation,
)


def images(count: int, side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, side, side))


def test_equal_images_correlate_in_every_ring_whatever_their_scale() -> None:
    one = images(3)
    np.testing.assert_allclose(fourier_ring_correlation(one, one), 1, atol=1e-12)
    np.testing.assert_allclose(fourier_ring_correlation(one, 0.3 * one), 1, atol=1e-12)
    np.testing.assert_allclose(fourier_ring_correlation(one, -one), -1, atol=1e-12)


def test_independent_noise_does_not_correlate() -> None:
    found = fourier_ring_correlation(images(400), images(400, seed=1))
    # The mean over 400 images of about 2 pi r / 2 independent values each; ring 0 has one value.
    assert np.abs(found.mean(axis=0)[1:]).max() < 0.05
    assert found.shape == (400, 33)


def test_a_ring_correlates_by_the_share_of_what_is_common() -> None:
    common, one, other = (images(200, seed=seed) for seed in range(3))
    found = fourier_ring_correlation(common + one, common + other).mean(axis=0)
    assert found[8:].mean() == pytest.approx(0.5, abs=0.02)


def test_the_frequency_of_agreement_is_where_images_begin_to_differ() -> None:
    # Below 0.2 cycles per pixel both have the same, and above nothing in common.
    frequency = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(256)]))
    spectra = [np.fft.fft2(images(1, 256, seed)[0]) for seed in range(3)]
    one, other = (
        np.fft.ifft2(np.where(frequency < 0.2, spectra[0], own)).real for own in spectra[1:]
    )
    found = scan_ring_correlation(one[None], other[None], pixel_mm=0.5)
    assert found.corners.shape == (16, 3)
    np.testing.assert_allclose(found.agreement, 0.2 / 0.5, atol=0.04)
    assert found.flagged(0.5).all()
    assert not found.flagged(0.3).any()


def test_a_patch_with_something_else_in_it_is_flagged() -> None:
    truth = gaussian_filter(images(1, 256), (0, 2, 2))
    fake = truth.copy()
    fake[0, 64:128, 64:128] = gaussian_filter(images(1, 64, seed=5), (0, 2, 2))[0]
    found = scan_ring_correlation(fake, truth, pixel_mm=1.0)
    flagged = found.corners[found.flagged(0.1)]
    assert flagged.tolist() == [[0, 64, 64]]
    assert found.agreement.max() == pytest.approx(0.5)  # the Nyquist frequency


def test_patches_outside_are_left_out_and_impossible_ones_refused() -> None:
    stack = images(2, 128)
    within = np.zeros(stack.shape, dtype=bool)
    within[0, :64, :64] = True
    found = scan_ring_correlation(stack, stack, 1.0, within=within)
    assert found.corners.tolist() == [[0, 0, 0]]
    none = scan_ring_correlation(stack, stack, 1.0, within=np.zeros_like(within))
    assert len(none.agreement) == 0
    with pytest.raises(InputError, match="do not suit slices"):
        scan_ring_correlation(stack, stack, 1.0, side=200)
    with pytest.raises(InputError, match="give two equal"):
        fourier_ring_correlation(stack, stack[:, :64])
