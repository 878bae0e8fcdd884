"""Small batches: scans, settings, an engine without processes, and a pool that a test plays."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from restore_rwkv.batch import (
    BatchRequest,
    Ended,
    Event,
    FoundJob,
    Job,
    Outcome,
    Pool,
    Progressed,
    Started,
    Summary,
    Worker,
    WorkerSettings,
    find_jobs,
    run_batch,
)
from restore_rwkv.restoration import RestoreOptions

OPTIONS = RestoreOptions(force=True, consistency=0)


def scan(path: Path, seed: int = 0, shape: tuple[int, ...] = (32, 32, 2)) -> Path:
    """Write a small NIfTI image that the weights for MRI take with `force`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).uniform(10, 900, shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


def settings(weights: Path, **changes: Any) -> WorkerSettings:
    """Settings for small scans."""
    values = {"task": "mri-sr", "weights": str(weights), "device": "cpu", "options": OPTIONS}
    return WorkerSettings(**(values | changes))


def job(key: str, **changes: Any) -> Job:
    """A job that is never run, or whose paths are given."""
    name = key
    values = {"key": key, "name": name, "source": f"/nowhere/{name}", "target": f"/gone/{name}"}
    return Job(**(values | changes))


def job_of(source: Path, target: Path, **changes: Any) -> Job:
    """The job of a file."""
    size = source.stat().st_size if source.exists() else 0
    return job(source.name, source=str(source), target=str(target), size=size, **changes)


class OneByOne:
    """An engine that runs each job in this process."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.worker = Worker(settings)
        self.waiting: deque[Job] = deque()
        self.ran: list[str] = []

    @property
    def room(self) -> int:
        return 2 - len(self.waiting)

    def submit(self, job: Job) -> None:
        self.waiting.append(job)

    def events(self, timeout: float) -> Iterator[Event]:
        job = self.waiting.popleft()
        self.ran.append(job.name)
        yield Started(job.key)
        yield Ended(self.worker.run(job))

    def close(self) -> None:
        pass


class Listening:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.counted = (0, 0)

    def found(self, number: int) -> None:
        pass

    def begun(self, waiting: int, finished: int) -> None:
        self.counted = (waiting, finished)

    def started(self, job: Job) -> None:
        pass

    def progressed(self, job: Job, news: Progressed) -> None:
        pass

    def ended(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job.name] = outcome

    def waited(self) -> None:
        pass


def run_small(tree: Path, request: BatchRequest) -> tuple[Summary, Listening]:
    """Run a batch in this process."""
    listening = Listening()

    def found() -> Iterator[FoundJob]:
        return find_jobs([tree], request.output, request.format)

    summary = run_batch(request, found, lambda: OneByOne(request.settings), listening)
    return summary, listening


def states(manifest: Path) -> dict[str, str]:
    """State of each scan of a manifest."""
    with sqlite3.connect(manifest) as database:
        rows = dict(database.execute("SELECT name, state FROM scans"))
    database.close()
    return rows


def below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but the manifests."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("manifest")
    }


class Played:
    """A worker's process that a test plays: what it says, and when it dies."""

    def __init__(self, pid: int) -> None:
        self.pid, self.exitcode = pid, None
        self.ours, self.theirs = Pipe()
        self.sentinel, self._end = os.pipe()

    def is_alive(self) -> bool:
        return self.exitcode is None

    def die(self, code: int = -9) -> None:
        if self.exitcode is None:
            self.exitcode = code
            os.close(self._end)
            self.theirs.close()

    def terminate(self) -> None:
        self.die(-15)

    def kill(self) -> None:
        self.die()

    def join(self, timeout: float | None = None) -> None:
        pass

    def heard(self) -> list[Any]:
        """What the pool has said since the last call."""
        words = []
        while self.theirs.poll():
            words.append(self.theirs.recv())
        return words

    def say(self, *messages: object) -> None:
        for message in messages:
            self.theirs.send(message)


class PlayedPool(Pool):
    """A pool whose processes are played; `played` are all that it has started."""

    def __init__(self, jobs: int = 1, memory: int | None = None) -> None:
        self.played: list[Played] = []
        super().__init__(WorkerSettings(), jobs, memory)

    def _start(self) -> Any:
        from restore_rwkv.batch.pool import _Process

        process = Played(1000 + len(self.played))
        self.played.append(process)
        connection: Connection = process.ours
        return _Process(process, connection)  # type: ignore[arg-type]

    def news(self) -> list[Event]:
        """What has happened, without waiting."""
        return list(self.events(0))
