"""A whole batch: finds scans, has them restored, and keeps every outcome."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Protocol, get_args

from restore_rwkv.batch.engine import Ended, Engine, Progressed, Started
from restore_rwkv.batch.find import FoundJob, share
from restore_rwkv.batch.job import Job, Outcome, State
from restore_rwkv.batch.manifest import Finished, Manifest, printable
from restore_rwkv.batch.request import BatchRequest, check_settings, settings_of
from restore_rwkv.errors import kind_of_error, message_of
from restore_rwkv.io import claimed

_WAIT_SECONDS = 0.25


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
        found: number of all scans in the trees, those of other parts too.
    """

    counts: Mapping[str, int]
    seconds: float
    network_seconds: float
    bytes_read: int
    bytes_written: int
    found: int = 0

    @property
    def faults(self) -> int:
        """Number of scans without a restored one."""
        return self.counts["refused"] + self.counts["failed"]


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
    with _opened(request.manifest) as manifest:
        settings = settings_of(request)
        check_settings(manifest, settings)
        manifest.begin(settings)
        for path in request.parts:
            with claimed(path), Manifest(path) as part:
                check_settings(part, settings)
                manifest.take_over(part)
        with closing(engine()) as running:
            batch = _Batch(request, manifest, running, listener)
            batch.find(find())
            batch.run()
        manifest.end()
        return batch.summary()


@contextmanager
def _opened(path: Path) -> Iterator[Manifest]:
    """Open a manifest for this process; after an error, a new one without a scan is removed."""
    used = path.exists()
    with claimed(path):
        try:
            with Manifest(path) as manifest:
                try:
                    yield manifest
                finally:
                    used = used or bool(manifest.counts())
        except BaseException:
            if not used:  # so that the corrected command needs no `resume`
                path.unlink(missing_ok=True)
            raise


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
        counts: number of scans by state; those that an earlier run finished are "skipped".
        network_seconds: of the scans that are done.
        bytes_read: likewise.
        bytes_written: likewise.
        found: number of scans, those of other parts too.
    """

    request: BatchRequest
    manifest: Manifest
    engine: Engine
    listener: Listener
    waiting: deque[Job] = field(default_factory=deque)
    running: dict[str, Job] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    network_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    found: int = 0
    began: float = field(default_factory=time.perf_counter)

    def find(self, found: Iterable[FoundJob]) -> None:
        """Note all scans in the manifest, and which of them are to be restored."""
        finished = self.manifest.finished()
        targets = {one.target for one in finished.values()}
        rows: list[tuple[int, Job, int]] = []
        again: list[str] = []
        faults: list[tuple[Job, str]] = []
        for place, one in enumerate(self._share(found)):
            self.listener.found(place + 1)
            job, before = one.job, finished.get(one.job.key)
            if before is not None and self._is_finished(one, before):
                self.counts["skipped"] += 1
                rows.append((place, dataclasses.replace(job, target=before.target), one.modified))
                continue
            rows.append((place, job, one.modified))
            if before is not None:
                again.append(job.key)
                targets.discard(before.target)
            fault = one.fault or _inside_another(job, targets)
            if fault:
                faults.append((job, fault))
            else:
                self.waiting.append(job)
        self.manifest.add(rows, again)
        self.listener.begun(len(self.waiting) + len(faults), self.counts["skipped"])
        for job, fault in faults:
            self._keep(job, _refused(job, fault))

    def _share(self, found: Iterable[FoundJob]) -> Iterable[FoundJob]:
        counted = self._counted(found)
        part = self.request.part
        return counted if part is None else share(counted, part.number, part.count)

    def _counted(self, found: Iterable[FoundJob]) -> Iterator[FoundJob]:
        for one in found:
            self.found += 1
            yield one

    def _is_finished(self, found: FoundJob, before: Finished) -> bool:
        """Whether a scan has its output and is what it was; else a worker looks at its content."""
        target = found.job.target
        if printable(target) != before.target:  # named otherwise, as others have come to the tree
            target = before.target
        source = printable(found.job.source)  # another tree may have the same names, and times
        now = (source, found.job.size, found.modified)
        same = (before.source, before.size, before.modified) == now
        return same and self.request.exists(target)

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
            try:
                self.request.after(job, outcome)
            except Exception as error:
                outcome = _failed_after(outcome, error)
        self.manifest.keep(outcome)
        self.counts[outcome.state] += 1
        if outcome.state == "done":
            self.network_seconds += outcome.network_seconds
            self.bytes_read += outcome.bytes_read
            self.bytes_written += outcome.bytes_written
        self.listener.ended(job, outcome)

    def summary(self) -> Summary:
        """Return counts and times."""
        return Summary(
            counts={state: self.counts[state] for state in get_args(State)},
            seconds=round(time.perf_counter() - self.began, 3),
            network_seconds=round(self.network_seconds, 3),
            bytes_read=self.bytes_read,
            bytes_written=self.bytes_written,
            found=self.found,
        )


def _inside_another(job: Job, targets: Collection[str]) -> str:
    """Why an output would come into a finished series; empty where it would not."""
    above = next((str(path) for path in PurePath(job.target).parents if str(path) in targets), "")
    if not above:
        return ""
    return (
        f"{job.name}: its output would lie in {above}, that of another scan, as the tree has "
        "grown; name another folder"
    )


def _failed_after(outcome: Outcome, error: Exception) -> Outcome:
    """Outcome of a scan that was restored, but whose further file could not be written."""
    kind = kind_of_error(error)
    return dataclasses.replace(
        outcome,
        state="refused" if kind == "input" else "failed",
        kind=kind,
        reason=message_of(error) or f"{type(error).__name__}: {error}",
    )


def _refused(job: Job, fault: str) -> Outcome:
    return Outcome(key=job.key, state="refused", kind="input", reason=fault, bytes_read=job.size)
