"""From a good scan to a low-quality one, as the scanner of a task would have made it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import (
    Volume,
    check_output,
    check_output_path,
    check_record,
    plane_axis,
    read_volume,
    record_of,
    write_record,
    write_volume,
)
from restore_rwkv.physics.ct.calibration import calibrated
from restore_rwkv.physics.ct.dose import AIR, CTScanner, reduce_dose
from restore_rwkv.physics.mri.kspace import kspace_block_shape, kspace_noise
from restore_rwkv.physics.mri.resolution import kspace_crop
from restore_rwkv.physics.pet.activity import activity_map, attenuation_map, sample_uptake
from restore_rwkv.physics.pet.dose import low_dose, simulate_pair
from restore_rwkv.physics.pet.head import segment_head
from restore_rwkv.physics.pet.scanner import PETScanner
from restore_rwkv.tasks import AUTO, NOTICE, pick_task, slice_axis
from restore_rwkv.tasks.table import Modality, Task, task_of
from restore_rwkv.tasks.units import warn_of_strange_values


@dataclass(frozen=True)
class Settings:
    """What may be chosen about the scanner; the defaults are the paper's degradations.

    Attributes:
        factor: how much less is measured, as `Task.factor`: k-space extent per axis for MRI, dose
            for CT and PET (4 is a quarter of the dose); above 1. None for the task's own.
        sigma: MRI: sd of the complex noise per channel, in image units of a full acquisition.
        photons: CT: photons per ray at the scan's own dose; None measures the scan's own noise.
        axes: PET from a T1 scan: directions of its array axes, such as "PIR", where the affine
            does not tell them rightly.
        dose: CT, PET: the fraction to keep, in place of its inverse, `factor`.

    Raises:
        ConfigError: a value is out of range, or `factor` and `dose` are both given.
    """

    factor: float | None = None
    sigma: float = 0.0
    photons: float | None = None
    axes: str | None = None
    dose: float | None = None

    def __post_init__(self) -> None:
        if self.factor is not None and not 1 < self.factor < 1e6:
            raise ConfigError(f"factor is {self.factor:g}; give a number above 1, such as 4")
        if self.dose is not None and self.factor is not None:
            raise ConfigError("dose and factor are both given; give one of them")
        if self.dose is not None and not 0 < self.dose < 1:
            raise ConfigError(
                f"dose is {self.dose:g}; give the fraction to keep, above 0 and below 1"
            )

    def factor_for(self, task: Task) -> float:
        """How much less is measured of a scan of this task."""
        return self.factor or (task.factor if self.dose is None else 1 / self.dose)

    def check(self, task: Task) -> None:
        """Refuse what the physics of a task would leave unused.

        Raises:
            ConfigError: the message names the setting.
        """
        users: dict[str, tuple[Modality, ...]] = {
            "sigma": ("MR",),
            "photons": ("CT",),
            "axes": ("PT",),
            "dose": ("CT", "PT"),
        }
        for name, modalities in users.items():
            if getattr(self, name) not in (None, 0) and task.modality not in modalities:
                tasks = " and ".join(task_of(modality).name for modality in modalities)
                raise ConfigError(f"{name}: is for {tasks}, not {task.name}; leave it out")


@dataclass(frozen=True, eq=False)
class Degraded:
    """A pair of scans on one grid.

    Attributes:
        low: the low-quality scan.
        high: the scan of full quality that it is to be held against.
        record: how it was made, as plain JSON values.
    """

    low: Volume
    high: Volume
    record: dict[str, Any]


def degrade(
    volume: Volume, task: Task, settings: Settings | None = None, *, seed: int = 0
) -> Degraded:
    """Make a low-quality scan from a good one by the physics of a task.

    MRI: the centre of k-space, zero-filled, in the plane of finest spacing. CT: noise inserted into
    axial slices, padding below -1024 HU being air in both scans. PET: a PET scan is taken for the
    activity; from a T1-weighted head scan an FDG-like activity map is made first, so that high and
    low are simulated PET on a grid of 2 mm.

    Args:
        volume: the good scan, in the unit of the task.
        task: what to simulate.
        settings: choices about the scanner.
        seed: of everything random; 0 or more.

    Raises:
        InputError: the scan's modality does not suit the task, or it lacks the geometry needed.
        ConfigError: a setting is out of range.
        OperatorError: the physics refuses the scan.

    Example:
        >>> quarter = degrade(read_volume("ct.nii.gz"), get_task("ct-denoise"))  # doctest: +SKIP
        >>> write_volume(quarter.low, "ct-quarter-dose.nii.gz")  # doctest: +SKIP
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}; give a whole number from 0")
    settings = settings or Settings()
    settings.check(task)
    require_suited(volume, task)
    warn_of_strange_values(volume, task)
    factor = settings.factor_for(task)
    generator = torch.Generator().manual_seed(seed)
    physics: Callable[..., Degraded] = {"MR": _mri, "CT": _ct, "PT": _pet}[task.modality]
    made = physics(volume, factor, settings, generator)
    return dataclasses.replace(
        made, record={"task": task.name, "factor": factor, "seed": seed, **made.record}
    )


