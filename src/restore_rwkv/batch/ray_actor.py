"""A worker on a node of a Ray cluster, and the messages between it and the batch."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import platform
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from restore_rwkv.batch.engine import Progressed, Report, Started
from restore_rwkv.batch.job import Job, Outcome
from restore_rwkv.batch.storage import is_url, plain
from restore_rwkv.batch.worker import Worker, WorkerSettings
from restore_rwkv.errors import ConfigError, NoMemoryError, RestoreError

LARGEST_OUTCOME = 1 << 20
"""Bytes of an outcome on its way; longer ones come without what is least needed, see `bounded`."""

_LISTS = ("source_files", "output_files", "sop_instance_uids", "each_volume", "warnings")
_SECONDS_OF_A_CALL = 5.0  # after which `news` returns without any
_SWITCH_SECONDS = 0.0005  # as in `process.py`
_SECONDS_TO_SEE = 10.0  # until a new file is seen through a network file system


@dataclass(frozen=True)
class Terms:
    """What a node has to agree with; plain values.

    Attributes:
        software: version of this program that the batch runs.
        torch: that of PyTorch.
        mark: path of a file in the folder of the outputs, which every node has to see; None where
            they go to a store.
        memory: bytes that the worker may take; None for no bound.
    """

    software: str
    torch: str
    mark: str | None
    memory: int | None

    @classmethod
    def of_this_process(cls, mark: str | None, memory: int | None) -> Terms:
        """Return the terms of the batch that this process runs."""
        return cls(version("restore-rwkv"), version("torch"), mark, memory)


@dataclass(frozen=True)
class Begun:
    """A worker has started, or cannot.

    Attributes:
        process: its host and process.
        error: why it cannot start.
    """

    process: str
    error: RestoreError | None = None


class RayWorker:
    """The class of the actors: a `Worker` that runs several jobs in threads of their own."""

    def __init__(self, settings: WorkerSettings, terms: Terms) -> None:
        self._settings, self._terms = settings, terms
        self._worker: Worker | None = None
        self._news: list[Started | Progressed] = []
        self._changed = threading.Condition()

    def begin(self) -> Begun:
        """Check the node, and read the weights."""
        process = f"{platform.node()}:{os.getpid()}"
        sys.setswitchinterval(_SWITCH_SECONDS)
        logging.getLogger().addHandler(logging.NullHandler())  # the records keep what is warned of
        warnings.simplefilter("ignore")
        try:
            self._check()
            self._worker = Worker(self._settings, self._leave)
        except RestoreError as error:
            return Begun(process, error)
        return Begun(process)

    def run(self, job: Job) -> Outcome:
        """Restore a scan; see `Worker.run`."""
        assert self._worker is not None
        missing = _missing(job)
        if missing is not None:
            return dataclasses.replace(missing, worker=self._worker.name)
        self.tell(Started(job.key))
        return bounded(self._worker.run(job, Report(job.key, self.tell)))

    def news(self) -> list[Started | Progressed]:
        """Return what has happened since the last call; wait a while for the first of it."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._news), _SECONDS_OF_A_CALL)
            news, self._news = self._news, []
        return news

    def tell(self, event: Started | Progressed) -> None:
        """Note an event, over an older one of the same job that nobody has asked for yet."""
        with self._changed:
            if isinstance(event, Progressed):
                self._news = [
                    old
                    for old in self._news
                    if isinstance(old, Started) or (old.key, old.stage) != (event.key, event.stage)
                ]
            self._news.append(event)
            self._changed.notify()

    def _check(self) -> None:
        ours = Terms.of_this_process(None, None)
        for name, here, there in (
            ("restore-rwkv", ours.software, self._terms.software),
            ("torch", ours.torch, self._terms.torch),
        ):
            if here != there:
                raise ConfigError(
                    f"{platform.node()}: has {name} {here}, and the batch {there}, so that results "
                    "could differ; install the same version on every node"
                )
        if self._terms.mark is not None and not _comes_into_sight(Path(self._terms.mark)):
            raise ConfigError(
                f"{platform.node()}: does not see {Path(self._terms.mark).parent}; name a folder "
                "that every node mounts, or a URL such as s3://bucket/restored"
            )

    @contextmanager
    def _leave(self, size: int) -> Iterator[None]:
        memory = self._terms.memory
        if memory is not None and size > memory:
            raise NoMemoryError(
                f"memory: the scan takes {size / 2**30:.1f} GiB, and a worker may take "
                f"{memory / 2**30:.1f} GiB; allow more"
            )
        yield


def bounded(outcome: Outcome) -> Outcome:
    """Return an outcome of at most `LARGEST_OUTCOME` bytes.

    A longer one comes without its thumbnail; if that is not enough, without the lists of files and
    volumes in its record and with the end of its traceback only. The record on disk has them all.
    """
    if _size(outcome) > LARGEST_OUTCOME:
        outcome = dataclasses.replace(outcome, thumbnail=None)
    if _size(outcome) > LARGEST_OUTCOME:
        record: dict[str, Any] | None = None
        if outcome.record is not None:
            record = {name: value for name, value in outcome.record.items() if name not in _LISTS}
        most = LARGEST_OUTCOME // 16
        outcome = dataclasses.replace(
            outcome, record=record, reason=outcome.reason[:most], details=outcome.details[-most:]
        )
    return outcome


def _size(outcome: Outcome) -> int:
    return len(pickle.dumps(outcome))


def _missing(job: Job) -> Outcome | None:
    """Return an outcome where this node does not see a scan; None where it does."""
    source = plain(job.source)
    if is_url(source) or os.path.lexists(source):
        return None
    return Outcome(
        key=job.key,
        state="failed",
        kind="system",
        reason=f"{source}: is not there on {platform.node()}; give a folder that every node "
        "mounts, or a URL such as s3://bucket/scans",
        bytes_read=job.size,
    )


def _comes_into_sight(path: Path) -> bool:
    end = time.monotonic() + _SECONDS_TO_SEE
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
