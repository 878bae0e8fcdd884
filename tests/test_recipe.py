from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from restore_rwkv.errors import ConfigError
from restore_rwkv.model import PRESETS
from restore_rwkv.recipe import Recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


def plain(**changes: Any) -> dict[str, Any]:
    data = {"subjects": ["a.nii.gz"], "held_out": {"a": {"axis": 2, "start": 1, "stop": 3}}}
    return {"task": "mri-sr", "network": "light", "data": data, "training": {}, **changes}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_read_and_survives_json(path: Path) -> None:
    recipe = Recipe.read(path)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_defaults_are_the_published_settings() -> None:
    recipe = Recipe.from_dict(plain())
    assert recipe.network == PRESETS["light"]
    assert recipe.training.iterations == 300_000
    assert (recipe.training.learning_rate, recipe.training.final_learning_rate) == (2e-4, 1e-6)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"task": "mri"}, "did you mean 'mri-sr'"),
        ({"network": "lite"}, "network 'lite' is unknown"),
        ({"network": {"dims": 8}}, "did you mean 'dim'"),
        ({"sede": 1}, "unknown key 'sede' in top level; did you mean 'seed'"),
        ({"training": {"iteration": 5}}, "did you mean 'iterations'"),
        ({"training": {"iterations": 0}}, "training.iterations is 0"),
        ({"training": {"ema": 1.0}}, "training.ema is 1.0"),
        ({"training": {"learning_rate": 1e-7}}, "give 0 < final <= first"),
        ({"training": 3}, "training is 3; give a table"),
        ({"training": {"learning_rate": "high"}}, "a value of training has a wrong type"),
        ({"data": {"subjects": "a", "held_out": {}}}, "data.subjects is 'a'; give a list"),
        ({"data": {"subjects": ["a"], "held_out": 3}}, "a value of data has a wrong type"),
        ({"task": 5}, "task '5' is unknown"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"data": {"held_out": {}}}, "'subjects' is missing in data"),
        ({"data": {"subjects": ["a"], "held_out": {}}}, "hold out a slab"),
        ({"data": {"subjects": ["a"], "held_out": {"a": {"axis": 5, "start": 1}}}}, "'stop'"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Recipe.from_dict(plain(**changes))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a recipe file"):
        Recipe.read(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("task = mri")
    with pytest.raises(ConfigError, match=r"broken\.toml: no valid TOML"):
        Recipe.read(broken)
