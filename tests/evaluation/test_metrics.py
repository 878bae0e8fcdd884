"""The paper's metrics against values of the published code, and in edge cases."""

from __future__ import annotations

import numpy as np
import pytest

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.metrics import MeanScore, SliceScore, mean_score, paper_score
from tests.helpers import GOLDEN

ARRAYS = np.load(GOLDEN / "metrics_a.npz")
TRUNCATE = {"MRI": (0.0, 4095.0), "CT": (-160.0, 240.0), "PET": (0.0, 20.0)}


# Measured: PSNR and RMSE 5e-8, SSIM 1.6e-6 relative (the published code has a float32 window).
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("modality", TRUNCATE)
def test_published_values(modality: str, seed: int) -> None:
    case = f"{modality}_{seed}"
    score = paper_score(ARRAYS[f"{case}_restored"], ARRAYS[f"{case}_reference"], TRUNCATE[modality])
    psnr, ssim, rmse = ARRAYS[f"{case}_psnr_ssim_rmse"]
    assert score.psnr == pytest.approx(psnr, rel=2e-7)
    assert score.ssim == pytest.approx(ssim, rel=4e-6)
    assert score.rmse == pytest.approx(rmse, rel=2e-7)


def test_values_beyond_the_range_do_not_count() -> None:
    reference = np.linspace(-500.0, 500.0, 40 * 30).reshape(40, 30)
    restored = np.where(np.abs(reference) > 300, 2 * reference, reference + 4.0)
    score = paper_score(restored, reference, (-160.0, 240.0))
    expected = paper_score(np.clip(restored, -160, 240), np.clip(reference, -160, 240), (-999, 999))
    assert score == expected
    assert 0 < score.rmse < 4


def test_psnr_range_is_that_of_the_truncated_reference() -> None:
    reference = np.full((20, 20), 100.0)
    reference[3, 4] = 300.0
    score = paper_score(reference + 2.0, reference, (0.0, 4095.0))
    assert score.rmse == pytest.approx(2.0)
    assert score.psnr == pytest.approx(20 * np.log10(200.0 / 2.0))


def test_constant_reference_has_no_psnr_and_no_ssim() -> None:
    score = paper_score(np.full((12, 12), 3.0), np.zeros((12, 12)), (0.0, 20.0))
    assert score == SliceScore(psnr=None, ssim=None, rmse=3.0)


def test_identical_slices_have_no_finite_psnr() -> None:
    image = np.random.default_rng(0).random((16, 16))
    score = paper_score(image, image, (0.0, 1.0))
    assert score.psnr is None
    assert score.ssim == pytest.approx(1.0, abs=1e-12)
    assert score.rmse == 0.0


def test_slice_smaller_than_the_window() -> None:
    image = np.arange(12.0).reshape(3, 4)
    score = paper_score(image + 0.5, image, (0.0, 20.0))
    assert score.ssim is not None
    assert 0 < score.ssim < 1


def test_mean_leaves_out_slices_without_score() -> None:
    scores = [SliceScore(30.0, 0.9, 2.0), SliceScore(None, None, 50.0), SliceScore(40.0, 0.8, 1.0)]
    mean = mean_score(scores)
    assert mean == MeanScore(35.0, pytest.approx(0.85), 1.5, slices=2, slices_without_score=1)
    empty = mean_score([SliceScore(None, None, 1.0)])
    assert empty == MeanScore(None, None, None, slices=0, slices_without_score=1)


@pytest.mark.parametrize(
    ("restored", "reference", "message"),
    [
        (np.zeros((4, 5)), np.zeros((5, 4)), "equal shapes"),
        (np.zeros((4, 5, 1)), np.zeros((4, 5, 1)), r"one slice of shape \(H, W\)"),
        (np.zeros((0, 5)), np.zeros((0, 5)), "one slice"),
        (np.full((4, 5), np.nan), np.zeros((4, 5)), "restored has voxels that are not finite"),
    ],
)
def test_bad_arrays(restored: np.ndarray, reference: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        paper_score(restored, reference, (0.0, 1.0))


@pytest.mark.parametrize("truncate", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf"))])
def test_bad_range(truncate: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="metric range"):
        paper_score(np.zeros((4, 5)), np.zeros((4, 5)), truncate)
