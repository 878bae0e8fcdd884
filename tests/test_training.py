from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from restore_rwkv.errors import ConfigError, TrainingError
from restore_rwkv.model import load_weights
from restore_rwkv.recipe import Recipe, TrainingRecipe
from restore_rwkv.training import Trainer, learning_rate, train


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, 40),) * 3, indexing="ij"))
    volume = 500 * ((grid**2).sum(0) < 0.8) * (1.2 + np.sin(9 * grid).prod(0))
    nib.save(nib.Nifti1Image(volume.astype(np.int16), np.eye(4)), folder / "head.nii.gz")
    return folder


def recipe(iterations: int = 6, **settings: object) -> Recipe:
    network = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "hidden_rate": 2}
    return Recipe.from_dict(
        {
            "task": "mri-sr",
            "network": network,
            "seed": 3,
            "data": {
                "subjects": ["head.nii.gz"],
                "held_out": {"head": {"axis": 2, "start": 18, "stop": 22, "guard": 1}},
                "crop": 32,
                "validation_slices": 2,
            },
            "training": {
                "iterations": iterations,
                "batch_size": 2,
                "learning_rate": 2e-3,
                "validate_every": 2,
                "ema": 0.5,
                **settings,
            },
        }
    )


def log_without_times(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


class _KilledError(Exception):
    pass


def test_a_killed_run_goes_on_bit_exactly(data: Path, tmp_path: Path) -> None:
    def kill(entry: dict[str, float]) -> None:
        if entry["iteration"] == 5:
            raise _KilledError

    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(recipe(), data, whole)
    with pytest.raises(_KilledError):
        train(recipe(), data, halves, report=kill)
    train(recipe(), data, halves)
    for name in ("last.safetensors", "best.safetensors"):
        assert (whole / name).read_bytes() == (halves / name).read_bytes(), name
    rows = [log_without_times(run / "log.csv") for run in (whole, halves)]
    assert [row["iteration"] for row in rows[0]] == ["2", "4", "6"]
    assert rows[0] == rows[1]


def test_steps_on_one_batch_lower_its_loss() -> None:
    trainer = Trainer(recipe(60, learning_rate=1e-2))
    high = 10 * torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    losses = [trainer.step(0.7 * high + 1, high) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_network_can_start_at_the_identity() -> None:
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(Trainer(recipe(start_at_identity=True)).network(image), image)
    assert not torch.equal(Trainer(recipe()).network(image), image)


def test_training_leaves_usable_weights(data: Path, tmp_path: Path) -> None:
    best = train(recipe(4, validate_every=4), data, tmp_path / "run")
    network, info = load_weights(best)
    assert network.is_merged
    assert info.task == "mri-sr"
    assert info.training["iteration"] == 4
    assert info.training["recipe"]["seed"] == 3
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1000


def test_the_rate_warms_up_then_anneals_to_the_final_rate() -> None:
    settings = TrainingRecipe(iterations=100, learning_rate=1e-3, warm_up=9)
    rates = [learning_rate(settings, i) for i in range(101)]
    assert rates[0] == pytest.approx(1e-4, rel=1e-3)
    assert max(rates) == rates[9]
    assert rates[100] == pytest.approx(1e-6)
    assert all(a > b for a, b in pairwise(rates[9:]))


def test_a_checkpoint_of_another_recipe_is_refused(data: Path, tmp_path: Path) -> None:
    train(recipe(2), data, tmp_path / "run")
    other = Recipe.from_dict({**recipe(4).to_dict(), "seed": 4})
    with pytest.raises(ConfigError, match="trained with another seed"):
        train(other, data, tmp_path / "run")


def test_a_broken_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"last\.safetensors: no checkpoint"):
        train(recipe(2), data, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run_and_changes_nothing() -> None:
    trainer = Trainer(recipe())
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    batch = torch.rand(1, 1, 32, 32)
    with pytest.raises(TrainingError, match="iteration 0: the loss is nan"):
        trainer.step(batch * torch.nan, batch)
    for old, new in zip(before, trainer.network.parameters(), strict=True):
        assert torch.equal(old, new)


def test_the_average_follows_the_weights_faster_at_first() -> None:
    trainer = Trainer(recipe(ema=0.15))
    low = torch.rand(1, 1, 32, 32)
    average = trainer.network.output.weight.detach().clone()
    for decay in (1 / 10, 0.15, 0.15):
        trainer.step(low, low.square())
        average = decay * average + (1 - decay) * trainer.network.output.weight.detach()
        torch.testing.assert_close(trainer.average.output.weight, average)


def test_a_run_that_nothing_validates_stops(data: Path, tmp_path: Path) -> None:
    image = nib.load(data / "head.nii.gz")
    volume = np.asarray(image.dataobj).copy()
    volume[:, :, 17:23] = 0
    nib.save(nib.Nifti1Image(volume, image.affine), data / "head.nii.gz")
    with pytest.raises(TrainingError, match="hold out slices with signal"):
        train(recipe(), data, tmp_path / "run")
