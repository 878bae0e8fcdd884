"""The benchmark of tasks runs at a small size, and its phantoms are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import task_based, task_phantoms


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
