"""Train one shipped recipe within a given time: a stage of `benchmarks.on_gpu`.

    python -m benchmarks.gpu_training light-mri-sr data/open runs/gpu out --seconds 240

The recipe keeps its network, optimiser and way of drawing pairs. Batches become larger, crops are
128 x 128 from the start, and the number of iterations follows from the measured time of a step, so
that the learning rate ends where the time does. `restore_rwkv.training.train` does the rest.

`runs/gpu` gets the whole run with its checkpoint. `out` gets what is small, each minute: the best
weights in float16, log, curve, and `result.json` with speed, memory and gain.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_rows import write_json
from benchmarks.train_shipped import SHIPPED, recipe_of
from restore_rwkv.data.prepared import find_sets
from restore_rwkv.data.slice import slices_of
from restore_rwkv.io import atomic_file
from restore_rwkv.model import RestoreRWKV, load_weights, save_weights
from restore_rwkv.training.log import Step
from restore_rwkv.training.loop import Machine, train
from restore_rwkv.training.recipe import Recipe
from restore_rwkv.training.validation import Validator

VALIDATIONS = 5  # where they are quick; on a GPU also one every 45 s
_BETWEEN_VALIDATIONS, _BETWEEN_COPIES = 45.0, 60.0  # seconds
_VALIDATING = 0.3  # largest share of the time that validations take
_PROBE, _LONGEST_PROBE = 0.1, 20.0  # share of the time to measure a step in, and most seconds
_USED = 0.92  # share of the time for steps that is planned
_WARM_UP = 200
_COPIED = ("log.csv", "run.json", "curve.png", "validation.png")


class _EnoughError(Exception):
    """Ends the probe."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Iterations of a run, and how often it is validated."""

    iterations: int
    validate_every: int

    @classmethod
    def within(cls, seconds: float, per_step: float, per_validation: float) -> Schedule:
        """Plan a run of some seconds from the measured duration of a step and a validation."""
        most = max(1, int(_VALIDATING * seconds / max(per_validation, 1e-3)))
        count = min(VALIDATIONS, most)
        wanted = min(most, max(count, int(seconds / _BETWEEN_VALIDATIONS)))
        iterations = max(1, int(_USED * (seconds - wanted * per_validation) / per_step))
        return cls(iterations, math.ceil(iterations / wanted))


