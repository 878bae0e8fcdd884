"""PET: a restored image against the counts of its scan."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from restore_rwkv.evaluation.fidelity import Figure, RestoredPair
from restore_rwkv.evaluation.fidelity.pet import PETDetector, pet_figures, pet_maps
from restore_rwkv.evaluation.measures.measure import NoScoreError
from restore_rwkv.io import Volume
from restore_rwkv.physics.pet import MU_SOFT, PETScanner, simulate_pair
from restore_rwkv.tasks import TASKS

SIDE, SLICES, PIXEL = 40, 24, 4.0
AFFINE = np.diag([PIXEL, PIXEL, PIXEL, 1.0])


@cache
def scans() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Activity of a cylinder with a hot core, and a noisy scan of it: (X, Y, Z)."""
    place = (torch.arange(SIDE) - (SIDE - 1) / 2) * PIXEL
    distance = torch.hypot(place[:, None], place)
    disc = 4.0 * (distance < 60) + 4.0 * (distance < 25)
    activity = disc.expand(SLICES, SIDE, SIDE).clone()
    mu = (MU_SOFT * (distance < 60)).expand(SLICES, SIDE, SIDE).clone()
    scanner = PETScanner(size=SIDE, pixel=PIXEL, slice_spacing=PIXEL, views=72, counts=5e4)
    # Blurred as an image is.
    image = torch.from_numpy(gaussian_filter(activity.numpy(), (0, 0.7, 0.7)))
    generator = torch.Generator().manual_seed(0)
    scan, _ = simulate_pair(
        image, mu, dose=0.5, scanner=replace(scanner, point_spread=0.0), generator=generator
    )
    image = torch.from_numpy(gaussian_filter(image.numpy(), (0, 0.3, 0.3)))
    return tuple(np.moveaxis(a.numpy(), 0, 2).copy() for a in (image, scan))  # type: ignore[return-value]


def pair_of(before: np.ndarray, after: np.ndarray, axis: int = 1, **known: object) -> RestoredPair:
    first, second = (Volume(a, AFFINE, "SUV", "PT") for a in (before, after))
    return RestoredPair(
        **{"before": first, "after": second, "task": TASKS["pet-synth"], "axis": axis, **known}
    )


@cache
def detector() -> PETDetector:
    image, scan = scans()
    return PETDetector(pair_of(scan, image))


def scored(before: np.ndarray, after: np.ndarray) -> NDArray[np.float32]:
    """Scores of volumes (X, Y, Z), for slices across the second axis."""
    return np.moveaxis(detector().scores(np.moveaxis(before, 1, 0), np.moveaxis(after, 1, 0)), 0, 1)


def sphere(centre: tuple[int, int, int], radius: float = 6.0) -> NDArray[np.float32]:
    grid = np.indices((SIDE, SIDE, SLICES)) * PIXEL
    distance = np.sqrt(sum((g - PIXEL * c) ** 2 for g, c in zip(grid, centre, strict=True)))
    return gaussian_filter((distance <= radius).astype(np.float32), 2.5 / PIXEL)


def figures(pair: RestoredPair, detector: PETDetector | None) -> dict[str, Figure]:
    return {each.name: each for each in pet_figures(pair, detector, None)}


def test_scores_of_the_truth_are_those_of_noise() -> None:
    image, scan = scans()
    scores = scored(scan, image)
    inside = detector().noise.foreground
    assert scores[inside].std() == pytest.approx(1, abs=0.15)
    ends = inside.copy()
    ends[:, :, 2:-2] = False  # where the filters along the axis lack neighbours
    assert scores[ends].std() == pytest.approx(1, abs=0.15)
    threshold = detector().simulated_threshold
    assert threshold is not None
    assert np.abs(scores[inside]).max() < threshold < 6
    assert not scores[~detector().noise.foreground].any()


@pytest.mark.slow
def test_a_body_at_the_border_of_the_slices_has_the_scores_of_noise() -> None:
    part = (slice(10, 30), slice(10, 30))
    image, scan = (a[part].copy() for a in scans())
    found = PETDetector(pair_of(scan, image))
    scores = np.moveaxis(found.scores(*(np.moveaxis(a, 1, 0) for a in (scan, image))), 0, 1)
    rim = found.noise.foreground.copy()
    assert rim[0].any()
    assert rim[:, 0].any()
    rim[2:-2, 2:-2] = False
    inside = found.noise.foreground & ~rim
    # 0.99; without `mirrored_variance` 1.13.
    assert scores[rim].std() / scores[inside].std() < 1.08


