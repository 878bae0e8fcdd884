"""The noise of a PET scan: counts that explain it, and realisations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.pet import acquire, axial_gain, calibrated, reconstruct, scan_noise
from restore_rwkv.physics.pet.scanner import PETSystem
from restore_rwkv.physics.slices import blurred_across
from tests.helpers.pet_discs import SCANNER, discs, generator


def test_realisations_have_the_variance_of_the_noise_and_no_sum() -> None:
    activity, mu = discs(6)
    exact = replace(SCANNER, point_spread=0.0)
    noise = scan_noise(activity, scanner=exact, mu=mu, realisations=8, generator=generator())
    assert noise.shape == (8, 6, 48, 48)
    assert noise.sum(dim=0).abs().max() < 1e-4
    scans = [
        reconstruct(acquire(activity, s := PETSystem(exact, mu), range(k, k + 6)), s)
        for k in range(100, 160, 6)
    ]
    body = mu[0] > 0
    true = torch.stack(scans).var(dim=(0, 1))[body].mean().item()
    assert noise.square().mean(dim=(0, 1))[body].mean().item() == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("counts", [4e4, 1e6])
@pytest.mark.parametrize("unit", [1.0, 5000.0])
def test_the_counts_of_a_scan_are_found_in_any_unit(counts: float, unit: float) -> None:
    activity, mu = discs(12)
    taken = replace(SCANNER, point_spread=0.0, counts=counts)
    system = PETSystem(taken, mu)
    scan = reconstruct(acquire(activity, system, range(12)), system)
    fitted = calibrated(SCANNER, unit * scan, unit * activity, mu=mu, generator=generator())
    assert fitted.counts == pytest.approx(counts, rel=0.25)  # -15 to +14 %, 16 seeds


def test_axial_gain_is_that_of_the_filter() -> None:
    stack = replace(SCANNER, slice_spacing=2.0, post_filter=3.0)
    white = torch.randn(41, 60, 60, generator=generator())
    filtered = blurred_across(white, 3.0, 2.0)[10:31]
    assert axial_gain(stack) == pytest.approx(filtered.std().item(), rel=0.01)
    assert axial_gain(SCANNER) == 1


def test_noise_that_no_counts_explain_is_refused() -> None:
    activity, mu = discs(8)
    quiet = activity * (1 + 1e-6 * torch.randn(activity.shape, generator=generator()))
    with pytest.raises(OperatorError, match="counts a slice would have"):
        calibrated(SCANNER, quiet, activity, mu=mu, generator=generator())
    with pytest.raises(OperatorError, match="scan has no noise"):
        calibrated(SCANNER, torch.ones(2, 48, 48), activity[:2], generator=generator())
    with pytest.raises(OperatorError, match="realisations is 1"):
        scan_noise(activity, scanner=SCANNER, realisations=1, generator=generator())
