"""The benchmark of tasks runs at a small size, and its phantoms are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from benchmarks import task_based, task_ct, task_phantoms


def test_lesions_and_inserts_of_the_ct_phantom_have_their_contrast() -> None:
    plain, with_lesions = (task_phantoms.ct_truth(lesions) for lesions in (False, True))
    added = task_phantoms.cut((with_lesions - plain)[None], task_phantoms.LESIONS, 4)
    for index in range(len(task_phantoms.LESIONS)):
        contrast, _ = task_phantoms.KINDS[index % 2]
        assert added[0, index].mean() == pytest.approx(contrast, abs=0.01)
    inserts = task_phantoms.cut(plain[None], task_phantoms.INSERTS, 4)[0].mean(axis=(1, 2))
    np.testing.assert_allclose(inserts - 50, task_phantoms.CONTRASTS, atol=0.01)


def test_spheres_of_the_pet_phantom_have_their_volume() -> None:
    phantom = task_phantoms.pet_phantom()
    assert np.ptp(phantom.activity[phantom.background]) < 1e-9
    excess = (phantom.activity - task_phantoms.WARM).clip(0).sum() * task_phantoms.VOXEL**3
    volume = sum(np.pi / 6 * diameter**3 for diameter in task_phantoms.DIAMETERS)
    assert excess == pytest.approx((task_phantoms.HOT - task_phantoms.WARM) * volume, rel=0.01)


@pytest.mark.parametrize("blur", [1.5, 3.0])
def test_recovery_of_blurred_spheres_is_that_of_the_overlap_of_balls(blur: float) -> None:
    phantom = task_phantoms.pet_phantom()
    blurred = gaussian_filter(phantom.activity, blur / task_phantoms.VOXEL)
    for found in task_based.recover(blurred, phantom):
        expected = task_based.contrast_under_blur(found.diameter_mm, blur)
        # Measured: 1.1 % for 10 mm, 0.4 % and less for others.
        assert found.contrast == pytest.approx(expected, rel=0.015)


def made(contrast: float, shared: float) -> task_ct.CTResults:
    """Regions of noise, without and with a lesion, of which restored ones keep a share."""
    generator = np.random.default_rng(0)
    shape = (12, 8, task_phantoms.SIDE, task_phantoms.SIDE)
    place = np.arange(task_phantoms.SIDE) - (task_phantoms.SIDE - 1) / 2
    disc = np.exp(-(place[:, None] ** 2 + place**2) / 18)
    absent, present = (generator.standard_normal(shape).astype(np.float32) for _ in range(2))
    return task_ct.CTResults(
        absent={task_ct.LOW: absent, task_ct.RESTORED: absent},
        present={
            task_ct.LOW: present + contrast * disc,
            task_ct.RESTORED: present + shared * contrast * disc,
        },
        inserts={},
        blur=1.0,
    )


def test_a_small_loss_of_detectability_shows_where_the_noise_is_shared() -> None:
    results = made(contrast=0.4, shared=0.95)
    seen = {name: task_ct.lesion(results, name, 0) for name in (task_ct.LOW, task_ct.RESTORED)}
    before, after = (seen[name].seen for name in (task_ct.LOW, task_ct.RESTORED))
    assert before.low < after.d_prime < before.high  # either interval is too wide for it
    found, low, high = seen[task_ct.RESTORED].over_input
    assert found == pytest.approx(0.95, abs=0.03)
    assert low < found < high < 1
    assert seen[task_ct.LOW].over_input is None


def test_the_contrast_to_noise_ratio_of_nothing_is_near_zero() -> None:
    # Of single images it is never negative: their mean would be 0.1 here.
    assert abs(task_ct.lesion(made(0.0, 1.0), task_ct.LOW, 0).cnr) < 0.05


@pytest.mark.slow
def test_the_tables_and_the_figure_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "tasks.png"
    task_based.main(["--slices", "2", "--scans", "1", "--figure", str(figure)])
    tables = capsys.readouterr().out
    assert "| integral of the NPS over the variance of the noise | 1 | 1.000000 |" in tables
    for row in ("| 10 HU, radius 5 mm | restored |", "| recovery, mean | low dose |"):
        assert row in tables
    assert "nan" not in tables
    assert figure.stat().st_size > 10_000
