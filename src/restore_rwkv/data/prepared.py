"""The one on-disk form that training and evaluation read: stacks of slices, and a manifest.

A prepared set is a folder::

    manifest.json                   what is here: task, unit, physics, and each stack's record
    train/NAME.high.npy             (N, H, W), slices of full quality, in physical units
    train/NAME.low.npy              (N, H, W), the same slices at low quality
    validation/..., test/...        the same for the other splits

The files are plain NPY, so that NumPy maps them into memory and reads the crops that are asked for
and no more; each volume is a file of its own (a shard), whatever the size of the set. Values that
are whole numbers are kept as int16, others as float32. H and W are two axes of the volume in its
own order (of DICOM: columns, then rows), as restoring a scan takes its slices. A set without `low`
files is degraded by its task's physics as it is read, which only the deterministic MRI task allows.
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
        folder: where it lies.
        dataset: what it was made from, such as "ixi".
        task_name: name of the task; `task` is the task itself.
        factor: what the low quality was degraded by, as `Task.factor`.
        stacks: in the order of the manifest.
        sha256: digest of the manifest, which holds those of all files.
        record: how the set was prepared and what was left out, as plain JSON values.
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
        """Read a manifest and check that its files are there, with the shapes that it says.

        Raises:
            InputError: the folder is no prepared set, or a file is missing or of another size; the
                message names it.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        if not path.is_file():
            raise InputError(
                f"{folder}: no prepared set, it has no {MANIFEST}; make one with "
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
    def task(self) -> Task:
        """The task that the set is for."""
        return TASKS[self.task_name]

    def split(self, split: Split) -> tuple[Stack, ...]:
        """Stacks of one split."""
        return tuple(stack for stack in self.stacks if stack.split == split)

    def counts(self) -> dict[Split, Count]:
        """Patients, stacks and slices of each split."""
        return {split: Count.of(self.split(split)) for split in SPLITS}

    def images(self, stack: Stack, quality: Quality) -> NDArray[Any]:
        """Slices (N, H, W) of a stack in physical units, mapped into memory, read-only.

        Raises:
            InputError: the stack has no such file, or it does not hold what the manifest says.
        """
        if quality not in stack.files:
            raise InputError(f"{stack.name}: has no {quality} quality; degrade the high one")
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
        """Hash every file.

        Args:
            progress: called after each stack.

        Raises:
            InputError: files differ from what was prepared; the message names each.
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
        require_no_leak((stack.patient, stack.split) for stack in self.stacks)
        if len({stack.name for stack in self.stacks}) < len(self.stacks):
            raise InputError(f"{where}: a name is there twice; prepare it again")
        for stack in self.stacks:
            if "low" not in stack.files and self.task.modality != "MR":
                lacks = f"{stack.name} has no low quality, which {self.task_name} needs"
                raise InputError(f"{where}: {lacks}; prepare the set again")
            for name in stack.files.values():
                if not (self.folder / name).resolve().is_relative_to(self.folder.resolve()):
                    raise InputError(f"{where}: {name} lies outside; mend it")
                if not (self.folder / name).is_file():
                    raise InputError(f"{self.folder / name}: missing; prepare the set again")
            for quality in QUALITIES:
                if quality in stack.files:
                    self.images(stack, quality)


def find_sets(folders: list[Path], task_names: tuple[str, ...]) -> list[PreparedSet]:
    """Prepared sets of the given tasks in folders, or one level below them.

    Raises:
        InputError: a folder holds no prepared set, a task has none, a set is there twice, or sets
            of one task have a patient in different splits (patients of "folder" sets are mere
            numbers and not looked at).
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
        require_no_leak((stack.patient, stack.split) for p in named for stack in p.stacks)
    return [prepared for prepared in sets if prepared.task_name in task_names]


def holds_sets(folder: Path) -> bool:
    """Whether a folder is a prepared set, or has some one level below it."""
    return (folder / MANIFEST).is_file() or any(folder.glob(f"*/{MANIFEST}"))


def read_sets(folder: Path) -> list[PreparedSet]:
    """The prepared set in a folder, or those one level below it.

    Raises:
        InputError: there is none, or one is damaged.
    """
    if not (folder / MANIFEST).is_file() and (below := sorted(folder.glob(f"*/{MANIFEST}"))):
        return [PreparedSet.read(path.parent) for path in below]
    return [PreparedSet.read(folder)]


def require_no_leak(stacks: Iterable[tuple[str, str]]) -> None:
    """Refuse a patient in several splits.

    Args:
        stacks: (patient, split) of each stack.

    Raises:
        InputError: the message names each such patient with its splits.
    """
    splits: dict[str, set[str]] = {}
    for patient, split in stacks:
        splits.setdefault(patient, set()).add(split)
    leaks = [f"{p} ({', '.join(sorted(s))})" for p, s in splits.items() if len(s) > 1]
    if leaks:
        raise InputError(
            f"patients in more than one split: {'; '.join(leaks)}; give each patient one split"
        )
