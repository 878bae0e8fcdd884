"""Parts that all sources share: faults, jobs that are read and written one by one, the result."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from restore_rwkv.data.prepared import MANIFEST, PreparedSet, read_sets
from restore_rwkv.data.stack import Split
from restore_rwkv.data.writer import SetWriter
from restore_rwkv.errors import InputError, RestoreError
from restore_rwkv.io import Progress


@dataclass
class Faults:
    """Volumes and files that cannot be used, with the reasons.

    Attributes:
        entries: reason by name of the volume or file; left out on request (`skip`).
        grave: problems that leaving volumes out does not solve, such as a patient in two splits.
    """

    entries: dict[str, str] = field(default_factory=dict)
    grave: list[str] = field(default_factory=list)

    def add(self, name: str, why: str | Exception) -> None:
        """Add a fault; more than one of a name are joined, and the reason may repeat the name."""
        own = rf"{re.escape(Path(name).name)}(\.nii|\.nii\.gz|\.bin)?: "
        reasons = [self.entries[name]] if name in self.entries else []
        self.entries[name] = "; ".join([*reasons, re.sub(f"^{own}", "", str(why))])

    def refuse(self, where: Path, *, skip: bool, whole: bool = False) -> None:
        """Raise one error for all faults; with `skip`, for the grave ones only.

        Args:
            where: the source.
            skip: whether faulty volumes are left out.
            whole: list these too, because no volume is left without them.

        Raises:
            InputError: there are such faults; the message has a line for each.
        """
        lines = list(self.grave)
        if whole or not skip:
            lines += [f"{name}: {why}" for name, why in self.entries.items()]
        if not lines:
            return
        remedy = "correct them"
        if self.entries and not skip:
            remedy += ", or leave faulty volumes out with skip=True"
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise InputError("\n  ".join([f"{where}: {count}; nothing was written; {remedy}:", *lines]))


@dataclass(frozen=True, eq=False)
class Slices:
    """One stack to write, see `SetWriter.add`."""

    name: str
    high: NDArray[Any]
    low: NDArray[Any] | None = None
    spacing: tuple[float, float, float] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Job:
    """A unit of reading, usually one volume.

    Attributes:
        title: name under which faults are reported.
        patient: identifier of the patient.
        split: split of the patient.
        writer: writer of the set that the stacks are added to.
        read: function that returns the stacks. It adds faults of parts of the volume to its
            argument, and raises if no part of it can be used.
    """

    title: str
    patient: str
    split: Split
    writer: SetWriter
    read: Callable[[Faults], Iterable[Slices]]


@dataclass(frozen=True)
class Preparation:
    """Result of a preparation.

    Attributes:
        sets: the prepared sets; `PreparedSet.counts` has patients, stacks and slices per split.
        left_out: reason by name of each faulty volume or file that was left out.
        others: number of other files in the source that were not used, by kind.
        names: name of the stacks by path of the volume, where the set itself does not record it.
    """

    sets: tuple[PreparedSet, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Format the result as lines of text."""
        lines = []
        for prepared in self.sets:
            for split, count in prepared.counts().items():
                lines.append(
                    f"{prepared.folder} {split}: {count.patients} patients, "
                    f"{count.stacks} volumes, {count.slices:,} slices"
                )
        lines += [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        lines += [f"not asked for: {kind}: {count} files" for kind, count in self.others.items()]
        return lines


def check_sets(folder: Path | str, *, progress: Progress | None = None) -> Preparation:
    """Check that the prepared sets in a folder, or one level below it, are unchanged.

    Args:
        folder: folder of a set, or of several sets.
        progress: called with (volumes done, all) of each set.

    Returns:
        The sets, and the volumes that were left out when they were prepared.

    Raises:
        InputError: there is no set, a manifest is damaged, a file is missing or differs, or a
            patient is in several splits; the message names each.
    """
    sets = read_sets(Path(folder))
    for prepared in sets:
        prepared.verify(progress)
    left_out: dict[str, str] = {}
    for prepared in sets:
        recorded = prepared.record.get("left_out") or {}
        left_out |= recorded if isinstance(recorded, dict) else dict.fromkeys(recorded, "faulty")
    return Preparation(tuple(sets), left_out)


@contextlib.contextmanager
def writers(output: Path, *opened: SetWriter) -> Iterator[None]:
    """Open writers together: all sets appear or none, and no empty folder remains."""
    missing = [folder for folder in (output, *output.parents) if not folder.exists()]
    try:
        with contextlib.ExitStack() as stack:
            for writer in opened:
                stack.enter_context(writer)
            yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # other files are in it by now
                folder.rmdir()
        raise


def write_jobs(
    jobs: Sequence[Job], faults: Faults, where: Path, *, skip: bool, progress: Progress | None
) -> None:
    """Read and write one volume after another; after a fault only read, to find all faults.

    Raises:
        InputError: volumes are faulty and not skipped, or none is left for training and test.
    """
    for done, job in enumerate(jobs, 1):
        try:
            for slices in job.read(faults):
                if not faults.grave and (skip or not faults.entries):
                    _write(job, slices)
        except _WritingError as error:
            raise error.error from error
        except (RestoreError, OSError) as error:
            faults.add(job.title, error)
        if progress is not None:
            progress(done, len(jobs))
    faults.refuse(where, skip=skip)
    for writer in {id(job.writer): job.writer for job in jobs}.values():
        if not any(stack.split in ("train", "test") for stack in writer.stacks):
            faults.grave.append(f"nothing is left to train or test {writer.task.name} with")
            faults.refuse(where, skip=skip, whole=True)


class _WritingError(Exception):
    """Error of writing the set, to be kept apart from faults of the source."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _write(job: Job, slices: Slices) -> None:
    try:
        job.writer.add(
            *(slices.name, job.patient, job.split, slices.high, slices.low),
            spacing=slices.spacing,
            origin=slices.origin,
        )
    except (RestoreError, OSError) as error:
        raise _WritingError(error) from error


def require_source(source: Path, *, output: Path) -> None:
    """Check that the source is a folder and that the output does not exist.

    Raises:
        InputError: there is no such folder, or the output exists; the message has the remedy.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the folder that contains the data")
    if (output / MANIFEST).exists() or (output.exists() and not output.is_dir()):
        raise InputError(f"{output}: exists already; name another folder, or remove it first")


def split_patients(
    patients: Iterable[str], validation: int, test: int, seed: int = 0
) -> dict[str, Split]:
    """Assign a split to each patient: the same for the same patients and seed on any machine.

    Patients are sorted by the SHA-256 of "SEED:PATIENT"; the first `test` of them are for testing,
    the next `validation` for validation, and all others for training.
    """

    def digest(patient: str) -> str:
        return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()

    order = sorted(set(patients), key=digest)
    return {
        patient: "test" if i < test else "validation" if i < test + validation else "train"
        for i, patient in enumerate(order)
    }


def folders_with_files(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield folders at any depth, each with the files directly in it, sorted by name.

    Links are followed, no folder is visited twice, and hidden folders are skipped.
    """
    seen: set[str] = set()
    for here, subfolders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield Path(here), [Path(here) / name for name in sorted(names)]


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key that compares the numbers in names as numbers: slice 9 before slice 10."""
    parts = re.findall(r"\d+|\D+", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