def test_the_counts_are_those_of_the_scan() -> None:
    assert detector().noise.scanner.counts == pytest.approx(5e4, rel=0.25)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_lesion_that_was_removed_or_added_stands_out(sign: int) -> None:
    image, scan = scans()
    centre = (28, 15, 12)
    hot = 16 * sphere(centre)
    scores = scored(scan + hot, image) if sign == 1 else scored(scan, image + hot)
    assert np.unravel_index((sign * scores).argmax(), scores.shape) == pytest.approx(centre, abs=1)
    assert detector().simulated_threshold is not None
    assert sign * scores[centre] > detector().simulated_threshold


def test_the_axis_of_the_slices_does_not_matter() -> None:
    image, scan = scans()
    other = PETDetector(pair_of(scan, image, axis=2))
    scores = other.scores(np.moveaxis(scan, 2, 0), np.moveaxis(image, 2, 0))
    assert np.moveaxis(scores, 0, 2) == pytest.approx(scored(scan, image), abs=1e-4)


def test_transaxial_slices_are_found_by_the_geometry() -> None:
    turned = [np.moveaxis(a, 2, 0).copy() for a in reversed(scans())]
    affine = AFFINE[:, [2, 0, 1, 3]]
    first, second = (Volume(a, affine, "SUV", "PT") for a in turned)
    pair = replace(pair_of(*reversed(scans()), axis=2), before=first, after=second)
    found = PETDetector(pair)
    assert found.noise.axis == 0
    scores = found.scores(*(np.moveaxis(a, 2, 0) for a in turned))
    assert np.moveaxis(scores, 0, 2) == pytest.approx(
        np.moveaxis(scored(*reversed(scans())), 2, 0), abs=1e-4
    )


def test_a_faithful_image_has_supported_figures() -> None:
    image, scan = scans()
    found = figures(pair_of(scan, image), detector())
    assert {each.support for each in found.values()} == {"supported"}
    assert found["noise_after"].value < found["noise_before"].value / 3


def test_lost_and_moved_activity_is_found() -> None:
    image, scan = scans()
    less = figures(pair_of(scan, 0.93 * image), detector())
    assert less["total_activity"].support == "unsupported"
    moved = image.copy()
    moved[:20] *= 0.7
    moved[20:] *= 1.3
    pair = pair_of(scan, moved)
    found = figures(pair, detector())
    assert found["total_activity"].support == "supported"
    assert found["region_shift"].support == "unsupported"
    (shift,) = pet_maps(pair, detector(), None)
    assert shift.volume.data[12, 20, 12] < -15
    assert shift.volume.data[28, 20, 12] > 15


def test_values_below_zero_and_added_noise_deserve_a_look() -> None:
    image, scan = scans()
    dark = image.copy()
    dark[0, 0, 0] = -1
    assert figures(pair_of(scan, dark), None)["negative"].support == "look"
    assert figures(pair_of(image, scan), None)["noise_after"].support == "look"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"affine": None}, "no geometry"),
        ({"affine": np.diag([4.0, 5.0, 4.0, 1.0])}, "are square"),
    ],
)
def test_what_cannot_be_simulated_has_a_reason(change: dict[str, object], reason: str) -> None:
    image, scan = scans()
    pair = pair_of(scan, image)
    pair = replace(pair, before=replace(pair.before, **change), after=replace(pair.after, **change))
    with pytest.raises(NoScoreError, match=reason):
        PETDetector(pair)
    found = figures(pair, None)
    assert found["region_shift"].support == "unknown"
    assert found["region_shift"].reason
    assert found["total_activity"].support == "supported"
    assert pet_maps(pair, None, None) == []


def test_scans_without_noise_or_foreground_are_refused() -> None:
    image, scan = scans()
    with pytest.raises(NoScoreError, match="noise"):
        PETDetector(pair_of(np.full_like(scan, 2.0), np.full_like(scan, 2.0)))
    with pytest.raises(NoScoreError, match="transaxial slices show activity"):
        PETDetector(pair_of(np.zeros_like(scan), np.zeros_like(scan)))
    assert figures(pair_of(np.zeros_like(scan), image), None)["total_activity"].value is None
    small = (slice(None), slice(None), slice(0, 4))
    with pytest.raises(NoScoreError, match="4 transaxial slices"):
        PETDetector(pair_of(scan[small], image[small]))
