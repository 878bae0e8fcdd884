from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from restore_rwkv.apps.cli.demo import run_demo
from restore_rwkv.errors import WeightsError
from restore_rwkv.model import read_info
from restore_rwkv.model.shipped import find_weights, sample_scan, shipped_weights
from restore_rwkv.tasks import TASKS, SpreadMethod


def test_every_task_has_its_weights() -> None:
    for task in TASKS.values():
        assert task.name in read_info(find_weights(task.weights)).scaling


@pytest.mark.parametrize("path", shipped_weights().values(), ids=lambda path: path.stem)
def test_every_card_tells_what_the_file_is_and_is_not(path: Path) -> None:
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    info = read_info(path)
    for words in (info.sha256, f"{info.parameters:,}", "ot a medical device", "input"):
        assert words in card
    assert f"{info.training['iteration']:,} iterations" in card
    for task in info.scaling:
        assert f"`{task}`" in card
    if "pet-synth" in info.scaling:
        assert "imulated PET" in card


@pytest.mark.parametrize("path", shipped_weights().values(), ids=lambda path: path.stem)
def test_every_file_records_the_ranges_of_its_training(path: Path) -> None:
    info = read_info(path)
    measured = {name: set(TASKS[name].rules.measures) for name in info.scaling}
    assert {name: set(ranges) for name, ranges in info.fit.items()} == measured


@pytest.mark.parametrize("path", shipped_weights().values(), ids=lambda path: path.stem)
@pytest.mark.parametrize("method", ["turns", "bootstrap"])
def test_every_file_has_intervals_that_held_on_validation_subjects(
    path: Path, method: SpreadMethod
) -> None:
    """For each kind of tissue of each task; within 2 points of the level on slices held out."""
    info = read_info(path)
    assert set(info.report) == set(info.scaling)
    for name, report in info.report.items():
        _, kinds = TASKS[name].rules.tissues(np.zeros((1, 1), np.float32), 1.0)
        intervals = report.intervals_by(method)
        assert intervals is not None
        assert set(intervals.factors) == set(kinds)
        assert intervals.level == 0.9
        assert intervals.coverage == pytest.approx(0.9, abs=0.02)


def test_one_network_serves_every_task() -> None:
    assert set(read_info(find_weights("light-all-in-one")).scaling) == set(TASKS)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(WeightsError, match="did you mean light-mri-sr"):
        find_weights("light-mri")


def test_the_folder_of_a_run_is_not_a_weight_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is a folder; give a file in it, such as best\.safe"):
        find_weights(tmp_path)


@pytest.mark.slow
def test_the_demo_gains_what_the_readme_says_and_names_its_files(tmp_path: Path) -> None:
    demo = run_demo(tmp_path / "demo", "cpu")
    scores = demo.evaluation.scores
    assert scores["restored"].psnr > scores["input"].psnr + 0.9  # 0.99 measured
    assert scores["restored"].ssim > scores["input"].ssim
    assert scores["input"].psnr > scores["cubic"].psnr
    restored, source = (nib.load(p) for p in (demo.files["restored scan"], sample_scan()))
    assert np.array_equal(restored.affine, source.affine)
    assert restored.shape == source.shape
    assert demo.files["picture"].stat().st_size > 10_000
