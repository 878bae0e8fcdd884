"""The records and logs of training runs, as their folders have them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.training.networks import network_name, parameters_of
from restore_rwkv.training.recipe import Recipe

_RECORD, _LOG = "run.json", "log.csv"
_FILES = (_RECORD, _LOG, "last.safetensors")


@dataclass(frozen=True)
class Point:
    """One validation of a run.

    Attributes:
        iteration: number of iterations completed.
        loss: mean training loss since the validation before, in network values.
        gain: PSNR gained over the input in dB, paper protocol, mean over the tasks; None if a task
            has no PSNR.
        cpu_hours: processor time of the run so far; None where the log has none.
    """

    iteration: int
    loss: float
    gain: float | None
    cpu_hours: float | None


@dataclass(frozen=True, eq=False)
class Run:
    """A training run, as its folder records it.

    Attributes:
        name: name of its folder, or the path where two have the same name.
        folder: output folder of `train`.
        recipe: recipe of its last start.
        data: data set, task and digest of the manifest of each prepared set.
        points: its validations, in order.
        written: when the folder was last written to.
    """

    name: str
    folder: Path
    recipe: Recipe
    data: tuple[tuple[str, str, str], ...]
    points: tuple[Point, ...]
    written: datetime

    @property
    def iterations(self) -> int:
        """Iterations up to the last validation."""
        return self.points[-1].iteration if self.points else 0

    @property
    def state(self) -> str:
        """Either "done", "unfinished" (in training, or stopped) or "not validated yet"."""
        if not self.points:
            return "not validated yet"
        return "done" if self.iterations >= self.recipe.training.iterations else "unfinished"

    @property
    def best(self) -> Point | None:
        """The first validation with the highest gain."""
        scored = [point for point in self.points if point.gain is not None]
        return max(scored, key=lambda point: point.gain or 0.0) if scored else None

    @property
    def cpu_hours(self) -> float | None:
        """Processor time up to the last validation; None unless the log has it throughout."""
        hours = [point.cpu_hours for point in self.points if point.cpu_hours is not None]
        # The logs of early versions began anew at each start.
        whole = 0 < len(hours) == len(self.points) and hours == sorted(hours)
        return hours[-1] if whole else None

    @property
    def conditions(self) -> tuple[Any, ...]:
        """What has to be equal for PSNR to be compared: data, tasks and validated slices."""
        return (self.data, self.recipe.task, self.recipe.data.validation_slices)

    def values(self) -> dict[str, Any]:
        """Return its row of the table as plain values."""
        best, last = self.best, self.points[-1] if self.points else None
        return {
            "run": self.name,
            "network": network_name(self.recipe),
            "parameters": parameters_of(self.recipe),
            "seed": self.recipe.seed,
            "state": self.state,
            "iterations": self.iterations,
            "of_iterations": self.recipe.training.iterations,
            "cpu_hours": self.cpu_hours,
            "best_gain_db": None if best is None else best.gain,
            "best_iteration": None if best is None else best.iteration,
            "last_gain_db": None if last is None else last.gain,
            "written": self.written.isoformat(timespec="seconds"),
        }


def read_runs(paths: Sequence[Path | str]) -> list[Run]:
    """Read training runs.

    Args:
        paths: output folders of `train`, or folders that contain such; each run is read once.

    Raises:
        InputError: a folder is not a run and contains none, or a file of a run is damaged.
    """
    folders: list[Path] = []
    for path in map(Path, paths):
        if (path / _RECORD).is_file():
            folders.append(path)
            continue
        below = sorted(record.parent for record in path.glob(f"*/{_RECORD}"))
        if not below:
            raise InputError(
                f"{path}: is not a training run, which has a {_RECORD}, and contains none; give "
                "the output folder of train"
            )
        folders += below
    folders = list({folder.resolve(): folder for folder in folders}.values())
    names = [folder.resolve().name for folder in folders]
    return [
        _read(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def _read(folder: Path, name: str) -> Run:
    record = folder / _RECORD
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        recipe = Recipe.from_dict(content["recipe"])
        data = tuple((str(x["dataset"]), str(x["task"]), _digest(x)) for x in content["data"])
    except OSError as error:
        raise InputError(f"{record}: {error.strerror}; check its permissions") from error
    except ConfigError as error:
        raise InputError(f"{record}: {error}, or leave this run out") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{record}: is damaged ({_reason(error)}); leave this run out, or train it again"
        ) from error
    tasks = tuple(task.name for task in recipe.tasks)
    found = [path.stat().st_mtime for path in map(folder.joinpath, _FILES) if path.exists()]
    written = datetime.fromtimestamp(max(found)).astimezone()
    return Run(name, folder, recipe, tuple(sorted(data)), _points(folder / _LOG, tasks), written)


def _digest(entry: Mapping[str, Any]) -> str:
    return str(entry["manifest_sha256"])


def _points(path: Path, tasks: Sequence[str]) -> tuple[Point, ...]:
    """Read the validations of a log; none where there is no log yet."""
    if not path.exists():
        return ()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({_reason(error)}); leave this run out, or train it again"
        ) from error
    if not rows:
        raise InputError(f"{path}: is empty; leave this run out, or train it again")
    points = []
    for number, row in enumerate(rows, start=2):  # as an editor counts the lines
        try:
            points.append(_point(row, tasks))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: line {number} is damaged ({_reason(error)}); leave this run out, or "
                "train it again"
            ) from error
    return tuple(points)


def _point(row: Mapping[str, str | None], tasks: Sequence[str]) -> Point:
    gains = [_number(row, f"{task}.gain") for task in tasks]
    known = [gain for gain in gains if gain is not None]
    loss, hours = _number(row, "loss"), _number(row, "cpu_hours") if "cpu_hours" in row else None
    if loss is None:
        raise ValueError("loss is empty")
    gain = sum(known) / len(known) if len(known) == len(gains) else None
    return Point(int(row["iteration"] or ""), loss, gain, hours)


def _number(row: Mapping[str, str | None], name: str) -> float | None:
    text = row[name]
    if text is None:
        raise ValueError(f"{name} is missing")
    if text == "":
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text}")
    return value


def _reason(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
