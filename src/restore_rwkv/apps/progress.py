"""How far a job is, and how it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class CancelledError(Exception):
    """The job was cancelled."""


class JobProgress:
    """A progress with stages, see `restore_rwkv.io.progress`; any thread may read it.

    Args:
        changed: called whenever it has changed.
        clock: seconds that never go back.

    Attributes:
        cancelled: set from outside; the next call from the work then raises.
    """

    def __init__(
        self, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.cancelled = threading.Event()
        self._changed, self._clock = changed, clock
        self._stage = ""
        self._done = self._all = 0
        self._started = self._latest = clock()

    def __call__(self, done: int, total: int) -> None:
        """Note that `done` of `total` is done.

        Raises:
            CancelledError: the job was cancelled.
        """
        self.check()
        if total != self._all or done < self._done:
            self._started = self._latest  # the first numbers may come after the first part
        self._done, self._all, self._latest = done, total, self._clock()
        self._changed()

    def stage(self, name: str, unit: str = "") -> None:
        """Note what is done now, see `begin_stage`; raises as a call."""
        self.check()
        self._stage, self._latest = name, self._clock()
        if unit not in ("", "%"):
            self._done = self._all = 0
        self._changed()

    def check(self) -> None:
        """Raise CancelledError if the job was cancelled."""
        if self.cancelled.is_set():
            raise CancelledError

    def values(self) -> dict[str, str | int | float | None]:
        """Return stage, numbers, and the seconds that are left; None where nothing says."""
        done, every = self._done, self._all
        left: float | None = None
        if 0 < done < every:
            per_step = (self._latest - self._started) / done
            left = max(per_step * (every - done) - (self._clock() - self._latest), 0.0)
        seconds = None if left is None else round(left, 1)
        return {"stage": self._stage, "done": done, "all": every, "seconds_left": seconds}
