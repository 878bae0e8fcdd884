"""What all sources share: jobs that are read and written one by one, faults, the report."""

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
    """What cannot be used, and why.

    Attributes:
        entries: reason by name of the volume or file; left out where that is asked for.
        grave: what leaving out does not mend, such as a patient in two splits.
    """

    entries: dict[str, str] = field(default_factory=dict)
    grave: list[str] = field(default_factory=list)

    def add(self, name: str, why: str | Exception) -> None:
        """Note a fault, one more where there is one; the reason need not repeat the name."""
        own = rf"{re.escape(Path(name).name)}(\.nii|\.nii\.gz|\.bin)?: "
        reasons = [self.entries[name]] if name in self.entries else []
        self.entries[name] = "; ".join([*reasons, re.sub(f"^{own}", "", str(why))])

    def refuse(self, where: Path, *, skip: bool, whole: bool = False) -> None:
        """Refuse all faults at once, or only where there are grave ones if others are skipped.

        Args:
            where: the source.
            skip: whether faulty volumes are to be left out.
            whole: list these too, because nothing is left without them.

        Raises:
            InputError: with a line for each fault.
        """
        lines = list(self.grave)
        if whole or not skip:
            lines += [f"{name}: {why}" for name, why in self.entries.items()]
        if not lines:
            return
        mend = "mend them"
        if self.entries and not skip:
            mend += ", or leave faulty volumes out with skip=True"
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise InputError("\n  ".join([f"{where}: {count}; nothing was written; {mend}:", *lines]))


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
    """A volume, or whatever else is read at once.

    Attributes:
        title: what faults are reported under.
        patient: whose it is.
        split: where it goes.
        writer: of the set that it goes into.
        read: gives its stacks; faults of parts of it are added to the argument, and it raises
            where nothing of it can be used.
    """

    title: str
    patient: str
    split: Split
    writer: SetWriter
    read: Callable[[Faults], Iterable[Slices]]


@dataclass(frozen=True)
class Preparation:
    """What was prepared.

    Attributes:
        sets: the prepared sets; `PreparedSet.counts` tells patients, stacks and slices per split.
        left_out: faulty volumes or files by name, with the reason.
        others: what the source holds besides and nobody asked for: number of files by kind.
        names: name of the stacks of each volume, by its path; where the set does not keep it.
    """

    sets: tuple[PreparedSet, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report as text."""
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
    """Check that the prepared sets in a folder, or one level below it, are as they were prepared.

    Args:
        folder: of a set, or of several.
        progress: called with (volumes done, all) of each set.

    Returns:
        What is in them, and what was left out of them.

    Raises:
        InputError: there is none, a manifest is damaged, a file is missing or differs, or a patient
            is in several splits; the message names each.
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
    """Open writers together: all sets appear or none, and no empty folder stays behind."""
    missing = [folder for folder in (output, *output.parents) if not folder.exists()]
    try:
        with contextlib.ExitStack() as stack:
            for writer in opened:
                stack.enter_context(writer)
            yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # something else is in it by now
                folder.rmdir()
        raise


def write_jobs(
    jobs: Sequence[Job], faults: Faults, where: Path, *, skip: bool, progress: Progress | None
) -> None:
    """Read and write volume after volume; after a fault only read, to find all of them.

    Raises:
        InputError: something is faulty, and not to be skipped or nothing is left.
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
    """Trouble with the set that is written, which is no fault of what is read."""

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
    """Refuse a source that is no folder, and an output that exists.

    Raises:
        InputError: with the mend.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the folder that the data lie in")
    if (output / MANIFEST).exists() or (output.exists() and not output.is_dir()):
        raise InputError(f"{output}: exists already; name another folder, or remove it first")


def split_patients(
    patients: Iterable[str], validation: int, test: int, seed: int = 0
) -> dict[str, Split]:
    """Split of each patient: the same for the same patients and seed, on any machine.

    Patients are put in the order of SHA-256 of "SEED:PATIENT"; the first `test` of them are for
    testing, the next `validation` for validation, and all others for training.
    """

    def digest(patient: str) -> str:
        return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()

    order = sorted(set(patients), key=digest)
    return {
        patient: "test" if i < test else "validation" if i < test + validation else "train"
        for i, patient in enumerate(order)
    }


def folders_with_files(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Folders at any depth with the files directly in them, both in the order of their names.

    Links are followed, no folder is visited twice, and hidden folders are left out.
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
    """Key that sorts names as people do: slice 9 before slice 10."""
    parts = re.findall(r"\d+|\D+", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
