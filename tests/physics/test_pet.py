"""PET: the laws of its projection, counting, thinning and reconstruction."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics import pet
from restore_rwkv.physics.pet import (
    Acquisition,
    PETScanner,
    PETSystem,
    acquire,
    low_dose,
    osem,
    reconstruct,
    simulate_pair,
)

# Slices of their own (no stack), 48 x 48 of 4 mm: quick, with counts per pixel like a head's.
SCANNER = PETScanner(size=48, pixel=4.0, slice_spacing=0.0, views=72, subsets=8, counts=2e5)
NO_BLUR = replace(SCANNER, point_spread=0.0, post_filter=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def discs(slices: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Activity of 2 in a disc of 64 mm radius, with 6 and 0.5 in two small ones; mu of water."""
    place = (torch.arange(48, dtype=dtype) - 23.5) * 4
    y, x = torch.meshgrid(place, place, indexing="ij")
    body = (torch.hypot(x, y) < 64).to(dtype)
    activity = 2 * body + 4 * (torch.hypot(x - 24, y) < 18) - 1.5 * (torch.hypot(x + 24, y) < 18)
    return activity.expand(slices, 48, 48).clone(), (0.0096 * body).expand(slices, 48, 48).clone()


def expected(activity: Tensor, system: PETSystem) -> Acquisition:
    """Scan without noise: its prompts are what is expected."""
    scan = acquire(activity, system, [0] * len(activity))
    return replace(scan, prompts=scan.scale * system.A(activity) + scan.background)


def log_likelihood(image: Tensor, scan: Acquisition, system: PETSystem) -> float:
    """Poisson log-likelihood of the prompts, but for a constant."""
    rate = scan.scale * system.A(image) + scan.background
    return float((torch.xlogy(scan.prompts, rate) - rate).double().sum())


def blurred(image: Tensor, fwhm: float) -> Tensor:
    return pet._blurred(image, fwhm, SCANNER.pixel)


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


def test_slices_of_air_leave_the_counts_alone() -> None:
    activity, mu = discs(2)
    air = torch.zeros(3, 48, 48)
    scan = acquire(torch.cat([activity, air]), PETSystem(SCANNER, torch.cat([mu, air])), range(5))
    alone = acquire(activity, PETSystem(SCANNER, mu), range(2))
    assert torch.equal(scan.prompts[:2], alone.prompts)
    assert not scan.prompts[2:].any()


def test_full_dose_loses_nothing() -> None:
    scan = acquire(discs()[0], PETSystem(SCANNER), [5])
    torch.testing.assert_close(scan.thinned(1.0, [6]).prompts, scan.prompts)


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
    # Regions keep their means, but for the blur at their borders.
    for region in (activity[0] == 6, activity[0] == 2):
        mean = full.mean(dim=0)[region].mean().item()
        assert low.mean(dim=0)[region].mean().item() == pytest.approx(mean, rel=0.03)


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
    smooth = blurred(activity, 12.0)
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
    torch.testing.assert_close(filtered, blurred(raw, 8.0))
    assert (filtered - raw).norm() > 0.1 * raw.norm()


def test_same_seed_same_images() -> None:
    activity, mu = discs(2)

    def pair(seed: int) -> Tensor:
        return torch.cat(simulate_pair(activity, mu, scanner=SCANNER, generator=generator(seed)))

    first = pair(3)
    assert torch.equal(first, pair(3))
    assert not torch.equal(first, pair(4))
    assert not torch.equal(first[0], first[1])  # equal slices, each with noise of its own


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    activity, mu = discs(5)
    activity *= torch.tensor([1.0, 0.2, 3.0, 0.0, 1.0])[:, None, None]
    system = PETSystem(SCANNER, mu)
    scan = acquire(activity, system, range(5))
    together = reconstruct(scan, system, slices_at_once=5)
    assert not together[3].any()  # no counts, no activity, and no NaN
    monkeypatch.setattr(pet, "_SLICES", 2)
    again = acquire(activity, system, range(5))
    assert torch.equal(again.prompts, scan.prompts)
    torch.testing.assert_close(
        reconstruct(again, system, slices_at_once=2), together, rtol=1e-4, atol=1e-5
    )


def test_low_dose_adds_the_noise_that_the_dose_lacks() -> None:
    activity, mu = discs(64)
    body = mu[0] > 0

    def variance(dose: float) -> float:
        low = low_dose(activity, mu, dose, SCANNER, generator=generator())
        assert low.sum().item() == pytest.approx(activity.sum().item(), rel=0.01)
        assert low.min() >= 0
        return low.var(dim=0)[body].mean().item()

    exact = replace(SCANNER, point_spread=0.0)
    full, _ = simulate_pair(activity, mu, 1.0, exact, generator=generator(1))
    assert variance(1 / 2) == pytest.approx(full.var(dim=0)[body].mean().item(), rel=0.06)
    assert variance(1 / 10) == pytest.approx(9 * variance(1 / 2), rel=0.1)


def test_low_dose_keeps_the_resolution_of_the_image() -> None:
    image = blurred(discs()[0], 12.0)
    many = replace(SCANNER, counts=1e9, post_filter=0.0, iterations=10)
    low = low_dose(image, dose=0.5, scanner=many, generator=generator())
    assert (low - image).norm() < 0.012 * image.norm()  # 0.017 with the point spread


def test_real_images_of_any_size_and_unit() -> None:
    image = 5000 * discs(2)[0][:, 2:46, 4:41]  # Bq/ml, no square
    low = low_dose(image, dose=0.5, scanner=SCANNER, generator=generator())
    assert low.shape == image.shape
    assert low.sum().item() == pytest.approx(image.sum().item(), rel=0.01)
    unit = low_dose(image / 5000, dose=0.5, scanner=SCANNER, generator=generator())
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
        low_dose(torch.ones(1, 48, 48), dose=1.0, scanner=SCANNER, generator=generator())


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
