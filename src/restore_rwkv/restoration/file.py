"""A restoration on disk: every check first, then the image and its record at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

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
    file_sha256,
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


class Addition(Protocol):
    """What comes with a restored image on disk: files beside it, and fields of its record.

    Its methods are called in their order, each once, and for the first volume of a 4-D image.
    """

    def check(self, restorer: Restorer, target: Target, plan: Plan) -> Sequence[Path]:
        """Refuse what cannot be added, before the network runs.

        Returns:
            Every file that may be written.

        Raises:
            RestoreError: something is missing, or a file cannot be written.
        """

    def prepare(self, plan: Plan, restored: Restored, progress: Progress | None) -> Sequence[Path]:
        """Compute what is added, and return the files that will be written, some of `check`."""

    def write(self, files: Sequence[Path], record: RestorationRecord) -> RestorationRecord:
        """Write the files of `prepare` to temporary paths, and return the completed record."""


@dataclass(frozen=True, kw_only=True)
class FileRequest:
    """What is to be restored, and where to.

    Attributes:
        source: file or folder; never changed.
        series: which series of a DICOM folder with several.
        files: all files of that series where they are known; empty to search the folder.
        target: where the result goes.
        options: how it is restored.
        addition: what comes with the image, such as a report; None for its record only.
    """

    source: Path
    series: int | str | None
    target: Target
    options: RestoreOptions
    files: Sequence[Path] = ()
    addition: Addition | None = None


def restore_file(restorer: Restorer, request: FileRequest, progress: Progress | None) -> Restored:
    """Restore a scan on disk; see `Restorer.file`."""
    target = request.target
    target.check_path(request.source)
    claim = claimed(target.path, target.record)
    with recorded_warnings() as said, claim, ExitStack() as further:
        begin_stage(progress, f"reading {request.source.name}")
        volumes = read_volumes(request.source, series=request.series, files=request.files)
        first, plan = checked_plans(restorer, request, volumes)
        former = _former_files(target)
        if request.addition is not None:
            further.enter_context(claimed(*request.addition.check(restorer, target, plan)))
        run = _Run(restorer, request, progress, len(volumes), identify(first), said)
        others = islice(volumes, 1, None) if len(volumes) > 1 else iter(())
        begin_stage(progress, "loading weights")
        restorer.network(plan.task)
        results = run.results(plan, others)
        restored = next(results)  # now, as it decides which files there will be
        if target.is_series:
            made = derivation_of(plan, run.records[0])
            record = target.write_series(restored, made, run.record, run.files)
        else:
            every = chain([restored], results)
            record = target.write_volumes(every, run.count, run.record, run.files)
        for path, digest in former.items():
            if path not in run.files and path.is_file() and file_sha256(path) == digest:
                path.unlink()
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


def _former_files(target: Target) -> dict[Path, str]:
    """Digest of each file that came with the image that is replaced, such as its report.

    They would be taken for those of the new image.
    """
    if not (target.options.overwrite and target.record.is_file()):
        return {}
    try:
        files = json.loads(target.record.read_text(encoding="utf-8"))["fidelity"]["files"]
        return {
            target.record.with_name(name): digest
            for name, digest in files.items()
            if name == Path(name).name
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


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
    files: Sequence[Path] = ()

    def results(self, plan: Plan, others: Iterator[Volume]) -> Iterator[Volume]:
        """Restore each volume when its turn comes."""
        yield self._restored(plan)
        for volume in others:
            yield self._restored(self.restorer.plan(volume, self.request.options))

    def _restored(self, plan: Plan) -> Volume:
        part = part_of(self.progress, self.request.source.name, len(self.records), self.count)
        begin_stage(part, "restoring", "slices")
        result = self.restorer.run_plan(plan, part)
        if self.request.addition is not None and not self.records:
            self.files = self.request.addition.prepare(plan, result, part)
        self.records.append(result.record)
        self.first = self.first or result.volume
        if len(self.records) == self.count:
            begin_stage(self.progress, "writing")
        return result.volume

    def record(self, output: OutputRecord, files: tuple[Path, ...]) -> RestorationRecord:
        """Return the record of all volumes, after the files beside the image are written."""
        record = dataclasses.replace(
            joined(self.records), source=self.source, output=output, warnings=tuple(self.said)
        )
        addition = self.request.addition
        return record if addition is None else addition.write(files, record)


def derivation_of(plan: Plan, record: RestorationRecord) -> Derivation:
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
