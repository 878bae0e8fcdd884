"""The scans that lesions are planted in: read, checked, and cut to some slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from restore_rwkv.data import PreparedSet, Stack
from restore_rwkv.data.prepared import holds_sets, read_sets
from restore_rwkv.errors import InputError, OperatorError
from restore_rwkv.evaluation.challenge.lesions import pixel_of
from restore_rwkv.evaluation.challenge.request import ChallengeRequest
from restore_rwkv.evaluation.challenge.sites import middles_of
from restore_rwkv.evaluation.study.naming import unique_names
from restore_rwkv.io import Source, Volume, degraded_by, file_sha256, read_volume, record_of
from restore_rwkv.tasks import Task, pick_task, slice_axis

_TOGETHER = ("PT",)  # modalities whose slices are simulated together
_BEYOND = 0.002  # share of the power of k-space: a degraded slice has up to 0.0008 outside


@dataclass(frozen=True, eq=False)
class GoodScan:
    """A scan of full quality.

    Attributes:
        name: unique in a challenge.
        task: its task.
        digest: SHA-256 of the file, or of the manifest of its set; "" for a folder.
        split: of its set; None for a file or series, of which nobody knows.
        read: reads it, in the unit of the task.
    """

    name: str
    task: Task
    digest: str
    split: str | None
    read: Callable[[], Volume]


def find_scans(request: ChallengeRequest) -> list[GoodScan]:
    """Return the scans of a request, none of which is read yet, except for what it is.

    Raises:
        InputError: a path cannot be used, scans are of several tasks, or two have the same name.
    """
    found = []
    for name, path in zip(unique_names(request.scans), request.scans, strict=True):
        if path.is_dir() and holds_sets(path):
            for prepared in read_sets(path):
                found += list(_of_set(prepared, request))
        else:
            found.append(_of_file(name, path, request))
    tasks = sorted({scan.task.name for scan in found})
    if len(tasks) > 1:
        raise InputError(f"scans: are for {' and '.join(tasks)}; challenge one task after another")
    names = [scan.name for scan in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(
            f"{twice[0]}: several scans have this name; give each scan once, or challenge one "
            "after another"
        )
    return found


def stack_volume(prepared: PreparedSet, stack: Stack) -> Volume:
    """Return the good slices of a prepared set as a volume (H, W, N) with a geometry.

    A set keeps spacings, not directions: the axes are made to be those of the plane of the task.

    Raises:
        InputError: the spacing is not known.
    """
    if stack.spacing is None:
        raise InputError(f"{stack.name}: has no spacing, so that nobody knows mm; give its scan")
    between, down, along = stack.spacing
    affine = np.diag([down, along, between, 1.0])
    if prepared.task.plane == "coronal":
        affine = affine[[0, 2, 1, 3]]
    images = np.moveaxis(np.asarray(prepared.images(stack, "high"), dtype=np.float32), 0, 2)
    task = prepared.task
    source = Source(Path(stack.name), images.shape, None)  # for messages
    return Volume(
        np.ascontiguousarray(images),
        affine,
        unit=task.unit,
        modality=task.modality,
        source=source,
    )


def fullest_part(volume: Volume, task: Task, most: int, radius: float) -> Volume:
    """Return the neighbouring slices of a scan with most room for lesions of a radius in mm.

    All are returned where they are few, and of PET.
    """
    axis = slice_axis(volume, task)
    count = volume.data.shape[axis]
    first, last = 0, count
    if task.modality not in _TOGETHER and most < count:
        room = np.moveaxis(middles_of(volume, task, radius), axis, 0)
        sums = np.concatenate([[0], np.cumsum(room.sum(axis=(1, 2)))])
        first = int(np.argmax(sums[most:] - sums[:-most]))
        last = first + most
    shift = np.eye(4)
    shift[axis, 3] = first
    affine = None if volume.affine is None else volume.affine @ shift
    data = np.moveaxis(volume.slices(axis)[first:last], 0, axis)
    return volume.resampled(np.ascontiguousarray(data), affine)


def require_good(volume: Volume, task: Task, name: str, radii: tuple[float, ...]) -> None:
    """Refuse what lesions cannot be planted in, or is not of full quality.

    Raises:
        InputError: there is no geometry, a radius is below the pixels, or MRI has no detail that
            its degradation could take away.
    """
    if volume.spacing is None:
        raise InputError(
            f"{name}: has no geometry, so that nobody knows the size of its voxels in mm; give "
            "NIfTI or DICOM"
        )
    pixel = pixel_of(volume)
    if min(radii) < pixel:
        raise InputError(
            f"{name}: a radius of {min(radii):g} mm is below its pixels of {pixel:.3g} mm; give "
            "larger radii=MM"
        )
    if task.rules.holds_measurement:
        _require_detail(volume, task, slice_axis(volume, task), name)


def _require_detail(volume: Volume, task: Task, axis: int, name: str) -> None:
    try:
        found = task.rules.fit_measures(replace(volume, source=None), task, axis)
    except OperatorError as error:
        raise InputError(f"{name}: {error}") from error
    if found["power_outside"] < _BEYOND:
        raise InputError(
            f"{name}: hardly has power outside 1/{task.factor:g} of its k-space, so it is of low "
            "quality already; give a scan of full quality"
        )


def _of_set(prepared: PreparedSet, request: ChallengeRequest) -> Iterator[GoodScan]:
    if request.task not in ("auto", prepared.task_name):
        raise InputError(
            f"{prepared.folder}: is for {prepared.task_name}, not {request.task}; give another "
            "task=NAME, or a set of it"
        )
    stacks = prepared.split(request.split)
    if not stacks:
        raise InputError(
            f"{prepared.folder}: has no {request.split} slices; give another split=NAME"
        )
    for stack in stacks:

        def read(stack: Stack = stack) -> Volume:
            return _part(stack_volume(prepared, stack), prepared.task, stack.name, request)

        yield GoodScan(stack.name, prepared.task, prepared.sha256, request.split, read)


def _of_file(name: str, path: Path, request: ChallengeRequest) -> GoodScan:
    volume = read_volume(path)
    task = pick_task(volume, request.task)
    if degraded_by(path, task.name) is not None:
        raise InputError(f"{path}: was degraded, as its record says; give the scan of full quality")
    if path.is_file() and record_of(path).is_file():
        raise InputError(f"{path}: was restored, as its record says; give the scan of full quality")

    def read() -> Volume:
        whole = read_volume(path)
        if whole.modality not in (None, task.modality):
            raise InputError(
                f"{name}: is {whole.modality}, and lesions of {task.name} are planted in "
                f"{task.rules.title}; give such a scan, or another task=NAME"
            )
        strange = task.rules.strange_values(whole)
        if strange is not None and strange.level == "unfit":
            raise InputError(f"{name}: {strange.text}")
        return _part(task.rules.to_task_unit(whole, task), task, name, request)

    digest = file_sha256(path) if path.is_file() else ""
    return GoodScan(name, task, digest, None, read)


def _part(whole: Volume, task: Task, name: str, request: ChallengeRequest) -> Volume:
    """The part of a good scan that is used."""
    require_good(whole, task, name, request.radii)
    return fullest_part(whole, task, request.slices, max(request.radii))
