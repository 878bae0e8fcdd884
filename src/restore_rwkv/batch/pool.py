"""Local workers: processes that each read, compute and write different scans at the same time.

A fault that ends a process costs one scan. Each worker has a few jobs at a time, in threads, of
which one computes; the others read the next scan and write the last one. What they take of the
memory is granted here, over all workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import platform
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeAlias

from restore_rwkv.batch.engine import MOST_DEATHS, SLOTS, Ended, Event, Progressed, Started
from restore_rwkv.batch.job import Job, Outcome
from restore_rwkv.batch.process import (
    Answer,
    Ask,
    GiveBack,
    Ready,
    Refusal,
    Stop,
    serve,
)
from restore_rwkv.batch.worker import WorkerSettings
from restore_rwkv.errors import ConfigError
from restore_rwkv.io import OutputOptions, Target, claimed

_UNPACKED = 6  # times the size of a scan's files: as float32, after gzip or JPEG
_SECONDS_TO_END = 5.0

Serve: TypeAlias = "Callable[[Connection[Any, Any], WorkerSettings, int], None]"
"""Main function of a worker's process, see `process.serve`."""


@dataclass(eq=False)
class _Process:
    """A worker and what it has.

    Attributes:
        process: its process.
        connection: to it.
        jobs: that it has, by their keys.
        ready: whether it has started.
        alone: whether it has one job only, whose worker died before.
        granted: bytes that it may take now.
    """

    process: BaseProcess
    connection: Connection[Any, Any]
    jobs: dict[str, Job] = field(default_factory=dict)
    ready: bool = False
    alone: bool = False
    granted: int = 0


