"""One worker: restores one scan after the other, and turns every fault into an outcome."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import platform
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from restore_rwkv.batch.adoption import made_before, written_bytes
from restore_rwkv.batch.job import Job, Outcome
from restore_rwkv.batch.staging import in_terms_of, staged
from restore_rwkv.errors import NoMemoryError, kind_of_error, message_of
from restore_rwkv.io import (
    OutputOptions,
    Progress,
    Target,
    record_values,
)
from restore_rwkv.io.outputs import OutputType
from restore_rwkv.restoration import (
    FileRequest,
    Plan,
    Restored,
    RestoreOptions,
    Restorer,
    restore_file,
)
from restore_rwkv.restoration.thumbnail import thumbnail_or_none

_logger = logging.getLogger(__name__)
_MOST_ATTEMPTS = 4  # each with half the memory of the one before, the last with the least
_HELD = 2  # volumes in memory beside the one that is computed: one being read, one written

Leave = Callable[[int], AbstractContextManager[None]]
"""Waits until so many bytes may be taken, and gives them back at the end of its block."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """How scans are restored; plain values, which are sent to workers.

    Attributes:
        task: as for `Restorer`.
        weights: as for `Restorer`.
        device: as for `Restorer`.
        options: as for `Restorer.file`.
        dtype: as for `Restorer.file`.
        keep_nan: as for `Restorer.file`.
        threads: of the network on a CPU; 0 for all cores.
        thumbnails: whether outcomes have a thumbnail.
    """

    task: str = "auto"
    weights: str | None = None
    device: str = "auto"
    options: RestoreOptions = field(default_factory=RestoreOptions)
    dtype: OutputType = "auto"
    keep_nan: bool = False
    threads: int = 0
    thumbnails: bool = True


@dataclass
class _Notes:
    """What is noted while one scan is restored.

    Attributes:
        activations: bytes that the network's activations take by the plan.
        least: bytes that they would take in the smallest tiles.
        thumbnail: of the first volume.
    """

    activations: int = 0
    least: int = 0
    thumbnail: bytes | None = None


class Worker:
    """Restores scans; weights are read once. Several threads may call `run` at the same time.

    Then one reads, another one computes, and a third one writes; the network runs for one of them
    at a time.

    Args:
        settings: how scans are restored.
        leave: asked before the network runs with the bytes that the scan takes.

    Raises:
        ConfigError: as `Restorer`.
        WeightsError: as `Restorer`.
    """

    def __init__(self, settings: WorkerSettings, leave: Leave | None = None) -> None:
        self.settings = settings
        self._restorer = _Turns(settings, leave or (lambda _: nullcontext()))
        self.name = f"{platform.node()}:{os.getpid()}"
        if settings.threads:
            import torch

            torch.set_num_threads(settings.threads)

    def run(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Restore a scan and write it with its record.

        An output that exists already and was made from this very scan with these weights and
        options is kept (state "skipped"). Where memory runs out, the scan is tried again with
        smaller batches, then smaller tiles. Of a job with URLs see `staged`. No fault of a scan is
        raised.
        """
        start = time.perf_counter()
        try:
            with staged(job, progress) as local:
                outcome = self._outcome(local, progress)
                reason = in_terms_of(job, local, outcome.reason)
        except Exception as error:
            outcome = _faulty(job, error, 1)
            reason = outcome.reason
        seconds = round(time.perf_counter() - start, 3)
        return dataclasses.replace(outcome, reason=reason, seconds=seconds, worker=self.name)

    def _outcome(self, job: Job, progress: Progress | None) -> Outcome:
        notes = _Notes()
        attempt, options = 1, self.settings.options
        try:
            made = made_before(job, self.settings, self._restorer.weights_of)
            if made is not None:
                return made
        except Exception as error:
            return _faulty(job, error, attempt)
        shortage: BaseException | None = None
        while True:
            try:
                with self._restorer.noting(notes):
                    restored = restore_file(self._restorer, _request(job, self, options), progress)
            except (NoMemoryError, MemoryError) as error:
                shortage = shortage or error
                if attempt == _MOST_ATTEMPTS or notes.activations <= notes.least:
                    return _faulty(job, shortage, attempt)
                attempt += 1
                half = notes.activations // 2 if attempt < _MOST_ATTEMPTS else 0
                options = dataclasses.replace(options, memory=max(half, notes.least))
                _logger.warning("%s: out of memory, tried again with less", job.name)
            except Exception as error:
                return _faulty(job, shortage or error, attempt)
            else:
                return _done(job, restored, notes.thumbnail, attempt)


class _Turns(Restorer):
    """A restorer whose threads compute in turn, each with leave to take its memory."""

    def __init__(self, settings: WorkerSettings, leave: Leave) -> None:
        super().__init__(settings.task, settings.weights, settings.device)
        self._thumbnails = settings.thumbnails
        self._leave = leave
        self._turn = threading.Lock()
        self._local = threading.local()

    @contextmanager
    def noting(self, notes: _Notes) -> Iterator[None]:
        """Note within the block what this thread does."""
        self._local.notes = notes
        yield

    def run_plan(self, plan: Plan, progress: Progress | None = None) -> Restored:
        """Restore the volume of a plan when its turn comes; otherwise as `Restorer.run_plan`."""
        notes: _Notes = self._local.notes
        notes.activations, notes.least = plan.tiling.memory, self.least_memory(plan)
        needed = plan.memory + _HELD * plan.volume.data.nbytes
        with self._turn, self._leave(needed):
            restored = super().run_plan(plan, progress)
        if self._thumbnails and notes.thumbnail is None:
            volumes = plan.volume, restored.volume
            notes.thumbnail = thumbnail_or_none(*volumes, plan.axis, plan.task.modality)
        return restored


def _request(job: Job, worker: Worker, options: RestoreOptions) -> FileRequest:
    how = OutputOptions(dtype=worker.settings.dtype, keep_nan=worker.settings.keep_nan)
    source = Path(job.source)
    return FileRequest(
        source=source,
        series=job.series,
        target=Target(Path(job.target), job.is_series, how),
        options=options,
        files=[source / name for name in job.files],
    )


def _done(job: Job, restored: Restored, image: bytes | None, attempts: int) -> Outcome:
    return Outcome(
        key=job.key,
        state="done",
        network_seconds=restored.record.seconds,
        bytes_read=job.size,
        bytes_written=written_bytes(job),
        record=json.loads(json.dumps(record_values(restored.record))),  # as its file is read
        thumbnail=image,
        attempts=attempts,
    )


def _faulty(job: Job, error: BaseException, attempts: int) -> Outcome:
    kind = kind_of_error(error)
    state: Literal["failed", "refused"] = "failed" if kind in ("system", "bug") else "refused"
    bug = kind == "bug"
    return Outcome(
        key=job.key,
        state=state,
        kind=kind,
        reason=message_of(error)
        or f"a bug in restore-rwkv, please report it: {type(error).__name__}: {error}",
        bytes_read=job.size,
        attempts=attempts,
        details="".join(traceback.format_exception(error)) if bug else "",
    )
