"""A restoration on disk: every check first, then the image and its record at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.errors import RestoreError
from restore_rwkv.io import (
    Derivation,
    DicomSource,
    OutputRecord,
    Progress,
    RestorationRecord,
    SourceRecord,
    Target,
    Volume,
    Volumes,
    begin_stage,
    claimed,
    identify,
    part_of,
    read_volumes,
    recorded_warnings,
)
from restore_rwkv.restoration.options import RestoreOptions
from restore_rwkv.restoration.plan import Plan
from restore_rwkv.restoration.recording import Restored, joined
from restore_rwkv.tasks import NOTICE

if TYPE_CHECKING:
    from restore_rwkv.restoration.restorer import Restorer


@dataclass(frozen=True, kw_only=True)
class FileRequest:
    """What is to be restored, and where to.

    Attributes:
        source: file or folder; never changed.
        series: which series of a DICOM folder with several.
        files: all files of that series where they are known; empty to search the folder.
        target: where the result goes.
        options: how it is restored.
    """

    source: Path
    series: int | str | None
    target: Target
    options: RestoreOptions
    files: Sequence[Path] = ()


def restore_file(restorer: Restorer, request: FileRequest, progress: Progress | None) -> Restored:
    """Restore a scan on disk; see `Restorer.file`."""
    target = request.target
    target.check_path(request.source)
    with recorded_warnings() as said, claimed(target.path, target.record):
        begin_stage(progress, f"reading {request.source.name}")
        volumes = read_volumes(request.source, series=request.series, files=request.files)
        first, plan = checked_plans(restorer, request, volumes)
        run = _Run(restorer, request, progress, len(volumes), identify(first), said)
        others = islice(volumes, 1, None) if len(volumes) > 1 else iter(())
        begin_stage(progress, "loading weights")
        restorer.network(plan.task)
        if target.is_series:
            restored = next(run.results(plan, others))
            record = target.write_series(restored, _derivation(plan, run.records[0]), run.record)
        else:
            record = target.write_volumes(run.results(plan, others), run.count, run.record)
    return Restored(run.first or first, record)


def checked_plans(
    restorer: Restorer, request: FileRequest, volumes: Volumes
) -> tuple[Volume, Plan]:
    """Return the first volume of a file with its plan, after a check of the output and of all.

    Raises:
        RestoreError: as `Restorer.plan` for any of the volumes, or the output cannot hold them.
    """
    target, count = request.target, len(volumes)
    first: tuple[Volume, Plan] | None = None
    for number, volume in enumerate(volumes, start=1):
        if first is None:
            target.check_image(volume, count)
        with of_volume(number, count):
            plan = restorer.plan(volume, request.options)
        if first is None:
            if plan.scale is not None:
                target.check_image(plan.volume, count)
            first = volume, plan
    assert first is not None
    return first


@contextmanager
def of_volume(number: int, count: int) -> Iterator[None]:
    """Say in an error which of several volumes it is about."""
    try:
        yield
    except RestoreError as error:
        if count == 1:
            raise
        raise type(error)(f"volume {number} of {count}: {error}") from error


@dataclass
class _Run:
    """The volumes of one file, restored one after the other."""

    restorer: Restorer
    request: FileRequest
    progress: Progress | None
    count: int
    source: SourceRecord | None
    said: list[str]
    records: list[RestorationRecord] = dataclasses.field(default_factory=list)
    first: Volume | None = None

    def results(self, plan: Plan, others: Iterator[Volume]) -> Iterator[Volume]:
        """Restore each volume when its turn comes."""
        yield self._restored(plan)
        for volume in others:
            yield self._restored(self.restorer.plan(volume, self.request.options))

    def _restored(self, plan: Plan) -> Volume:
        part = part_of(self.progress, self.request.source.name, len(self.records), self.count)
        result = self.restorer.run_plan(plan, part)
        self.records.append(result.record)
        self.first = self.first or result.volume
        if len(self.records) == self.count:
            begin_stage(self.progress, "writing")
        return result.volume

    def record(self, output: OutputRecord) -> RestorationRecord:
        """Return the record of all volumes."""
        return dataclasses.replace(
            joined(self.records), source=self.source, output=output, warnings=tuple(self.said)
        )


def _derivation(plan: Plan, record: RestorationRecord) -> Derivation:
    """Say what was done to a series, for the headers of the derived one."""
    parts = [plan.task.title, f"slices across axis {plan.axis}"]
    if plan.scale is not None:
        parts.append(f"grid finer by {plan.scale:g}")
    if plan.refinement.steps:
        parts.append(f"measured k-space kept in {plan.refinement.steps} steps")
    if plan.refinement.strength < 1:
        parts.append(f"strength {plan.refinement.strength:.2f}")
    forced = ", restored all the same" if plan.forced else ""
    parts.append(f"input {plan.fit.outcome} for these weights{forced}")
    dicom = isinstance(plan.volume.source, DicomSource)
    return Derivation(
        task=plan.task.name,
        description="; ".join(parts),
        weights=record.weights,
        weights_sha256=record.weights_sha256,
        notice=NOTICE,
        from_all_slices=dicom and plan.axis != 2,
    )
