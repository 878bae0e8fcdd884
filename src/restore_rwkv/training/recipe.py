"""A recipe: everything that makes a training run what it is, as one TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from restore_rwkv.errors import ConfigError
from restore_rwkv.model import PRESETS, RestoreRWKVConfig
from restore_rwkv.tasks import ScalingRule, Task, get_tasks

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

_MAX_EXTENDS = 8


@dataclasses.dataclass(frozen=True)
class DataRecipe:
    """How training pairs are drawn from prepared sets; the defaults are the paper's.

    Attributes:
        crop: rows and columns of a training crop, in pixels.
        early_crop: the same for the first `early_iterations`, where small crops teach as much in
            less time; 0 for none.
        early_iterations: how long the early crops last.
        balance: "slices" draws every slice of all sets alike (their union); "tasks" gives each task
            the same share of every batch, and a volume a share by the square root of its slices.
        augment: turn and mirror slices at random.
        gain: (lowest, highest) factor on the brightness of a pair, drawn log-uniformly.
        gamma: the same for the exponent of a contrast curve, for MRI degraded as it is read.
        avoid_air: draw a crop again, up to 8 times, while it shows little but air.
        validation_slices: slices of each task to validate on, evenly spread; 0 for all.
    """

    crop: int = 128
    early_crop: int = 0
    early_iterations: int = 0
    balance: Literal["slices", "tasks"] = "slices"
    augment: bool = False
    gain: tuple[float, float] = (1.0, 1.0)
    gamma: tuple[float, float] = (1.0, 1.0)
    avoid_air: bool = False
    validation_slices: int = 0

    def __post_init__(self) -> None:
        _require_positive("data", self, "crop")
        if self.early_iterations:
            _require_positive("data", self, "early_crop", "early_iterations")
        if type(self.validation_slices) is not int or self.validation_slices < 0:
            raise ConfigError(
                f"recipe: data.validation_slices is {self.validation_slices!r}; "
                "give a whole number from 0"
            )
        _require_one_of("data.balance", self.balance, ("slices", "tasks"))
        for name in ("augment", "avoid_air"):
            _require_one_of(f"data.{name}", getattr(self, name), (False, True))
        for name in ("gain", "gamma"):
            value = getattr(self, name)
            numbers = isinstance(value, (list, tuple)) and all(
                isinstance(bound, (int, float)) for bound in value
            )
            bounds = tuple(map(float, value)) if numbers else ()
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < math.inf:
                raise ConfigError(
                    f"recipe: data.{name} is {value!r}; give two numbers, 0 < lowest <= highest"
                )
            object.__setattr__(self, name, bounds)

    def crop_at(self, iteration: int) -> int:
        """Side of the crops of an iteration, in pixels."""
        return self.early_crop if iteration < self.early_iterations else self.crop


@dataclasses.dataclass(frozen=True)
class TrainingRecipe:
    """How to optimise: Adam with betas (0.9, 0.999), L1 loss, cosine annealing.

    Attributes:
        iterations: batches in all.
        batch_size: crops in a batch, over all processes.
        learning_rate: at its highest, after the warm-up.
        final_learning_rate: at the last iteration.
        warm_up: iterations in which the rate rises linearly from 0.
        start_at_identity: begin with an output layer of zeros, so that the first network gives its
            input back, instead of PyTorch's random one.
        clip: largest norm of the gradient; 0 for no clipping.
        ema: decay per iteration of the moving average of the weights that is validated and kept;
            0 keeps the weights themselves.
        precision: "32-true", "bf16-mixed" or "16-mixed" (automatic mixed precision).
        checkpoint_activations: compute activations anew in the backward pass rather than keep
            them: the same gradients in less memory and more time (docs/training.md).
        validate_every: iterations between validations and checkpoints.
    """

    iterations: int = 300_000
    batch_size: int = 4
    learning_rate: float = 2e-4
    final_learning_rate: float = 1e-6
    warm_up: int = 0
    start_at_identity: bool = False
    clip: float = 0.0
    ema: float = 0.0
    precision: Precision = "32-true"
    checkpoint_activations: bool = False
    validate_every: int = 1000

    def __post_init__(self) -> None:
        _require_positive("training", self, "iterations", "batch_size", "validate_every")
        if not 0 < self.final_learning_rate <= self.learning_rate < math.inf:
            raise ConfigError(
                f"recipe: training.learning_rate is {self.learning_rate} and final_learning_rate "
                f"{self.final_learning_rate}; give 0 < final <= first"
            )
        if not 0 <= self.ema < 1 or self.warm_up < 0 or not self.clip >= 0:
            raise ConfigError(
                f"recipe: training.ema is {self.ema}, warm_up {self.warm_up} and clip {self.clip}; "
                "give 0 <= ema < 1, warm_up >= 0 and clip >= 0"
            )
        _require_one_of("training.precision", self.precision, get_args(Precision))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Task, network, data and optimisation of one training run.

    Attributes:
        task: name of the task, or "all-in-one" for one network for all tasks.
        network: configuration of the network.
        data: how training pairs are drawn.
        training: how to optimise.
        scaling: onto the network's values: "paper", the task's range onto [0, 1], or "own", as the
            tasks say (`Task.scaling`).
        seed: of the first weights and of every draw.
    """

    task: str
    network: RestoreRWKVConfig
    data: DataRecipe
    training: TrainingRecipe
    scaling: Literal["paper", "own"] = "paper"
    seed: int = 0

    def __post_init__(self) -> None:
        get_tasks(self.task)
        _require_one_of("scaling", self.scaling, ("paper", "own"))
        if type(self.seed) is not int or self.seed < 0:
            raise ConfigError(f"recipe: seed is {self.seed!r}; give a whole number from 0")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the network is trained for."""
        return get_tasks(self.task)

    def rule(self, task: Task) -> ScalingRule:
        """How values of a task become the network's."""
        return task.paper_scaling if self.scaling == "paper" else task.scaling

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Build a recipe from plain values, as of TOML or JSON.

        Raises:
            ConfigError: a key is unknown or missing, or a value out of range.
        """
        values = dict(values)
        get_tasks(str(values.get("task", "")))
        network = values.get("network", "")
        if isinstance(network, str):
            if network not in PRESETS:
                raise ConfigError(
                    f"recipe: network {network!r} is unknown; give a table or one of "
                    f"{', '.join(PRESETS)}"
                )
            values["network"] = PRESETS[network]
        elif isinstance(network, Mapping):
            values["network"] = RestoreRWKVConfig.from_dict(network)
        else:
            raise ConfigError(f"recipe: network is {network!r}; give a table or a name")
        for key, kind in (("data", DataRecipe), ("training", TrainingRecipe)):
            values[key] = _build(kind, values.get(key, {}), key)
        recipe: Recipe = _build(cls, values, "top level")
        return recipe

    @classmethod
    def read(cls, path: Path | str) -> Recipe:
        """Read a recipe from a TOML file.

        A file may say `extends = "other.toml"`, relative to itself: it then changes single keys of
        that recipe; a `network` table changes single keys of the preset that the other one names.

        Raises:
            ConfigError: a file is missing, no TOML, or no recipe.
        """
        return cls.from_dict(_read_table(Path(path), _MAX_EXTENDS))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; `from_dict` restores them."""
        return {**dataclasses.asdict(self), "network": self.network.to_dict()}


