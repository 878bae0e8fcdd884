"""The on-disk form that training and evaluation read: stacks of slices, and a manifest.

A prepared set is a folder::

    manifest.json                   task, unit, physics, and the record of each stack
    train/NAME.high.npy             (N, H, W), slices of full quality, in physical units
    train/NAME.low.npy              (N, H, W), the same slices at low quality
    validation/..., test/...        the same for the other splits

The files are plain NPY: NumPy maps them into memory and reads only the requested crops. Each volume
has its own file (a shard), so sets of any size are read alike. Whole numbers are stored as int16,
other values as float32. H and W are two axes of the volume in its own order (DICOM: columns, then
rows), the order in which `restore` slices a scan. A set without `low` files is degraded by the
physics of its task when it is read; only the MRI task, whose physics is deterministic, allows this.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data.stack import QUALITIES, SPLITS, Count, Quality, Split, Stack, stack_of
from restore_rwkv.errors import InputError
from restore_rwkv.io import Progress
from restore_rwkv.io.record import file_sha256
from restore_rwkv.tasks import TASKS, Task

MANIFEST = "manifest.json"
FORMAT = "restore-rwkv data 1"


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """A prepared set of one task.

    Attributes:
        folder: folder of the set.
        dataset: name of the source, such as "ixi".
        task_name: name of the task; `task` is the task itself.
        factor: factor of the degradation, as `Task.factor`.
        stacks: in the order of the manifest.
        sha256: digest of the manifest, which contains the digests of all files.
        record: options of the preparation and the volumes left out, as plain JSON values.
    """

    folder: Path
    dataset: str
    task_name: str
    factor: float
    stacks: tuple[Stack, ...]
    sha256: str
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path | str) -> PreparedSet:
        """Read a manifest and check that its files exist and have the shapes it states.

        Raises:
            InputError: the folder is not a prepared set, or a file is missing or has another size;
                the message names it.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        if not path.is_file():
            raise InputError(
                f"{folder}: no prepared set, {MANIFEST} is missing; make one with "
                "`restore-rwkv data prepare`"
            )
        content = path.read_bytes()
        try:
            record = json.loads(content)
            if record["format"] != FORMAT:
                raise InputError(
                    f"{path}: format is {record['format']!r}, this release reads {FORMAT!r}; "
                    "prepare the set again"
                )
            stacks = tuple(stack_of(entry) for entry in record["stacks"])
            prepared = cls(
                folder,
                str(record["dataset"]),
                str(record["task"]),
                float(record["factor"]),
                stacks,
                hashlib.sha256(content).hexdigest(),
                dict(record.get("record", {})),
            )
            prepared._check()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: damaged ({error}); prepare the set again") from error
        return prepared

    @property
    def shared_patients(self) -> tuple[str, ...]:
        """Patients with distant slices of one scan in training and validation, never in test.

        They are an exception that the manifest has to state, with its reason, as `shared_patients`
        of its record.
        """
        return tuple(dict(self.record.get("shared_patients", {})))

    @property
    def task(self) -> Task:
        """The task that the set is for."""
        return TASKS[self.task_name]

    def split(self, split: Split) -> tuple[Stack, ...]:
        """Stacks of one split."""
        return tuple(stack for stack in self.stacks if stack.split == split)

    def counts(self) -> dict[Split, Count]:
        """Patients, stacks and slices of each split."""
        return {split: Count.of(self.split(split)) for split in SPLITS}

    def factor_of(self, stack: Stack) -> float:
        """Factor that a stack was degraded with, which may differ from that of the set."""
        return float(stack.origin.get("physics", {}).get("factor", self.factor))

    def images(self, stack: Stack, quality: Quality) -> NDArray[Any]:
        """Slices (N, H, W) of a stack in physical units, mapped into memory, read-only.

        Raises:
            InputError: the stack has no such file, or the file does not match the manifest.
        """
        if quality not in stack.files:
            raise InputError(f"{stack.name}: has no {quality} quality; degrade the high quality")
        path = self.folder / stack.files[quality]
        try:
            images = np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: cannot be read ({error}); prepare the set again") from error
        if images.shape != stack.shape or images.dtype.kind not in "iuf":
            found = f"{images.dtype} {images.shape}, not {stack.shape}"
            raise InputError(f"{path}: holds {found}; prepare the set again")
        mapped: NDArray[Any] = images
        return mapped

    def verify(self, progress: Progress | None = None) -> None:
        """Compare the SHA-256 of every file with the manifest.

        Args:
            progress: called with (stacks done, all).

        Raises:
            InputError: files have changed since they were prepared; the message names each.
        """
        differing: list[str] = []
        for done, stack in enumerate(self.stacks, 1):
            differing += [
                name
                for quality, name in stack.files.items()
                if file_sha256(self.folder / name) != stack.sha256[quality]
            ]
            if progress is not None:
                progress(done, len(self.stacks))
        if differing:
            names = ", ".join(differing)
            raise InputError(f"{self.folder}: {names}: not what was prepared; prepare it again")

    def _check(self) -> None:
        where = self.folder / MANIFEST
        if self.task_name not in TASKS:
            known = ", ".join(TASKS)
            raise InputError(f"{where}: task {self.task_name!r} is unknown; tasks are: {known}")
        if not 1 < self.factor < math.inf:
            raise InputError(f"{where}: factor is {self.factor:g}; prepare the set again")
        splits = ((stack.patient, stack.split) for stack in self.stacks)
        require_no_leak(splits, self.shared_patients)
        if len({stack.name for stack in self.stacks}) < len(self.stacks):
            raise InputError(f"{where}: two stacks have the same name; prepare the set again")
        for stack in self.stacks:
            if "low" not in stack.files and self.task.rules.stored_pairs:
                lacks = f"{stack.name} has no low quality, which {self.task_name} needs"
                raise InputError(f"{where}: {lacks}; prepare the set again")
            for name in stack.files.values():
                if not (self.folder / name).resolve().is_relative_to(self.folder.resolve()):
                    outside = f"{name} lies outside the folder"
                    raise InputError(f"{where}: {outside}; prepare the set again")
                if not (self.folder / name).is_file():
                    raise InputError(f"{self.folder / name}: missing; prepare the set again")
            for quality in QUALITIES:
                if quality in stack.files:
                    self.images(stack, quality)


