"""Peers are trained from recipes as our network is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from restore_rwkv.data import SetWriter
from restore_rwkv.errors import ConfigError
from restore_rwkv.model import PRESETS, load_weights
from restore_rwkv.peers import PEERS, PeerConfig
from restore_rwkv.restoration import Restorer
from restore_rwkv.training.log import Step
from restore_rwkv.training.loop import Machine, train
from restore_rwkv.training.optimizers import make_optimizers
from restore_rwkv.training.recipe import Recipe, overlaid
from restore_rwkv.training.state import Trainer

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 4},
    "restormer": {"width": 8, "depth": [1, 1, 1, 1, 1]},
    "dncnn": {"width": 8, "depth": [4]},
    "redcnn": {"width": 8},
    "edsr": {"width": 8, "depth": [2]},
    "srcnn": {"width": 8},
    "nafnet": {"width": 4, "depth": [1] * 9},
    "swinir-light": {"width": 16, "depth": [1, 1, 1, 2]},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write a prepared set of squares whose low quality is an offset."""
    with SetWriter(tmp_path / "data" / "ct-denoise", "squares", "ct-denoise") as writer:
        for split, patient in (("train", "a"), ("validation", "b")):
            high = np.random.default_rng(len(split)).uniform(-50, 90, (4, 36, 40))
            writer.add(patient, patient, split, high, high + 4)
    return tmp_path / "data"


def recipe(network: Any, iterations: int = 4, **settings: Any) -> Recipe:
    training = {"iterations": iterations, "batch_size": 2, "learning_rate": 2e-3, "ema": 0.5}
    return Recipe.from_dict(
        {
            "task": "ct-denoise",
            "network": network,
            "scaling": "own",
            "data": {"crop": 32, "validation_slices": 1},
            "training": training | {"validate_every": 2} | settings,
        }
    )


def trainer_of(plan: Recipe) -> Trainer:
    return Trainer(plan, Machine().fabric("32-true"))


class _KilledError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("name", PEERS)
def test_a_killed_run_of_a_peer_goes_on_bit_exactly(
    data: Path, tmp_path: Path, name: str, optimizer: str
) -> None:
    def kill(step: Step) -> None:
        if step.iteration == 3:
            raise _KilledError

    settings = {"matrix_rate": 0.02} if optimizer == "muon" else {}
    network = {"name": name, **SMALL[name], "residual": True}
    plan = recipe(network, optimizer=optimizer, start_at_identity=True, **settings)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    best = train(plan, [data], whole)
    with pytest.raises(_KilledError):
        train(plan, [data], halves, report=kill)
    steps: list[Step] = []
    train(plan, [data], halves, report=steps.append)
    assert [step.iteration for step in steps] == [3, 4]
    assert best is not None
    for file in ("last.safetensors", "best.safetensors"):
        assert (whole / file).read_bytes() == (halves / file).read_bytes(), file
    info = load_weights(best)[1]
    assert info.config == plan.network
    assert Recipe.from_dict(info.training["recipe"]) == plan
    assert Restorer("ct-denoise", best).serves(plan.tasks[0])


def test_the_moving_average_follows_the_statistics_of_batch_norms(tmp_path: Path) -> None:
    trainer = trainer_of(recipe({"name": "dncnn", **SMALL["dncnn"]}))
    low, high = 5 + torch.rand(2, 2, 1, 32, 32)
    before = trainer.average.state_dict()["norms.0.running_mean"].clone()
    trainer.step(low, high)
    after = trainer.network.state_dict()["norms.0.running_mean"]
    decay = 1 / (1 + 9)
    expected = decay * before + (1 - decay) * after
    mean = trainer.average.state_dict()["norms.0.running_mean"]
    torch.testing.assert_close(mean, expected)
    trainer.save(tmp_path / "last.safetensors", [])
    stored = load_file(tmp_path / "last.safetensors")
    assert torch.equal(stored["average.norms.0.running_mean"], mean)
    assert torch.equal(stored["network.norms.0.running_mean"], after)


