"""Recipes: the complete configuration of a training run, as one TOML file."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from restore_rwkv.errors import ConfigError
from restore_rwkv.model import NetworkConfig, RestoreRWKVConfig, named_config
from restore_rwkv.options import Count, Expected, Seed, Whole, from_mapping, validated
from restore_rwkv.peers import PEERS, PeerConfig
from restore_rwkv.tasks import ScalingRule, Task, get_tasks

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
_Range = Annotated[tuple[float, float], Expected("two numbers, 0 < lowest <= highest")]
_Stages = Annotated[
    tuple[tuple[Count, Count], ...], Expected("a list of [iterations, crop], both from 1")
]

_MAX_EXTENDS = 8


@validated("recipe", table="data")
@dataclasses.dataclass(frozen=True)
class DataRecipe:
    """Options for drawing training pairs from prepared sets; the defaults are the paper's.

    Attributes:
        crop: rows and columns of a training crop, in pixels.
        stages: (iterations, crop) of the stages before that, in order; small crops teach as much
            in less time at first.
        balance: "slices" draws all slices of all sets with equal probability; "tasks" gives each
            task the same share of every batch, and weights a volume by the square root of its
            number of slices.
        augment: rotate by quarter turns and mirror slices at random.
        gain: (lowest, highest) factor that a pair is multiplied by, drawn log-uniformly.
        gamma: (lowest, highest) exponent of a contrast curve, drawn log-uniformly; only for MRI,
            which is degraded on reading.
        noise: (lowest, highest) standard deviation of the noise in the pixels that the metrics
            count, in the unit of the task, drawn log-uniformly; each pair mixes the stored
            realisations of its slice. None leaves the noise as it is stored. Only for CT, whose
            simulated noise is additive and Gaussian; pairs of other tasks stay as they are.
        avoid_air: draw a crop again, up to 8 times, while it shows almost only air.
        validation_slices: number of slices of each task to validate on, evenly spaced; 0 for all.
    """

    crop: Count = 128
    stages: _Stages = ()
    balance: Literal["slices", "tasks"] = "slices"
    augment: bool = False
    gain: _Range = (1.0, 1.0)
    gamma: _Range = (1.0, 1.0)
    noise: _Range | None = None
    avoid_air: bool = False
    validation_slices: Whole = 0

    def __post_init__(self) -> None:
        ranges = ("gain", "gamma") if self.noise is None else ("gain", "gamma", "noise")
        for name in ranges:
            low, high = (float(bound) for bound in getattr(self, name))
            if not 0 < low <= high < math.inf:
                raise ConfigError(
                    f"recipe: data.{name} is {getattr(self, name)!r}; "
                    "give two numbers, 0 < lowest <= highest"
                )
            object.__setattr__(self, name, (low, high))

    def crop_at(self, iteration: int) -> int:
        """Side of the crops of an iteration, in pixels."""
        end = 0
        for iterations, crop in self.stages:
            end += iterations
            if iteration < end:
                return crop
        return self.crop


@validated("recipe", table="training")
@dataclasses.dataclass(frozen=True)
class TrainingRecipe:
    """Options of the optimisation: Adam with betas (0.9, 0.999), cosine annealing.

    "Matrices" are the weights that mix hidden channels; `optimizers.mixes_channels` lists them, for
    a peer its `mixing_weights`.

    Attributes:
        iterations: total number of batches.
        batch_size: number of crops in a batch, over all processes.
        optimizer: "adam"; "adamw"; or "muon", Muon for the matrices and Adam for the rest.
        learning_rate: peak learning rate, after the warm-up.
        matrix_rate: the same for the matrices; 0 for `learning_rate`. Needed for Muon, whose
            updates have singular values of about this size; 0.02 is a good start.
        weight_decay: decay of the matrices, in units of their rate; only for "adamw".
        final_learning_rate: learning rate at the last iteration, for all weights.
        warm_up: number of iterations over which the rate rises linearly from 0.
        start_at_identity: initialise the output layer with zeros, so that the untrained network
            returns its input, instead of with PyTorch's random values. Not with `init_from`; only
            for networks that add their input to their output.
        init_from: weights to start from: name of shipped weights, or path of a weight file from the
            folder of the recipe; "" for random ones. Weights in the inference form get branches of
            Omni-Shift again, of the same sum. Those of a network that is not told the level of the
            noise may start one that is.
        loss: "l1", mean absolute error, or "l2", mean squared error, which PSNR is made of.
        outside: weight in the loss of pixels whose full-quality value lies outside the task's
            `metric_range`, widened by 5 % on both sides; 1 to weight all alike.
        clip: largest norm of the gradient; 0 for no clipping.
        ema: decay per iteration of the moving average of the weights, which is validated and
            saved; 0 uses the weights themselves.
        precision: "32-true", "bf16-mixed" or "16-mixed" (automatic mixed precision).
        checkpoint_activations: recompute activations in the backward pass instead of keeping
            them: the same gradients with less memory in more time (docs/training.md). Not for all
            peers.
        validate_every: number of iterations between validations, each followed by a checkpoint.
    """

    iterations: Count = 300_000
    batch_size: Count = 4
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    learning_rate: float = 2e-4
    matrix_rate: float = 0.0
    weight_decay: float = 0.0
    final_learning_rate: float = 1e-6
    warm_up: int = 0
    start_at_identity: bool = False
    init_from: str = ""
    loss: Literal["l1", "l2"] = "l1"
    outside: float = 1.0
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
        if not 0 <= self.outside <= 1:
            raise ConfigError(f"recipe: training.outside is {self.outside}; give 0 to 1")
        self._check_optimizer()

    def _check_optimizer(self) -> None:
        if not (self.matrix_rate == 0 or self.final_learning_rate <= self.matrix_rate < math.inf):
            raise ConfigError(
                f"recipe: training.matrix_rate is {self.matrix_rate}; give 0 or a number from "
                f"final_learning_rate, {self.final_learning_rate}"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(
                f"recipe: training.weight_decay is {self.weight_decay}; give 0 or more"
            )
        if self.weight_decay and self.optimizer != "adamw":
            raise ConfigError(
                f"recipe: training.weight_decay is {self.weight_decay} with optimizer "
                f'{self.optimizer!r}; give optimizer "adamw" or no weight_decay'
            )
        if self.optimizer == "muon" and not self.matrix_rate:
            raise ConfigError(
                'recipe: training.optimizer is "muon" without a matrix_rate; give one, such as 0.02'
            )
        if self.optimizer == "muon" and self.precision == "16-mixed":
            raise ConfigError(
                'recipe: training.optimizer "muon" does not go with precision "16-mixed", whose '
                'scaler knows one optimizer; give "bf16-mixed" or "32-true"'
            )


@validated("recipe", table="")
@dataclasses.dataclass(frozen=True)
class Recipe:
    """Task, network, data and optimisation of one training run.

    Attributes:
        task: name of the task, or "all-in-one" for one network for all tasks.
        network: configuration of the network: in a file the name of a preset or of a peer (a key of
            `restore_rwkv.peers.PEERS`), or a table of its keys, in which `preset` names the preset
            that the others change, or `name` the peer.
        data: options for drawing training pairs.
        training: options of the optimisation.
        scaling: scaling of physical onto network values: "paper", the task's range onto [0, 1], or
            "own", the scaling of the task (`Task.scaling`).
        seed: seed of the initial weights and of every random draw.
    """

    task: str
    network: NetworkConfig
    data: DataRecipe
    training: TrainingRecipe
    scaling: Literal["paper", "own"] = "paper"
    seed: Seed = 0

    def __post_init__(self) -> None:
        get_tasks(self.task)
        smallest = min([self.data.crop, *(crop for _, crop in self.data.stages)])
        if smallest < self.network.stride:
            raise ConfigError(
                f"recipe: data.crop or a crop of data.stages is {smallest}; give at least "
                f"{self.network.stride}, for this network"
            )
        self._check_peer()
        staged = sum(iterations for iterations, _ in self.data.stages)
        if self.data.stages and staged >= self.training.iterations:
            raise ConfigError(
                f"recipe: data.stages have {staged} iterations of {self.training.iterations}; "
                "leave some for data.crop"
            )

    def _check_peer(self) -> None:
        network, training = self.network, self.training
        if not isinstance(network, PeerConfig):
            return
        if training.start_at_identity and not network.residual:
            raise ConfigError(
                f"recipe: training.start_at_identity: network {network.name!r} does not add its "
                "input to its output; leave it out, or give network.residual = true"
            )
        if training.checkpoint_activations and not network.peer.recomputes:
            able = ", ".join(name for name, peer in PEERS.items() if peer.recomputes)
            raise ConfigError(
                f"recipe: training.checkpoint_activations: network {network.name!r} cannot "
                f"recompute activations; leave it out, or use one of {able}"
            )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the network is trained for."""
        return get_tasks(self.task)

    def rule(self, task: Task) -> ScalingRule:
        """Return the rule that scales values of a task onto network values."""
        return task.paper_scaling if self.scaling == "paper" else task.scaling

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Build a recipe from plain values, such as those of TOML or JSON.

        Raises:
            ConfigError: a key is unknown or missing, or a value is out of range.
        """
        values = dict(values)
        get_tasks(str(values.get("task", "")))
        network = values.get("network", "")
        if isinstance(network, str):
            values["network"] = _named(network)
        elif isinstance(network, Mapping):
            values["network"] = _network(network)
        else:
            raise ConfigError(f"recipe: network is {network!r}; give a table or a name")
        for key, kind in (("data", DataRecipe), ("training", TrainingRecipe)):
            values[key] = from_mapping(kind, values.get(key, {}))
        return from_mapping(cls, values)

    @classmethod
    def read(cls, path: Path | str) -> Recipe:
        """Read a recipe from a TOML file.

        A file with `extends = "other.toml"`, a path relative to itself, changes single keys of that
        recipe; its `network` table changes single keys of the preset that the other recipe names.

        Raises:
            ConfigError: a file is missing, not valid TOML, or not a recipe.
        """
        table = _read_table(Path(path), _MAX_EXTENDS)
        try:
            return cls.from_dict(table)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; `from_dict` reverses this."""
        return {**dataclasses.asdict(self), "network": self.network.to_dict()}