def find_sets(folders: list[Path], task_names: tuple[str, ...]) -> list[PreparedSet]:
    """Find the prepared sets of the given tasks in folders, or one level below them.

    Raises:
        InputError: a folder contains no prepared set, a task has none, a set is given twice, or
            sets of one task have a patient in different splits (patients of "folder" sets are
            numbered from 1 in each set, and not compared).
    """
    sets = [prepared for folder in folders for prepared in read_sets(folder)]
    if len({prepared.sha256 for prepared in sets}) < len(sets):
        raise InputError("data: a set is given twice; give each once")
    for task_name in task_names:
        of_task = [prepared for prepared in sets if prepared.task_name == task_name]
        if not of_task:
            there = ", ".join(f"{prepared.folder} ({prepared.task_name})" for prepared in sets)
            raise InputError(f"data: no set for {task_name}; there are: {there}")
        named = [prepared for prepared in of_task if prepared.dataset != "folder"]
        splits = ((stack.patient, stack.split) for p in named for stack in p.stacks)
        require_no_leak(splits, [patient for p in named for patient in p.shared_patients])
    return [prepared for prepared in sets if prepared.task_name in task_names]


def holds_sets(folder: Path) -> bool:
    """Whether a folder is a prepared set, or contains prepared sets one level below it."""
    return (folder / MANIFEST).is_file() or any(folder.glob(f"*/{MANIFEST}"))


def read_sets(folder: Path) -> list[PreparedSet]:
    """Read the prepared set in a folder, or all of those one level below it.

    Raises:
        InputError: there is no prepared set, or one is damaged.
    """
    if not (folder / MANIFEST).is_file() and (below := sorted(folder.glob(f"*/{MANIFEST}"))):
        return [PreparedSet.read(path.parent) for path in below]
    return [PreparedSet.read(folder)]


def require_no_leak(stacks: Iterable[tuple[str, str]], shared: Iterable[str] = ()) -> None:
    """Check that each patient is in one split only.

    Args:
        stacks: (patient, split) of each stack.
        shared: patients that may be in training and validation; see `PreparedSet.shared_patients`.

    Raises:
        InputError: patients are in several splits; the message names each with its splits.
    """
    splits: dict[str, set[str]] = {}
    for patient, split in stacks:
        splits.setdefault(patient, set()).add(split)
    several = {patient: found for patient, found in splits.items() if len(found) > 1}
    for patient in shared:
        if several.get(patient) == {"train", "validation"}:
            del several[patient]
    leaks = [f"{patient} ({', '.join(sorted(found))})" for patient, found in several.items()]
    if leaks:
        raise InputError(
            f"patients in more than one split: {'; '.join(leaks)}; give each patient one split"
        )
