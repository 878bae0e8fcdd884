"""Logs of a training run: a CSV table, a curve, a picture grid and TensorBoard events."""

from __future__ import annotations

import csv
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from restore_rwkv.errors import ConfigError
from restore_rwkv.evaluation import figures
from restore_rwkv.io import atomic_file
from restore_rwkv.training.recipe import Recipe
from restore_rwkv.training.validation import Picture, Validation


@dataclass(frozen=True)
class Step:
    """One iteration, as `train` reports it.

    Attributes:
        iteration: number of iterations completed so far.
        loss: loss of the batch, averaged over all processes.
        seconds: duration of the iteration, validation included.
        waiting: fraction of that time spent waiting for data, 0 to 1.
        validation: scores, if this iteration ended with a validation; else None.
    """

    iteration: int
    loss: float
    seconds: float
    waiting: float
    validation: Validation | None = None


@dataclass(frozen=True)
class LogRow:
    """One row of the log: a summary of the iterations since the previous validation.

    Attributes:
        iteration: number of iterations completed so far.
        learning_rate: learning rate of the last iteration.
        loss: mean loss.
        seconds: duration of the last iteration.
        waiting: mean fraction of the time spent waiting for data, 0 to 1.
    """

    iteration: int
    learning_rate: float
    loss: float
    seconds: float
    waiting: float


class RunLog:
    """Writes the logs of one output folder, and `run.json` with the recipe and the starts of a run.

    After a resume, rows of iterations that are repeated replace the earlier ones. The column
    "cpu_hours" is the processor time of the run so far, all threads of this process together.

    Args:
        folder: output folder of the run, which must exist.
        recipe: recipe of this start.
        data: record of the training data.
        iteration: iteration that this start begins with; 0 forgets earlier starts.
        device: device that it runs on.

    Raises:
        ConfigError: tensorboardX is not installed.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        data: list[dict[str, Any]],
        iteration: int,
        device: str,
    ) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "training needs tensorboardX for its logs; pip install '.[train]' in the checkout"
            ) from error
        self.folder = folder
        self._events = SummaryWriter(str(folder / "tensorboard"))
        self._started = time.process_time()
        versions = {name: version(name) for name in ("restore-rwkv", "torch", "numpy")}
        versions["python"] = platform.python_version()
        self._earlier = self._starts() if iteration else []
        self._start = {"iteration": iteration, "device": device, "versions": versions}
        self._content = {"recipe": recipe.to_dict(), "data": data}
        self.write_record()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the events, whose writer has a thread of its own."""
        self._events.close()

    @property
    def cpu_hours(self) -> float:
        """Processor time of the run so far, in hours."""
        return float(sum(start["cpu_hours"] for start in self._earlier)) + self._own_hours

    @property
    def _own_hours(self) -> float:
        return round((time.process_time() - self._started) / 3600, 5)

    def write_record(self) -> None:
        """Write `run.json`, with the processor time so far; to be called after each checkpoint."""
        starts = [*self._earlier, {**self._start, "cpu_hours": self._own_hours}]
        content = {**self._content, "starts": starts}
        with atomic_file(self.folder / "run.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def _starts(self) -> list[dict[str, Any]]:
        try:
            starts = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))["starts"]
            return [{"cpu_hours": 0.0, **start} for start in starts]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # of a version that wrote none

    def add(self, row: LogRow, validation: Validation) -> None:
        """Add one validation, with its scores and pictures, to all logs."""
        values = asdict(row) | {"cpu_hours": self.cpu_hours} | validation.columns
        rows = [*self._rows_before(row.iteration), values]
        with (
            atomic_file(self.folder / "log.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(values))
            writer.writeheader()
            writer.writerows(rows)
        inputs = {task: score.psnr for task, score in validation.inputs.items()}
        figures.training_curve(rows, inputs, self.folder / "curve.png")
        _draw(validation.pictures, self.folder / "validation.png")
        for name, value in values.items():
            if name != "iteration" and value is not None:
                self._events.add_scalar(name, value, row.iteration)
        self._events.flush()

    def _rows_before(self, iteration: int) -> list[dict[str, Any]]:
        path = self.folder / "log.csv"
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if int(row["iteration"]) < iteration]


def _draw(pictures: Sequence[Picture], path: Path) -> None:
    """Draw the picture grid, each slice in the intensity window of its task's metrics."""
    rows, limits = [], []
    for picture in pictures:
        low, high = picture.slice.prepared.task.metric_range
        bright = float(np.quantile(picture.high, 0.999))
        rows.append((picture.slice.name, picture.low, picture.restored, picture.high))
        limits.append((low, min(high, max(bright, low + 1e-6))))
    if rows:
        figures.picture_grid(rows, limits, path)
