"""PET at full and low dose: the activity that both images preserve, and their noise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.pet.dose import reduce_dose, simulate_pair
from restore_rwkv.physics.pet.scanner import PETSystem
from restore_rwkv.physics.slices import blurred
from tests.helpers.pet_discs import SCANNER, discs, generator


def test_axial_blur_joins_point_spread_and_filter() -> None:
    activity = torch.zeros(25, 48, 48)
    activity[12] = discs()[0]
    stack = replace(SCANNER, slice_spacing=2.0, counts=1e7)
    full, _ = simulate_pair(activity, scanner=stack, generator=generator())
    profile = full.sum(dim=(1, 2)).double()
    variance = (profile * (torch.arange(25) - 12).square()).sum() / profile.sum()
    fwhm = 2.3548 * 2.0 * variance.sqrt().item()
    assert fwhm == pytest.approx(math.hypot(stack.point_spread, stack.post_filter), rel=0.01)
    apart, _ = simulate_pair(activity[10:15], scanner=SCANNER, generator=generator())
    assert not apart[[0, 1, 3, 4]].any()


def test_activity_is_preserved_and_noise_grows_as_the_root_of_the_dose() -> None:
    activity, mu = discs(64)
    full, low = simulate_pair(activity, mu, scanner=SCANNER, generator=generator())
    total = activity.sum().item()
    assert full.sum().item() / total == pytest.approx(1, abs=0.003)
    assert low.sum().item() / total == pytest.approx(1, abs=0.01)
    assert min(full.min().item(), low.min().item()) >= 0
    body = mu[0] > 0
    ratio = (low.var(dim=0)[body].mean() / full.var(dim=0)[body].mean()).sqrt().item()
    assert ratio == pytest.approx(math.sqrt(12), rel=0.03)
    # Regions keep their means, except for the blur at their borders.
    for region in (activity[0] == 6, activity[0] == 2):
        mean = full.mean(dim=0)[region].mean().item()
        assert low.mean(dim=0)[region].mean().item() == pytest.approx(mean, rel=0.03)


def test_same_seed_same_images() -> None:
    activity, mu = discs(2)

    def pair(seed: int) -> Tensor:
        return torch.cat(simulate_pair(activity, mu, scanner=SCANNER, generator=generator(seed)))

    first = pair(3)
    assert torch.equal(first, pair(3))
    assert not torch.equal(first, pair(4))
    assert not torch.equal(first[0], first[1])  # equal slices, each with its own noise


def test_low_dose_adds_the_noise_that_the_dose_lacks() -> None:
    activity, mu = discs(64)
    body = mu[0] > 0

    def variance(dose: float) -> float:
        low = reduce_dose(activity, mu, dose=dose, scanner=SCANNER, generator=generator())
        assert low.sum().item() == pytest.approx(activity.sum().item(), rel=0.01)
        assert low.min() >= 0
        return low.var(dim=0)[body].mean().item()

    exact = replace(SCANNER, point_spread=0.0)
    full, _ = simulate_pair(activity, mu, dose=1.0, scanner=exact, generator=generator(1))
    assert variance(1 / 2) == pytest.approx(full.var(dim=0)[body].mean().item(), rel=0.06)
    assert variance(1 / 10) == pytest.approx(9 * variance(1 / 2), rel=0.1)


def test_low_dose_keeps_the_resolution_of_the_image() -> None:
    image = blurred(discs()[0], 12.0, SCANNER.pixel)
    many = replace(SCANNER, counts=1e9, post_filter=0.0, iterations=10)
    low = reduce_dose(image, dose=0.5, scanner=many, generator=generator())
    assert (low - image).norm() < 0.012 * image.norm()  # 0.017 with the point spread


def test_real_images_of_any_size_and_unit() -> None:
    image = 5000 * discs(2)[0][:, 2:46, 4:41]  # Bq/ml, not square
    low = reduce_dose(image, dose=0.5, scanner=SCANNER, generator=generator())
    assert low.shape == image.shape
    assert low.sum().item() == pytest.approx(image.sum().item(), rel=0.01)
    unit = reduce_dose(image / 5000, dose=0.5, scanner=SCANNER, generator=generator())
    assert (low / 5000 - unit).square().mean().sqrt() < 0.2 * unit.std()
    column = torch.arange(37)
    centre, shown = (float((x * column).sum() / x.sum()) for x in (image, low))
    assert shown == pytest.approx(centre, abs=0.1)


def test_double_precision_is_kept() -> None:
    activity, mu = discs(dtype=torch.float64)
    full, low = simulate_pair(activity, mu, scanner=SCANNER, generator=generator())
    assert full.dtype == low.dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_follows_the_same_laws() -> None:
    activity, mu = (x.cuda() for x in discs(16))
    full, low = simulate_pair(activity, mu, scanner=SCANNER, generator=generator())
    assert full.device == activity.device
    assert (low.sum() / activity.sum()).item() == pytest.approx(1, abs=0.02)
    host = PETSystem(SCANNER, mu.cpu()).A(activity.cpu())
    torch.testing.assert_close(PETSystem(SCANNER, mu).A(activity).cpu(), host, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("activity", "mu", "settings", "message"),
    [
        (-torch.ones(1, 48, 48), None, {}, "activity ranges from -1 to -1"),
        (torch.full((1, 48, 48), torch.nan), None, {}, "activity ranges from nan"),
        (torch.zeros(1, 48, 48), None, {}, "activity is 0 everywhere"),
        (torch.ones(48, 48), None, {}, r"activity has shape \(48, 48\)"),
        (torch.ones(1, 48, 48, dtype=torch.int32), None, {}, "type torch.int32"),
        (torch.ones(1, 64, 48), None, {}, "slices of 64 x 48"),
        (torch.ones(1, 48, 48), torch.ones(1, 48, 47), {}, r"mu has shape \(1, 48, 47\)"),
        (torch.ones(1, 48, 48), -torch.ones(1, 48, 48), {}, "mu ranges from -1"),
        (torch.ones(1, 48, 48), None, {"dose": 0.0}, "dose is 0 "),
        (torch.ones(1, 48, 48), None, {"dose": 1.5}, "dose is 1.5"),
        (torch.ones(1, 48, 48), None, {"dose": float("nan")}, "dose is nan"),
    ],
)
def test_errors(activity: Tensor, mu: Tensor | None, settings: Any, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        simulate_pair(activity, mu, scanner=SCANNER, generator=generator(), **settings)


def test_low_dose_of_the_full_dose() -> None:
    with pytest.raises(OperatorError, match="dose is 1, the image's own"):
        reduce_dose(torch.ones(1, 48, 48), dose=1.0, scanner=SCANNER, generator=generator())
