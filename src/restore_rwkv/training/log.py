"""What a training run leaves to look at: a table, a curve, a picture, and TensorBoard's events."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restore_rwkv.errors import ConfigError
from restore_rwkv.evaluation import figures
from restore_rwkv.io import atomic_file
from restore_rwkv.training.validation import Picture, Validation


@dataclass(frozen=True)
class Step:
    """One iteration, as `train` reports it.

    Attributes:
        iteration: how many have been done.
        loss: of its batch, the mean over all processes.
        seconds: that it took, validation included.
        waiting: share of them in which the network waited for data.
        validation: scores, after an iteration that was validated.
    """

    iteration: int
    loss: float
    seconds: float
    waiting: float
    validation: Validation | None = None


@dataclass(frozen=True)
class LogRow:
    """What a log has of the iterations since the last validation.

    Attributes:
        iteration: how many have been done.
        learning_rate: of the last one.
        loss: mean.
        seconds: that the last one took.
        waiting: mean share of the time in which the network waited for data.
    """

    iteration: int
    learning_rate: float
    loss: float
    seconds: float
    waiting: float


class RunLog:
    """Logs of one output folder; rows of a part that is done twice are replaced.

    Args:
        folder: output folder of the run; it exists.

    Raises:
        ConfigError: the writer of TensorBoard's events is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "training needs tensorboardX for its logs; pip install 'restore-rwkv[train]'"
            ) from error
        self.folder = folder
        self._events = SummaryWriter(str(folder / "tensorboard"))

    def add(self, row: LogRow, validation: Validation) -> None:
        """Log a validation with its scores and pictures."""
        values = asdict(row) | validation.columns
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
    """The picture grid: each slice in the window that its task's metrics see."""
    rows, limits = [], []
    for picture in pictures:
        low, high = picture.slice.prepared.task.metric_range
        bright = float(np.quantile(picture.high, 0.999))
        rows.append((picture.slice.name, picture.low, picture.restored, picture.high))
        limits.append((low, min(high, max(bright, low + 1e-6))))
    if rows:
        figures.picture_grid(rows, limits, path)
