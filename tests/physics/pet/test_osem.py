"""PET: properties of the reconstruction."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from restore_rwkv.physics.pet import scanner as pet_scanner
from restore_rwkv.physics.pet.osem import osem, reconstruct
from restore_rwkv.physics.pet.scanner import Acquisition, PETSystem, acquire
from restore_rwkv.physics.slices import blurred
from tests.helpers.pet_discs import NO_BLUR, SCANNER, discs


def expected(activity: Tensor, system: PETSystem) -> Acquisition:
    """Scan without noise: its prompts are the expected counts."""
    scan = acquire(activity, system, [0] * len(activity))
    return replace(scan, prompts=scan.scale * system.A(activity) + scan.background)


def log_likelihood(image: Tensor, scan: Acquisition, system: PETSystem) -> float:
    """Poisson log-likelihood of the prompts, up to a constant."""
    rate = scan.scale * system.A(image) + scan.background
    return float((torch.xlogy(scan.prompts, rate) - rate).double().sum())


def test_em_increases_the_likelihood_and_subsets_hasten_it() -> None:
    activity, mu = discs()
    once = replace(NO_BLUR, iterations=1, subsets=1)
    scan = acquire(activity, PETSystem(NO_BLUR, mu), [0])
    climb = [
        log_likelihood(osem(scan, system), scan, system)
        for n in range(1, 7)
        for system in [PETSystem(replace(once, iterations=n), mu)]
    ]
    assert all(after > before for before, after in pairwise(climb))
    ordered = PETSystem(replace(NO_BLUR, iterations=1), mu)
    assert log_likelihood(osem(scan, ordered), scan, ordered) > climb[3]
    true = log_likelihood(activity, scan, ordered)
    assert climb[0] < true


@pytest.mark.parametrize("fwhm", [0.0, 8.0])
def test_many_iterations_recover_the_object_from_what_is_expected(fwhm: float) -> None:
    activity, mu = discs(dtype=torch.float64)
    smooth = blurred(activity, 12.0, SCANNER.pixel)
    scanner = replace(
        NO_BLUR, point_spread=fwhm, model_point_spread=True, iterations=30, subsets=12
    )
    system = PETSystem(scanner, mu)
    scan = expected(smooth, system)

    def error(knows_blur: bool) -> float:
        inverse = PETSystem(replace(scanner, model_point_spread=knows_blur), mu)
        image = reconstruct(scan, inverse)
        return float((image - smooth).norm() / smooth.norm())

    assert error(knows_blur=True) < 0.008
    if fwhm > 0:
        assert error(knows_blur=False) > 0.03


def test_post_filter_comes_last() -> None:
    activity, mu = discs()
    scan = acquire(activity, PETSystem(NO_BLUR, mu), [0])
    raw = reconstruct(scan, PETSystem(NO_BLUR, mu))
    filtered = reconstruct(scan, PETSystem(replace(NO_BLUR, post_filter=8.0), mu))
    torch.testing.assert_close(filtered, blurred(raw, 8.0, SCANNER.pixel))
    assert (filtered - raw).norm() > 0.1 * raw.norm()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    activity, mu = discs(5)
    activity *= torch.tensor([1.0, 0.2, 3.0, 0.0, 1.0])[:, None, None]
    system = PETSystem(SCANNER, mu)
    scan = acquire(activity, system, range(5))
    together = reconstruct(scan, system, slices_at_once=5)
    assert not together[3].any()  # no counts, no activity, and no NaN
    monkeypatch.setattr(pet_scanner, "SLICES_TOGETHER", 2)
    again = acquire(activity, system, range(5))
    assert torch.equal(again.prompts, scan.prompts)
    torch.testing.assert_close(
        reconstruct(again, system, slices_at_once=2), together, rtol=1e-4, atol=1e-5
    )
