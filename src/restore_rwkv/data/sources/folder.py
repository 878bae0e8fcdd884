"""Your own scans, as NIfTI files or DICOM series: high-quality only, or real low/high pairs."""

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

from restore_rwkv.data.prepared import PreparedSet
from restore_rwkv.data.slices import index_ranges, indices_with_signal, slices_across, square_planes
from restore_rwkv.data.sources.jobs import (
    Faults,
    Job,
    Preparation,
    Slices,
    require_source,
    split_patients,
    write_jobs,
    writers,
)
from restore_rwkv.data.sources.volumes import find_volumes, patients_of, source_digest
from restore_rwkv.data.stack import Split
from restore_rwkv.data.writer import SetWriter
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import Progress, Volume, plane_axis, read_volume
from restore_rwkv.model.config import STRIDE
from restore_rwkv.options import Expected, Seed, validated
from restore_rwkv.tasks import DegradeOptions, Task, degradation, get_task, slice_axis

_SAME_AFFINE = 1e-3  # mm
_PLANES: tuple[Literal["axial", "coronal", "sagittal"], ...] = ("axial", "coronal", "sagittal")


@validated()
@dataclass(frozen=True)
class FolderOptions:
    """Options for preparing your own scans.

    Attributes:
        task: name of the task.
        factor: factor of the degradation, as `Task.factor`; None for that of the task. For real
            pairs it is only recorded.
        seed: seed of the degradation and of the split.
        validation: share of the patients for validation; at least one patient unless it is 0.
        test: share of the patients for testing; at least one patient unless it is 0.
        planes: "task" for the plane of the task; "all" for each plane with nearly square pixels,
            for MRI of high quality in all three.
        patient: regular expression that finds the patient in the path of a volume; None for the
            rules of `patients_of`.

    Raises:
        ConfigError: a value is out of range.
    """

    task: str
    _: KW_ONLY
    factor: float | None = None
    seed: Seed = 0
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
        if self.planes == "all" and task.rules.stored_pairs:
            raise ConfigError(f"planes {self.planes!r}: {self.task} has only 'task'")
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
) -> Preparation:
    """Prepare a folder of NIfTI files and DICOM series (one a subfolder).

    Volumes of the same names in subfolders `LQ` and `HQ` are real pairs. All other volumes are
    treated as high-quality scans, and the physics of the task makes the low quality: for MRI when
    the set is read, for CT and PET now, each volume with its own seed. Slices of air are left out.

    No name, identity or path of the source is stored in the set: patients are numbered in the order
    of the paths of their volumes (`patient-0001`), their volumes after them (`patient-0001-1`), and
    each volume can be traced by the SHA-256 of its file. `Preparation.names` has the name that each
    volume was given.

    Args:
        source: the folder.
        output: folder of the prepared set, to be created.
        options: task, physics and split.
        skip: leave faulty volumes out and report them, instead of raising an error.
        progress: called with (volumes done, all).

    Returns:
        The prepared set, the volumes left out, and the names of the others.

    Raises:
        InputError: volumes cannot be read, lack their partner, have another modality or unit, or
            another grid than their partner, are too small, or contain only air; their patient is
            unknown; or there are too few patients for the split. The message names each.

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
    return Preparation((PreparedSet.read(output),), faults.entries, dict(others), kept)


def _public(options: FolderOptions) -> dict[str, Any]:
    """Options for the manifest, without the pattern, which may contain names."""
    return {key: value for key, value in dataclasses.asdict(options).items() if key != "patient"}


def _find(
    source: Path, options: FolderOptions, faults: Faults, others: Counter[str]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Paths by name of the high-quality volumes and, of pairs, of the low-quality ones."""
    there = [name for name in ("LQ", "HQ") if (source / name).is_dir()]
    if not there:
        return find_volumes(source, faults, others), {}
    if len(there) == 1:
        raise InputError(f"{source}: has only {there[0]}; real pairs need LQ and HQ")
    if options.planes == "all":
        raise ConfigError("planes 'all': real pairs are low in one plane; leave planes out")
    high, low = (find_volumes(source / name, faults, others, f"{name}/") for name in ("HQ", "LQ"))
    for quality, mine, partners in (("LQ", high, low), ("HQ", low, high)):
        for name in sorted(mine.keys() - partners.keys()):
            faults.add(f"{quality}/{name}", "is missing, its partner is there")
    others.update({entry.name: 1 for entry in source.iterdir() if entry.name not in there})
    return {name: path for name, path in high.items() if name in low}, low


