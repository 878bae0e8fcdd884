"""A recipe: everything that makes a training run what it is, as one TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from restore_rwkv.errors import ConfigError
from restore_rwkv.model import PRESETS, RestoreRWKVConfig
from restore_rwkv.subjects import HeldOut, Planes
from restore_rwkv.tasks import get_task

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclasses.dataclass(frozen=True)
class DataRecipe:
    """What to train on.

    Attributes:
        subjects: files and DICOM folders inside the data folder.
        held_out: slabs kept for validation, by name of the subject.
        planes: "all" planes with nearly square pixels, or "acquisition" alone.
        crop: rows and columns of a training crop, in pixels.
        early_crop: the same for the first `early_iterations`, where small crops teach as much in
            less time; 0 for none.
        early_iterations: how long the early crops last.
        validation_slices: slices taken from each held-out slab.
    """

    subjects: tuple[str, ...]
    held_out: Mapping[str, HeldOut]
    planes: Planes = "all"
    crop: int = 128
    early_crop: int = 0
    early_iterations: int = 0
    validation_slices: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.subjects, str):
            raise ConfigError(f"recipe: data.subjects is {self.subjects!r}; give a list")
        object.__setattr__(self, "subjects", tuple(self.subjects))
        slabs = {
            name: slab
            if isinstance(slab, HeldOut)
            else _build(HeldOut, slab, f"data.held_out.{name}")
            for name, slab in self.held_out.items()
        }
        object.__setattr__(self, "held_out", slabs)
        if not self.subjects:
            raise ConfigError("recipe: data.subjects is empty; list the volumes to train on")
        if not slabs:
            raise ConfigError("recipe: data.held_out is empty; hold out a slab for validation")
        _require_positive("data", self, "crop", "validation_slices")
        if self.early_iterations:
            _require_positive("data", self, "early_crop", "early_iterations")

    def crop_at(self, iteration: int) -> int:
        """Side of the crops of an iteration, in pixels."""
        return self.early_crop if iteration < self.early_iterations else self.crop


@dataclasses.dataclass(frozen=True)
class TrainingRecipe:
    """How to optimise: Adam with betas (0.9, 0.999), L1 loss, cosine annealing.

    Attributes:
        iterations: batches in all.
        batch_size: crops in a batch.
        learning_rate: at its highest, after the warm-up.
        final_learning_rate: at the last iteration.
        warm_up: iterations in which the rate rises linearly from 0.
        start_at_identity: begin with an output layer of zeros, so that the first network gives its
            input back, instead of PyTorch's random one.
        ema: decay per iteration of the moving average of the weights that is validated and kept;
            0 keeps the weights themselves.
        validate_every: iterations between validations and checkpoints.
    """

    iterations: int = 300_000
    batch_size: int = 4
    learning_rate: float = 2e-4
    final_learning_rate: float = 1e-6
    warm_up: int = 0
    start_at_identity: bool = False
    ema: float = 0.0
    validate_every: int = 1000

    def __post_init__(self) -> None:
        _require_positive("training", self, "iterations", "batch_size", "validate_every")
        if not 0 < self.final_learning_rate <= self.learning_rate:
            raise ConfigError(
                f"recipe: training.learning_rate is {self.learning_rate} and final_learning_rate "
                f"{self.final_learning_rate}; give 0 < final <= first"
            )
        if not 0 <= self.ema < 1 or self.warm_up < 0:
            raise ConfigError(
                f"recipe: training.ema is {self.ema} and warm_up {self.warm_up}; give 0 <= ema < 1 "
                "and warm_up >= 0"
            )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Task, network, data and optimisation of one training run.

    Attributes:
        task: name of the task.
        network: configuration of the network.
        data: what to train on.
        training: how to optimise.
        seed: of the first weights and of every draw.
    """

    task: str
    network: RestoreRWKVConfig
    data: DataRecipe
    training: TrainingRecipe
    seed: int = 0

    def __post_init__(self) -> None:
        if type(self.seed) is not int or self.seed < 0:
            raise ConfigError(f"recipe: seed is {self.seed!r}; give a whole number from 0")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Build a recipe from plain values, as of TOML or JSON.

        Raises:
            ConfigError: a key is unknown or missing, or a value out of range.
        """
        values = dict(values)
        get_task(str(values.get("task", "")))
        network = values.get("network", "")
        if isinstance(network, str):
            if network not in PRESETS:
                raise ConfigError(
                    f"recipe: network {network!r} is unknown; give a table or one of "
                    f"{', '.join(PRESETS)}"
                )
            values["network"] = PRESETS[network]
        else:
            values["network"] = RestoreRWKVConfig.from_dict(network)
        for key, kind in (("data", DataRecipe), ("training", TrainingRecipe)):
            values[key] = _build(kind, values.get(key, {}), key)
        recipe: Recipe = _build(cls, values, "top level")
        return recipe

    @classmethod
    def read(cls, path: Path | str) -> Recipe:
        """Read a recipe from a TOML file.

        Raises:
            ConfigError: the file is missing, no TOML, or no recipe.
        """
        try:
            return cls.from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; give a recipe file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: no valid TOML ({error}); mend that line") from error

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