def _named(name: str) -> NetworkConfig:
    try:
        return named_config(name)
    except ConfigError as error:
        raise ConfigError(f"recipe: {error}") from error


def _network(table: Mapping[str, Any]) -> NetworkConfig:
    """Return the network of a table, which may change single keys of a preset."""
    keys = dict(table)
    if {"name", "preset"} <= keys.keys():
        raise ConfigError(
            f"recipe: network has preset {keys['preset']!r} and name {keys['name']!r}; give one of "
            "them: preset for our network, name for a peer"
        )
    if "name" in keys:
        return PeerConfig.from_dict(keys)
    preset = keys.pop("preset", None)
    if preset is None:
        return RestoreRWKVConfig.from_dict(keys)
    base = _named(str(preset))
    if not isinstance(base, RestoreRWKVConfig):
        raise ConfigError(
            f"recipe: network.preset is {preset!r}; give the name of a peer as network.name"
        )
    return RestoreRWKVConfig.from_dict({**base.to_dict(), **keys})


def _read_table(path: Path, depth: int) -> dict[str, Any]:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a recipe file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error}); correct that line") from error
    table = _with_paths(table, path.parent)
    if "extends" not in table:
        return table
    if depth == 0:
        raise ConfigError(f"{path}: extends too many recipes in a row; do they form a ring?")
    base = _read_table(path.parent / str(table.pop("extends")), depth - 1)
    return overlaid(base, table)


def _with_paths(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Turn `training.init_from`, if it is a file seen from the recipe's folder, into its path."""
    training = table.get("training")
    if isinstance(training, dict) and isinstance(name := training.get("init_from"), str):
        file = folder / name
        if name and file.is_file():
            table["training"] = {**training, "init_from": str(file)}
    return table


def _same_network(before: Any, changes: Any) -> Any:
    """Return the network of a recipe as a table; None where `changes` is of another network."""
    if isinstance(before, str):
        before = {"name" if before in PEERS else "preset": before}
    if isinstance(before, dict) and isinstance(changes, dict):
        for key in ("name", "preset"):
            if key in changes and ("name" in before or "name" in changes):
                return before if changes[key] == before.get(key) else None
    return before


def overlaid(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with single keys changed, table by table."""
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        if key == "network":
            before = _same_network(before, value)
        if isinstance(before, dict) and isinstance(value, dict):
            value = {**before, **value}
        result[key] = value
    return result
