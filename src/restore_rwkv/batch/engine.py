"""What runs jobs: events that come from workers, and the form of every engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from restore_rwkv.batch.job import Job, Outcome

SLOTS = 3
"""Jobs that a worker has at once: one is read, one computed, one written."""
MOST_DEATHS = 2
"""Deaths of workers that a job may cost which runs on its own."""
_SECONDS_BETWEEN_REPORTS = 0.2


@dataclass(frozen=True)
class Started:
    """A worker has begun a job."""

    key: str


@dataclass(frozen=True)
class Progressed:
    """A job goes on.

    Attributes:
        key: of the job.
        stage: what is being done, such as "restoring".
        done: steps of the stage that are done.
        total: all of them; 0 where they are not known.
    """

    key: str
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Ended:
    """A job has ended."""

    outcome: Outcome


Event: TypeAlias = "Started | Progressed | Ended"
"""What an engine tells of its jobs."""


class Report:
    """Progress of a job, told as `Progressed` a few times a second; see `io.Progress`.

    Args:
        key: of the job.
        tell: takes what has happened.
    """

    def __init__(self, key: str, tell: Callable[[Progressed], None]) -> None:
        self._key, self._tell = key, tell
        self._stage = ""
        self._told = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Tell that `done` of `total` is done."""
        now = time.monotonic()
        if now - self._told < _SECONDS_BETWEEN_REPORTS and done < total:
            return
        self._told = now
        self._tell(Progressed(self._key, self._stage or "restoring", done, total))

    def stage(self, name: str, unit: str = "") -> None:
        """Name what is being done."""
        self._stage = name
        self._tell(Progressed(self._key, name, 0, 0))


class Engine(Protocol):
    """Runs jobs somewhere: `Pool` in processes of this machine, `RayEngine` on a cluster."""

    @property
    def room(self) -> int:
        """Number of further jobs that it takes now."""

    def submit(self, job: Job) -> None:
        """Take a job; every job ends in exactly one `Ended`."""

    def events(self, timeout: float) -> Iterator[Event]:
        """Give what has happened since the last call; wait up to `timeout` seconds for the first.

        Raises:
            ConfigError: the workers do not start.
        """

    def close(self) -> None:
        """End the workers. Jobs that have not ended leave no output and no partial file."""
