from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore_rwkv.data import SetWriter
from restore_rwkv.errors import ConfigError
from restore_rwkv.model import PRESETS, RestoreRWKV
from restore_rwkv.tasks import ALL_IN_ONE, TASKS
from restore_rwkv.training.loop import train
from restore_rwkv.training.recipe import Recipe
from tests.helpers import ROOT

FOLDER = ROOT / "recipes"
RECIPES = sorted(FOLDER.rglob("*.toml"))


def plain(**changes: Any) -> dict[str, Any]:
    return {"task": "mri-sr", "network": "light", "data": {}, "training": {}, **changes}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_can_be_read_survives_json_and_builds_its_network(path: Path) -> None:
    recipe = Recipe.read(path)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    network = RestoreRWKV(dataclasses.replace(recipe.network, dim=4))
    assert sum(parameter.numel() for parameter in network.parameters()) > 0


def test_there_is_a_recipe_for_each_task_and_size_and_for_each_ablation() -> None:
    names = {path.stem for path in RECIPES}
    for task in (*TASKS, ALL_IN_ONE):
        for size in ("base", "light"):
            network = Recipe.read(FOLDER / f"{size}-{task}.toml").network
            told = size == "light" and task in ("ct-denoise", ALL_IN_ONE)
            assert network == dataclasses.replace(PRESETS[size], noise_level=told)
    counts = {table: sum(n.startswith(f"table{table}-") for n in names) for table in range(5, 9)}
    # Rows that are the base network, or stand in table 6 already, have no file of their own.
    assert counts == {5: 3, 6: 4, 7: 2, 8: 5}
    networks = [Recipe.read(p).network for p in RECIPES if p.parent.name == "ablations"]
    assert len({*networks, PRESETS["base"]}) == len(networks) + 1


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_starts(path: Path, tmp_path: Path) -> None:
    """Reduce a recipe to two iterations of a narrow network; the rest is unchanged."""
    for task in TASKS:
        with SetWriter(tmp_path / "data" / task, "noise", task) as writer:
            for split in ("train", "validation"):
                high = np.random.default_rng(0).uniform(1, 9, (2, 32, 32))
                low = None if task == "mri-sr" else high + 1
                writer.add(split, split, split, high, low)  # type: ignore[arg-type]
    recipe = Recipe.read(path)
    small = dataclasses.replace(
        recipe,
        network=dataclasses.replace(
            recipe.network, dim=4, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1
        ),
        data=dataclasses.replace(recipe.data, crop=16, stages=((1, 16),)),
        training=dataclasses.replace(recipe.training, iterations=2, init_from=""),
    )
    train(small, [tmp_path / "data"], tmp_path / "run")
    assert (tmp_path / "run" / "last.safetensors").is_file()


def test_defaults_are_the_published_settings() -> None:
    recipe = Recipe.from_dict(plain())
    assert recipe.network == PRESETS["light"]
    assert recipe.training.iterations == 300_000
    assert (recipe.training.learning_rate, recipe.training.final_learning_rate) == (2e-4, 1e-6)
    assert (recipe.data.crop, recipe.data.augment, recipe.data.gain) == (128, False, (1.0, 1.0))
    task = TASKS["mri-sr"]
    assert recipe.rule(task) == task.paper_scaling
    assert Recipe.from_dict(plain(scaling="own")).rule(task) == task.scaling


def test_a_recipe_changes_single_keys_of_another(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        'task = "mri-sr"\nnetwork = "base"\nseed = 1\n[training]\niterations = 9\nema = 0.5\n'
    )
    (tmp_path / "changed.toml").write_text(
        'extends = "base.toml"\nseed = 2\n[network]\nshift = "quad"\n[training]\nema = 0.7\n'
    )
    recipe = Recipe.read(tmp_path / "changed.toml")
    assert recipe.network == dataclasses.replace(PRESETS["base"], shift="quad")
    assert (recipe.seed, recipe.training.iterations, recipe.training.ema) == (2, 9, 0.7)
    (tmp_path / "other.toml").write_text('extends = "base.toml"\n[network]\npreset = "patch2"\n')
    assert Recipe.read(tmp_path / "other.toml").network == PRESETS["patch2"]
    (tmp_path / "ring.toml").write_text('extends = "ring.toml"')
    with pytest.raises(ConfigError, match="form a ring"):
        Recipe.read(tmp_path / "ring.toml")


def test_a_table_changes_single_keys_of_a_preset() -> None:
    network = Recipe.from_dict(plain(network={"preset": "light", "noise_level": True})).network
    assert network == dataclasses.replace(PRESETS["light"], noise_level=True)
    assert Recipe.from_dict(plain(network={"dim": 8})).network.num_blocks == (4, 6, 6, 8)
    with pytest.raises(ConfigError, match="network 'lite' is unknown"):
        Recipe.from_dict(plain(network={"preset": "lite"}))