def _build(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a table; refuses unknown and missing keys by name."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"recipe: {where} is {values!r}; give a table")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            nearest = difflib.get_close_matches(key, fields, n=1, cutoff=0.0)[0]
            raise ConfigError(f"recipe: unknown key {key!r} in {where}; did you mean {nearest!r}?")
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in values:
            raise ConfigError(f"recipe: {name!r} is missing in {where}; add it")
    try:
        return kind(**values)
    except (AttributeError, TypeError) as error:
        raise ConfigError(f"recipe: a value of {where} has a wrong type ({error})") from error


def _require_positive(table: str, values: object, *names: str) -> None:
    for name in names:
        value = getattr(values, name)
        if type(value) is not int or value < 1:
            raise ConfigError(f"recipe: {table}.{name} is {value!r}; give a whole number above 0")


def _require_one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices or type(value) is not type(choices[0]):
        given = ", ".join(map(repr, choices))
        raise ConfigError(f"recipe: {name} is {value!r}; choose from {given}")


def _read_table(path: Path, depth: int) -> dict[str, Any]:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a recipe file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no valid TOML ({error}); mend that line") from error
    if "extends" not in table:
        return table
    if depth == 0:
        raise ConfigError(f"{path}: extends too many recipes in a row; do they form a ring?")
    base = _read_table(path.parent / str(table.pop("extends")), depth - 1)
    return _overlaid(base, table)


def _overlaid(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A recipe with single keys changed, table by table."""
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        if key == "network" and isinstance(before, str) and before in PRESETS:
            before = PRESETS[before].to_dict()
        if isinstance(before, dict) and isinstance(value, dict):
            value = {**before, **value}
        result[key] = value
    return result
