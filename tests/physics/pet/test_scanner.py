"""PET: properties of projection, counting and thinning."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.pet.scanner import Acquisition, PETScanner, PETSystem, acquire
from tests.helpers.pet_discs import NO_BLUR, SCANNER, discs, generator


@pytest.mark.parametrize("views", [slice(None), slice(3, 72, 8)])
@pytest.mark.parametrize("attenuated", [True, False])
def test_adjoint(views: slice, attenuated: bool) -> None:
    image = torch.rand(2, 48, 48, dtype=torch.float64, generator=generator())
    mu = 0.02 * torch.rand(2, 48, 48, dtype=torch.float64, generator=generator(1))
    system = PETSystem(SCANNER, mu if attenuated else None)
    projected = system.A(image, views)
    other = torch.rand(projected.shape, dtype=torch.float64, generator=generator(2))
    there = (projected * other).sum().item()
    back = (image * system.A_adjoint(other, views)).sum().item()
    assert there == pytest.approx(back, rel=1e-13)


def test_attenuation_is_exp_of_the_path() -> None:
    activity, mu = discs()
    through = PETSystem(NO_BLUR, mu).A(activity) / PETSystem(NO_BLUR).A(activity)
    central = through[0, :, through.shape[2] // 2]
    torch.testing.assert_close(
        central, torch.full_like(central, math.exp(-0.0096 * 128)), rtol=0.04, atol=0
    )


def test_point_spread_has_its_width() -> None:
    point = torch.zeros(1, 48, 48, dtype=torch.float64)
    point[0, 24, 24] = 1
    wide, narrow = (
        PETSystem(replace(SCANNER, point_spread=fwhm)).A(point)[0, 0] for fwhm in (14.0, 0.0)
    )
    place = torch.arange(len(wide)) * 4.0

    def variance(profile: Tensor) -> float:
        mean = (profile * place).sum() / profile.sum()
        return float((profile * (place - mean).square()).sum() / profile.sum())

    fwhm = 2.3548 * math.sqrt(variance(wide) - variance(narrow))
    assert fwhm == pytest.approx(14.0, rel=2e-3)
    assert wide.sum().item() == pytest.approx(narrow.sum().item(), rel=1e-12)


def test_prompts_are_poisson_about_what_is_expected() -> None:
    activity, mu = discs(300)
    system = PETSystem(SCANNER, mu)
    scan = acquire(activity, system, range(300))
    first = system.part(slice(0, 1)).A(activity[:1])
    rate = scan.scale * first + scan.background[:1]
    assert rate.sum().item() == pytest.approx(2e5, rel=1e-4)
    assert scan.background[0].sum() / rate.sum() == pytest.approx(0.3 / 1.3, rel=1e-4)
    seen = rate[0] > 2
    assert scan.prompts.double().sum().item() / 300 == pytest.approx(2e5, rel=4 / math.sqrt(6e7))
    fano = (scan.prompts.var(dim=0) / rate[0])[seen].mean().item()
    assert fano == pytest.approx(1, abs=4 * math.sqrt(2 / 299 / int(seen.sum())))


@pytest.mark.parametrize("dose", [1 / 12, 0.5])
def test_thinning_keeps_poisson_statistics(dose: float) -> None:
    prompts = torch.poisson(torch.full((4, 500, 100), 30.0), generator=generator())
    scan = Acquisition(prompts, torch.full_like(prompts, 6.0), 2.0)
    thin = scan.thinned(dose, [1, 2, 3, 4])
    kept, lost = thin.prompts, prompts - thin.prompts
    count = kept.numel()
    assert lost.min() >= 0
    assert torch.equal(kept, kept.round())
    assert kept.mean().item() == pytest.approx(30 * dose, abs=4 * math.sqrt(30 * dose / count))
    assert (kept.var() / kept.mean()).item() == pytest.approx(1, abs=4 * math.sqrt(2 / count))
    correlation = torch.corrcoef(torch.stack([kept.flatten(), lost.flatten()]))[0, 1].item()
    assert abs(correlation) < 4 / math.sqrt(count)
    assert thin.scale == pytest.approx(2 * dose)
    torch.testing.assert_close(thin.background, scan.background * dose)


def test_slices_of_air_do_not_change_the_counts() -> None:
    activity, mu = discs(2)
    air = torch.zeros(3, 48, 48)
    scan = acquire(torch.cat([activity, air]), PETSystem(SCANNER, torch.cat([mu, air])), range(5))
    without_air = acquire(activity, PETSystem(SCANNER, mu), range(2))
    assert torch.equal(scan.prompts[:2], without_air.prompts)
    assert not scan.prompts[2:].any()


def test_full_dose_loses_nothing() -> None:
    scan = acquire(discs()[0], PETSystem(SCANNER), [5])
    torch.testing.assert_close(scan.thinned(1.0, [6]).prompts, scan.prompts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size is 0; give a whole number above 0"),
        ({"iterations": 2.5}, "iterations is 2.5; give a whole number above 0"),
        ({"counts": float("inf")}, "counts is inf; give a finite number above 0"),
        ({"point_spread": -1.0}, "point_spread is -1.0; give a finite number at least 0"),
        ({"background": float("nan")}, "background is nan"),
        ({"views": 8, "subsets": 9}, "9 subsets of 8 views"),
    ],
)
def test_wrong_scanners(settings: Any, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        PETScanner(**settings)