def test_crops_grow_in_stages() -> None:
    data = Recipe.from_dict(plain(data={"crop": 96, "stages": [[2, 32], [3, 64]]})).data
    assert [data.crop_at(i) for i in range(7)] == [32, 32, 64, 64, 64, 96, 96]
    for changes, match in (
        ({"data": {"crop": 7}}, "crop of data.stages is 7; give at least 8"),
        ({"network": "patch2", "data": {"stages": [[2, 15]]}}, "is 15; give at least 16"),
        (
            {"data": {"stages": [[9, 64]]}, "training": {"iterations": 9}},
            "9 iterations of 9; leave",
        ),
    ):
        with pytest.raises(ConfigError, match=match):
            Recipe.from_dict(plain(**changes))


def test_weights_to_start_from_are_found_from_the_folder_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "start.safetensors").touch()
    for name, expected in (
        ("start.safetensors", str(tmp_path / "start.safetensors")),
        ("light-mri-sr", "light-mri-sr"),
    ):
        (tmp_path / "fine.toml").write_text(
            f'task = "mri-sr"\nnetwork = "light"\n[training]\ninit_from = "{name}"\n'
        )
        assert Recipe.read(tmp_path / "fine.toml").training.init_from == expected


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"task": "mri"}, "did you mean 'mri-sr'"),
        ({"network": "lite"}, "network 'lite' is unknown"),
        ({"network": {"dims": 8}}, "did you mean 'dim'"),
        ({"network": 5}, "network is 5; give a table or a name"),
        ({"sede": 1}, "unknown key 'sede' in the top level; did you mean 'seed'"),
        ({"training": {"iteration": 5}}, "did you mean 'iterations'"),
        ({"training": {"iterations": 0}}, "training.iterations is 0"),
        ({"training": {"ema": 1.0}}, "training.ema is 1.0"),
        ({"training": {"clip": -1}}, "clip -1"),
        ({"training": {"precision": "bf16"}}, "training.precision is 'bf16'; choose from '32-true"),
        ({"training": {"learning_rate": 1e-7}}, "give 0 < final <= first"),
        ({"training": 3}, "training is 3; give a table"),
        ({"training": {"learning_rate": "high"}}, "a value of training has a wrong type"),
        ({"data": {"gain": 2.0}}, "data.gain is 2.0; give two numbers"),
        ({"data": {"gain": ["low", 2.0]}}, "give two numbers"),
        ({"data": {"gain": [1.0, float("inf")]}}, "0 < lowest <= highest"),
        ({"training": {"learning_rate": float("inf")}}, "give 0 < final <= first"),
        ({"data": {"gamma": [2.0, 1.0]}}, "0 < lowest <= highest"),
        ({"data": {"augment": 1}}, "data.augment is 1; choose from False, True"),
        ({"data": {"balance": "all"}}, "data.balance is 'all'; choose from 'slices', 'tasks'"),
        ({"data": {"validation_slices": -1}}, "validation_slices is -1"),
        ({"data": {"stages": [5]}}, "data.stages is .*; give a list of .iterations, crop."),
        ({"data": {"stages": [[5, 0]]}}, "give a list of .iterations, crop., both from 1"),
        ({"data": {"noise": [0, 40]}}, "data.noise is .*; give two numbers, 0 < lowest"),
        ({"data": {"noise": 3}}, "data.noise is 3"),
        ({"training": {"outside": 1.5}}, "training.outside is 1.5; give 0 to 1"),
        ({"training": {"optimizer": "sgd"}}, "choose from 'adam', 'adamw', 'muon'"),
        ({"training": {"optimizer": "muon"}}, "without a matrix_rate; give one, such as 0.02"),
        ({"training": {"matrix_rate": -1.0}}, "training.matrix_rate is -1.0; give 0 or"),
        ({"training": {"weight_decay": 0.1}}, 'give optimizer "adamw" or no weight_decay'),
        (
            {"training": {"optimizer": "muon", "matrix_rate": 0.1, "precision": "16-mixed"}},
            'give "bf16-mixed" or',
        ),
        ({"scaling": "fixed"}, "scaling is 'fixed'; choose from 'paper', 'own'"),
        ({"task": 5}, "task '5' is unknown"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"seed": 10**23}, "give a whole number from 0, below 2.63"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Recipe.from_dict(plain(**changes))


def test_the_file_of_a_mistake_is_named(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('task = "mri-sr"\nnetwork = "light"\n')
    changed = tmp_path / "changed.toml"
    changed.write_text('extends = "base.toml"\n[network]\ndims = 8\n')
    with pytest.raises(ConfigError, match=r"changed\.toml: config: unknown key 'dims'"):
        Recipe.read(changed)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a recipe file"):
        Recipe.read(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("task = mri")
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML"):
        Recipe.read(broken)
    (tmp_path / "orphan.toml").write_text('extends = "none.toml"')
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        Recipe.read(tmp_path / "orphan.toml")
