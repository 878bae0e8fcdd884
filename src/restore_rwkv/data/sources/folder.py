"""Scans of one's own: a folder of NIfTI files or DICOM series, good ones alone or real pairs."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from restore_rwkv.data.prepared import PreparedSet, Progress, Split
from restore_rwkv.data.slices import ranges, slices_across, square_planes, with_signal
from restore_rwkv.data.sources.jobs import (
    Faults,
    Job,
    Report,
    Slices,
    require_source,
    split_patients,
    write_jobs,
    writers,
)
from restore_rwkv.data.sources.volumes import find_volumes, patients_of, source_digest
from restore_rwkv.data.writer import SetWriter
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import Volume, plane_axis, read_volume
from restore_rwkv.options import Expected, Whole, validated
from restore_rwkv.tasks import Task, degradation, get_task, slice_axis
from restore_rwkv.tasks.units import warn_of_strange_values

_SAME_AFFINE = 1e-3  # mm
_MIN_SIDE = 8  # pixels, what `restore` takes
_PLANES: tuple[Literal["axial", "coronal", "sagittal"], ...] = ("axial", "coronal", "sagittal")


@validated()
@dataclass(frozen=True)
class FolderOptions:
    """How scans of one's own are prepared.

    Attributes:
        task: name of the task.
        factor: how much less is measured, as `Task.factor`; None for the task's own. For real
            pairs it is recorded alone.
        seed: of the degradation and of the split.
        validation: share of the patients for validation; at least one unless it is 0.
        test: share of the patients for testing; at least one unless it is 0.
        planes: "task" for the task's own plane; "all" for each plane with nearly square pixels,
            for MRI that is good in all three.
        patient: regular expression that finds the patient in a volume's path; None as `patients_of`
            says.

    Raises:
        ConfigError: a value is out of range.
    """

    task: str
    _: KW_ONLY
    factor: float | None = None
    seed: Whole = 0
    validation: float = 0.1
    test: float = 0.1
    planes: Annotated[Literal["task", "all"], Expected("'task' or 'all'")] = "task"
    patient: str | None = None

    def __post_init__(self) -> None:
        task = get_task(self.task)
        if self.factor is not None and not 1 < self.factor < np.inf:
            raise ConfigError(f"factor is {self.factor:g}; give a number above 1, such as 4")
        if min(self.validation, self.test) < 0 or not self.validation + self.test < 1:
            raise ConfigError(
                f"validation {self.validation:g} and test {self.test:g} leave nothing to train on; "
                "give shares from 0 that sum to less than 1"
            )
        if self.planes == "all" and task.modality != "MR":
            raise ConfigError(f"planes {self.planes!r}: {self.task} has 'task' alone")
        try:
            re.compile(self.patient or "")
        except re.error as error:
            raise ConfigError(f"patient {self.patient!r} is no pattern ({error})") from error


def prepare_folder(
    source: Path | str,
    output: Path | str,
    options: FolderOptions,
    *,
    skip: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Prepare a folder of NIfTI files and DICOM series (one a subfolder).

    With subfolders `LQ` and `HQ` that hold volumes of the same names, these are real pairs. All
    other volumes are taken for good scans, and the task's physics makes the low quality: for MRI
    as the set is read, for CT and PET now, each with a seed of its own. Slices of air are left out.

    No name, identity or path of the source gets into the set: patients are numbered in the order of
    their volumes' paths (`patient-0001`), their volumes after them (`patient-0001-1`), and each
    is traced by the SHA-256 of its file. `Report.names` tells which volume got which name.

    Args:
        source: the folder.
        output: the prepared set, a folder to be made.
        options: task, physics and split.
        skip: leave faulty volumes out and report them, instead of refusing all.
        progress: called with (volumes done, all).

    Returns:
        What was prepared.

    Raises:
        InputError: volumes cannot be read, lack their partner, are of another modality or unit,
            differ in grid from their partner, are too small, or hold air alone; nothing tells whose
            they are; or there are too few patients for the split. The message names each.

    Example:
        >>> options = FolderOptions("ct-denoise", factor=10)  # doctest: +SKIP
        >>> prepare_folder("scans", "data/mine", options).lines()  # doctest: +SKIP
    """
    source, output = Path(source), Path(output)
    require_source(source, output=output)
    faults, others = Faults(), Counter[str]()
    high, low = _find(source, options, faults, others)
    if not high and not faults.entries:
        raise InputError(f"{source}: no NIfTI files and no DICOM series; check the folder")
    pattern = re.compile(options.patient) if options.patient else None
    patients = patients_of(high, pattern, faults)
    names = _stack_names(patients)
    splits = _splits(patients, options, faults)
    task = get_task(options.task)
    writer = SetWriter(output, "folder", task.name, options.factor)
    jobs = []
    for volume, patient in patients.items():
        read = partial(_read, high[volume], low.get(volume), options, names[volume])
        numbered = names[volume].rpartition("-")[0]
        jobs.append(Job(volume, numbered, splits[patient], writer, read))
    with writers(output, writer):
        write_jobs(jobs, faults, source, skip=skip, progress=progress)
        left_out = [names.get(volume, "without a name") for volume in faults.entries]
        writer.record.update(options=_public(options), left_out=left_out)
    kept = {volume: name for volume, name in names.items() if volume not in faults.entries}
    return Report((PreparedSet.read(output),), faults.entries, dict(others), kept)


def _public(options: FolderOptions) -> dict[str, Any]:
    """Options for the manifest, without the pattern, which may hold names."""
    return {key: value for key, value in dataclasses.asdict(options).items() if key != "patient"}


