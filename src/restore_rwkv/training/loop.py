"""The training loop of one network.

Every batch is a function of the seed and the iteration number, so a run can resume at any
iteration. Lightning Fabric handles devices, precision and processes outside the loop.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from restore_rwkv.data.prepared import PreparedSet, find_sets
from restore_rwkv.data.slice import slices_of
from restore_rwkv.errors import ConfigError, TrainingError
from restore_rwkv.model import save_weights
from restore_rwkv.training.interruption import Interruption, end_process
from restore_rwkv.training.loading import batches_of
from restore_rwkv.training.log import LogRow, RunLog, Step
from restore_rwkv.training.pairs import Batch, PairSampler
from restore_rwkv.training.recipe import Recipe
from restore_rwkv.training.state import Trainer, learning_rate
from restore_rwkv.training.validation import Validation, Validator

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_logger = logging.getLogger(__name__)

CHECKPOINT = "last.safetensors"
"""Name of the checkpoint in the folder of a run."""

_WORKERS_PER_CORE = 4
_RELEASE_SECONDS = 1.0
_CHECKPOINT_SECONDS = 600.0  # also between validations, so that an interruption costs minutes


@dataclass(frozen=True)
class Machine:
    """Hardware to train on. Under `torchrun`, its environment variables give the process count.

    Attributes:
        device: "cpu", "cuda", "cuda:1" or "mps".
        workers: number of data-loading processes for each training process, at most four for each
            core of this machine; None for the default of the device (0 on a CPU, whose cores the
            network needs; 4 on a GPU).

    Raises:
        ConfigError: `workers` is out of range.
    """

    device: str = "cpu"
    workers: int | None = None

    def __post_init__(self) -> None:
        most = _WORKERS_PER_CORE * (os.cpu_count() or 1)
        if self.workers is not None and not 0 <= self.workers <= most:
            raise ConfigError(
                f"workers is {self.workers}; give a whole number from 0 to {most}, "
                f"{_WORKERS_PER_CORE} for each core of this machine"
            )

    def fabric(self, precision: str) -> Fabric:
        """Start Lightning Fabric.

        Raises:
            ConfigError: Fabric is not installed, or does not support the device or precision here.
        """
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise ConfigError(
                "training needs Lightning Fabric; pip install '.[train]' in the checkout"
            ) from error
        kind, _, number = self.device.partition(":")
        world = int(os.environ.get("WORLD_SIZE", "1"))
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        try:
            fabric = Fabric(
                accelerator=kind,
                devices=[int(number)] if number else here,
                num_nodes=world // here,
                strategy="ddp" if world > 1 else "auto",
                precision=precision,  # type: ignore[arg-type]
            )
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"device {self.device!r} with precision {precision}: {error}; choose others"
            ) from error
        fabric.launch()
        return fabric


def train(
    recipe: Recipe,
    data: Sequence[Path | str],
    output: Path | str,
    *,
    machine: Machine | None = None,
    report: Callable[[Step], None] | None = None,
) -> Path | None:
    """Train a network, or resume a stopped run in the same output folder.

    Writes into `output`: `run.json` (recipe, data, versions), `last.safetensors` (checkpoint),
    `best.safetensors` (weights with the best validation PSNR, if that is better than the input's;
    ready for `restore`), `log.csv`, `curve.png`, `validation.png` and, under `tensorboard`, the
    same figures for TensorBoard. SIGTERM and SIGINT (Ctrl-C) end the run after the current
    iteration, with a checkpoint.

    Args:
        recipe: task, network, data and optimisation.
        data: prepared sets, or folders that contain prepared sets.
        output: folder to write to, created if missing.
        machine: hardware to train on; the CPU by default.
        report: called after each iteration.

    Returns:
        Path of the best weights; None if no validation was better than the input.

    Raises:
        ConfigError: the recipe does not fit the data, the checkpoint or the processes.
        InputError: a prepared set cannot be read.
        TrainingError: the loss is not finite, or no validation slice has a score.
        WeightsError: the weights to start from cannot be read.
        KeyboardInterrupt: the run was ended by SIGINT.
        SystemExit: the run was ended by SIGTERM.

    Example:
        >>> recipe = Recipe.read("recipes/base-mri-sr.toml")  # doctest: +SKIP
        >>> train(recipe, ["data/ixi"], "runs/base-mri-sr")  # doctest: +SKIP
    """
    machine = machine or Machine()
    sets = find_sets([Path(folder) for folder in data], tuple(t.name for t in recipe.tasks))
    sampler = PairSampler(sets, recipe)
    slices = slices_of(sets, "validation", recipe.data.validation_slices)
    validated = {item.prepared.task_name for item in slices}
    for task in recipe.tasks:
        if task.name not in validated:
            raise ConfigError(f"{task.name}: its sets have no validation slices; prepare some")
    fabric = machine.fabric(recipe.training.precision)
    if recipe.training.batch_size % fabric.world_size:
        raise ConfigError(
            f"recipe: training.batch_size is {recipe.training.batch_size}, which "
            f"{fabric.world_size} processes cannot share equally; choose a multiple"
        )
    output = Path(output)
    resumes, best = (output / CHECKPOINT).exists(), output / "best.safetensors"
    if best.exists() and not resumes:
        raise ConfigError(
            f"{best}: is of an earlier run without a checkpoint; move it, or use another folder"
        )
    trainer = Trainer(recipe, fabric, resumes=resumes)
    output.mkdir(parents=True, exist_ok=True)
    run = _Run(trainer, sampler, Validator(slices, recipe, fabric), output, _record_of(sets))
    if run.checkpoint.exists():
        trainer.load(run.checkpoint, run.data)
        _logger.info("%s: resuming from iteration %d", run.checkpoint, trainer.iteration)
    _require_same_start(trainer)
    with Interruption() as interruption:
        run.loop(machine.workers, report or (lambda _: None), interruption)
    _end_together(fabric)
    if interruption.signal:
        end_process(interruption.signal)
    return best if best.exists() else None


@dataclass(frozen=True, eq=False)
class _Run:
    """A trainer with its data and its output folder."""

    trainer: Trainer
    sampler: PairSampler
    validator: Validator
    output: Path
    data: list[dict[str, Any]]

    @property
    def checkpoint(self) -> Path:
        return self.output / CHECKPOINT

    def loop(
        self, workers: int | None, report: Callable[[Step], None], interruption: Interruption
    ) -> None:
        """Train until the last iteration of the recipe, or until an interruption."""
        trainer = self.trainer
        iterations = range(trainer.iteration, trainer.recipe.training.iterations)
        with ExitStack() as stack:
            log = stack.enter_context(self._log()) if trainer.fabric.is_global_zero else None
            batches = batches_of(self.sampler, trainer.fabric, iterations, workers)
            self._iterate(stack.enter_context(closing(batches)), log, report, interruption)

    def _iterate(
        self,
        batches: Iterator[Batch],
        log: RunLog | None,
        report: Callable[[Step], None],
        interruption: Interruption,
    ) -> None:
        trainer, settings = self.trainer, self.trainer.recipe.training
        saved = time.monotonic()
        while trainer.iteration < settings.iterations:
            start = time.perf_counter()
            batch = next(batches)
            ready = time.perf_counter()
            loss = trainer.step(*batch, names=self._names)
            done = trainer.iteration == settings.iterations
            validation = None
            if done or trainer.iteration % settings.validate_every == 0:
                validation = self._validate()
            seconds = time.perf_counter() - start
            waiting = (ready - start) / seconds
            trainer.unlogged.append((loss, waiting))
            report(Step(trainer.iteration, loss, seconds, waiting, validation))
            ended = self._ended(interruption)
            if validation:
                losses, waits = zip(*trainer.unlogged, strict=True)
                row = LogRow(
                    iteration=trainer.iteration,
                    learning_rate=learning_rate(settings, trainer.iteration),
                    loss=sum(losses) / len(losses),
                    seconds=seconds,
                    waiting=sum(waits) / len(waits),
                )
                trainer.unlogged.clear()
                self._keep(validation, log, row)
                saved = time.monotonic()
            elif log is not None and (ended or time.monotonic() - saved > _CHECKPOINT_SECONDS):
                self._save(log)
                saved = time.monotonic()
            if ended:
                _logger.warning(
                    "stopped at iteration %d of %d; the same command resumes",
                    *(trainer.iteration, settings.iterations),
                )
                return

    def _ended(self, interruption: Interruption) -> bool:
        """Return whether any process is to end, so that all end after the same iteration."""
        fabric = self.trainer.fabric
        if fabric.world_size == 1:
            return interruption.signal > 0
        here = fabric.to_device(torch.tensor(float(interruption.signal)))
        highest = int(torch.as_tensor(fabric.all_reduce(here, reduce_op="max")))
        interruption.signal = highest
        return highest > 0

    def _validate(self) -> Validation:
        result = self.validator(self.trainer.average.merged())
        if result.psnr is None:
            raise TrainingError(
                "validation: no slice has a score (are all constant?); prepare other data"
            )
        return result

    def _keep(self, validation: Validation, log: RunLog | None, row: LogRow) -> None:
        """Write the logs, the weights if they are the best so far, and then the checkpoint."""
        trainer = self.trainer
        psnr = validation.psnr if validation.beats_input else None
        better = psnr is not None and psnr > trainer.best_psnr
        trainer.best_psnr = max(trainer.best_psnr, -math.inf if psnr is None else psnr)
        if log is None:
            return
        log.add(row, validation)
        if better:
            provenance = {
                "recipe": trainer.recipe.to_dict(),
                "data": self.data,
                "iteration": trainer.iteration,
                "validation": validation.columns,
                "input": {task: score.psnr for task, score in validation.inputs.items()},
            }
            if trainer.started_from:
                provenance["started_from"] = trainer.started_from
            save_weights(
                self.output / "best.safetensors",
                trainer.average.merged(),
                scaling={task.name: trainer.recipe.rule(task) for task in trainer.recipe.tasks},
                training=provenance,
            )
        self._save(log)

    def _save(self, log: RunLog) -> None:
        self.trainer.save(self.checkpoint, self.data)
        log.write_record()

    def _log(self) -> RunLog:
        trainer = self.trainer
        device = str(trainer.fabric.device)
        return RunLog(self.output, trainer.recipe, self.data, trainer.iteration, device)

    def _names(self) -> str:
        draws = self.sampler.draws(self.trainer.iteration)
        return "; ".join(draw.name for draw in draws)


def _end_together(fabric: Fabric) -> None:
    """Wait for all processes and close their group.

    A process that exits with the group open can abort, for which torchrun kills the others, even
    while one of them is writing its checkpoint.
    """
    if fabric.world_size > 1:
        fabric.barrier()
        # Gloo's threads release the tensors of the barrier, for which they need Python's lock;
        # closing the group waits for these threads and holds that lock.
        time.sleep(_RELEASE_SECONDS)
        torch.distributed.destroy_process_group()


def _require_same_start(trainer: Trainer) -> None:
    """Raise ConfigError unless all processes start at the same iteration."""
    here = trainer.fabric.to_device(torch.tensor(trainer.iteration))
    if bool((torch.as_tensor(trainer.fabric.all_gather(here)) != here).any()):
        raise ConfigError(
            f"process {trainer.fabric.global_rank}: starts at iteration {trainer.iteration}, but "
            "other processes do not; use an output folder that all machines share"
        )


def _record_of(sets: Sequence[PreparedSet]) -> list[dict[str, Any]]:
    return [
        {
            "dataset": prepared.dataset,
            "task": prepared.task_name,
            "manifest_sha256": prepared.sha256,
        }
        for prepared in sets
    ]
