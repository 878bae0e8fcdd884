"""The noise that a scan of PET has at its own counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.pet import OwnNoise, acquire, matched_counts, noise_level, reconstruct
from restore_rwkv.physics.pet.scanner import PETSystem, expect
from tests.helpers.pet_discs import SCANNER, discs, generator

SHARP = replace(SCANNER, point_spread=0.0)


def scan(counts: float, slices: int = 12) -> torch.Tensor:
    """Reconstruction of the discs at some counts."""
    system = PETSystem(replace(SHARP, counts=counts))
    return reconstruct(acquire(discs(slices)[0], system, list(range(100, 100 + slices))), system)


def test_drawn_counts_are_expected_in_the_mean() -> None:
    system = PETSystem(SHARP)
    expected, counted = (f(discs()[0], system, *a) for f, a in ((expect, ()), (acquire, ([1],))))
    assert expected.scale == counted.scale
    assert float(expected.prompts.sum()) == pytest.approx(SHARP.counts, rel=1e-4)
    z = (counted.prompts - expected.prompts) / expected.prompts.sqrt()
    assert abs(float(z.mean())) < 0.05
    assert float(z.std()) == pytest.approx(1, abs=0.05)


def test_noise_has_no_mean_and_falls_with_the_root_of_the_counts() -> None:
    image = discs(12)[0]
    inside = image > 1
    levels = []
    for counts in (2e5, 8e5):
        noise = OwnNoise(image, replace(SHARP, counts=counts)).draw(generator())
        levels.append(float(noise[inside].std()))
        assert abs(float(noise[inside].mean())) < 0.02 * levels[-1] + 0.005
    assert levels[0] / levels[1] == pytest.approx(2, rel=0.1)


def test_noise_follows_the_generator() -> None:
    noise = OwnNoise(discs(2)[0], SHARP)
    first, same, other = (noise.draw(generator(seed)) for seed in (1, 1, 2))
    assert first.equal(same)
    assert not first.equal(other)


@pytest.mark.parametrize("counts", [5e4, 2e5, 1e6])
def test_counts_are_matched_to_the_noise_of_a_scan(counts: float) -> None:
    image = discs(12)[0]
    found = matched_counts(scan(counts), image, SHARP)
    assert found == pytest.approx(counts, rel=0.25)
    again = image + OwnNoise(image, replace(SHARP, counts=found)).draw(generator(7))
    assert noise_level(again.clamp(min=0)) == pytest.approx(noise_level(scan(counts)), rel=0.12)


def test_matched_counts_are_those_of_the_mean_slice() -> None:
    """Slices with a tenth of the activity halve the mean; empty ones do not count."""
    image = discs(40)[0]
    image[:14] *= 0.1
    image[26:] *= 0.1
    busy = scan(2e5)
    low = torch.cat([image[:14], busy, image[26:]])
    alone = matched_counts(busy, image[14:26], SHARP)
    mean = float(image.sum() / image[14:26].sum()) * 12 / 40
    assert matched_counts(low, image, SHARP) == pytest.approx(alone * mean, rel=1e-3)
    empty = torch.zeros(10, 48, 48)
    padded = (torch.cat([stack, empty]) for stack in (low, image))
    assert matched_counts(*padded, SHARP) == pytest.approx(alone * mean, rel=1e-3)


def test_errors() -> None:
    with pytest.raises(OperatorError, match="activity is 0 everywhere"):
        OwnNoise(torch.zeros(2, 48, 48), SHARP)
    with pytest.raises(OperatorError, match="image has shape"):
        OwnNoise(torch.zeros(48, 48), SHARP)
    with pytest.raises(OperatorError, match="scan ranges from -1"):
        matched_counts(-torch.ones(12, 48, 48), discs(12)[0], SHARP)
