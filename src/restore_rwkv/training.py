"""Training of one network: one visible loop, addressable by its iteration, so that it resumes."""

from __future__ import annotations

import csv
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from restore_rwkv import figures
from restore_rwkv.datasets import PairSampler, ValidationPair, validation_pairs
from restore_rwkv.errors import ConfigError, TrainingError
from restore_rwkv.io import atomic_file
from restore_rwkv.metrics import MeanScore, mean_score, paper_score
from restore_rwkv.model import RestoreRWKV, save_weights
from restore_rwkv.physics.mri import kspace_crop
from restore_rwkv.recipe import Recipe, TrainingRecipe
from restore_rwkv.subjects import load_subjects
from restore_rwkv.tasks import get_task

_logger = logging.getLogger(__name__)
_PROGRESS = "progress"
_COLUMNS = ("iteration", "learning_rate", "loss", "psnr", "ssim", "rmse", "seconds")


class Trainer:
    """State of a training run: network, moving average, optimiser and the iteration reached.

    Args:
        recipe: what to train and how.
        device: where to train.
    """

    def __init__(self, recipe: Recipe, device: torch.device | str = "cpu") -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.device = torch.device(device)
        self.network = RestoreRWKV(recipe.network).to(self.device)
        if recipe.training.start_at_identity:
            for parameter in self.network.output.parameters():
                torch.nn.init.zeros_(parameter)
        self.average = RestoreRWKV(recipe.network).to(self.device).requires_grad_(False)
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.Adam(self.network.parameters(), betas=(0.9, 0.999), eps=1e-8)
        self.iteration = 0
        self.best_psnr = -math.inf

    def step(self, low: Tensor, high: Tensor) -> float:
        """One iteration on a batch (B, 1, H, W); returns its L1 loss.

        Raises:
            TrainingError: the loss is not finite; the network has not been changed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe.training, self.iteration)
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.l1_loss(self.network(low.to(self.device)), high.to(self.device))
        if not torch.isfinite(loss):
            raise TrainingError(
                f"iteration {self.iteration}: the loss is {float(loss.detach())}; lower "
                "training.learning_rate and resume from the last checkpoint"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.iteration += 1
        self._follow()
        return float(loss.detach())

    def validate(self, pairs: Iterable[ValidationPair]) -> MeanScore:
        """Scores of the averaged network by the paper's protocol, means over slices."""
        network = self.average.merged()
        metric_range = get_task(self.recipe.task).metric_range
        scores = []
        with torch.inference_mode():
            for pair in pairs:
                restored = network(pair.scaling.apply(pair.low).to(self.device)).cpu()
                image = pair.scaling.invert(restored)[0, 0].numpy()
                scores.append(paper_score(image, pair.high[0, 0].numpy(), metric_range))
        return mean_score(scores)

    def save(self, path: Path) -> None:
        """Write a checkpoint from which `load` goes on as if there had been no stop."""
        state = self.optimizer.state_dict()["state"]
        tensors = {
            **{f"network.{key}": value for key, value in self.network.state_dict().items()},
            **{f"average.{key}": value for key, value in self.average.state_dict().items()},
            **{f"{name}.{i}": x for i, entry in state.items() for name, x in entry.items()},
        }
        progress = {
            "iteration": self.iteration,
            "best_psnr": self.best_psnr,
            "recipe": self.recipe.to_dict(),
        }
        metadata = {_PROGRESS: json.dumps(progress)}  # one entry: the order of several is random
        with atomic_file(path) as temporary:
            save_file({k: x.contiguous() for k, x in tensors.items()}, temporary, metadata)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same task, network and seed.

        Raises:
            ConfigError: the file is no checkpoint, or one of another recipe.
        """
        try:
            with safe_open(path, framework="pt") as file:
                progress = json.loads(file.metadata()[_PROGRESS])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            before = progress["recipe"]
            self.iteration, self.best_psnr = progress["iteration"], progress["best_psnr"]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: no checkpoint ({error}); delete it to start anew"
            ) from error
        now = json.loads(json.dumps(self.recipe.to_dict()))
        changed = [key for key in ("task", "network", "data", "seed") if before[key] != now[key]]
        if changed:
            raise ConfigError(
                f"{path}: was trained with another {', '.join(changed)}; use another output folder"
            )
        self.network.load_state_dict(_below(tensors, "network"))
        self.average.load_state_dict(_below(tensors, "average"))
        moments = {name: _below(tensors, name) for name in ("step", "exp_avg", "exp_avg_sq")}
        state = self.optimizer.state_dict()
        state["state"] = {
            int(i): {name: entries[i] for name, entries in moments.items()} for i in moments["step"]
        }
        self.optimizer.load_state_dict(state)

    def _follow(self) -> None:
        """Move the average towards the network; faster at first, so that it forgets the start."""
        decay = min(self.recipe.training.ema, self.iteration / (self.iteration + 9))
        with torch.no_grad():
            for mean, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)


def learning_rate(recipe: TrainingRecipe, iteration: int) -> float:
    """Linear warm-up, then cosine annealing per iteration to the final rate."""
    warm = min(1.0, (iteration + 1) / (recipe.warm_up + 1))
    progress = min(1.0, iteration / recipe.iterations)
    span = recipe.learning_rate - recipe.final_learning_rate
    cosine = recipe.final_learning_rate + span * (1 + math.cos(math.pi * progress)) / 2
    return warm * cosine


def train(
    recipe: Recipe,
    data: Path | str,
    output: Path | str,
    *,
    device: torch.device | str = "cpu",
    report: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train a network; go on where a stopped run in the same output folder was.

    Writes into `output`: `last.safetensors` (checkpoint), `best.safetensors` (weights with the best
    validation PSNR, ready for `restore`), `log.csv` and `curve.png`.

    Args:
        recipe: what to train and how.
        data: folder with the subjects of the recipe.
        output: folder to write, made if missing.
        device: where to train.
        report: called after each iteration with "iteration", "loss" and "seconds" (of this
            iteration), and after a validation also with "psnr", "ssim" and "rmse".

    Returns:
        The best weights.

    Raises:
        ConfigError: the recipe does not fit the data or the checkpoint.
        InputError: a subject cannot be read.
        TrainingError: the loss is not finite, or no held-out slice has a score.
    """
    subjects = load_subjects(
        [Path(data) / name for name in recipe.data.subjects], recipe.data.held_out
    )
    physics = partial(kspace_crop, factor=get_task(recipe.task).factor)
    samplers = {
        crop: PairSampler(
            subjects,
            physics,
            crop=crop,
            batch_size=recipe.training.batch_size,
            planes=recipe.data.planes,
            seed=recipe.seed,
        )
        for crop in {recipe.data.crop_at(0), recipe.data.crop}
    }
    pairs = validation_pairs(subjects, physics, recipe.data.validation_slices)
    trainer = Trainer(recipe, device)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / "last.safetensors"
    if checkpoint.exists():
        trainer.load(checkpoint)
        _logger.info("going on from iteration %d of %s", trainer.iteration, checkpoint)

    def batch(iteration: int) -> tuple[Tensor, Tensor]:
        return samplers[recipe.data.crop_at(iteration)].batch(iteration)

    _run(trainer, batch, pairs, output, report or (lambda _: None))
    return output / "best.safetensors"