def _stack_names(patients: Mapping[str, str]) -> dict[str, str]:
    """Name in the set of each volume: patients are numbered by first volume, then volumes."""
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
            "tell them apart with patient=PATTERN, or give validation=0 or test=0"
        )
    return split_patients(patients.values(), validation, test, options.seed)


def _read(
    path: Path, partner: Path | None, options: FolderOptions, name: str, faults: Faults
) -> Iterator[Slices]:
    task = get_task(options.task)
    volume = read_volume(path)
    high = task.rules.to_task_unit(volume, task)
    if partner is None:
        task.rules.require_degradable(volume, task)
    origin: dict[str, Any] = {"sha256": source_digest(path)}
    low: Volume | None = None
    if partner is not None:
        low = task.rules.to_task_unit(read_volume(partner), task)
        _require_equal_shape_and_affine(high, low)
        origin |= {"low_sha256": source_digest(partner), "low": "a scan of its own"}
    elif task.rules.stored_pairs:
        physics = DegradeOptions(factor=options.factor)
        seed = hashlib.sha256(f"{options.seed}:{origin['sha256']}".encode()).hexdigest()
        made = degradation.degrade(high, task, physics, seed=int(seed[:8], 16))
        high, low = made.high, made.low
        origin["low"] = made.record
    axes = square_planes(high) if options.planes == "all" else [slice_axis(high, task)]
    candidates = (_stack(high, low, task, axis, origin) for axis in axes)
    stacks = [stack for stack in candidates if stack is not None]
    if not stacks:
        raise InputError(f"{path.name}: no slice shows more than air; is this {task.modality}?")
    cropped = (
        (options.factor or task.factor) if low is None else 0
    )  # the physics needs a matrix of this size
    for stack in stacks:
        sides = stack.high.shape[1:]
        if min(sides) < max(STRIDE, cropped):
            raise InputError(f"{path.name}: slices of {sides[0]} x {sides[1]} pixels are too small")
        plane = f"-{stack.origin['plane']}" if options.planes == "all" else ""
        yield dataclasses.replace(stack, name=name + plane)


def _stack(
    high: Volume, low: Volume | None, task: Task, axis: int, origin: Mapping[str, Any]
) -> Slices | None:
    """Slices with signal across an axis, still without a name; None if all slices are air."""
    images, spacing = slices_across(high, axis)
    kept = indices_with_signal(images, high, task)
    if not kept:
        return None
    of_air = len(images) - len(kept)
    degraded = None if low is None else slices_across(low, axis)[0][kept]
    record = {"plane": _plane(high, axis), "slices": index_ranges(kept), "slices_of_air": of_air}
    return Slices("", images[kept], degraded, spacing, {**origin, **record})


def _plane(volume: Volume, axis: int) -> str:
    if volume.affine is None:
        return f"axis {axis}"
    affine = volume.affine
    return next(plane for plane in _PLANES if plane_axis(affine, plane) == axis)


def _require_equal_shape_and_affine(high: Volume, low: Volume) -> None:
    if high.data.shape != low.data.shape:
        raise InputError(f"{high.name}: HQ is {high.data.shape} and LQ {low.data.shape} voxels")
    if high.affine is None or low.affine is None:
        raise InputError(f"{high.name}: has no geometry; give NIfTI or DICOM")
    if not np.allclose(high.affine, low.affine, atol=_SAME_AFFINE):
        raise InputError(f"{high.name}: HQ and LQ lie on different grids; resample one of them")
