"""PET in SUV or Bq/ml: scaling through SUV, and low dose from simulated counts."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from restore_rwkv.errors import InputError, OperatorError
from restore_rwkv.io import DicomSource, Finding, Progress, Volume, plane_axis
from restore_rwkv.tasks.measures import Measure
from restore_rwkv.tasks.modality import (
    Degraded,
    DegradeOptions,
    Modality,
    by_limits,
    other_pixel,
    slice_tensor,
    spread_slices,
)
from restore_rwkv.tasks.scaling import FOREGROUND_LEVEL, Scaling, ScalingRule, robust_scaling

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from restore_rwkv.physics.pet import PETScanner
    from restore_rwkv.tasks.again import MeasureAgain, RestoredScan
    from restore_rwkv.tasks.table import Task
    from restore_rwkv.tasks.turns import Turn

_logger = logging.getLogger(__name__)

_AIR = FOREGROUND_LEVEL / 20
_UPTAKES = {"background": _AIR, "low-uptake": FOREGROUND_LEVEL, "high-uptake": math.inf}  # scaled
_VIEWS = 96  # of the scanner that measures again: noise as with 192, in half the time
_NEVER_BELOW = (
    0.3  # of the voxels; the noise of filtered back-projection is below 0 outside the body
)


class PET(Modality):
    """Positron emission tomography. It can be simulated from a T1-weighted scan of a head."""

    code = "PT"
    title = "PET"
    degraded_from = ("PT", "MR")
    noise_unit = "of the uptake"
    samples = 4
    degrade_options = frozenset({"axes", "dose"})
    measures: ClassVar[Mapping[str, Measure]] = {
        "noise": Measure(
            "the noise, as a fraction of the uptake,",
            margin=1.1,
            low="it has no more noise than a scan of full counts; leave it as it is",
            high="it has more noise than the weights have seen; restore it from more counts",
        ),
    }

    def strange_values(self, volume: Volume) -> Finding | None:
        """Return a finding as for other modalities; many negative values are never PET."""
        found = super().strange_values(volume)
        if found is None or float(np.mean(volume.data < 0)) < _NEVER_BELOW:
            return found
        return dataclasses.replace(found, level="unfit")

    def find_scaling(
        self, volume: Volume, rule: ScalingRule, *, in_task_unit: bool = False
    ) -> tuple[Scaling, dict[str, Any]]:
        """Return the scaling of a volume onto network values, and entries for the record.

        Fixed rules are in SUV. They apply to volumes in SUV, and in Bq/ml where the SUV of one
        Bq/ml is known. Any other PET is scaled by its own foreground, with a warning that says why.
        """
        if rule.kind == "robust":
            return super().find_scaling(volume, rule)
        factor = _suv_per_unit(volume, in_task_unit)
        if factor is None:
            reason = _why_no_suv(volume)
            _logger.warning(
                "%s: %s, so it is scaled by its own foreground, unlike the training data; "
                "correct that, or give values in SUV with unit='SUV'",
                *(volume.name, reason),
            )
            return robust_scaling(volume.data), {"scaling_rule": "robust", "no_suv": reason}
        fixed = rule.scaling_of(volume.data)
        scaling = Scaling(fixed.offset / factor, fixed.scale / factor)
        return scaling, {"scaling_rule": "fixed", "suv_per_unit": factor}

    def to_task_unit(self, volume: Volume, task: Task) -> Volume:
        """Return PET in SUV; MRI, from which PET is simulated, is returned unchanged."""
        if volume.modality == "MR":
            return volume
        known = volume.modality in (None, self.code) and volume.suv_per_unit is not None
        if known and volume.unit == "Bq/ml":
            uptake = volume.data * np.float32(volume.suv_per_unit or 1)
            return dataclasses.replace(volume, data=uptake, unit="SUV")
        return super().to_task_unit(volume, task)

    def require_degradable(self, volume: Volume, task: Task) -> None:
        """Raise InputError unless the scan is known to be PET or MRI."""
        super().require_degradable(volume, task)
        if volume.modality is None:
            raise InputError(
                f"{volume.name}: nothing says whether it is PET, or MRI to simulate PET from; "
                'say so in a .json of its name beside it, {"Modality": "PT"} or '
                '{"Modality": "MR"}'
            )

    def measured_noise(self, slices: NDArray[np.float32]) -> float:
        """Return the noise as a fraction of the uptake; see `restore_rwkv.physics.pet`."""
        import torch

        from restore_rwkv.physics.pet import noise_level

        return noise_level(torch.from_numpy(slices))

    def fit_measures(self, volume: Volume, task: Task, axis: int) -> dict[str, float]:
        """Return the noise as a fraction of the uptake, in pixels of the simulated scanner."""
        from restore_rwkv.physics.pet import PETScanner

        known = PETScanner().pixel
        other = other_pixel(volume, axis, known)
        if other is not None:
            raise OperatorError(
                f"pixels of {other:.3g} mm, and the noise is known for {known:g} mm; resample the "
                "scan to compare it"
            )
        return {"noise": self.measured_noise(spread_slices(volume, axis))}

    def degrade(
        self,
        volume: Volume,
        task: Task,
        options: DegradeOptions,
        generator: torch.Generator,
        progress: Progress | None = None,
    ) -> Degraded:
        """Simulate a scan of fewer counts, of a PET scan or of the activity of an MRI scan."""
        from restore_rwkv.physics.pet import reduce_dose

        if volume.affine is None:
            raise _without_geometry(volume)
        dose = 1 / options.factor_for(task)
        if volume.modality != self.code:
            return _from_anatomy(volume, dose, options, generator)
        axis, scanner = _axial(volume)
        images = slice_tensor(volume, axis).clamp(min=0)
        low = reduce_dose(images, dose=dose, scanner=scanner, generator=generator)
        record = {"slice_axis": axis, "scanner": dataclasses.asdict(scanner)}
        return Degraded(volume.with_slices(low.numpy(), axis), volume, record)

    def degrade_changed(
        self,
        made: Degraded,
        changed: Volume,
        task: Task,
        options: DegradeOptions,
        generator: torch.Generator,
    ) -> Volume:
        """Add and drop events of the same scan; see `reduce_dose_with_added`.

        Raises:
            InputError: the scan was made from MRI, whose activity is not known any more.
        """
        from restore_rwkv.physics.pet import PETScanner, reduce_dose_with_added

        if "simulated" in made.record:
            raise InputError(
                f"{made.high.name}: is MRI, and lesions are planted in PET; give a PET scan"
            )
        axis = made.record["slice_axis"]
        image = slice_tensor(made.high, axis).clamp(min=0)
        low = reduce_dose_with_added(
            image,
            slice_tensor(changed, axis).clamp(min=0) - image,
            dose=1 / options.factor_for(task),
            scanner=PETScanner(**made.record["scanner"]),
            generator=generator,
        )
        return made.low.with_slices(low.numpy(), axis)

    def measure_again(self, case: RestoredScan) -> MeasureAgain:
        """Add noise of counts that give the noise of the scan, simulated in axial slices.

        Noise is added before slices are turned, as they may be of another plane.
        """
        from restore_rwkv.physics.pet import OwnNoise, matched_counts

        axis, scanner = _axial(case.scan)
        scan, image = (
            slice_tensor(volume, axis).clamp(min=0) for volume in (case.scan, case.restored)
        )
        fewer = dataclasses.replace(scanner, views=_VIEWS, counts=scanner.counts / 10)
        counts = matched_counts(scan, image, fewer)
        noise = OwnNoise(image, dataclasses.replace(fewer, counts=counts))
        lowest = 0.0 if case.scan.data.min() >= 0 else -math.inf

        def again(turn: Turn, generator: torch.Generator) -> NDArray[np.float32]:
            low = (slice_tensor(case.restored, axis) + noise.draw(generator)).clamp(min=lowest)
            return turn.turned(case.restored.with_slices(low.numpy(), axis).slices(case.axis))

        return again

    def tissues(
        self, values: NDArray[np.float32], scale: float
    ) -> tuple[NDArray[np.int8], tuple[str, ...]]:
        """Return background up to 0.25 SUV, low uptake up to 5 SUV, or high uptake.

        Where the SUV is not known it is up to a twentieth of the foreground's mean, and up to it.
        """
        return by_limits(values / np.float32(scale), _UPTAKES)


def _without_geometry(volume: Volume) -> InputError:
    return InputError(f"{volume.name}: has no geometry, which PET needs; give NIfTI or DICOM")


def _axial(volume: Volume) -> tuple[int, PETScanner]:
    """Return the axis across axial slices, and a scanner with their grid.

    Raises:
        InputError: the volume has no geometry, or its pixels are not square.
    """
    from restore_rwkv.physics.pet import PETScanner

    if volume.affine is None or volume.spacing is None:
        raise _without_geometry(volume)
    axis = plane_axis(volume.affine, "axial")
    across = [other for other in range(3) if other != axis]
    pixel, other_side = (volume.spacing[other] for other in across)
    if not math.isclose(pixel, other_side, rel_tol=0.01):
        raise InputError(
            f"{volume.name}: pixels of {pixel:.3g} x {other_side:.3g} mm, and simulated PET "
            "has square pixels; resample it first"
        )
    return axis, PETScanner(
        size=max(volume.data.shape[other] for other in across),
        pixel=pixel,
        slice_spacing=volume.spacing[axis],
    )


def _from_anatomy(
    volume: Volume, dose: float, options: DegradeOptions, generator: torch.Generator
) -> Degraded:
    """Simulate both qualities from the FDG-like activity of a T1-weighted head."""
    from restore_rwkv.physics.pet import (
        PETScanner,
        activity_map,
        attenuation_map,
        sample_uptake,
        segment_head,
        simulate_pair,
    )

    head = segment_head(volume, axes=options.axes)
    uptake = sample_uptake(head, generator)
    activity = activity_map(head, uptake)
    images, mu = slice_tensor(activity, 2), slice_tensor(attenuation_map(head), 2)
    pair = simulate_pair(images, mu, dose=dose, generator=generator)
    high, low = (activity.with_slices(image.numpy(), 2) for image in pair)
    record = {
        "simulated": "PET, from the anatomy of an MRI scan",
        "uptake": dataclasses.asdict(uptake),
        "scanner": dataclasses.asdict(PETScanner()),
    }
    return Degraded(low, high, record)


def _suv_per_unit(volume: Volume, in_task_unit: bool) -> float | None:
    if volume.unit == "SUV" or (in_task_unit and volume.unit != "Bq/ml"):
        return 1.0
    return volume.suv_per_unit if volume.unit == "Bq/ml" else None


def _why_no_suv(volume: Volume) -> str:
    if isinstance(volume.source, DicomSource) and volume.source.no_suv:
        return f"PET without SUV ({volume.source.no_suv})"
    if volume.unit == "Bq/ml":
        return "PET in Bq/ml without SUV (the file gives neither dose nor weight)"
    return "PET of unknown unit"
