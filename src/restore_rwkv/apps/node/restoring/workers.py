"""Series on their way through the network: pools of processes, one for each way of restoring."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.apps.node.config import NodeConfig
from restore_rwkv.apps.node.queueing.entries import Entry
from restore_rwkv.apps.node.rules import Rule
from restore_rwkv.errors import RestoreError

if TYPE_CHECKING:
    from restore_rwkv.batch.engine import Engine
    from restore_rwkv.batch.job import Job, Outcome
    from restore_rwkv.batch.worker import WorkerSettings

_IDLE_SECONDS = 600.0
_OF_FREE = 0.8  # of the free memory, that the workers of a pool may take
_SLICE = 0.2  # seconds to wait for the events of one pool, where there are several

EngineOf = Callable[["WorkerSettings", int], "Engine"]
"""Starts so many workers with these settings."""


@dataclass(frozen=True)
class Restoration:
    """A series that is being restored.

    Attributes:
        entry: of the queue.
        rule: that decided.
        target: folder of the derived series.
        adopts: whether the target was there before, from a process that was killed.
    """

    entry: Entry
    rule: Rule
    target: Path
    adopts: bool


class Restoring:
    """Gives series to workers, and collects what came of them.

    Rules that restore in the same way share a pool. A pool that has nothing to do for a while is
    closed, which frees its memory.

    Args:
        config: of the node.
        engine_of: starts workers; a local pool by default.
    """

    def __init__(self, config: NodeConfig, engine_of: EngineOf | None = None) -> None:
        self._config = config
        self._engine_of = engine_of or partial(_local_pool, config.max_memory)
        self._engines: dict[WorkerSettings, Engine] = {}
        self._used: dict[WorkerSettings, float] = {}
        self._running: dict[str, tuple[Restoration, WorkerSettings]] = {}
        self._fault: str | None = None

    @property
    def room(self) -> bool:
        """Whether another series can be taken: two for each process, so that none waits to read."""
        return len(self._running) < 2 * self._config.jobs

    @property
    def running(self) -> int:
        """Number of series that are being restored."""
        return len(self._running)

    @property
    def fault(self) -> str | None:
        """Why workers do not start; None where they do."""
        return self._fault

    def start(self, entry: Entry, rule: Rule, source: Path, files: list[Path]) -> None:
        """Give a series to a worker.

        Args:
            entry: of the queue.
            rule: that decided.
            source: folder of the files.
            files: of the series, in `source`.

        Raises:
            RestoreError: the settings cannot be used.
            OSError: the workers cannot be started, or the disk does not work.
        """
        from restore_rwkv.batch.job import Job

        target = derived_folder(self._config.folder) / entry.key
        target.parent.mkdir(parents=True, exist_ok=True)
        adopts = target.is_dir() and _record(target).is_file()
        if not adopts:  # a process was killed between the two
            remove_derived(target)
        job = Job(
            key=entry.key,
            name=entry.key,
            source=str(source),
            series=entry.series_uid,
            files=tuple(str(file.relative_to(source)) for file in files),
            target=str(target),
            is_series=True,
            size=entry.bytes,
        )
        self._submit(job, Restoration(entry, rule, target, adopts))

    def _submit(self, job: Job, restoration: Restoration) -> None:
        settings = _settings(restoration.rule, self._config)
        if settings not in self._engines:
            self._engines[settings] = self._engine_of(settings, self._config.jobs)
        self._used[settings] = time.monotonic()
        self._running[job.key] = (restoration, settings)
        try:
            self._engines[settings].submit(job)
        except BaseException:
            del self._running[job.key]
            raise

    def ended(self, timeout: float) -> Iterator[tuple[Restoration, Outcome]]:
        """Give what has come of series since the last call.

        Args:
            timeout: seconds to wait for the first, where any is being restored.
        """
        for settings, engine in list(self._engines.items()):
            busy = any(settings == other for _, other in self._running.values())
            if busy:
                wait = timeout if len(self._engines) == 1 else min(timeout, _SLICE)
                yield from self._of_engine(settings, engine, wait)
            elif time.monotonic() - self._used[settings] > _IDLE_SECONDS:
                self._drop(settings)

    def _of_engine(
        self, settings: WorkerSettings, engine: Engine, timeout: float
    ) -> Iterator[tuple[Restoration, Outcome]]:
        from restore_rwkv.batch.engine import Ended
        from restore_rwkv.batch.job import Outcome

        try:
            for event in engine.events(timeout):
                if isinstance(event, Ended):
                    self._used[settings], self._fault = time.monotonic(), None
                    restoration, _ = self._running.pop(event.outcome.key)
                    yield restoration, event.outcome
        except (RestoreError, OSError) as error:
            # The workers do not start, as after an update that failed: not the fault of a series.
            self._fault = str(error)
            self._drop(settings)
            for key, (restoration, other) in list(self._running.items()):
                if other == settings:
                    del self._running[key]
                    reason = f"no worker: {error}"
                    outcome = Outcome(key=key, state="failed", kind="system", reason=reason)
                    yield restoration, outcome

    def _drop(self, settings: WorkerSettings) -> None:
        self._engines.pop(settings).close()

    def close(self) -> None:
        """End the workers; what they were at is restored again by the next process."""
        while self._engines:
            self._engines.popitem()[1].close()


def derived_folder(folder: Path) -> Path:
    """Return the folder of the derived series, in the folder of the node."""
    return folder / "derived"


def remove_derived(target: Path) -> None:
    """Remove a derived series and its record, if they are there."""
    if target.exists():
        shutil.rmtree(target)
    _record(target).unlink(missing_ok=True)


def _record(target: Path) -> Path:
    from restore_rwkv.io import OutputOptions, Target

    return Target(target, True, OutputOptions()).record


def _settings(rule: Rule, config: NodeConfig) -> WorkerSettings:
    from restore_rwkv.batch.worker import WorkerSettings
    from restore_rwkv.restoration import RestoreOptions

    options = RestoreOptions(
        memory=config.memory,
        strength=rule.strength,
        strict=rule.fit == "fit",
        force=rule.fit == "any",
    )
    threads = max(1, (os.cpu_count() or 1) // config.jobs) if config.jobs > 1 else 0
    return WorkerSettings(
        task=rule.task,
        weights=rule.weights,
        device=config.device,
        options=options,
        threads=threads,
        thumbnails=False,
    )


def _local_pool(memory: int | None, settings: WorkerSettings, jobs: int) -> Engine:
    import torch

    from restore_rwkv.batch.pool import Pool
    from restore_rwkv.restoration.memory import free_memory

    if memory is None:
        memory = int(_OF_FREE * free_memory(torch.device("cpu")))
    return Pool(settings, jobs, memory)
