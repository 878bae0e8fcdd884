"""Figures that every restored image has: fit, seams of tiles, clipped values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from restore_rwkv.evaluation.fidelity import Figure, RestoredPair
from restore_rwkv.evaluation.fidelity.common import common_figures, seam_ratio
from restore_rwkv.io import Volume
from restore_rwkv.restoration.fit import Finding, Fit
from restore_rwkv.restoration.tiles import spans
from restore_rwkv.tasks import TASKS

SHAPE = (48, 40, 3)
TILE = (32, 24)


def pair_of(after: np.ndarray, before: np.ndarray | None = None, **known: object) -> RestoredPair:
    before = body() if before is None else before
    first, second = (Volume(a.astype(np.float32), np.eye(4), None, "MR") for a in (before, after))
    pair = RestoredPair(before=first, after=second, task=TASKS["mri-sr"], axis=2)
    return replace(pair, **known)  # type: ignore[arg-type]


def body() -> np.ndarray:
    """Tissue of 100 in air of 0."""
    image = np.zeros(SHAPE)
    image[8:40, 8:32] = 100
    return image


def figures(pair: RestoredPair) -> dict[str, Figure]:
    return {each.name: each for each in common_figures(pair)}


def test_a_step_where_tiles_meet_is_a_seam() -> None:
    noise = np.random.default_rng(0).normal(0, 1, SHAPE)
    even = pair_of(body() + noise, tile=TILE)
    assert seam_ratio(even, TILE) == pytest.approx(1, abs=0.2)
    (_, stop), (start, _) = list(spans(SHAPE[0], TILE[0]))[:2]
    stepped = body() + noise
    stepped[(start + stop) // 2 :] += 5
    found = figures(pair_of(stepped, tile=TILE))["seams"]
    assert found.value is not None
    assert found.value > 1.5
    assert found.support == "look"
    assert f"{found.value:.2f} times" in found.says


@pytest.mark.parametrize(
    ("tile", "reason"),
    [
        (None, "slices were not cut, or it is not known"),
        (SHAPE[:2], "slices were not cut, or it is not known"),
        (TILE, "nothing was changed beside the seams"),
    ],
)
def test_without_seams_there_is_no_figure_but_a_reason(
    tile: tuple[int, int] | None, reason: str
) -> None:
    found = figures(pair_of(body(), tile=tile))["seams"]
    assert (found.value, found.support, found.reason) == (None, "unknown", reason)


def test_values_clipped_in_tissue_are_counted() -> None:
    cut = body()
    cut[20:28, 10:30] = 0
    found = figures(pair_of(cut))["clipped"]
    assert found.value is not None
    assert 10 < found.value <= 100 * 8 * 20 / (32 * 24)  # the body reaches a little into the air
    assert found.support == "look"


def test_values_cut_off_at_the_top_are_counted_where_the_scan_is_brighter() -> None:
    scan = body()
    scan[20:28, 10:30] *= 3
    noisy = scan + np.random.default_rng(0).normal(0, 5, SHAPE)
    assert figures(pair_of(scan, noisy))["clipped"].value == 0  # its largest value is the truth
    found = figures(pair_of(np.minimum(scan, 1.5 * body().max()), noisy))["clipped"]
    assert found.value is not None
    assert found.value > 10
    assert found.support == "look"
    assert "where it is brighter" in found.says


def test_tissue_without_signal_is_not_clipped() -> None:
    # A cavity: the scan is blurred into it, the truth is 0 there.
    truth, scan = body(), body()
    truth[20:28, 10:30] = 0
    scan[20:28, 10:30] = 8
    found = figures(pair_of(truth, scan))["clipped"]
    assert (found.value, found.support) == (0, "supported")


def test_shares_are_plain_numbers() -> None:
    found = figures(pair_of(np.full(SHAPE, 0.1), np.full(SHAPE, 100)))["clipped"]
    assert "100 %" in found.says
    assert "e+" not in found.says


def test_images_without_body_have_nothing_clipped() -> None:
    nothing = np.zeros(SHAPE)
    assert figures(pair_of(nothing, nothing))["clipped"].value == 0


def test_the_fit_of_the_weights_is_what_was_judged() -> None:
    unknown = figures(pair_of(body()))["fit"]
    assert (unknown.value, unknown.support) == (None, "unknown")
    assert unknown.reason
    good = figures(pair_of(body(), fit=Fit(findings=())))["fit"]
    assert (good.value, good.support) == (0, "supported")
    bad = Fit(
        findings=(
            Finding(level="unfit", kind="noise", text="its noise is 9 times that of the training"),
        )
    )
    found = figures(pair_of(body(), fit=bad))["fit"]
    assert (found.value, found.support) == (1, "unsupported")
    assert "its noise is 9 times" in found.says
    unjudged = Fit(findings=(), unjudged="the weights have no fit")
    assert figures(pair_of(body(), fit=unjudged))["fit"].support == "unknown"
