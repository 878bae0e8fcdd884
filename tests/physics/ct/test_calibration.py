"""Noise level of a scan, and the number of photons that explains it."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.ct.calibration import calibrated, noise_level
from restore_rwkv.physics.ct.dose import dose_noise, reduce_dose, scan_noise
from restore_rwkv.physics.ct.scanner import CTScanner
from restore_rwkv.physics.rays.kernel import Kernel
from tests.helpers.ct_phantoms import QUICK, ellipses, poisson_disc, ring, seeded


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


def own_noise(scanner: CTScanner, slices: Tensor) -> float:
    """Variance of the scanner's noise in the soft tissue of slices of 1.25 mm, HU^2."""
    noise = scan_noise(slices, (1.25, 1.25), scanner=scanner, generator=seeded(10))
    return float(noise[(slices > -100) & (slices < 100)].var())


@pytest.mark.slow
@pytest.mark.parametrize("pixel", [0.5, 0.8, 1.0, 1.2])
def test_variance_of_a_calibrated_scan_goes_with_the_inverse_dose(pixel: float) -> None:
    """The scan comes from another simulator, with other rays, kernel and bowtie.

    Largest errors measured: 3.5 % within 90 mm of the centre, and 8.7 % in a ring.
    """
    scan = poisson_disc(pixel)
    scanner = calibrated(CTScanner(), scan, (pixel, pixel))
    for dose in (0.5, 0.25, 0.1):
        noise = dose_noise(scan, (pixel, pixel), dose=dose, scanner=scanner, generator=seeded(1))
        for inner, outer, error in ((0, 90, 0.05), (0, 30, 0.1), (30, 60, 0.1), (60, 90, 0.1)):
            inside = ring(scan.shape[-1], pixel, inner, outer)
            before, after = (x[:, inside].var(1).mean() for x in (scan, scan + noise))
            assert float(after / before) * dose == pytest.approx(1, abs=error), (dose, inner, outer)


@pytest.mark.parametrize(
    ("photons", "cutoff", "bowtie"),
    [(1e5, 1.0, 125.0), (1e6, 1.0, 125.0), (3e5, 0.6, 125.0), (3e5, 1.3, None), (3e5, 0.6, None)],
)
def test_calibrated_noise_is_that_of_the_scan(
    photons: float, cutoff: float, bowtie: float | None
) -> None:
    """Kernels and bowties differ from the starting point; edges are everywhere."""
    true = CTScanner(photons, bowtie_radius=bowtie, kernel=Kernel("hann", cutoff), views=180)
    slices, spacing = organs().repeat(4, 1, 1), (1.25, 1.25)
    noise = scan_noise(slices, spacing, scanner=true, generator=seeded(9))
    found = calibrated(CTScanner(views=180), slices + noise, spacing)
    assert own_noise(found, slices) / own_noise(true, slices) == pytest.approx(1, abs=0.06)
    assert found.kernel.cutoff == pytest.approx(cutoff, rel=0.08)
    fitted = {name: getattr(found, name) for name in ("photons", "kernel", "bowtie_radius")}
    assert found == dataclasses.replace(CTScanner(views=180), **fitted)


def test_calibration_keeps_a_scanner_without_bowtie() -> None:
    scanner = CTScanner(views=180, bowtie_radius=None)
    slices = organs()[None]
    scan = slices + scan_noise(slices, (1.25, 1.25), scanner=scanner, generator=seeded(9))
    assert calibrated(scanner, scan, (1.25, 1.25)).bowtie_radius is None


@pytest.mark.slow
def test_calibration_of_a_reduced_scan() -> None:
    """Half the dose gives twice the variance, for any scan."""
    scanner = CTScanner(views=180)
    slices = organs().repeat(4, 1, 1)
    scan = slices + scan_noise(slices, (1.25, 1.25), scanner=scanner, generator=seeded(9))
    half = reduce_dose(scan, (1.25, 1.25), dose=0.5, scanner=scanner, generator=seeded(10))
    before, after = (own_noise(calibrated(scanner, x, (1.25, 1.25)), slices) for x in (scan, half))
    assert after / before == pytest.approx(2, rel=0.1)


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