def _find(
    source: Path, options: FolderOptions, faults: Faults, others: Counter[str]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Good volumes and, where there are pairs, low-quality ones, by name."""
    there = [name for name in ("LQ", "HQ") if (source / name).is_dir()]
    if not there:
        return find_volumes(source, faults, others), {}
    if len(there) == 1:
        raise InputError(f"{source}: has {there[0]} alone; real pairs need LQ and HQ")
    if options.planes == "all":
        raise ConfigError("planes 'all': real pairs are low in one plane; leave planes out")
    high, low = (find_volumes(source / name, faults, others, f"{name}/") for name in ("HQ", "LQ"))
    for quality, mine, partners in (("LQ", high, low), ("HQ", low, high)):
        for name in sorted(mine.keys() - partners.keys()):
            faults.add(f"{quality}/{name}", "is missing, its partner is there")
    others.update({entry.name: 1 for entry in source.iterdir() if entry.name not in there})
    return {name: path for name, path in high.items() if name in low}, low


def _stack_names(patients: Mapping[str, str]) -> dict[str, str]:
    """Names for the set by volume: patients in the order of their first volume, then volumes."""
    numbers = {patient: i for i, patient in enumerate(dict.fromkeys(patients.values()), 1)}
    seen: Counter[str] = Counter()
    names = {}
    for volume, patient in patients.items():
        seen[patient] += 1
        names[volume] = f"patient-{numbers[patient]:04d}-{seen[patient]}"
    return names


def _splits(
    patients: Mapping[str, str], options: FolderOptions, faults: Faults
) -> dict[str, Split]:
    count = len(set(patients.values()))
    validation, test = (
        max(1, round(count * share)) if share else 0 for share in (options.validation, options.test)
    )
    if patients and validation + test >= count:
        faults.grave.append(
            f"{count} patient{'s' * (count > 1)}: too few to train, validate and test; give more, "
            "tell them apart with --patient PATTERN, or give --validation 0 or --test 0"
        )
    return split_patients(patients.values(), validation, test, options.seed)


def _read(
    path: Path, partner: Path | None, options: FolderOptions, name: str, faults: Faults
) -> Iterator[Slices]:
    task = get_task(options.task)
    volume = read_volume(path)
    high = _in_task_unit(volume, task)
    if partner is None:
        degradation.require_suited(volume, task)
    origin: dict[str, Any] = {"sha256": source_digest(path)}
    low: Volume | None = None
    if partner is not None:
        low = _in_task_unit(read_volume(partner), task)
        _require_same_grid(high, low)
        origin |= {"low_sha256": source_digest(partner), "low": "a scan of its own"}
    elif task.modality != "MR":
        settings = degradation.Settings(factor=options.factor)
        seed = hashlib.sha256(f"{options.seed}:{origin['sha256']}".encode()).hexdigest()
        made = degradation.degrade(high, task, settings, seed=int(seed[:8], 16))
        high, low = made.high, made.low
        origin["low"] = made.record
    axes = square_planes(high) if options.planes == "all" else [slice_axis(high, task)]
    stacks = [one for axis in axes if (one := _stack(high, low, task, axis, origin)) is not None]
    if not stacks:
        raise InputError(f"{path.name}: no slice with more than air; is it {task.modality}?")
    cropped = (options.factor or task.factor) if low is None else 0  # k-space, when it is read
    for stack in stacks:
        sides = stack.high.shape[1:]
        if min(sides) < max(_MIN_SIDE, cropped):
            raise InputError(f"{path.name}: slices of {sides[0]} x {sides[1]} pixels are too small")
        plane = f"-{stack.origin['plane']}" if options.planes == "all" else ""
        yield dataclasses.replace(stack, name=name + plane)


def _stack(
    high: Volume, low: Volume | None, task: Task, axis: int, origin: Mapping[str, Any]
) -> Slices | None:
    """Slices with signal across an axis, without a name; None where there are none."""
    images, spacing = slices_across(high, axis)
    kept = with_signal(images, high, task)
    if not kept:
        return None
    of_air = len(images) - len(kept)
    degraded = None if low is None else slices_across(low, axis)[0][kept]
    record = {"plane": _plane(high, axis), "slices": ranges(kept), "slices_of_air": of_air}
    return Slices("", images[kept], degraded, spacing, {**origin, **record})


def _plane(volume: Volume, axis: int) -> str:
    if volume.affine is None:
        return f"axis {axis}"
    affine = volume.affine
    return next(plane for plane in _PLANES if plane_axis(affine, plane) == axis)


def _in_task_unit(volume: Volume, task: Task) -> Volume:
    """The volume in the unit of its task; where a file says nothing it is taken to be that."""
    anatomy = task.modality == "PT" and volume.modality == "MR"  # to simulate PET from
    if anatomy or volume.modality == task.modality == "MR":
        return volume
    if volume.modality not in (None, task.modality):
        raise InputError(f"{volume.name}: is {volume.modality}, not {task.modality}; leave it out")
    if volume.unit == "Bq/ml" and volume.suv_per_unit is not None:
        return dataclasses.replace(
            volume, data=volume.data * np.float32(volume.suv_per_unit), unit="SUV"
        )
    if volume.unit not in (None, task.unit):
        raise InputError(f"{volume.name}: is in {volume.unit}; convert it to {task.unit}")
    warn_of_strange_values(volume, task)
    return dataclasses.replace(volume, modality=task.modality, unit=task.unit)


def _require_same_grid(high: Volume, low: Volume) -> None:
    if high.data.shape != low.data.shape:
        raise InputError(f"{high.name}: HQ is {high.data.shape} and LQ {low.data.shape} voxels")
    if high.affine is None or low.affine is None:
        raise InputError(f"{high.name}: has no geometry; give NIfTI or DICOM")
    if not np.allclose(high.affine, low.affine, atol=_SAME_AFFINE):
        raise InputError(f"{high.name}: HQ and LQ lie on different grids; resample one of them")
