"""State of a training run: step, moving average, and checkpoints that resume bit for bit."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from restore_rwkv.errors import ConfigError, OperatorError, TrainingError
from restore_rwkv.io import atomic_file
from restore_rwkv.model import RestorationNetwork, build_network, load_weights
from restore_rwkv.model.shipped import find_weights
from restore_rwkv.training.optimizers import MOMENTS, make_optimizers
from restore_rwkv.training.recipe import Recipe, TrainingRecipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_logger = logging.getLogger(__name__)

_PROGRESS = "progress"


class Trainer:
    """Network, moving average, optimisers and current iteration of a training run.

    Args:
        recipe: task, network, data and optimisation.
        fabric: device, precision and processes.
        resumes: whether `load` follows, so that weights to start from are not read.

    Attributes:
        unlogged: loss and share of waiting of each iteration since the last validation.
        started_from: digest and provenance of the weights that training starts from; None for
            random ones.

    Raises:
        ConfigError: the weights to start from are of another network.
        WeightsError: they cannot be read.
    """

    def __init__(self, recipe: Recipe, fabric: Fabric, *, resumes: bool = False) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.fabric = fabric
        self.network = build_network(recipe.network)
        self.started_from = None if resumes else _initialise(self.network, recipe)
        self.network.checkpoint_activations = recipe.training.checkpoint_activations
        self._optimizers = make_optimizers(self.network, recipe.training)
        self.model, *self.optimizers = fabric.setup(self.network, *self._optimizers)
        self.average = build_network(recipe.network).to(fabric.device).requires_grad_(False)
        self.average.load_state_dict(self.network.state_dict())
        self.iteration = 0
        self.best_psnr = -math.inf
        self.unlogged: list[tuple[float, float]] = []

    def step(
        self,
        low: Tensor,
        high: Tensor,
        weight: Tensor | None = None,
        noise_level: Tensor | None = None,
        names: Callable[[], str] = str,
    ) -> float:
        """Run one iteration on this process's share of a batch.

        Args:
            low: low-quality images (B, 1, H, W) in network values, on the device.
            high: full-quality images of the same shape, on the device.
            weight: weight of each pixel in the loss, 0 to 1, of the same shape; None for 1.
            noise_level: of each image (B,); None for a network that is not told.
            names: returns the names of the slices in the batch, for error messages.

        Returns:
            Loss, averaged over all processes.

        Raises:
            TrainingError: the loss or the gradient is not finite; the network is unchanged.
        """
        settings = self.recipe.training
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, self.iteration, group["peak"])
            optimizer.zero_grad(set_to_none=True)
        restored = self.model(low, noise_level)
        loss_of = F.l1_loss if settings.loss == "l1" else F.mse_loss
        errors = loss_of(restored, high, reduction="mean" if weight is None else "none")
        loss = errors if weight is None else (weight * errors).mean()
        mean = float(torch.as_tensor(self.fabric.all_reduce(loss.detach())))
        self._require_finite("loss", mean, names)
        self.fabric.backward(loss)
        # The scaler of 16-mixed expects overflows and skips such steps.
        largest = settings.clip or math.inf  # inf leaves the gradient unchanged
        if settings.precision != "16-mixed":
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), largest)
            self._require_finite("norm of the gradient", float(norm), names)
        elif settings.clip:
            self.fabric.clip_gradients(
                self.model, self.optimizers[0], max_norm=largest, error_if_nonfinite=False
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self.iteration += 1
        self._follow()
        return mean

    def save(self, path: Path, data: list[dict[str, Any]]) -> None:
        """Write a checkpoint from which `load` resumes as if the run had not stopped.

        Args:
            path: file to write; an existing one is replaced.
            data: record of the training data.
        """
        moments = {
            f"{name}.{i}": tensor
            for optimizer in self._optimizers
            for i, entry in optimizer.state_dict()["state"].items()
            for name, tensor in entry.items()
        }
        tensors = {
            **{f"network.{key}": value for key, value in self.network.state_dict().items()},
            **{f"average.{key}": value for key, value in self.average.state_dict().items()},
            **moments,
        }
        progress = {
            "iteration": self.iteration,
            "best_psnr": self.best_psnr,
            "started_from": self.started_from,
            "unlogged": self.unlogged,
            "recipe": self.recipe.to_dict(),
            "data": data,
            "precision": self.fabric.strategy.precision.state_dict(),  # the scaler of 16-mixed
        }
        metadata = {_PROGRESS: json.dumps(progress)}  # one entry: the order of several is random
        with atomic_file(path) as temporary:
            save_file({k: x.cpu().contiguous() for k, x in tensors.items()}, temporary, metadata)

    def load(self, path: Path, data: list[dict[str, Any]]) -> None:
        """Resume from a checkpoint of the same task, network, scaling, seed and data.

        Raises:
            ConfigError: the file is not a checkpoint, or belongs to another recipe or other data.
        """
        try:
            with safe_open(path, framework="pt") as file:
                progress = json.loads(file.metadata()[_PROGRESS])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            before, data_before = progress["recipe"], progress["data"]
            iteration, best_psnr = int(progress["iteration"]), float(progress["best_psnr"])
            precision = dict(progress.get("precision", {}))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: not a checkpoint ({error}); delete it to start again"
            ) from error
        changed = _changes(before, self.recipe)
        if data_before != data:
            changed.append("set of data")
        if changed:
            raise ConfigError(
                f"{path}: was trained with another {', '.join(changed)}; use another output folder"
            )
        self.iteration, self.best_psnr = iteration, best_psnr
        self.started_from = progress.get("started_from")
        self.unlogged = [(loss, wait) for loss, wait in progress.get("unlogged", ())]
        for key in ("init_from", "start_at_identity"):
            if before["training"].get(key) != getattr(self.recipe.training, key):
                _logger.warning(
                    "%s: training.%s changes nothing, since the run goes on from there; choose "
                    "another output folder to start again",
                    *(path, key),
                )
        self.network.load_state_dict(_below(tensors, "network"))
        self.average.load_state_dict(_below(tensors, "average"))
        for optimizer in self._optimizers:
            names = MOMENTS[type(optimizer).__name__]
            moments = {name: _below(tensors, name) for name in names}
            state = optimizer.state_dict()
            state["state"] = {
                int(i): {name: moments[name][i] for name in names} for i in moments[names[0]]
            }
            optimizer.load_state_dict(state)
        if precision:
            self.fabric.strategy.precision.load_state_dict(precision)

    def _require_finite(self, what: str, value: float, names: Callable[[], str]) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"iteration {self.iteration}: the {what} is {value}, on the batch {names()}; "
                "check these slices, or lower training.learning_rate, and run the same command "
                "again to resume from the last checkpoint"
            )

    def _follow(self) -> None:
        """Update the moving average; a low decay at first makes it forget the initial weights.

        Statistics of batch norms are averaged too.
        """
        decay = min(self.recipe.training.ema, self.iteration / (self.iteration + 9))
        with torch.no_grad():
            for mean, new in zip(_held(self.average), _held(self.network), strict=True):
                mean.lerp_(new, 1 - decay)


def learning_rate(recipe: TrainingRecipe, iteration: int, peak: float | None = None) -> float:
    """Return the learning rate: linear warm-up, then cosine annealing to the final rate.

    Args:
        recipe: options of the optimisation.
        iteration: number of iterations done.
        peak: peak rate of a group of parameters; by default `learning_rate` of the recipe.
    """
    peak = recipe.learning_rate if peak is None else peak
    warm = min(1.0, (iteration + 1) / (recipe.warm_up + 1))
    progress = min(1.0, iteration / recipe.iterations)
    span = peak - recipe.final_learning_rate
    cosine = recipe.final_learning_rate + span * (1 + math.cos(math.pi * progress)) / 2
    return warm * cosine


def _held(network: RestorationNetwork) -> Iterator[Tensor]:
    return chain(network.parameters(), network.buffers())


def _initialise(network: RestorationNetwork, recipe: Recipe) -> dict[str, Any] | None:
    """Set the initial weights of a network, and return the record of those it starts from."""
    settings = recipe.training
    if settings.init_from:
        start, info = load_weights(find_weights(settings.init_from))
        try:
            network.copy_from(start)
        except OperatorError as error:
            if info.config == network.config:
                raise ConfigError(
                    f"recipe: training.init_from {settings.init_from!r} holds {info.network!r} in "
                    "its inference form, which training cannot start from; give the network before "
                    "merged()"
                ) from error
            raise ConfigError(
                f"recipe: training.init_from {settings.init_from!r} is of another network, "
                f"{info.config.to_dict()}; give weights of the recipe's network"
            ) from error
        return {"sha256": info.sha256, "training": info.training}
    if settings.start_at_identity:
        network.start_at_identity()
    return None


def _changes(before: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Return the parts of a recipe that differ from a checkpoint's and that must not."""
    now = recipe.to_dict()
    try:  # keys that are newer than the checkpoint have their defaults
        then = Recipe.from_dict(before).to_dict()
    except ConfigError:
        return ["recipe"]
    changed = [
        key for key in ("task", "network", "data", "scaling", "seed") if then[key] != now[key]
    ]
    groups = [(t["optimizer"], t["matrix_rate"] > 0) for t in (then["training"], now["training"])]
    if groups[0] != groups[1]:
        changed.append("optimizer, or with another group for matrix_rate")
    return changed


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {key.removeprefix(start): x for key, x in tensors.items() if key.startswith(start)}
