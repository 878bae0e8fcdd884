"""How a batch goes on: one bar over all scans, and a line for each one without a result."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from restore_rwkv.apps.cli.batch_report import as_json, worded
from restore_rwkv.apps.cli.progress import Bar
from restore_rwkv.apps.cli.terminal import say, say_aside, screen, show_line

if TYPE_CHECKING:
    from restore_rwkv.batch import Job, Outcome, Progressed

_STEPS = 1000  # of the bar for each scan
_SILENCE = 900.0  # seconds without news, after which workers may hang
_FOUND = 10  # scans from one line to the next while they are searched


class BatchProgress:
    """Shows how a batch goes on; see `restore_rwkv.batch.Listener`.

    Args:
        bar: None where nothing is shown.
    """

    def __init__(self, bar: Bar | None) -> None:
        self._bar = bar
        self._all = self._ended = self._faults = 0
        self._unread = 0  # scans that ended without a start; they say nothing of the time left
        self._steps = 0
        self._running: dict[str, str] = {}  # names by keys, the oldest first
        self._shares: dict[str, int] = {}
        self._heard = time.monotonic()

    def found(self, number: int) -> None:
        """Show that so many scans have been found."""
        if self._bar is not None and number % _FOUND == 0:
            self._bar.stage(f"looking: {number} scans found")

    def begun(self, waiting: int, finished: int) -> None:
        """Show that all scans have been found."""
        self._all = waiting
        if finished:
            say(f"{finished} {'scan is' if finished == 1 else 'scans are'} done already")
        if self._bar is not None:
            self._bar.stage("starting", "scans")

    def started(self, job: Job) -> None:
        """Show that a scan is begun, perhaps again, after the end of its worker."""
        self._heard = time.monotonic()
        self._running.setdefault(job.key, job.name)
        self._show()

    def progressed(self, job: Job, news: Progressed) -> None:
        """Show how far a scan is."""
        self._heard = time.monotonic()
        if news.total:
            self._shares[job.key] = _STEPS * news.done // news.total
            self._show()

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Print a scan that has no result, and with `--json -` every one."""
        self._heard = time.monotonic()
        self._ended += 1
        self._unread += self._running.pop(job.key, None) is None
        self._shares.pop(job.key, None)
        if outcome.is_fault:
            self._faults += 1
            if not screen.quiet:
                reason = worded(outcome.reason, job.name, job.source)
                say_aside(f"{outcome.state}: {job.name}: {reason}")
            if outcome.details and screen.verbose:
                say_aside("  " + outcome.details.rstrip().replace("\n", "\n  "))
        if screen.as_json:
            show_line(as_json(job.name, job.source, job.target, outcome))
        self._show()

    def waited(self) -> None:
        """Say once in a while that nothing is heard of any scan; the bar shows the time."""
        if time.monotonic() - self._heard < _SILENCE or not self._running:
            return
        self._heard = time.monotonic()
        names = ", ".join(self._running.values())
        say_aside(
            f"nothing has been heard for {_SILENCE / 60:.0f} minutes of {names}; if a worker "
            "hangs, end that process, and its scans are tried again"
        )

    def _show(self) -> None:
        """Show the scan that has run longest, and the share of all."""
        if self._bar is None:
            return
        name = next(iter(self._running.values()), None)
        if name is not None:
            self._bar.stage(name)
        faults = f", {self._faults} not restored" if self._faults else ""
        self._bar.words = f"{self._ended}/{self._all} scans{faults}"
        done = _STEPS * (self._ended - self._unread) + sum(self._shares.values())
        self._steps = max(self._steps, done)  # a scan may begin anew
        if self._all > self._unread:
            self._bar(self._steps, _STEPS * (self._all - self._unread))
