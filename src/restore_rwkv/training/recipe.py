"""A recipe: everything that makes a training run what it is, as one TOML file."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from restore_rwkv.errors import ConfigError
from restore_rwkv.model import PRESETS, RestoreRWKVConfig
from restore_rwkv.options import Count, Expected, Whole, from_mapping, validated
from restore_rwkv.tasks import ScalingRule, Task, get_tasks

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
_Range = Annotated[tuple[float, float], Expected("two numbers, 0 < lowest <= highest")]

_MAX_EXTENDS = 8


@validated("recipe", table="data")
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

    crop: Count = 128
    early_crop: Whole = 0
    early_iterations: Whole = 0
    balance: Literal["slices", "tasks"] = "slices"
    augment: bool = False
    gain: _Range = (1.0, 1.0)
    gamma: _Range = (1.0, 1.0)
    avoid_air: bool = False
    validation_slices: Whole = 0

    def __post_init__(self) -> None:
        if self.early_iterations and not self.early_crop:
            raise ConfigError(
                f"recipe: data.early_crop is {self.early_crop}; give a whole number above 0, as "
                "data.early_iterations is"
            )
        for name in ("gain", "gamma"):
            low, high = (float(bound) for bound in getattr(self, name))
            if not 0 < low <= high < math.inf:
                raise ConfigError(
                    f"recipe: data.{name} is {getattr(self, name)!r}; "
                    "give two numbers, 0 < lowest <= highest"
                )
            object.__setattr__(self, name, (low, high))

    def crop_at(self, iteration: int) -> int:
        """Side of the crops of an iteration, in pixels."""
        return self.early_crop if iteration < self.early_iterations else self.crop


@validated("recipe", table="training")
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

    iterations: Count = 300_000
    batch_size: Count = 4
    learning_rate: float = 2e-4
    final_learning_rate: float = 1e-6
    warm_up: int = 0
    start_at_identity: bool = False
    clip: float = 0.0
    ema: float = 0.0
    precision: Precision = "32-true"
    checkpoint_activations: bool = False
    validate_every: Count = 1000

    def __post_init__(self) -> None:
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


@validated("recipe", table="")
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
    seed: Whole = 0

    def __post_init__(self) -> None:
        get_tasks(self.task)

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
            values[key] = from_mapping(kind, values.get(key, {}))
        return from_mapping(cls, values)

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


def _read_table(path: Path, depth: int) -> dict[str, Any]:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a recipe file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no valid TOML ({error}); correct that line") from error
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
