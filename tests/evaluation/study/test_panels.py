from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from restore_rwkv.evaluation import Study, StudyRequest, evaluate_study
from restore_rwkv.evaluation.study.panels import windows_of
from restore_rwkv.tasks import get_task
from tests.helpers.evaluations import body, write_images


def noisy(image: np.ndarray, amounts: list[float], seed: int = 0) -> np.ndarray:
    """An image with noise of another strength in each slice."""
    noise = np.random.default_rng(seed).normal(0, 1, image.shape)
    return np.float32(image + noise * np.array(amounts))


def study_of(tmp_path: Path, amounts: dict[str, list[float]], most: int) -> Study:
    truth = write_images(tmp_path / "truth", {f"{name}.nii.gz": body() for name in amounts})
    mine = write_images(
        tmp_path / "mine", {f"{name}.nii.gz": noisy(body(), a) for name, a in amounts.items()}
    )
    return evaluate_study(
        StudyRequest(truths=(truth,), restored={"mine": mine}, task="ct-denoise", panels=most)
    )


def test_the_worst_slice_of_each_scan_comes_first_then_a_typical_and_the_best(
    tmp_path: Path,
) -> None:
    amounts = {
        "a": [90.0, 80.0, 5.0],
        "b": [10.0, 70.0, 20.0],
        "c": [15.0, 16.0, 60.0],
        "d": [1.0, 25.0, 24.0],
    }
    panels = study_of(tmp_path, amounts, 5).panels
    places = [(panel.scan, panel.slice) for panel in panels]
    assert places[:3] == [("a", 0), ("b", 1), ("c", 2)]
    assert places[-1] == ("d", 0)
    assert len(panels) == 5
    assert panels[0].why.startswith("worst PSNR of mine, ")
    assert panels[0].why.endswith(" dB")
    assert "typical" in panels[3].why
    assert 14 <= amounts[panels[3].scan][panels[3].slice] <= 25
    assert panels[4].why.startswith("best PSNR")


def test_few_scans_show_several_slices_but_no_neighbours(tmp_path: Path) -> None:
    amounts = {"a": [9.0, 8.0, 7.0, 1.0, 2.0, 3.0, 4.0, 30.0, 31.0, 3.0, 2.0, 1.0]}
    truth = body(shape=(20, 24, 12))
    write_images(tmp_path / "truth", {"a.npy": truth})
    write_images(tmp_path / "mine", {"a.npy": noisy(truth, amounts["a"])})
    study = evaluate_study(
        StudyRequest(
            truths=(tmp_path / "truth",),
            restored={"mine": tmp_path / "mine"},
            task="ct-denoise",
            panels=5,
        )
    )
    worst = [panel.slice for panel in study.panels[:3]]
    assert worst[0] == 8
    assert all(abs(i - j) >= 2 for i in worst for j in worst if i != j)


def test_a_panel_is_laid_out_as_displayed_with_the_pixels_of_its_axes(tmp_path: Path) -> None:
    """The first voxel axis runs to the patient's right, the second to the front."""
    truth = body()
    truth[5, 18, :] = 200  # high in j: anterior, which is up
    write_images(tmp_path / "truth", {"a.nii.gz": truth})
    write_images(tmp_path / "mine", {"a.nii.gz": truth + 9})
    study = evaluate_study(
        StudyRequest(
            truths=(tmp_path / "truth",),
            restored={"mine": tmp_path / "mine"},
            task="ct-denoise",
            panels=3,
        )
    )
    panel = study.panels[0]
    assert panel.truth.shape == (24, 20)
    assert panel.truth.dtype == np.float32
    row, column = np.argwhere(panel.truth == 200)[0]
    assert (row, column) == (24 - 1 - 18, 20 - 1 - 5)  # the right of the patient on the left
    np.testing.assert_array_equal(panel.images["mine"], panel.truth + 9)
    assert panel.pixel_mm == pytest.approx((0.8, 0.8))
    assert panel.windows["soft tissue"] == (-160.0, 240.0)
    assert panel.unit == "HU"


def test_without_a_report_no_slices_are_kept(tmp_path: Path) -> None:
    assert study_of(tmp_path, {"a": [1.0, 2.0, 3.0]}, 0).panels == ()


def test_windows_follow_the_task_and_the_values() -> None:
    truth = np.linspace(0, 1000, 10_000, dtype=np.float32).reshape(100, 100)
    assert list(windows_of(get_task("ct-denoise"), truth)) == [
        *("soft tissue", "lung", "bone", "brain")
    ]
    (window,) = windows_of(get_task("mri-sr"), truth).values()
    assert window == pytest.approx((0, 995), abs=0.1)
    assert list(windows_of(get_task("pet-synth"), truth)) == [
        "SUV 0 to 5",
        "to the 99.5th percentile",
        "SUV 0 to 5, inverted",
    ]
    flat = windows_of(get_task("mri-sr"), np.zeros((4, 4), np.float32))
    assert next(iter(flat.values())) == (0.0, 1.0)
