"""Noise level of a scan, and the number of photons that explains it."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.ct.calibration import calibrated, noise_level
from restore_rwkv.physics.ct.dose import CTScanner, reduce_dose, scan_noise
from tests.helpers.ct_phantoms import QUICK, ellipses, seeded


def organs() -> Tensor:
    """A slice with edges everywhere: fat, muscle, organs, vessels, bone and gas."""
    parts = [
        (0, 0, 110, 80, -90),
        (0, 0, 100, 70, 50),
        (-40, 10, 40, 35, 60),
        (0, -45, 15, 13, 300),
    ]
    place = torch.rand(40, 5, generator=seeded(7)).tolist()
    parts += [
        (150 * (a - 0.5), 90 * (b - 0.5), 2 + 5 * c, 2 + 5 * d, 220 * e - 120)
        for a, b, c, d, e in place
    ]
    return ellipses((192, 192), (1.25, 1.25), *parts, (50, 20, 15, 10, -1000))


@pytest.mark.parametrize("photons", [1e5, 1e6])
def test_calibration_finds_the_photons_of_a_scan(photons: float) -> None:
    true = CTScanner(photons=photons, views=180)
    slices = organs().repeat(4, 1, 1)
    scan = slices + scan_noise(slices, (1.25, 1.25), scanner=true, generator=seeded(9))
    found = calibrated(CTScanner(views=180), scan, (1.25, 1.25))
    assert found.photons / photons == pytest.approx(1, abs=0.15)
    assert found == dataclasses.replace(true, photons=found.photons)


def test_calibration_of_a_reduced_scan() -> None:
    """Half the dose gives half the photons, for any scan."""
    scanner = CTScanner(views=180)
    slices = organs().repeat(4, 1, 1)
    scan = slices + scan_noise(slices, (1.25, 1.25), scanner=scanner, generator=seeded(9))
    half = reduce_dose(scan, (1.25, 1.25), dose=0.5, scanner=scanner, generator=seeded(10))
    ratio = calibrated(scanner, half, (1.25, 1.25)).photons
    ratio /= calibrated(scanner, scan, (1.25, 1.25)).photons
    assert ratio == pytest.approx(0.5, rel=0.1)


def test_noise_level_is_that_of_the_tissue() -> None:
    """White noise of known level; edges, bone and air with other noise do not count."""
    slices = organs().repeat(3, 1, 1)
    noise = torch.randn(slices.shape, generator=seeded(1))
    tissue = (slices > -100) & (slices < 100)
    scan = slices + torch.where(tissue, 12.0, 80.0) * noise
    assert noise_level(scan) == pytest.approx(12 * math.sqrt(48 / 49), rel=0.06)
    assert noise_level(slices) < 0.5  # no noise, many edges


def test_scans_that_cannot_be_calibrated() -> None:
    with pytest.raises(OperatorError, match="too few to measure"):
        noise_level(torch.full((64, 64), -1000.0))
    with pytest.raises(OperatorError, match="no noise"):
        calibrated(QUICK, torch.zeros(64, 64), (1.4, 1.4))
