from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from restore_rwkv import Restorer, Volume
from restore_rwkv.data import PreparedSet, SetWriter
from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.metrics import MeanScore, mean_score, paper_score
from restore_rwkv.evaluation.scores import evaluate, evaluate_set, mean_over_patients
from restore_rwkv.model import RestoreRWKV, save_weights
from restore_rwkv.physics.mri import cubic_interpolate, low_resolution
from restore_rwkv.tasks import DegradeOptions, ScalingRule


@pytest.fixture
def ct_restorer(tiny_network: RestoreRWKV, tmp_path: Path) -> Restorer:
    rules = {"ct-denoise": ScalingRule("fixed", 0.0, 40.0)}
    save_weights(tmp_path / "ct.safetensors", tiny_network, scaling=rules, training={})
    return Restorer("ct-denoise", tmp_path / "ct.safetensors")


def test_slices_are_those_that_the_restorer_takes(tiny_weights: Path) -> None:
    """A two-dimensional image has one slice, whatever the size of its pixels."""
    image = np.random.default_rng(0).uniform(0, 900, (24, 20))
    result = evaluate(Volume(image, np.diag([2.0, 2, 1, 1])), Restorer("mri-sr", tiny_weights))
    assert result.slice_axis == 2
    assert list(result.scores) == list(result.volumes) == ["input", "cubic", "restored"]
    assert [score.slices for score in result.scores.values()] == [1, 1, 1]


def test_ct_is_degraded_from_its_seed(ct_restorer: Restorer) -> None:
    scan = np.full((32, 24, 2), -1000.0)
    scan[8:24, 6:18] = 30 + 5 * np.random.default_rng(0).standard_normal((16, 12, 2))
    volume = Volume(scan, np.diag([2.0, 2, 3, 1]), "HU", "CT")
    physics = DegradeOptions(photons=2e5)
    first, again, other = (
        evaluate(volume, ct_restorer, physics=physics, seed=seed) for seed in (1, 1, 2)
    )
    assert list(first.volumes) == ["input", "restored"]
    np.testing.assert_array_equal(first.volumes["input"].data, again.volumes["input"].data)
    assert not np.array_equal(first.volumes["input"].data, other.volumes["input"].data)
    assert first.truth.data is volume.data


def test_a_set_is_scored_by_patient_and_over_patients(
    ct_restorer: Restorer, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    with SetWriter(tmp_path / "set", "noise", "ct-denoise") as writer:
        for patient, slices in (("a", 1), ("b", 3)):
            for part in range(2):
                high = generator.uniform(-100, 100, (slices, 16, 24))
                low = high + (3 if patient == "a" else 9)
                writer.add(f"{patient}-{part}", patient, "test", high, low)
    prepared = PreparedSet.read(tmp_path / "set")
    scores = evaluate_set(prepared, ct_restorer)
    assert [scores[patient]["input"].slices for patient in "ab"] == [2, 6]
    assert scores["a"]["input"].rmse == pytest.approx(3, rel=1e-4)
    mean = mean_over_patients(scores)["input"]
    assert mean.rmse == pytest.approx(6, rel=1e-4)
    assert mean.slices == 8  # of both patients
    stack = prepared.stacks[0]
    low, high = (np.float32(prepared.images(stack, q)[0]) for q in ("low", "high"))
    unit = Volume(low, unit="HU", modality="CT")
    restored = paper_score(ct_restorer.run(unit).volume.data[..., 0], high, (-160, 240))
    other = evaluate_set(prepared, ct_restorer)["a"]["restored"]
    assert isinstance(other, MeanScore)
    one = PreparedSet(prepared.folder, "", "ct-denoise", 4.0, (stack,), "", {})
    assert evaluate_set(one, ct_restorer)["a"]["restored"] == mean_score([restored])
    with pytest.raises(InputError, match="has no validation slices"):
        evaluate_set(prepared, ct_restorer, "validation")


def test_a_set_of_another_task_is_refused(tiny_weights: Path, tmp_path: Path) -> None:
    with SetWriter(tmp_path / "set", "noise", "ct-denoise") as writer:
        writer.add("a", "a", "test", np.ones((1, 16, 16)), np.ones((1, 16, 16)))
    with pytest.raises(InputError, match="is for ct-denoise"):
        evaluate_set(PreparedSet.read(tmp_path / "set"), Restorer("mri-sr", tiny_weights))


def test_cubic_interpolation_does_not_shift_a_smooth_image() -> None:
    rows, columns = np.meshgrid(np.arange(64), np.arange(48), indexing="ij")
    image = 2 + np.sin(2 * np.pi * rows / 64) * np.cos(2 * np.pi * columns / 48)
    coarse = low_resolution(torch.from_numpy(image.astype(np.float32)), 4.0)
    inside = (slice(8, -8), slice(8, -8))
    assert np.abs(cubic_interpolate(coarse, image.shape) - image)[inside].max() < 0.01


def test_cubic_interpolation_is_periodic_as_k_space_is() -> None:
    """An object at the border of the image has no error there that it does not have inside."""
    x = np.arange(64)
    bump = np.exp(-(((x - 32) / 6.0) ** 2)).astype(np.float32)
    image = torch.from_numpy(np.outer(bump, bump))
    coarse = low_resolution(image, 4)
    for shift in (16, 28, 32):  # whole samples of the coarse image
        moved = low_resolution(image.roll(shift, 0), 4)
        error = np.abs(cubic_interpolate(moved, (64, 64)) - image.roll(shift, 0).numpy()).max()
        centred = np.abs(cubic_interpolate(coarse, (64, 64)) - image.numpy()).max()
        assert error == pytest.approx(centred, rel=1e-3)
