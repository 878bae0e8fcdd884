from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from restore_rwkv import RestoreOptions
from restore_rwkv.errors import ConfigError
from restore_rwkv.options import Count, Expected, Whole, from_mapping, nearest, validated
from restore_rwkv.training import DataRecipe


@validated()
@dataclass(frozen=True)
class Options:
    name: str
    _: KW_ONLY
    plane: Literal["auto", "axial"] = "auto"
    memory: Count = 5
    scale: float | None = None
    seed: Whole = 0
    sides: Annotated[tuple[int, ...], Expected("two numbers")] = (1, 2)
    kind: Annotated[Literal["a", "b"], Expected(name="kind of thing")] = "a"
    flag: bool = False
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scale is not None and self.scale > 8:
            raise ConfigError(f"scale {self.scale:g} is out of range")


@validated("recipe", table="data")
@dataclass(frozen=True, kw_only=True)
class Table:
    crop: Count
    rate: float = 1.0
    balance: Literal["slices", "tasks"] = "slices"


def test_good_values_are_kept_as_given() -> None:
    options = Options("x", plane="axial", memory=7, scale=4, sides=(3, 4), flag=True)
    assert options == from_mapping(Options, dataclasses.asdict(options))
    assert type(options.scale) is int  # records keep what was written
    assert from_mapping(Options, {"name": "x", "sides": [3, 4]}).sides == (3, 4)


def test_copies_and_changes_are_checked_too() -> None:
    options = Options("x", memory=7)
    assert copy.deepcopy(options) == pickle.loads(pickle.dumps(options)) == options
    assert dataclasses.replace(options, memory=8).memory == 8
    with pytest.raises(ConfigError, match="memory is 0"):
        dataclasses.replace(options, memory=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.memory = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"plane": "up"}, "plane 'up' is unknown; choose from 'auto', 'axial'"),
        ({"memory": 0}, "memory is 0; give a whole number above 0"),
        ({"memory": "2"}, "memory is not an int: '2'; give a whole number above 0"),
        ({"memory": True}, "memory is not an int: True; give a whole number above 0"),
        ({"memory": 2.0}, "memory is not an int: 2.0; give a whole number above 0"),
        ({"seed": -1}, "seed is -1; give a whole number from 0"),
        ({"scale": "4"}, "scale is not a float: '4'; give a number"),
        ({"scale": 9}, "scale 9 is out of range"),
        ({"sides": 3}, "sides is not a tuple: 3; give two numbers"),
        ({"sides": [1, "2"]}, "sides is not an int: [1, '2']; give two numbers"),
        ({"kind": "c"}, "kind of thing 'c' is unknown; choose from 'a', 'b'"),
        ({"flag": 1}, "flag is not a bool: 1; choose from False, True"),
        ({"notes": []}, "notes is not a dict: []; give a table"),
        ({"name": 5}, "name is not a string: 5; give text"),
        ({"memry": 5}, "unknown key 'memry'; did you mean 'memory'?"),
    ],
)
def test_mistakes_are_named_on_construction_and_from_a_mapping(
    values: dict[str, Any], message: str
) -> None:
    for build in (lambda given: Options(**given), lambda given: from_mapping(Options, given)):
        with pytest.raises(ConfigError) as caught:
            build({"name": "x"} | values)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": 0}, "recipe: data.crop is 0; give a whole number above 0"),
        ({}, "recipe: 'crop' is missing in data; add it"),
        ({"crop": 1, "balanc": 5}, "recipe: unknown key 'balanc' in data; did you mean 'balance'?"),
        (
            {"crop": 1, "balance": "all"},
            "recipe: data.balance is 'all'; choose from 'slices', 'tasks'",
        ),
        (
            {"crop": 1, "rate": "x"},
            "recipe: a value of data has a wrong type (data.rate is 'x'); give a number",
        ),
        (3, "recipe: data is 3; give a table"),
    ],
)
def test_mistakes_in_a_table_of_a_file(values: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(Table, values)
    assert str(caught.value) == message


def test_wrong_calls_are_type_errors_as_of_any_class() -> None:
    with pytest.raises(TypeError, match="positional"):
        Options("x", "auto")  # type: ignore[misc]
    with pytest.raises(TypeError, match="multiple values"):
        Options("x", **{"name": "y"})  # type: ignore[arg-type]


def test_the_nearest_name() -> None:
    assert nearest("mri", ["ct-denoise", "mri-sr"], cutoff=0.4) == "mri-sr"
    assert nearest("xyz", ["ct-denoise", "mri-sr"], cutoff=0.4) is None
    assert nearest(5, ["a"]) == "a"


def test_a_key_named_self_is_unknown_like_any_other() -> None:
    with pytest.raises(ConfigError, match="unknown key 'self' in data"):
        from_mapping(DataRecipe, {"self": 1})


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    options = RestoreOptions(memory=np.int64(1 << 20))
    assert (options.memory, type(options.memory)) == (1 << 20, int)
    with pytest.raises(ConfigError, match="memory"):
        RestoreOptions(memory=True)


def test_a_choice_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'axial'"):
        RestoreOptions(plane="axal")  # type: ignore[arg-type]