@pytest.mark.parametrize("name", PEERS)
def test_each_weight_of_a_peer_has_one_rate(name: str) -> None:
    trainer = trainer_of(recipe({"name": name, **SMALL[name]}))
    plan = recipe("light", optimizer="muon", matrix_rate=0.02).training
    adam, muon = make_optimizers(trainer.network, plan)
    groups = [group["params"] for one in (adam, muon) for group in one.param_groups]
    ids = [id(parameter) for group in groups for parameter in group]
    assert sorted(ids) == sorted(map(id, trainer.network.parameters()))
    assert all(parameter.ndim >= 2 for parameter in groups[1])
    assert groups[1]


def test_a_recipe_names_a_peer_or_has_a_table_of_its_keys() -> None:
    assert recipe("restormer").network == PeerConfig("restormer")
    table = {"name": "restormer", "width": 24, "noise_level": True}
    assert recipe(table).network == PeerConfig("restormer", 24, noise_level=True)
    assert recipe("light").network == PRESETS["light"]
    plan = recipe(table)
    assert Recipe.from_dict(plan.to_dict()) == plan


def test_a_recipe_that_extends_another_changes_the_network_or_its_keys() -> None:
    def network(before: Any, changes: Any) -> Any:
        return overlaid({"network": before}, {"network": changes})["network"]

    assert network("unet", {"width": 8}) == {"name": "unet", "width": 8}
    assert network("light", {"dim": 8}) == {"preset": "light", "dim": 8}
    ours, peer = {"preset": "light", "noise_level": True}, {"name": "unet", "width": 8}
    assert network(ours, peer) == peer
    assert network(peer, ours) == ours
    assert network(peer, {"name": "edsr"}) == {"name": "edsr"}
    assert network(peer, {"name": "unet", "residual": True}) == {**peer, "residual": True}
    assert network(ours, {"preset": "base"}) == {"preset": "base", "noise_level": True}
    assert network(ours, "unet") == "unet"


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        ("unett", {}, "recipe: network 'unett' is unknown; did you mean 'unet'. give a table or"),
        ("NAFNet", {}, "network 'NAFNet' is unknown; did you mean 'nafnet'"),
        ({"preset": "light", "name": "unet"}, {}, "has preset 'light' and name 'unet'; give one"),
        ({"name": "unett"}, {}, "did you mean 'unet'"),
        ({"name": "unet", "dim": 8}, {}, "unknown key 'dim'"),
        ({"preset": "unet"}, {}, "give the name of a peer as network.name"),
        ("srcnn", {"start_at_identity": True}, "start_at_identity: network 'srcnn'"),
        ("unet", {"checkpoint_activations": True}, "'unet' cannot recompute .*nafnet"),
    ],
)
def test_what_a_peer_cannot_do_is_refused_when_the_recipe_is_read(
    network: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(network, **settings)


def test_a_peer_starts_from_its_weights_where_they_can_be_trained(
    data: Path, tmp_path: Path
) -> None:
    for name in ("edsr", "dncnn"):
        network = {"name": name, **SMALL[name], "residual": True}
        first = train(recipe(network, 2, start_at_identity=True), [data], tmp_path / name)
        assert first is not None
        again = recipe(network, 2, init_from=str(first))
        if name == "edsr":
            image = torch.rand(1, 1, 16, 16)
            restored = load_weights(first)[0](image)
            assert torch.equal(trainer_of(again).network(image), restored)
        else:
            with pytest.raises(ConfigError, match="'dncnn' in its inference form"):
                trainer_of(again)
        with pytest.raises(ConfigError, match="is of another network"):
            trainer_of(recipe("light", 2, init_from=str(first)))
        with pytest.raises(ConfigError, match="is of another network"):
            trainer_of(recipe({**network, "width": 16}, 2, init_from=str(first)))
    with pytest.raises(ConfigError, match="is of another network"):
        trainer_of(recipe("edsr", 2, init_from="light-ct-denoise"))