class Pool:
    """An engine of processes on this machine; see `Engine`.

    Args:
        settings: how scans are restored.
        jobs: number of processes.
        memory: bytes that all of them may take together; None for no bound. Computing is granted by
            what it takes; so that reading does not exceed it either, no more scans are handed out
            than it holds by the size of their files, but one always is.
        main: what each process runs.

    Raises:
        ConfigError: fewer than one process.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        jobs: int = 1,
        memory: int | None = None,
        *,
        main: Serve = serve,
    ) -> None:
        if jobs < 1:
            raise ConfigError(f"jobs is {jobs}; give at least 1")
        self._settings, self._memory, self._main = settings, memory, main
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Process] = []
        self._waiting: deque[Job] = deque()
        self._suspects: deque[Job] = deque()  # their worker died; each now runs on its own
        self._deaths: dict[str, int] = {}
        self._asking: deque[tuple[_Process, int]] = deque()
        self._failed_starts = 0
        try:
            for _ in range(jobs):
                self._workers.append(self._start())
        except BaseException:
            self.close()
            raise

    @property
    def room(self) -> int:
        """Number of further jobs that keep every worker busy."""
        held = sum(len(worker.jobs) for worker in self._workers)
        return max(0, SLOTS * len(self._workers) - held - len(self._waiting))

    def submit(self, job: Job) -> None:
        """Take a job; every job ends in exactly one `Ended`."""
        self._waiting.append(job)
        self._hand_out()

    def events(self, timeout: float) -> Iterator[Event]:
        """Give what has happened since the last call; wait up to `timeout` seconds for the first.

        Raises:
            ConfigError: the workers do not start.
        """
        sources: dict[Any, _Process] = {}
        for worker in self._workers:
            sources[worker.connection] = sources[worker.process.sentinel] = worker
        for worker in dict.fromkeys(sources[source] for source in wait(list(sources), timeout)):
            yield from self._news(worker)
        self._hand_out()

    def close(self) -> None:
        """End the workers. Jobs that have not ended leave no output and no partial file."""
        for worker in self._workers:
            with contextlib.suppress(OSError, ValueError):
                worker.connection.send(Stop())
        for worker in self._workers:
            idle = worker.ready and not worker.jobs
            worker.process.join(_SECONDS_TO_END if idle else 0)
            self._end(worker)
        self._workers.clear()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> _Process:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=self._main, args=(theirs, self._settings, SLOTS), daemon=True
        )
        with _without_interrupts():
            process.start()
        theirs.close()
        return _Process(process, ours)

    def _news(self, worker: _Process) -> Iterator[Event]:
        try:
            while worker.connection.poll():
                yield from self._received(worker, worker.connection.recv())
        except (EOFError, OSError, pickle.UnpicklingError):
            yield from self._died(worker)
            return
        if not worker.process.is_alive():
            yield from self._died(worker)

    def _received(self, worker: _Process, message: object) -> Iterator[Event]:
        match message:
            case Ready():
                worker.ready, self._failed_starts = True, 0
            case Refusal(error):
                raise error
            case Ask(size):
                self._asking.append((worker, size))
                self._grant()
            case GiveBack():
                worker.granted = 0
                self._grant()
            case Ended(outcome):
                del worker.jobs[outcome.key]
                worker.alone = worker.alone and bool(worker.jobs)
                deaths = self._deaths.pop(outcome.key, 0)
                if deaths:
                    attempts = outcome.attempts + deaths
                    message = Ended(dataclasses.replace(outcome, attempts=attempts))
                yield message
            case Started() | Progressed():
                yield message

    def _grant(self) -> None:
        """Answer those who ask, in their order; one that gets nothing holds back the others."""
        while self._asking:
            worker, size = self._asking[0]
            if self._memory is not None:
                taken = sum(other.granted for other in self._workers)
                if size <= self._memory < taken + size:
                    return
            granted = self._memory is None or size <= self._memory
            self._asking.popleft()
            worker.granted = size if granted else 0
            with contextlib.suppress(OSError):  # it has died, as the next event says
                worker.connection.send(Answer(granted, size, self._memory or 0))

    def _hand_out(self) -> None:
        free = [worker for worker in self._workers if not worker.alone]
        while self._suspects and free:
            quietest = min(free, key=lambda worker: len(worker.jobs))
            free.remove(quietest)
            if quietest.jobs:
                break  # it gets no others, so that it is soon free for a suspect
            quietest.alone = True
            self._send(quietest, self._suspects.popleft())
        free.sort(key=lambda worker: len(worker.jobs))
        for slots in range(1, SLOTS + 1):  # the first job of each before the second of any
            for worker in free:
                if self._waiting and len(worker.jobs) < slots and self._holds(self._waiting[0]):
                    self._send(worker, self._waiting.popleft())

    def _holds(self, job: Job) -> bool:
        """Whether memory holds one more scan beside those that workers have."""
        held = [other.size for worker in self._workers for other in worker.jobs.values()]
        most = self._memory
        return most is None or not held or _UNPACKED * (sum(held) + job.size) <= most

    def _send(self, worker: _Process, job: Job) -> None:
        worker.jobs[job.key] = job
        with contextlib.suppress(OSError):  # it has died, as the next event says
            worker.connection.send(job)

    def _died(self, worker: _Process) -> Iterator[Event]:
        """Replace a worker that has ended, and try its jobs again, each on its own."""
        self._end(worker)
        code = worker.process.exitcode
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts > len(self._workers) + 1:
                raise ConfigError(
                    f"workers end while they start (exit code {code}); in a script of your own, "
                    "call it below if __name__ == '__main__'; else run restore-rwkv info to see "
                    "whether the program itself works"
                )
        self._asking = deque(item for item in self._asking if item[0] is not worker)
        for job in worker.jobs.values():
            deaths = self._deaths.get(job.key, 0) + worker.ready
            if deaths < MOST_DEATHS:
                self._deaths[job.key] = deaths
                self._suspects.append(job)
            else:
                self._deaths.pop(job.key)
                yield Ended(_killed(job, code, deaths, worker.process.pid))
        self._workers[self._workers.index(worker)] = self._start()
        self._grant()

    def _end(self, worker: _Process) -> None:
        """End a process, and remove what its jobs have left."""
        if worker.process.is_alive():
            worker.process.terminate()
            worker.process.join(_SECONDS_TO_END)
        if worker.process.is_alive():
            worker.process.kill()
        worker.process.join()
        worker.connection.close()
        for job in worker.jobs.values():
            remove_partial(job)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Have processes that the block starts never see Ctrl-C, not even before they ignore it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing.resource_tracker import ensure_running

    ensure_running()  # else the first start of a process starts it, which ends the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def remove_partial(job: Job) -> None:
    """Remove what a killed process has left of the output of a job on this disk."""
    path = Path(job.target)
    if not path.parent.is_dir():
        return
    record = Target(path, job.is_series, OutputOptions()).record
    with contextlib.suppress(Exception), claimed(path, record):
        pass  # which removes what a killed process has left


def _killed(job: Job, code: int | None, attempts: int, pid: int | None) -> Outcome:
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    why = ", as a rule because memory ran out" if code in (-9, 137) else ""
    return Outcome(
        key=job.key,
        state="failed",
        kind="system",
        reason=f"{job.name}: ends its worker ({how}{why}); free memory, or restore it on its own",
        bytes_read=job.size,
        attempts=attempts,
        worker=f"{platform.node()}:{pid or os.getpid()}",
    )
