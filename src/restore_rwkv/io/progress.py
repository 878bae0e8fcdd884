"""How long-running work reports that it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int], None]
"""Called with (done, total) as work goes on.

Any function will do. An object with a method `stage` as well is also told, by `begin_stage`, what
is being done.
"""

SHARE = "%"
_PART = 1000  # steps of one of several inputs


def begin_stage(progress: Progress | None, name: str, unit: str = "") -> None:
    """Say that another stage of the work begins, to a progress that has a method `stage`.

    Args:
        progress: as a caller gave it; a plain function, or None, is not told.
        name: what is done now, such as "restoring".
        unit: what the numbers that follow count from 0, such as "slices"; SHARE where they are
            shares of a whole and go on from those before; empty where none follow.
    """
    stage = getattr(progress, "stage", None)
    if stage is not None:
        stage(name, unit)


@dataclass(frozen=True)
class PartProgress:
    """Progress of a part of the work, reported as progress of the whole.

    Attributes:
        whole: progress of the whole.
        first: steps of the whole that were done before this part.
        size: steps that this part takes.
        every: steps of the whole.
        name: of this part, to name its stages after it; the numbers are then shares.
    """

    whole: Progress
    first: int
    size: int
    every: int
    name: str = ""

    def __call__(self, done: int, total: int) -> None:
        """Report `done` of `total` of this part."""
        share = self.size * done // total if total else self.size
        self.whole(self.first + share, self.every)

    def stage(self, name: str, unit: str = "") -> None:
        """Name a stage of this part; the numbers of the whole go on."""
        if self.name:
            begin_stage(self.whole, f"{self.name}: {name}", SHARE)
        else:
            begin_stage(self.whole, name)


def part_of(progress: Progress | None, name: str, index: int, count: int) -> Progress | None:
    """Return the progress of one of several inputs, where all take equal shares of the whole.

    Args:
        progress: of the whole; returned as it is where there is one input only.
        name: of the input.
        index: its number, from 0.
        count: number of inputs.
    """
    if progress is None or count == 1:
        return progress
    return PartProgress(progress, index * _PART, _PART, count * _PART, name)
