"""Whether an image is what the weights are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from restore_rwkv.io import Finding, Source, Volume
from restore_rwkv.physics.mri import kspace_crop
from restore_rwkv.restoration.fit import Fit, judge
from restore_rwkv.tasks import TASKS
from restore_rwkv.tasks.measures import Measure
from tests.physics.mri.test_extent import head

MRI, CT, PET = (TASKS[name] for name in ("mri-sr", "ct-denoise", "pet-synth"))
BLOCK = {"power_outside": (0.0002, 0.0008), "power_in_rim": (0.01, 0.04)}
NOISE = {"noise": (8.0, 40.0), "noise_correlation": (0.1, 0.6), "noise_frequency": (0.12, 0.23)}


def mri(factor: float) -> Volume:
    image = head()
    low = kspace_crop(image, factor) if factor > 1 else image
    return Volume(np.moveaxis(low.numpy(), 0, 2), modality="MR")


def ct(sigma: float, pixel: float = 2.0, smooth: int = 0) -> Volume:
    noise = torch.randn(4, 1, 96, 80, generator=torch.Generator().manual_seed(0))
    for _ in range(smooth):
        noise = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    data = 40 + sigma * (noise / noise.std())[:, 0].numpy()
    data[:, :12] = -1000
    affine = np.diag([pixel, pixel, 5, 1])
    return Volume(np.moveaxis(data, 0, 2), affine, unit="HU", modality="CT")


def kinds(fit: Fit) -> list[tuple[str, str]]:
    return [(finding.level, finding.kind) for finding in fit.findings]


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (1, [("unfit", "power-outside")]),
        (2, [("unfit", "power-outside")]),
        (3, [("unfit", "power-outside")]),
        (4, []),
        (6, [("doubtful", "power-in-rim")]),
    ],
)
def test_mri_of_another_resolution_is_told(factor: float, expected: list[tuple[str, str]]) -> None:
    fit = judge(mri(factor), MRI, 2, BLOCK)
    assert kinds(fit) == expected
    assert fit.outcome == (expected[0][0] if expected else "fit")
    assert fit.unjudged is None
    if factor == 2:
        assert "its k-space reaches to 1/1.9 of the matrix per axis" in fit.findings[0].text


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        (ct(20, smooth=1, pixel=0.7), []),
        (ct(2, smooth=1, pixel=0.7), [("doubtful", "noise")]),
        (ct(120, smooth=1, pixel=0.7), [("doubtful", "noise")]),
        (ct(20, pixel=0.7), [("doubtful", "noise-frequency")]),
        (ct(20, smooth=6, pixel=0.7), [("doubtful", "noise-correlation")]),
    ],
)
def test_ct_with_other_noise_is_told(volume: Volume, expected: list[tuple[str, str]]) -> None:
    assert kinds(judge(volume, CT, 2, NOISE)) == expected


def test_pet_of_full_counts_is_told_at_the_pixels_of_the_training() -> None:
    generator = np.random.default_rng(0)
    uptake = 5 * (1 + 0.02 * generator.standard_normal((60, 60, 4)))
    ranges = {"noise": (0.04, 0.16)}
    volumes = [Volume(uptake, np.diag([side, side, side, 1]), "SUV", "PT") for side in (2, 4)]
    same, other = (judge(volume, PET, 2, ranges) for volume in volumes)
    assert kinds(same) == [("doubtful", "noise")]
    assert "no more noise than a scan of full counts" in same.findings[0].text
    assert (kinds(other), other.outcome) == ([], "fit")
    assert other.unjudged == "pixels of 4 mm, and the noise is known for 2 mm"


def test_what_the_file_says_comes_first() -> None:
    stated = Finding("unfit", "localizer", "ImageType says so; give the scan")
    volume = mri(6)
    source = Source(Path("a.nii"), volume.data.shape, None, findings=(stated,))
    fit = judge(Volume(volume.data, source=source, modality="MR"), MRI, 2, BLOCK)
    assert kinds(fit) == [("unfit", "localizer"), ("doubtful", "power-in-rim")]
    assert fit.outcome == "unfit"
    assert fit.lines()[:2] == ["fit: unfit", "unfit: ImageType says so; give the scan"]
    assert len(fit.lines()) == 3


def test_weights_without_ranges_judge_no_measure() -> None:
    for ranges in (None, {}):
        fit = judge(mri(1), MRI, 2, ranges)
        assert (fit.outcome, fit.measures) == ("fit", {})
        expected = "fit: fit, not compared: the weights record no range of their training"
        assert fit.lines() == [expected]


def test_an_image_too_small_to_measure_is_not_compared() -> None:
    fit = judge(Volume(np.random.default_rng(0).uniform(0, 9, (30, 30, 2))), MRI, 2, BLOCK)
    assert fit.outcome == "fit"
    assert "too small to judge its k-space" in (fit.unjudged or "")


def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 900, (64, 64, 3))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (np.zeros((64, 64, 3)), "constant"),
        (np.full((64, 64, 3), 7.0), "constant"),
        (np.pad(np.ones((1, 1, 1)), ((0, 199), (0, 199), (0, 2))), "empty"),
        (np.kron(np.arange(1, 17).reshape(4, 4), np.ones((20, 20)))[..., None], "label-map"),
    ],
)
def test_images_without_content_are_unfit(data: np.ndarray, kind: str) -> None:
    for task in (MRI, PET):
        fit = judge(Volume(data, modality=task.modality), task, 2, None)
        assert kinds(fit) == [("unfit", kind)]


def test_eight_bit_images_are_no_labels() -> None:
    data = np.clip(mri(4).data / 5, 0, 255).round()
    assert kinds(judge(Volume(data, modality="MR"), MRI, 2, None)) == []


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (2e4, [("unfit", "spacing")]),
        (0.0008, [("unfit", "spacing")]),
        (0.01, [("doubtful", "spacing")]),
        (40.0, [("doubtful", "spacing")]),
        (0.05, []),
        (12.0, []),
    ],
)
def test_spacings_that_no_scanner_makes_are_told(
    side: float, expected: list[tuple[str, str]]
) -> None:
    volume = Volume(image(), np.diag([side, 1, 1, 1]), modality="MR")
    assert kinds(judge(volume, MRI, 2, None)) == expected


def test_values_of_another_modality_are_told() -> None:
    hu = Volume(image() - 450)  # a file that does not say what it is
    assert kinds(judge(hu, MRI, 2, None)) == [("doubtful", "strange-values")]
    assert kinds(judge(Volume(image()), CT, 2, None)) == [("unfit", "strange-values")]
    assert kinds(judge(Volume(image(), unit="HU", modality="CT"), CT, 2, None)) == []


def test_impossible_values_of_ct_are_unfit() -> None:
    data = image() - 1000
    data[0] = 1e6
    fit = judge(Volume(data, unit="HU", modality="CT"), CT, 2, None)
    assert kinds(fit) == [("unfit", "impossible-values")]


@pytest.mark.parametrize("limit", [np.pi, 4096.0])
def test_the_values_of_a_phase_are_unfit(limit: float) -> None:
    data = np.random.default_rng(0).uniform(-limit, limit, (64, 64, 3))
    data[0, 0, :2] = -limit, limit - 1e-3
    assert ("unfit", "phase") in kinds(judge(Volume(data, modality="MR"), MRI, 2, None))
    assert kinds(judge(Volume(data + 2 * limit, modality="MR"), MRI, 2, None)) == []


def test_limits_are_a_factor_or_a_difference_beyond_the_range() -> None:
    assert Measure("a", margin=2).limits((3, 8)) == (1.5, 16)
    assert Measure("a", margin=2, differences=True).limits((3, 8)) == (1, 10)
    assert Measure("a", margin=2, percent=True).shown(0.0213) == "2.1 %"
    assert Measure("a", margin=2).shown(0.0213) == "0.0213"