def _run(
    trainer: Trainer,
    batch: Callable[[int], tuple[Tensor, Tensor]],
    pairs: Sequence[ValidationPair],
    output: Path,
    report: Callable[[dict[str, Any]], None],
) -> None:
    settings = trainer.recipe.training
    losses: list[float] = []
    while trainer.iteration < settings.iterations:
        start = time.perf_counter()
        losses.append(trainer.step(*batch(trainer.iteration)))
        entry: dict[str, Any] = {"iteration": trainer.iteration, "loss": losses[-1]}
        done = trainer.iteration == settings.iterations
        if done or trainer.iteration % settings.validate_every == 0:
            score = trainer.validate(pairs)
            if score.psnr is None:
                raise TrainingError(
                    "validation: no held-out slice has a score, as if all were constant; "
                    "hold out slices with signal"
                )
            entry |= {"psnr": score.psnr, "ssim": score.ssim, "rmse": score.rmse}
        entry["seconds"] = time.perf_counter() - start
        report(entry)
        if "psnr" in entry:
            rate = learning_rate(settings, trainer.iteration)
            _record(output, {**entry, "learning_rate": rate, "loss": sum(losses) / len(losses)})
            losses.clear()
            _keep(trainer, score, output)


def _keep(trainer: Trainer, score: MeanScore, output: Path) -> None:
    """Write the weights if they are the best so far, then the checkpoint."""
    if score.psnr is not None and score.psnr > trainer.best_psnr:
        trainer.best_psnr = score.psnr
        provenance = {
            "recipe": trainer.recipe.to_dict(),
            "iteration": trainer.iteration,
            "validation": {"psnr": score.psnr, "ssim": score.ssim, "rmse": score.rmse},
        }
        save_weights(
            output / "best.safetensors",
            trainer.average.merged(),
            task=trainer.recipe.task,
            scaling={"kind": get_task(trainer.recipe.task).scaling},
            training=provenance,
        )
    trainer.save(output / "last.safetensors")


def _record(output: Path, row: dict[str, Any]) -> None:
    """Add a row to the log and draw the curve anew; rows of a part done twice are replaced."""
    path = output / "log.csv"
    rows: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [r for r in csv.DictReader(file) if int(r["iteration"]) < row["iteration"]]
    rows.append(row)
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    figures.training_curve(rows, output / "curve.png")


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {key.removeprefix(start): x for key, x in tensors.items() if key.startswith(start)}
