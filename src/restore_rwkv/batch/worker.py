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
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from restore_rwkv.batch.job import Job, Outcome
from restore_rwkv.batch.staging import in_terms_of, staged
from restore_rwkv.batch.thumbnail import thumbnail
from restore_rwkv.errors import InputError, NoMemoryError, RestoreError, kind_of_error, message_of
from restore_rwkv.io import (
    OutputOptions,
    Progress,
    Target,
    Volume,
    claimed,
    identify,
    identify_output,
    read_volume,
    read_volumes,
    record_values,
)
from restore_rwkv.io.outputs import OutputType
from restore_rwkv.model import read_info
from restore_rwkv.restoration import (
    FileRequest,
    Plan,
    Restored,
    RestoreOptions,
    Restorer,
    restore_file,
)
from restore_rwkv.tasks import get_task

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
            made = self._made_before(job)
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

    def _made_before(self, job: Job) -> Outcome | None:
        """Return the outcome of a job whose output is there already; None if it is not.

        Raises:
            InputError: an output of that name was made in another way.
        """
        target = Path(job.target)
        if not target.exists():
            _drop_orphan(job)
            return None
        with claimed(target, _record_path(job)):  # which removes what a killed process has left
            return self._adopted(job, target)

    def _adopted(self, job: Job, target: Path) -> Outcome:
        record = _record_beside(job)
        try:
            weights = read_info(self._restorer.weights_of(get_task(str(record.get("task")))))
        except RestoreError:
            weights = None
        asked = _comparable(dataclasses.asdict(self.settings.options))
        same = (
            weights is not None
            and record.get("weights_sha256") == weights.sha256
            and _comparable(record.get("options") or {}) == asked
            and record.get("dtype") == self.settings.dtype
            and record.get("keep_nan") == self.settings.keep_nan
            and record.get("output_sha256") == identify_output(target, target.name).output_sha256
        )
        if same:
            before = next(iter(_volumes(job)))
            source = identify(before)
            if source is not None and record.get("source_sha256") == source.source_sha256:
                return self._kept(job, record, before)
        raise InputError(
            f"{target}: exists already, and its record does not say that it was made from this "
            "scan with these weights and options; remove it, or name another folder"
        )

    def _kept(self, job: Job, record: Mapping[str, Any], before: Volume) -> Outcome:
        image = None
        if self.settings.thumbnails:
            image = _picture(partial(_picture_of_file, job, record, before), job.name)
        return Outcome(
            key=job.key,
            state="skipped",
            network_seconds=float(record["seconds"]),
            bytes_read=job.size,
            bytes_written=_written(job),
            record=record,
            thumbnail=image,
        )


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
            image = partial(thumbnail, plan.volume, restored.volume, plan.axis, plan.task.modality)
            notes.thumbnail = _picture(image, plan.volume.name)
        return restored


def _picture(make: Callable[[], bytes], name: str) -> bytes | None:
    """Return a thumbnail; None where it cannot be made, which is no fault of the result."""
    try:
        return make()
    except Exception:
        _logger.info("%s: has no picture in the overview", name, exc_info=True)
        return None


def _picture_of_file(job: Job, record: Mapping[str, Any], before: Volume) -> bytes:
    after = read_volume(job.target, volume=None if record.get("volumes", 1) == 1 else 0)
    return thumbnail(before, after, int(record["slice_axis"]), record.get("modality"))


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


def _volumes(job: Job) -> Iterator[Volume]:
    source = Path(job.source)
    files = [source / name for name in job.files]
    return iter(read_volumes(source, series=job.series, files=files))


def _drop_orphan(job: Job) -> None:
    """Remove the record of an output that is gone, or that a killed process did not come to."""
    record = _record_beside(job)
    if "source_sha256" in record and record.get("output") == Path(job.target).name:
        with claimed(job.target, _record_path(job)):
            if not os.path.lexists(job.target):
                _record_path(job).unlink(missing_ok=True)


def _record_path(job: Job) -> Path:
    return Target(Path(job.target), job.is_series, OutputOptions()).record


def _record_beside(job: Job) -> Mapping[str, Any]:
    """Values of the record of a job's output; empty where it cannot be read."""
    try:
        values = json.loads(_record_path(job).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _comparable(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options that decide on the values of a result, as JSON has them."""
    kept = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    plain: Mapping[str, Any] = json.loads(json.dumps(kept))
    return plain


# A result in other tiles, after memory ran out, is no reason to compute it again; the others decide
# what is refused.
_WITHOUT_EFFECT = ("memory", "force", "strict")


def _done(job: Job, restored: Restored, image: bytes | None, attempts: int) -> Outcome:
    return Outcome(
        key=job.key,
        state="done",
        network_seconds=restored.record.seconds,
        bytes_read=job.size,
        bytes_written=_written(job),
        record=json.loads(json.dumps(record_values(restored.record))),  # as its file is read
        thumbnail=image,
        attempts=attempts,
    )


def _written(job: Job) -> int:
    """Bytes of a job's output and its record."""
    path = Path(job.target)
    files = [*path.iterdir()] if job.is_series else [path]
    return sum(file.stat().st_size for file in (*files, _record_path(job)))


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