def require_suited(volume: Volume, task: Task) -> None:
    """Refuse a scan that the physics of a task is not for, or cannot tell how to take.

    Raises:
        InputError: it is of another modality, or for PET nothing tells its modality.
    """
    suited = {"MR": ("MR",), "CT": ("CT",), "PT": ("PT", "MR")}[task.modality]
    if volume.modality is not None and volume.modality not in suited:
        raise InputError(
            f"{volume.name}: is {volume.modality}; {task.name} degrades {' or '.join(suited)}, "
            "choose another task"
        )
    if volume.modality is None and task.modality == "PT":
        raise InputError(
            f"{volume.name}: nothing tells whether it is PET, or MRI to simulate PET from; say so "
            'in a .json of its name beside it, {"Modality": "PT"} or {"Modality": "MR"}'
        )


def degrade_file(
    source: Path | str,
    output: Path | str,
    *,
    task: str = AUTO,
    settings: Settings | None = None,
    seed: int = 0,
    truth: Path | str | None = None,
    series: int | str | None = None,
    overwrite: bool = False,
) -> Path:
    """Degrade a scan on disk, and write it with a record of how it was made.

    Args:
        source: NIfTI file or folder with a DICOM series. Never changed.
        output: file to write.
        task: name of the task; "auto" picks it by the modality that the source tells.
        settings: choices about the scanner.
        seed: of everything random.
        truth: where to write the scan of full quality on the grid of the output, if anywhere.
        series: which series of a DICOM folder with several.
        overwrite: replace existing outputs.

    Returns:
        Path of the record, beside the output with the suffix .degradation.json.

    Raises:
        InputError: the source cannot be read, or an output not be written.
        ConfigError: as `degrade`.
        OperatorError: as `degrade`.
    """
    source, outputs = Path(source), [Path(path) for path in (output, truth) if path is not None]
    record_path = record_of(outputs[0], "degradation")
    for path in outputs:
        check_output_path(path, source=source, overwrite=overwrite)
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise InputError(f"{output}: is named twice; give the truth a file of its own")
    check_record(record_path, overwrite=overwrite)
    volume = read_volume(source, series=series)
    chosen = pick_task(volume, task)
    made = degrade(volume, chosen, settings, seed=seed)
    pairs = list(zip(outputs, (made.low, made.high), strict=False))
    for path, image in pairs:
        check_output(image, path, overwrite=overwrite)
    for path, image in pairs:
        write_volume(image, path, overwrite=overwrite)
    told = {"modality": made.low.modality or chosen.modality, "unit": made.low.unit}
    write_record(record_path, {"notice": NOTICE} | told | made.record, source)
    return record_path


