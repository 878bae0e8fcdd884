"""A whole batch: finds scans, has them restored, and keeps every outcome."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from restore_rwkv.batch.engine import Ended, Engine, Progressed, Started
from restore_rwkv.batch.find import FoundJob, share
from restore_rwkv.batch.job import Job, Outcome
from restore_rwkv.batch.manifest import Manifest
from restore_rwkv.batch.worker import WorkerSettings
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import claimed

MANIFEST = "manifest.sqlite"
_WAIT_SECONDS = 0.25
_WITHOUT_EFFECT = ("threads", "thumbnails", "device")


class Listener(Protocol):
    """Is told how a batch goes on."""

    def found(self, number: int) -> None:
        """Say that so many scans have been found until now."""

    def begun(self, waiting: int, finished: int) -> None:
        """Say that all are found: those to restore, and those that an earlier run finished."""

    def started(self, job: Job) -> None:
        """Say that a scan is begun."""

    def progressed(self, job: Job, news: Progressed) -> None:
        """Say that a scan goes on."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Say that a scan has ended, for good."""

    def waited(self) -> None:
        """Say that time has passed, a few times a second."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a batch has ended.

    Attributes:
        counts: number of scans by state; "skipped" are those that an earlier run finished.
        seconds: that it took.
        network_seconds: that the network took for all that were restored now.
        bytes_read: of these.
        bytes_written: of these.
        waiting: scans that it did not come to.
    """

    counts: Mapping[str, int]
    seconds: float
    network_seconds: float
    bytes_read: int
    bytes_written: int
    waiting: int = 0

    @property
    def faults(self) -> int:
        """Number of scans without a restored one."""
        return self.counts["refused"] + self.counts["failed"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of several shares of a batch, each on a machine of its own.

    Attributes:
        number: from 1.
        count: of all.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ConfigError(
                f"part {self.number}/{self.count} does not exist; give K/N with K from 1 to N"
            )

    @property
    def manifest(self) -> str:
        """File name of its manifest."""
        return f"manifest-{self.number}-of-{self.count}.sqlite"


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """What a batch is to do.

    Attributes:
        output: folder of the outputs and the manifest; missing folders are made.
        settings: how scans are restored.
        resume: go on with the batch that this folder holds.
        part: the share of it; None for all.
        after: called once a scan is restored and before that is noted in the manifest, such as
            to write a further file beside it.
    """

    output: Path
    settings: WorkerSettings
    resume: bool = False
    part: Part | None = None
    after: Callable[[Job, Outcome], None] | None = None

    @property
    def manifest(self) -> Path:
        """Path of the manifest."""
        return self.output / (MANIFEST if self.part is None else self.part.manifest)

    def check(self) -> None:
        """Check before anything is searched or started that the batch may begin.

        Raises:
            InputError: the folder holds a batch, and `resume` is false.
        """
        if self.output.exists() and not self.output.is_dir():
            raise InputError(f"{self.output}: is a file; name a folder for the outputs")
        if self.manifest.exists() and not self.resume:
            raise InputError(
                f"{self.manifest}: the folder holds a batch already; give resume=True to go on "
                "with it, or name another folder"
            )


def run_batch(
    request: BatchRequest,
    find: Callable[[], Iterable[FoundJob]],
    engine: Callable[[], Engine],
    listener: Listener,
) -> Summary:
    """Restore every scan that is found; a fault of one never stops the others.

    The manifest in the output knows every scan and its outcome; after a kill, the same call with
    `resume` goes on. A scan that is done is not restored again, unless its output is gone.

    Args:
        request: what to do.
        find: finds the scans.
        engine: starts the workers; called before `find`, so that they start meanwhile.
        listener: is told how it goes on.

    Returns:
        Counts and times.

    Raises:
        InputError: as `BatchRequest.check` and `find`; another process writes the manifest; or it
            is of a batch with other settings.
        ConfigError: the settings cannot be used.
        OSError: the manifest cannot be written.
    """
    request.check()
    with claimed(request.manifest), Manifest(request.manifest) as manifest:
        settings = _settings(request)
        _check_settings(manifest, settings, request.manifest)
        manifest.begin(settings)
        with closing(engine()) as running:
            batch = _Batch(request, manifest, running, listener)
            batch.find(find())
            batch.run()
        manifest.end()
        return batch.summary()


@dataclass
class _Batch:
    """A batch that runs.

    Attributes:
        request: what to do.
        manifest: what is known of it on disk.
        engine: the workers.
        listener: is told how it goes on.
        waiting: jobs that no worker has yet.
        running: jobs that a worker has, by their keys.
        ended: outcomes of this run, without their records and pictures.
        skipped: number of scans that an earlier run finished.
    """

    request: BatchRequest
    manifest: Manifest
    engine: Engine
    listener: Listener
    waiting: deque[Job] = field(default_factory=deque)
    running: dict[str, Job] = field(default_factory=dict)
    ended: list[Outcome] = field(default_factory=list)
    skipped: int = 0
    began: float = field(default_factory=time.perf_counter)

    def find(self, found: Iterable[FoundJob]) -> None:
        """Note all scans in the manifest, and which of them are to be restored."""
        if self.request.part is not None:
            found = share(found, self.request.part.number, self.request.part.count)
        finished = self.manifest.finished()
        rows: list[tuple[int, Job, int]] = []
        faults: list[Outcome] = []
        for place, one in enumerate(found):
            self.listener.found(place + 1)
            before = finished.get(one.job.key)
            if before is not None and not os.path.exists(one.job.target):
                self.manifest.forget(one.job.key)
                before = None
            rows.append((place, one.job, one.modified))
            if before is not None:
                fault = _changed(one, before)
                self.skipped += not fault
            else:
                fault = one.fault
            if fault:
                faults.append(_refused(one.job, fault))
            elif before is None:
                self.waiting.append(one.job)
        self.manifest.add(rows)
        self.listener.begun(len(self.waiting) + len(faults), self.skipped)
        jobs = {job.key: job for _, job, _ in rows}
        for outcome in faults:
            self._keep(jobs[outcome.key], outcome)

    def run(self) -> None:
        """Have all scans restored."""
        while self.waiting or self.running:
            for _ in range(min(self.engine.room, len(self.waiting))):
                job = self.waiting.popleft()
                self.running[job.key] = job
                self.engine.submit(job)
            for event in self.engine.events(_WAIT_SECONDS):
                match event:
                    case Started(key):
                        self.listener.started(self.running[key])
                    case Progressed(key):
                        self.listener.progressed(self.running[key], event)
                    case Ended(outcome):
                        self._keep(self.running.pop(outcome.key), outcome)
            self.listener.waited()

    def _keep(self, job: Job, outcome: Outcome) -> None:
        if self.request.after is not None and not outcome.is_fault:
            self.request.after(job, outcome)
        self.manifest.keep(outcome)
        self.ended.append(dataclasses.replace(outcome, record=None, thumbnail=None))
        self.listener.ended(job, outcome)

    def summary(self) -> Summary:
        """Return counts and times."""
        counts = {state: 0 for state in ("done", "skipped", "refused", "failed")}
        for outcome in self.ended:
            counts[outcome.state] += 1
        counts["skipped"] += self.skipped
        now = [outcome for outcome in self.ended if outcome.state == "done"]
        return Summary(
            counts=counts,
            seconds=round(time.perf_counter() - self.began, 3),
            network_seconds=round(sum(outcome.network_seconds for outcome in now), 3),
            bytes_read=sum(outcome.bytes_read for outcome in now),
            bytes_written=sum(outcome.bytes_written for outcome in now),
            waiting=len(self.waiting) + len(self.running),
        )


def _changed(found: FoundJob, before: tuple[str, int, int]) -> str:
    """Why a finished scan is not what it was; empty where it is."""
    target, size, modified = before
    if (size, modified) == (found.job.size, found.modified):
        return ""
    return (
        f"{found.job.name}: has changed since it was restored; remove {target} to have it restored "
        "again"
    )


def _refused(job: Job, fault: str) -> Outcome:
    return Outcome(key=job.key, state="refused", kind="input", reason=fault, bytes_read=job.size)


def _settings(request: BatchRequest) -> dict[str, Any]:
    """Settings that decide on the values of the outputs, and the digest of given weights."""
    values = dataclasses.asdict(request.settings)
    kept = {name: value for name, value in values.items() if name not in _WITHOUT_EFFECT}
    return kept


def _check_settings(manifest: Manifest, settings: Mapping[str, Any], path: Path) -> None:
    before = manifest.settings()
    if before is None:
        return
    differing = sorted(name for name in settings if before.get(name) != settings[name])
    if differing:
        raise InputError(
            f"{path}: the batch was begun with another {' and '.join(differing)}; give the same, "
            "or name another folder"
        )