def gpu_recipe(recipe: Recipe, schedule: Schedule, batch: int, crop: int) -> Recipe:
    """Return a recipe with larger batches, crops of one size and another number of iterations.

    It starts from random weights, as there is time enough for that, at the rates for these.
    """
    rates = {"learning_rate": 1.5e-3, "matrix_rate": 0.02} if recipe.training.init_from else {}
    training = dataclasses.replace(
        recipe.training,
        iterations=schedule.iterations,
        batch_size=batch,
        precision="32-true",
        init_from="",
        **rates,
        start_at_identity=True,
        warm_up=min(_WARM_UP, schedule.iterations // 10),
        validate_every=schedule.validate_every,
    )
    data = dataclasses.replace(recipe.data, crop=crop, stages=())
    return dataclasses.replace(recipe, training=training, data=data)


def seconds_per_step(
    recipe: Recipe, data: Path, folder: Path, machine: Machine, seconds: float
) -> float:
    """Measure the mean duration of a step, waiting for data included.

    The first half of the steps is not counted: kernels are compiled there, and the batches that
    were read ahead would make the others look faster.
    """
    ends: list[float] = []
    start = time.monotonic()

    def report(step: Step) -> None:
        ends.append(time.monotonic())
        if len(ends) > 2 and ends[-1] - start > seconds:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        train(recipe, [data], folder, machine=machine, report=report)
    middle = len(ends) // 2
    return (ends[-1] - ends[middle]) / (len(ends) - 1 - middle)


def seconds_per_validation(recipe: Recipe, data: Path, machine: Machine, limit: float) -> float:
    """Measure a validation; a second one, without what happens once, if the first was quick."""
    sets = find_sets([data], tuple(task.name for task in recipe.tasks))
    slices = slices_of(sets, "validation", recipe.data.validation_slices)
    validator = Validator(slices, recipe, machine.fabric("32-true"))
    network = RestoreRWKV(recipe.network).merged().to(machine.device)
    took = 0.0
    for _ in range(2):
        start = time.monotonic()
        validator(network)
        took = time.monotonic() - start
        if took > limit:
            break
    return took


class Progress:
    """Follows a run: copies what is small, and ends the run when its time is up.

    Args:
        run: folder of the run.
        out: folder to copy to.
        until: time, as of `time.time`, at which the run is ended.
        result: what `result.json` holds besides.
        checkpoints: copy the checkpoint too, which takes some ten MB.
    """

    def __init__(
        self, run: Path, out: Path, until: float, result: dict[str, Any], checkpoints: bool
    ) -> None:
        self.run, self.out, self.until, self.result = run, out, until, result
        self.names = (*_COPIED, "last.safetensors") if checkpoints else _COPIED
        self._start = self._copied = time.monotonic()
        self._best = 0.0
        self._waiting = 0.0
        out.mkdir(parents=True, exist_ok=True)

    def __call__(self, step: Step) -> None:
        """Note an iteration."""
        self._waiting += step.waiting * step.seconds
        took = time.monotonic() - self._start
        self.result |= {
            "done": step.iteration,
            "seconds": round(took, 1),
            "images_per_second": round(step.iteration * self.result["batch"] / took, 1),
            "waiting": round(self._waiting / took, 3),
            "peak_mib": _peak(),
        }
        if step.validation is not None:
            gains = step.validation.gains
            self.result.setdefault("validations", []).append([step.iteration, gains])
            print(f"{step.iteration}: loss {step.loss:.4f}, gain {gains} dB", flush=True)
        if time.monotonic() - self._copied > _BETWEEN_COPIES:
            self.copy()
        if time.time() > self.until and not self.result["cut_off"]:
            self.result["cut_off"] = True
            signal.raise_signal(signal.SIGTERM)  # `train` writes a checkpoint and ends

    def copy(self) -> None:
        """Copy what is there."""
        self._copied = time.monotonic()
        best = self.run / "best.safetensors"
        if best.exists() and best.stat().st_mtime != self._best:
            self._best = best.stat().st_mtime
            network, info = load_weights(best)
            kept = {"scaling": info.scaling, "training": info.training}
            save_weights(self.out / best.name, network, **kept, dtype=torch.float16)
        for name in self.names:
            if (self.run / name).exists():
                with atomic_file(self.out / name) as temporary:
                    shutil.copyfile(self.run / name, temporary)
        write_json(self.out / "result.json", self.result)


def trained(
    name: str, data: Path, run: Path, out: Path, until: float, words: argparse.Namespace
) -> dict[str, Any]:
    """Measure a step, train until a time as of `time.time`, and return what `result.json` holds."""
    machine = Machine(words.device, _workers(words.device))
    recipe = recipe_of(name)
    probe = gpu_recipe(recipe, Schedule(10**6, 10**6), words.batch, words.crop)
    shutil.rmtree(run, ignore_errors=True)
    share = min(_LONGEST_PROBE, _PROBE * (until - time.time()))
    per_step = seconds_per_step(probe, data, run / "probe", machine, share)
    per_validation = seconds_per_validation(recipe, data, machine, share)
    schedule = Schedule.within(until - time.time(), per_step, per_validation)
    print(f"{name}: {per_step:.4f} s a step, {per_validation:.1f} s a validation", flush=True)
    recipe = gpu_recipe(recipe, schedule, words.batch, words.crop)
    result = {"recipe": name, "device": words.device, "batch": words.batch, "crop": words.crop}
    result |= {"iterations": schedule.iterations, "seconds_per_step": per_step, "cut_off": False}
    result |= {"validate_every": schedule.validate_every}
    progress = Progress(run / "run", out, until, result, words.checkpoints)
    progress.copy()
    if words.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        train(recipe, [data], run / "run", machine=machine, report=progress)
    except SystemExit:  # of the signal, whoever sent it
        result["cut_off"] = True
    finally:
        progress.copy()
    return result


def _workers(device: str) -> int:
    """Processes that read data: most processors, since a GPU takes a batch in some 50 ms."""
    return min(14, max(1, (os.cpu_count() or 2) - 2)) if device == "cuda" else 0


def _peak() -> float | None:
    return round(torch.cuda.max_memory_allocated() / 2**20) if torch.cuda.is_available() else None


def main(arguments: list[str] | None = None) -> None:
    """Train and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SHIPPED)
    parser.add_argument("data", type=Path, help="prepared sets")
    parser.add_argument("run", type=Path, help="folder of the run, emptied first")
    parser.add_argument("out", type=Path, help="folder for what is small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--until", type=float, help="as of time.time, instead of --seconds")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--checkpoints", action="store_true", help="copy them too")
    words = parser.parse_args(arguments)
    until = words.until or time.time() + words.seconds
    print(trained(words.name, words.data, words.run, words.out, until, words), flush=True)


if __name__ == "__main__":
    main()
