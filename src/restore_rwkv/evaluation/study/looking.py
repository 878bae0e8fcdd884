"""All inputs of an evaluation are looked at before the first is computed."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data import PreparedSet, Stack
from restore_rwkv.data.prepared import holds_sets, read_sets
from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.study.faults import FaultList
from restore_rwkv.evaluation.study.naming import (
    is_path_inside,
    patient_of,
    patients_by_scan,
    printable,
    unique_names,
)
from restore_rwkv.evaluation.study.pairing import (
    find_images,
    grid_fault,
    partner,
    turn_fault,
    unit_fault,
    without_suffix,
)
from restore_rwkv.evaluation.study.request import StudyRequest
from restore_rwkv.evaluation.study.sources import (
    Case,
    FileReader,
    ScanReader,
    StackReader,
    as_stack,
)
from restore_rwkv.io import Progress, Volume, begin_stage, identify, read_volume
from restore_rwkv.tasks import DegradeOptions, Task, pick_task, slice_axis

_logger = logging.getLogger(__name__)


def look_at(request: StudyRequest, faults: FaultList, progress: Progress | None) -> list[Case]:
    """Read every input, and return the scans to be scored, those without faults only.

    Args:
        request: what is scored.
        faults: receives what is wrong with inputs.
        progress: told what is read.
    """
    sets: list[PreparedSet] = []
    files: list[Path] = []
    for path in request.truths:
        with faults.collected():
            if path.is_dir() and holds_sets(path):
                sets += read_sets(path)
            else:
                files.append(path)
    folders: dict[str, dict[str, Path]] = {}
    for name, root in request.roots.items():
        with faults.collected():
            folders[name] = find_images(root)
    cases = _of_sets(sets, folders, request, faults, progress)
    if request.from_files:
        cases += _of_files(files, folders, request, faults, progress)
    else:
        cases += _of_scans(files, request, faults, progress)
    _warn_of_unused(folders, cases, request)
    if not request.truths:
        faults.add("truths: there are none; give scans or prepared sets")
    counts = Counter(case.key for case in cases)
    for twice in sorted(key for key, count in counts.items() if count > 1):
        faults.add(f"{twice}: several scans have this name; evaluate them one after the other")
    return cases


def _warn_of_unused(
    folders: Mapping[str, dict[str, Path]], cases: Sequence[Case], request: StudyRequest
) -> None:
    """Log a warning for each folder with images that have no truth."""
    keys = {case.key for case in cases}
    for method, images in folders.items():
        unused = [] if len(images) == 1 else sorted(images.keys() - keys)
        if unused and len(unused) < len(images):  # else all is missing, which is a fault
            _logger.warning(
                "%s: %d image(s) have no truth and are not scored, the first %s",
                *(request.roots[method], len(unused), unused[0]),
            )


def _of_sets(
    sets: Sequence[PreparedSet],
    folders: Mapping[str, dict[str, Path]],
    request: StudyRequest,
    faults: FaultList,
    progress: Progress | None,
) -> list[Case]:
    cases: list[Case] = []
    if sets and request.low is not None:
        faults.add(f"{sets[0].folder}: is a prepared set, which holds its input; leave low out")
    for prepared, name in zip(sets, unique_names([s.folder for s in sets]), strict=True):
        begin_stage(progress, f"looking at {name}")
        if not prepared.split(request.split):
            faults.add(f"{prepared.folder}: has no {request.split} slices; give another split=NAME")
        inside = f"{name}/" if len(sets) > 1 else ""
        for stack in prepared.split(request.split):
            key = printable(f"{inside}{stack.patient}/{stack.name}")
            with faults.collected():
                if not is_path_inside(key):
                    raise InputError(f"{prepared.folder}: {key!r} is not a path; rename the stack")
                restored = _of_stack(prepared, stack, key, folders, request, faults)
                cases.append(
                    Case(
                        name=printable(inside + stack.name),
                        key=key,
                        patient=printable(inside + stack.patient),
                        task=prepared.task,
                        shape=stack.shape,
                        origin=name,
                        digest=prepared.sha256,
                        read=StackReader(prepared, stack, restored),
                        stack=True,
                    )
                )
    return cases


def _of_stack(
    prepared: PreparedSet,
    stack: Stack,
    key: str,
    folders: Mapping[str, dict[str, Path]],
    request: StudyRequest,
    faults: FaultList,
) -> dict[str, Path]:
    """Return the restored files of a stack by method, after a look at each."""
    found: dict[str, Path] = {}
    for name, images in folders.items():
        path = images.get(key)
        if path is None:
            root = request.restored.get(name, Path(name))
            faults.add(f"{root}: has no {key}.npy; add it, of shape {stack.shape}")
            continue
        with faults.collected(path):
            volume = read_volume(path)
            restored = as_stack(path, volume)
            count, height, width = stack.shape
            if restored.shape != (height, width, count):
                given = volume.source.shape if volume.source else volume.data.shape
                raise InputError(f"{path}: has shape {given}; give {stack.shape}")
            _check_finite(volume, path)
            truth = np.moveaxis(prepared.images(stack, "high"), 0, 2)
            _check_fit(restored, truth, path, prepared.task, request)
            found[name] = path
    return found


def _of_scans(
    paths: Sequence[Path], request: StudyRequest, faults: FaultList, progress: Progress | None
) -> list[Case]:
    """Return scans that are to be degraded."""
    cases: list[Case] = []
    physics = DegradeOptions(axes=request.axes)
    for number, (path, name) in enumerate(zip(paths, unique_names(paths), strict=True), 1):
        begin_stage(progress, f"looking at {name} ({number} of {len(paths)})")
        with faults.collected(path):
            volume = read_volume(path)
            task = pick_task(volume, request.task)
            task.rules.require_degradable(volume, task)
            kept = None if cases else volume  # memory holds one scan at a time
            key = without_suffix(name)
            patient = patient_of(key, request.patient)
            read = ScanReader(path, task, physics, request.seed, kept)
            cases.append(_case(name, key, patient, volume, read))
    return cases


def _of_files(
    truths: Sequence[Path],
    folders: Mapping[str, dict[str, Path]],
    request: StudyRequest,
    faults: FaultList,
    progress: Progress | None,
) -> list[Case]:
    """Return scans whose images are all on disk."""
    images: dict[str, Path] = {}
    for root in truths:
        with faults.collected():
            for name, path in find_images(root).items():
                if name in images:
                    raise InputError(f"{path}: there is {images[name]} too; name one otherwise")
                images[name] = path
    cases: list[Case] = []
    patients = patients_by_scan(images, request.patient, faults)
    for number, (name, path) in enumerate(images.items(), 1):
        begin_stage(progress, f"looking at {name} ({number} of {len(images)})")
        others: dict[str, Path] = {}
        for method, of_method in folders.items():
            other = partner(name, of_method, len(images))
            if other is None:
                root = request.roots[method]
                faults.add(f"{root}: has no {name}, which {path.name} is the truth of; add it")
            else:
                others[method] = other
        with faults.collected(path):
            truth, read = _checked_files(path, others, request, faults)
            shown = path.name if name == "." else name
            cases.append(_case(shown, shown, patients.get(name, shown), truth, read))
    return cases


def _checked_files(
    path: Path, others: Mapping[str, Path], request: StudyRequest, faults: FaultList
) -> tuple[Volume, FileReader]:
    """Compare the images of a scan with its truth; return that and the reader of all."""
    volume = read_volume(path)
    task = pick_task(volume, request.task)
    reader = FileReader(path, task, others)
    truth = task.rules.to_task_unit(volume, task)
    for other in others.values():
        with faults.collected(other):
            if other.exists() and path.exists() and os.path.samefile(other, path):
                raise InputError(f"{other}: is the truth itself; give the folder of other images")
            image = reader.in_task_unit(other)
            fault = grid_fault(image, truth)
            if fault is not None:
                raise InputError(f"{other}: {fault}")
            _check_finite(image, other)
            _check_fit(image.data, truth.data, other, task, request)
    return truth, reader


def _check_finite(image: Volume, path: Path) -> None:
    if image.missing is not None:
        count = int(image.missing.sum())
        raise InputError(f"{path}: {count} voxels are not finite; write a number for each")


def _check_fit(
    image: NDArray[np.float32],
    truth: NDArray[np.generic],
    path: Path,
    task: Task,
    request: StudyRequest,
) -> None:
    if request.options.force:
        return
    fault = unit_fault(image, truth, task.unit) or turn_fault(image, truth)
    if fault is not None:
        raise InputError(f"{path}: {fault}")


def _case(name: str, key: str, patient: str, volume: Volume, read: ScanReader | FileReader) -> Case:
    count, height, width = volume.slices(slice_axis(volume, read.task)).shape
    source = identify(volume)
    return Case(
        name=name,
        key=key,
        patient=patient,
        task=read.task,
        shape=(count, height, width),
        origin=name,
        digest=source.source_sha256 if source else "",
        read=read,
    )
