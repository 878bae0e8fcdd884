"""Outputs that are there before their job: taken over only if they are what it would make."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_rwkv.batch.job import Job, Outcome
from restore_rwkv.errors import InputError, RestoreError
from restore_rwkv.io import (
    OutputOptions,
    Target,
    Volume,
    claimed,
    identify,
    identify_output,
    read_volume,
    read_volumes,
)
from restore_rwkv.model import read_info
from restore_rwkv.restoration.thumbnail import thumbnail_or_none
from restore_rwkv.tasks import Task, get_task

if TYPE_CHECKING:
    from restore_rwkv.batch.worker import WorkerSettings

# A result in other tiles, after memory ran out, is no reason to compute it again; the others decide
# what is refused.
_WITHOUT_EFFECT = ("memory", "force", "strict")


def made_before(
    job: Job, settings: WorkerSettings, weights_of: Callable[[Task], Path]
) -> Outcome | None:
    """Return the outcome of a job whose output is there already; None if it is not.

    Args:
        job: its source and target are paths.
        settings: how it would be restored.
        weights_of: the weight file of a task.

    Raises:
        InputError: an output of that name was made in another way.
        BusyError: another process writes it.
    """
    target = Path(job.target)
    if not target.exists():
        _drop_orphan(job)
        return None
    with claimed(target, _record_path(job)):  # which removes what a killed process has left
        record = _record_beside(job)
        if _is_made_so(record, settings, weights_of):
            made = identify_output(target, target.name).output_sha256
            before = _first_volume(job) if record.get("output_sha256") == made else None
            source = None if before is None else identify(before)
            if before and source and record.get("source_sha256") == source.source_sha256:
                return _kept(job, record, before if settings.thumbnails else None)
    raise InputError(
        f"{target}: exists already, and its record does not say that it was made from this "
        "scan with these weights and options; remove it, or name another folder"
    )


def written_bytes(job: Job) -> int:
    """Bytes of a job's output and its record."""
    path = Path(job.target)
    files = [*path.iterdir()] if job.is_series else [path]
    return sum(file.stat().st_size for file in (*files, _record_path(job)))


def _is_made_so(
    record: Mapping[str, Any], settings: WorkerSettings, weights_of: Callable[[Task], Path]
) -> bool:
    """Whether a record names these settings and weights; a file on disk may hold anything."""
    options = record.get("options")
    if not isinstance(options, dict) or not isinstance(record.get("seconds"), int | float):
        return False
    try:
        weights = read_info(weights_of(get_task(str(record.get("task")))))
    except RestoreError:
        return False
    asked = {"dtype": settings.dtype, "keep_nan": settings.keep_nan}
    return (
        record.get("weights_sha256") == weights.sha256
        and {name: record.get(name) for name in asked} == asked
        and _comparable(options) == _comparable(dataclasses.asdict(settings.options))
    )


def _kept(job: Job, record: Mapping[str, Any], before: Volume | None) -> Outcome:
    """Outcome of an output that is kept, with a picture where the scan is given."""
    image = None
    if before is not None:
        after = read_volume(job.target, volume=None if record.get("volumes", 1) == 1 else 0)
        image = thumbnail_or_none(before, after, record.get("slice_axis"), record.get("modality"))
    return Outcome(
        key=job.key,
        state="skipped",
        network_seconds=float(record["seconds"]),
        bytes_read=job.size,
        bytes_written=written_bytes(job),
        record=record,
        thumbnail=image,
    )


def _first_volume(job: Job) -> Volume:
    source = Path(job.source)
    files = [source / name for name in job.files]
    return next(iter(read_volumes(source, series=job.series, files=files)))


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
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _comparable(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options that decide on the values of a result, as JSON has them."""
    kept = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    plain: Mapping[str, Any] = json.loads(json.dumps(kept))
    return plain
