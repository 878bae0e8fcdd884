"""The process of a local worker: its messages, and its threads."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from restore_rwkv.batch.engine import Ended, Report, Started
from restore_rwkv.batch.job import Job
from restore_rwkv.batch.worker import Worker, WorkerSettings
from restore_rwkv.errors import NoMemoryError, RestoreError

_SWITCH_SECONDS = 0.0005  # a thread that reads headers may not hold up the one that computes


@dataclass(frozen=True)
class Ready:
    """The worker has started."""


@dataclass(frozen=True)
class Refusal:
    """The worker cannot start because of its settings."""

    error: RestoreError


@dataclass(frozen=True)
class Ask:
    """The worker asks for leave to take so many bytes."""

    size: int


@dataclass(frozen=True)
class Answer:
    """Leave is granted, or can never be, as `memory` is all that there is."""

    granted: bool
    size: int
    memory: int


@dataclass(frozen=True)
class GiveBack:
    """The worker has freed what it was granted."""


@dataclass(frozen=True)
class Stop:
    """The worker shall end once its jobs have."""


def serve(connection: Connection[Any, Any], settings: WorkerSettings, slots: int) -> None:
    """Run jobs until told to stop, or until the parent ends; the main function of the process.

    Args:
        connection: to the parent.
        settings: how scans are restored.
        slots: number of jobs that come at once, each run in a thread of its own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends us
    sys.setswitchinterval(_SWITCH_SECONDS)
    # The records keep what this package warns of; the terminal is the parent's.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.lastResort = None
    warnings.simplefilter("ignore")
    _Server(connection, settings).run()


class _Server:
    def __init__(self, connection: Connection[Any, Any], settings: WorkerSettings) -> None:
        self._connection, self._settings = connection, settings
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self._answer = Answer(True, 0, 0)
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        # Here, and not in the threads: modules of pydicom import each other, and a thread would see
        # one that another thread has imported in part.
        import highdicom  # noqa: F401
        import nibabel  # noqa: F401
        import pydicom  # noqa: F401

        from restore_rwkv.ops.cpu.memory import keep_freed_memory

        keep_freed_memory()
        try:
            worker = Worker(self._settings, self._leave)
        except RestoreError as error:
            self._send(Refusal(error))
            return
        self._send(Ready())
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # the parent has gone, and with it all that could wait for results
            if isinstance(message, Stop):
                break
            if isinstance(message, Answer):
                self._answer = message
                self._answered.set()
            else:
                thread = threading.Thread(target=self._work, args=(worker, message))
                thread.start()
                self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]
        for thread in self._threads:
            thread.join()

    def _work(self, worker: Worker, job: Job) -> None:
        try:
            self._send(Started(job.key))
            self._send(Ended(worker.run(job, Report(job.key, self._send))))
        except BaseException:  # the parent would wait for ever for a job that does not end
            traceback.print_exc()
            os._exit(1)

    @contextmanager
    def _leave(self, size: int) -> Iterator[None]:
        """Wait until so many bytes may be taken; one thread asks at a time."""
        self._answered.clear()
        self._send(Ask(size))
        self._answered.wait()
        answer = self._answer
        if not answer.granted:
            raise NoMemoryError(
                f"memory: the scan takes {answer.size / 2**30:.1f} GiB, and all workers may take "
                f"{answer.memory / 2**30:.1f} GiB; allow them more, or close other programs"
            )
        try:
            yield
        finally:
            self._send(GiveBack())

    def _send(self, message: object) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(1)
