"""Noise of reduced dose: its variance, texture, bias and streaks."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.ct import dose as ct
from restore_rwkv.physics.ct.dose import dose_noise, reduce_dose, scan_noise
from restore_rwkv.physics.ct.scanner import CTScanner
from restore_rwkv.physics.rays.kernel import Kernel
from tests.helpers.ct_phantoms import QUICK, ellipses, seeded


def pelvis() -> Tensor:
    """Phantom of 256 x 256 pixels of 1.4 mm: fat, muscle, and two hips."""
    hips = [(side * 80, 0, r, r, hu) for side in (-1, 1) for r, hu in ((24, 700), (18, 350))]
    return ellipses((256, 256), (1.4, 1.4), (0, 0, 155, 110, -90), (0, 0, 142, 97, 50), *hips)


def disc(shape: tuple[int, int] = (96, 96), spacing: tuple[float, float] = (1.4, 1.4)) -> Tensor:
    return ellipses(shape, spacing, (0, 0, 60, 60, 0))


INSIDE = ellipses((96, 96), (1.4, 1.4), (0, 0, 50, 50, 0)) == 0


def power(noise: Tensor, pixel: float) -> tuple[Tensor, Tensor, Tensor]:
    """Noise power in HU^2 mm^2 of (N, n, n), and its row and column frequencies in 1/mm."""
    side = noise.shape[-1]
    taper = torch.hann_window(side, periodic=False)
    taper = taper.outer(taper)
    centred = (noise - noise.mean((1, 2), keepdim=True)) * taper
    spectrum = torch.fft.fft2(centred).abs().square().mean(0) * pixel**2 / taper.square().sum()
    frequency = torch.fft.fftfreq(side, pixel)
    return spectrum, *torch.meshgrid(frequency, frequency, indexing="ij")


@functools.cache
def full_and_inserted(dose: float) -> tuple[Tensor, Tensor]:
    """Noise of a full-dose scan inside a disc, and the noise that a lower dose adds; 48 slices."""
    objects = disc().repeat(48, 1, 1)
    full = scan_noise(objects, (1.4, 1.4), scanner=QUICK, generator=seeded(1))
    inserted = dose_noise(objects + full, (1.4, 1.4), dose=dose, scanner=QUICK, generator=seeded(2))
    return full[:, INSIDE], inserted[:, INSIDE]


@pytest.mark.parametrize("dose", [0.5, 0.25, 0.1, 0.05])
def test_variance_goes_with_the_inverse_dose(dose: float) -> None:
    """Covers doses on either side of a tenth, below which photons are counted."""
    full, inserted = full_and_inserted(dose)
    ratio = (full + inserted).var() / full.var()
    assert float(ratio) * dose == pytest.approx(1, abs=0.02)
    assert torch.corrcoef(torch.stack([full.flatten(), inserted.flatten()]))[0, 1].abs() < 0.02


@pytest.mark.parametrize("dose", [0.5, 0.1])
def test_mean_stays(dose: float) -> None:
    full, inserted = full_and_inserted(dose)
    assert inserted.mean().abs() < 0.03 * full.std()


def test_equation() -> None:
    """The missing variance agrees with the equation as printed by Yu et al."""
    counts, dose = torch.logspace(1.5, 6, 10, dtype=torch.float64), 0.25
    printed = (1 - dose) / dose / counts * (1 + (1 + dose) / dose * QUICK.electronic / counts)
    drawn = ct._gaussian(counts[:, None].expand(-1, 20_000), dose, QUICK, seeded())
    torch.testing.assert_close(drawn.var(1), printed, rtol=0.03, atol=0)


@pytest.mark.parametrize("dose", [0.25, 0.05, 0.02])
def test_counting_is_a_scan_at_low_dose(dose: float) -> None:
    """The logarithm of full counts plus the inserted noise has the moments of low-dose counts."""
    counts = torch.full((400_000,), 3000.0, dtype=torch.float64)
    inserted = ct._counted(counts, dose, QUICK, seeded(1))
    photons = torch.poisson(dose * counts, seeded(2))
    electronic = torch.randn(counts.shape, generator=seeded(3), dtype=counts.dtype)
    low = photons + math.sqrt(QUICK.electronic) * electronic
    direct = -(low.clamp(min=1) / (dose * counts)).log()
    of_full = float(ct._variance(counts, QUICK)[0])
    assert float(inserted.var()) + of_full == pytest.approx(float(direct.var()), rel=0.02)
    error = 4 * math.sqrt(2 * float(direct.var()) / len(counts))
    bias = float(inserted.mean())
    assert bias + of_full / 2 == pytest.approx(float(direct.mean()), abs=error)
    assert bias > error or dose == 0.25


def test_counting_adds_the_electronic_noise_that_the_scan_lacks() -> None:
    """Electronic noise here is half of the photon noise at the reduced dose."""
    noisy, dose = dataclasses.replace(QUICK, electronic=400.0), 0.25
    counts = torch.full((400_000,), 3000.0, dtype=torch.float64)
    inserted = ct._counted(counts, dose, noisy, seeded(1))
    missing = (ct._variance(dose * counts, noisy) - ct._variance(counts, noisy))[0]
    assert float(inserted.var()) == pytest.approx(float(missing), rel=0.02)


def test_few_photons_raise_the_mean_of_dense_regions() -> None:
    """The Gaussian lacks this bias; counting below a tenth of the dose reproduces it."""
    bone = torch.where(disc() < 0, -1000.0, 800.0).repeat(12, 1, 1)
    scanner, generator = dataclasses.replace(QUICK, photons=1e4), seeded()
    counted = dose_noise(bone, (1.4, 1.4), dose=0.05, scanner=scanner, generator=seeded())[
        :, INSIDE
    ]
    gaussian = ct._reconstructed(
        bone, (1.4, 1.4), scanner, lambda c: ct._gaussian(c, 0.05, scanner, generator)
    )[:, INSIDE]
    error = float(counted.mean(1).std()) / math.sqrt(12)  # 0.2 HU
    assert 5 * error < counted.mean() < 5  # 2.8 HU, of a noise of 163 HU
    assert gaussian.mean().abs() < 4 * error


def test_noise_power_is_a_ring() -> None:
    noise = dose_noise(
        ellipses((192, 192), (0.7, 0.7), (0, 0, 62, 62, 0)).repeat(6, 1, 1),
        (0.7, 0.7),
        dose=0.25,
        scanner=CTScanner(views=240),
        generator=seeded(),
    )
    spectrum, rows, columns = power(noise[:, 48:144, 48:144], 0.7)
    radius = torch.hypot(rows, columns)
    edges = torch.arange(0, 0.7, 0.04).tolist()
    ring = [spectrum[(radius >= low) & (radius < low + 0.04)].mean().item() for low in edges]
    peak = edges[ring.index(max(ring))] + 0.02
    assert 0.12 <= peak <= 0.24  # Hann: 0.17 / mm
    assert ring[0] < 0.5 * max(ring)
    assert ring[-2] < 0.02 * max(ring)
    vertical = spectrum[(rows.abs() > columns.abs()) & (radius < 0.5)].mean()
    horizontal = spectrum[(rows.abs() < columns.abs()) & (radius < 0.5)].mean()
    assert vertical / horizontal == pytest.approx(1, abs=0.1)  # a disc has no streaks


def test_a_sharper_kernel_has_finer_noise() -> None:
    sharp = dataclasses.replace(QUICK, kernel=Kernel("ram-lak"))
    one, other = (
        dose_noise(disc(), (1.4, 1.4), dose=0.25, scanner=s, generator=seeded())
        for s in (QUICK, sharp)
    )
    assert other.std() > 1.5 * one.std()


def test_streaks_between_the_hips() -> None:
    noise = dose_noise(
        pelvis().repeat(4, 1, 1),
        (1.4, 1.4),
        dose=0.25,
        scanner=CTScanner(views=240),
        generator=seeded(),
    )
    spectrum, rows, columns = power(noise[:, 96:160, 96:160], 1.4)
    radius, angle = torch.hypot(rows, columns), torch.atan2(rows.abs(), columns.abs())
    band = (radius > 0.05) & (radius < 0.3)
    vertical = spectrum[band & (angle > math.radians(67.5))].mean()
    horizontal = spectrum[band & (angle < math.radians(22.5))].mean()
    assert 6 < vertical / horizontal < 13  # 9


def test_quarter_dose_pelvis_is_of_the_order_of_the_public_patients() -> None:
    hips = pelvis()
    noise = dose_noise(
        hips.repeat(2, 1, 1),
        (1.4, 1.4),
        dose=0.25,
        scanner=CTScanner(views=240),
        generator=seeded(),
    )
    window = (hips > -160) & (hips < 240)
    assert 12 < noise[:, window].square().mean().sqrt() < 20  # 17; the patient L506: 13.8


def test_fan_and_parallel_beams_agree() -> None:
    level = {}
    for beam in ("parallel", "fan"):
        scanner = CTScanner(beam=beam, views=180)  # type: ignore[arg-type]
        noise = dose_noise(
            disc().repeat(4, 1, 1), (1.4, 1.4), dose=0.25, scanner=scanner, generator=seeded()
        )
        level[beam] = noise[:, 36:60, 36:60].std().item()
    assert level["fan"] == pytest.approx(level["parallel"], rel=0.05)


def test_number_of_views_does_not_change_the_noise() -> None:
    few, many = (
        dose_noise(
            disc().repeat(4, 1, 1),
            (1.4, 1.4),
            dose=0.25,
            scanner=CTScanner(views=v),
            generator=seeded(),
        )
        for v in (120, 240)
    )
    assert float(few[:, 36:60, 36:60].std()) == pytest.approx(
        float(many[:, 36:60, 36:60].std()), rel=0.05
    )


def test_bowtie_takes_photons_from_the_edge() -> None:
    scanner = CTScanner()
    sent = scanner.photons_sent(scanner.geometry(400, 1.0))
    middle = len(sent) // 2
    assert sent[middle].item() == pytest.approx(4.5e5 * 1152 / 720, rel=1e-3)
    behind = scanner.photons * 1152 / 720 * math.exp(-0.0192 * 125)
    assert sent[0].item() == sent[-1].item() == pytest.approx(behind)
    flat = dataclasses.replace(scanner, bowtie_radius=None)
    assert flat.photons_sent(flat.geometry(400, 1.0)).unique().numel() == 1


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((120, 95), (1.4, 1.4)),
        ((67, 96), (2.0, 1.4)),
        ((96, 67), (1.4, 2.0)),
        ((95, 96), (1.4, 1.4)),
    ],
)
def test_matrix_and_pixels_need_not_be_square(
    shape: tuple[int, int], spacing: tuple[float, float]
) -> None:
    """The noise of a disc is the same on every grid, and centred on the disc."""
    noise = dose_noise(
        disc(shape, spacing).repeat(6, 1, 1), spacing, dose=0.25, scanner=QUICK, generator=seeded()
    )
    square = dose_noise(
        disc().repeat(6, 1, 1), (1.4, 1.4), dose=0.25, scanner=QUICK, generator=seeded()
    )
    assert noise.shape == (6, *shape)
    core = ellipses(shape, spacing, (0, 0, 40, 40, 0)) == 0
    same = ellipses((96, 96), (1.4, 1.4), (0, 0, 40, 40, 0)) == 0
    assert float(noise[:, core].std()) == pytest.approx(float(square[:, same].std()), rel=0.04)
    halves = noise[:, : shape[0] // 2].std() / noise[:, -(shape[0] // 2) :].std()
    assert halves == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("axis", [0, 1])
def test_image_that_is_not_square_has_air_on_either_side(axis: int) -> None:
    whole = disc((120, 120))
    part = whole.narrow(axis, 16, 88)
    noise = dose_noise(whole, (1.4, 1.4), dose=0.25, scanner=QUICK, generator=seeded())
    torch.testing.assert_close(
        dose_noise(part, (1.4, 1.4), dose=0.25, scanner=QUICK, generator=seeded()),
        noise.narrow(axis, 16, 88),
    )


def test_rounding_of_the_spacing_is_no_other_grid() -> None:
    exact, rounded = (
        dose_noise(disc(), spacing, dose=0.25, scanner=QUICK, generator=seeded())
        for spacing in ((1.4, 1.4), (1.4, 1.4 + 1e-9))
    )
    torch.testing.assert_close(rounded, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dose", [0.25, 0.05])
def test_batch_is_the_same_as_a_loop(dose: float) -> None:
    slices = torch.stack([disc((64, 60)), disc((64, 60)) + 40, disc((64, 60)) - 20])
    generator = seeded(3)
    one_by_one = [
        reduce_dose(x, (1.4, 1.4), dose=dose, scanner=QUICK, generator=generator) for x in slices
    ]
    together = reduce_dose(slices[None], (1.4, 1.4), dose=dose, scanner=QUICK, generator=seeded(3))
    torch.testing.assert_close(together[0], torch.stack(one_by_one), rtol=0, atol=0.05)
    assert (together[0, 0] - together[0, 1] + 40).abs().max() > 1  # not one noise for all


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = disc((48, 48)).repeat(5, 1, 1)
    whole = reduce_dose(slices, (2.8, 2.8), dose=0.25, scanner=QUICK, generator=seeded())
    monkeypatch.setattr(ct, "SLICES_TOGETHER", 2)
    torch.testing.assert_close(
        reduce_dose(slices, (2.8, 2.8), dose=0.25, scanner=QUICK, generator=seeded()),
        whole,
        rtol=0,
        atol=0.01,
    )


@pytest.mark.parametrize("dose", [0.25, 0.05])
def test_same_seed_same_noise(dose: float) -> None:
    first, second, other = (
        dose_noise(disc((48, 48)), (2.8, 2.8), dose=dose, scanner=QUICK, generator=seeded(seed))
        for seed in (4, 4, 5)
    )
    assert torch.equal(first, second)
    assert (first - other).abs().max() > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_result_keeps_the_image_and_its_type(dtype: torch.dtype) -> None:
    """The image stays sharp for any content; only air is clipped at -1024."""
    hu = disc().to(dtype)
    hu[disc() < 0] = -1018
    noise = dose_noise(hu, (1.4, 1.4), dose=0.25, scanner=QUICK, generator=seeded())
    low = reduce_dose(hu, (1.4, 1.4), dose=0.25, scanner=QUICK, generator=seeded())
    assert low.dtype == noise.dtype == dtype
    assert torch.equal(low, (hu + noise).clamp(min=-1024))
    assert low.min() == -1024
    assert (
        reduce_dose(hu - 2000, (1.4, 1.4), dose=0.25, scanner=QUICK, generator=seeded()).max()
        == -1024
    )


def test_gradient_passes_through_the_image() -> None:
    hu = (disc((32, 32)) + 100).requires_grad_()
    reduce_dose(hu, (4.0, 4.0), dose=0.25, scanner=QUICK, generator=seeded()).sum().backward()  # type: ignore[no-untyped-call]
    assert hu.grad is not None
    assert torch.equal(hu.grad, torch.ones(32, 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dose": 0.0}, "dose is 0; give the fraction"),
        ({"dose": 1.0}, "dose is 1"),
        ({"dose": 25}, "dose is 25"),
        ({"dose": math.nan}, "dose is nan"),
        ({"spacing": (-0.7, 0.7)}, r"spacing is \(-0.7, 0.7\) mm"),
        ({"spacing": (0.7, 0.0)}, "spacing is"),
        ({"spacing": (0.7, 0.7, 5.0)}, "spacing is"),
        ({"hu": torch.zeros(8, 8, dtype=torch.int16)}, "type int16; convert it to float32"),
        ({"hu": torch.zeros(8)}, r"shape \(8,\)"),
        ({"hu": torch.zeros(0, 8, 8)}, "not empty"),
        ({"hu": torch.full((8, 8), math.nan)}, "not finite; set them to -1024"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    good = {"hu": torch.zeros(8, 8), "spacing": (0.7, 0.7), "dose": 0.25}
    with pytest.raises(OperatorError, match=message):
        reduce_dose(**(good | change), scanner=QUICK, generator=seeded())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"photons": 0}, "photons is 0"),
        ({"electronic": -1}, "electronic is -1"),
        ({"bowtie_radius": -5}, "bowtie_radius is -5"),
        ({"mu_water": math.inf}, "mu_water is inf"),
        ({"beam": "cone"}, "beam is 'cone'"),
        ({"views": 0}, "views is 0"),
    ],
)
def test_scanners_that_cannot_be(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        CTScanner(**setting)
