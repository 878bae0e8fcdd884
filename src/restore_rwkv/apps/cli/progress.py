"""The progress bar: one line on a terminal, from the first moment on, with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from restore_rwkv.apps.cli.terminal import screen

if TYPE_CHECKING:
    from rich.progress import Progress as Display

SHARE = "%"  # as in `restore_rwkv.io.progress`, which would import NumPy; a test compares
_LONGEST_NAME = 44
_BAR_WIDTH = 24


@contextmanager
def progress_bar(begin: str, title: str, unit: str) -> Iterator[Bar | None]:
    """Show a bar; None, and nothing is shown, where stderr is not a terminal or with --quiet.

    Args:
        begin: what is done until the first numbers come, such as "reading t1.nii.gz".
        title: what is counted then, unless the work names its stages itself.
        unit: of the numbers, such as "slices".
    """
    if screen.quiet or not sys.stderr.isatty():
        yield None
        return
    display = _display()
    bar = Bar(begin, title, unit, display)
    with display:
        screen.bar = display.console
        try:
            yield bar
        finally:
            screen.bar = None


class Bar:
    """A progress with stages, see `restore_rwkv.io.progress`; any numbers may come.

    The time left follows from the numbers since the total last changed or the work began anew.

    Attributes:
        words: shown in place of the numbers, where they count something else.
    """

    def __init__(
        self,
        begin: str,
        title: str,
        unit: str,
        display: Display,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._unit = title, unit
        self._display, self._clock = display, clock
        self._named = False
        self.words = ""
        self._done, self._total = 0, 0
        self._began = self._started = self._latest = clock()
        self._job = display.add_task(shortened(begin), total=None, state=self)

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` is done."""
        if total != self._total or done < self._done:
            self._started = self._latest  # the first numbers may come after the first part
        self._done, self._total, self._latest = done, total, self._clock()
        if not self._named:
            self.stage(self._title)
        self._display.update(self._job, completed=min(done, total), total=total or None)

    def stage(self, name: str, unit: str = "") -> None:
        """Show what is done now; `unit` is that of the numbers to come, see `begin_stage`."""
        self._named, self._unit, self._latest = True, unit or self._unit, self._clock()
        self._display.update(self._job, description=shortened(name))
        if unit not in ("", SHARE):
            self._done = self._total = 0
            for task in self._display.tasks:  # one; its `update` cannot forget a total
                task.total, task.completed = None, 0

    def count(self) -> str:
        """Numbers in words: "12/40 slices", or "30 %" where they are shares."""
        if self.words or not self._total:
            return self.words
        if self._unit == SHARE:
            return f"{100 * self._done // self._total} %"
        return f"{self._done}/{self._total} {self._unit}"

    def elapsed(self) -> str:
        """Time since the beginning, as 0:01:23."""
        return str(timedelta(seconds=int(self._clock() - self._began)))

    def left(self) -> str:
        """Time left in words; empty where nothing says."""
        if not 0 < self._done < self._total:
            return ""
        per_step = (self._latest - self._started) / self._done
        passed = self._clock() - self._latest
        return f"{in_words(max(per_step * (self._total - self._done) - passed, 0))} left"


def shortened(name: str) -> str:
    """Return a name without its middle where it is too long for a line."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = _LONGEST_NAME // 2 - 1
    return f"{name[:half]}…{name[-half:]}"


def in_words(seconds: float) -> str:
    """Return a time to wait, such as "45 s", "3 min" or "2 h 5 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _display() -> Display:
    """Return the line itself, with its columns."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn
    from rich.progress import Progress as Display
    from rich.text import Text

    class Words(ProgressColumn):
        def __init__(self, words: Callable[[Bar], str]) -> None:
            super().__init__()
            self.words = words

        def render(self, task: object) -> Text:
            return Text(self.words(task.fields["state"]))  # type: ignore[attr-defined]

    class Name(ProgressColumn):
        def render(self, task: object) -> Text:
            return Text(task.description)  # type: ignore[attr-defined]

    return Display(
        *(Name(), BarColumn(_BAR_WIDTH), Words(Bar.count), Words(Bar.elapsed), Words(Bar.left)),
        console=Console(stderr=True),
        refresh_per_second=4,
        transient=True,
        redirect_stdout=False,  # it may be a file, and results belong there
    )
