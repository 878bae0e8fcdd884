"""Networks by name: presets, shipped weights, files and recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from restore_rwkv.errors import ConfigError, WeightsError
from restore_rwkv.model import PRESETS, RestoreRWKV, find_weights, read_info
from restore_rwkv.training import Recipe, open_network
from restore_rwkv.training.networks import network_name, parameters_of
from tests.helpers import ROOT

RECIPES = ROOT / "recipes"


def test_a_preset_has_random_weights_of_the_seed_and_draws_no_others() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    named = open_network("light", seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(7)  # as training draws them
    expected = RestoreRWKV(PRESETS["light"]).state_dict()
    assert all(torch.equal(x, expected[key]) for key, x in named.network.state_dict().items())
    assert (named.name, named.weights, named.scaling) == ("light", "random, seed 7", {})


def test_weights_come_by_their_name_or_file(tiny_weights: Path, tmp_path: Path) -> None:
    shipped = open_network("light-mri-sr")
    assert (shipped.name, shipped.weights) == ("light-mri-sr", "trained")
    assert shipped.scaling == read_info(find_weights("light-mri-sr")).scaling
    assert open_network(tiny_weights).name == "tiny"
    (tmp_path / "my-run").mkdir()
    best = tiny_weights.rename(tmp_path / "my-run" / "best.safetensors")
    assert open_network(best).name == "my-run/best"


def test_a_recipe_gives_its_network_at_the_start_of_training() -> None:
    named = open_network(RECIPES / "ablations" / "table5-uni-wkv-uni-shift.toml", seed=2)
    assert (named.name, named.weights) == ("table5-uni-wkv-uni-shift", "random, seed 2")
    assert isinstance(named.network, RestoreRWKV)
    assert named.network.config.attention == "uni-wkv"
    assert list(named.scaling) == ["mri-sr"]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("lihgt", "^lihgt: is not a network, shipped weights or a file; did you mean light?"),
        ("missing.safetensors", "weight file or a recipe$"),
    ],
)
def test_an_unknown_network_is_refused_with_those_there_are(name: str, match: str) -> None:
    with pytest.raises(WeightsError, match=match) as refusal:
        open_network(name)
    assert all(known in str(refusal.value) for known in (*PRESETS, "light-all-in-one"))


def test_a_folder_or_a_damaged_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is a folder; give a file in it"):
        open_network(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(WeightsError, match=r"w\.safetensors: "):
        open_network(tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        open_network(tmp_path / "none.toml")


def test_a_network_is_named_by_what_differs_from_the_nearest_preset() -> None:
    names = {path.stem: network_name(Recipe.read(path)) for path in RECIPES.glob("**/*.toml")}
    assert names["base-mri-sr"] == "base"
    assert names["table5-bi-wkv-quad-shift"] == "base, scans=['rows'], shift=quad"
    assert names["light-mri-sr"].startswith("light, from ")
    assert parameters_of(Recipe.read(RECIPES / "base-mri-sr.toml")) == 27_846_625