def _mri(volume: Volume, factor: float, settings: Settings, generator: torch.Generator) -> Degraded:
    axis = slice_axis(volume, task_of("MR"))
    height, width = np.moveaxis(volume.data, axis, 0).shape[1:]

    def physics(images: Tensor) -> Tensor:
        noise = None
        if settings.sigma:
            noise = kspace_noise(tuple(images.shape), settings.sigma, generator, factor)
        return kspace_crop(images, factor, noise)

    low = _by_slice(volume, axis, physics)
    kept = list(kspace_block_shape(height, width, factor))
    return Degraded(low, volume, {"slice_axis": axis, "kept": kept, "sigma": settings.sigma})


def _ct(volume: Volume, factor: float, settings: Settings, generator: torch.Generator) -> Degraded:
    if volume.affine is None or volume.spacing is None:
        raise InputError(
            f"{volume.name}: has no geometry, and the noise of CT depends on the pixels' size; "
            "give NIfTI or DICOM"
        )
    axis = plane_axis(volume.affine, "axial")
    rows, columns = (volume.spacing[other] for other in range(3) if other != axis)
    if volume.data.min() < AIR:  # a network would learn to make the padding that low has not
        volume = volume.with_data(volume.data.clip(min=AIR))
    slices = torch.from_numpy(np.ascontiguousarray(np.moveaxis(volume.data, axis, 0)))
    scanner = (
        calibrated(CTScanner(), slices, (rows, columns))
        if settings.photons is None
        else CTScanner(photons=settings.photons)
    )
    low = _by_slice(
        volume,
        axis,
        lambda images: reduce_dose(images, (rows, columns), 1 / factor, scanner, generator),
    )
    return Degraded(low, volume, {"slice_axis": axis, "scanner": dataclasses.asdict(scanner)})


def _pet(volume: Volume, factor: float, settings: Settings, generator: torch.Generator) -> Degraded:
    if volume.affine is None or volume.spacing is None:
        raise InputError(f"{volume.name}: has no geometry, which PET needs; give NIfTI or DICOM")
    if volume.modality != "PT":
        return _pet_from_anatomy(volume, factor, settings, generator)
    axis = plane_axis(volume.affine, "axial")
    across = [other for other in range(3) if other != axis]
    pixel, other_side = (volume.spacing[other] for other in across)
    if not math.isclose(pixel, other_side, rel_tol=0.01):
        raise InputError(
            f"{volume.name}: pixels of {pixel:.3g} x {other_side:.3g} mm, and simulated PET has "
            "square ones; resample it first"
        )
    scanner = PETScanner(
        size=max(volume.data.shape[other] for other in across),
        pixel=pixel,
        slice_spacing=volume.spacing[axis],
    )
    low = _by_slice(
        volume,
        axis,
        lambda images: low_dose(
            images.clamp(min=0), dose=1 / factor, scanner=scanner, generator=generator
        ),
    )
    return Degraded(low, volume, {"slice_axis": axis, "scanner": dataclasses.asdict(scanner)})


def _pet_from_anatomy(
    volume: Volume, factor: float, settings: Settings, generator: torch.Generator
) -> Degraded:
    head = segment_head(volume, axes=settings.axes)
    uptake = sample_uptake(head, generator)
    activity = activity_map(head, uptake)
    attenuation = attenuation_map(head)
    slices, mu = (
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(one.data, 2, 0)))
        for one in (activity, attenuation)
    )
    pair = simulate_pair(slices, mu, dose=1 / factor, generator=generator)
    high, low = (activity.with_data(np.moveaxis(images.numpy(), 0, 2)) for images in pair)
    record = {
        "simulated": "PET, from the anatomy of an MRI scan",
        "uptake": dataclasses.asdict(uptake),
        "scanner": dataclasses.asdict(PETScanner()),
    }
    return Degraded(low, high, record)


def _by_slice(volume: Volume, axis: int, physics: Callable[[Tensor], Tensor]) -> Volume:
    """The volume with all slices (N, H, W) across an axis degraded."""
    stack = np.ascontiguousarray(np.moveaxis(volume.data, axis, 0))
    images: NDArray[Any] = physics(torch.from_numpy(stack)).numpy()
    return volume.with_data(np.moveaxis(images, 0, axis))
