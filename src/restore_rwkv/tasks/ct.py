"""CT in Hounsfield units: noise at a reduced dose, and padding outside the field of view."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io import Finding, Progress, Volume, begin_stage, plane_axis
from restore_rwkv.tasks.measures import Measure
from restore_rwkv.tasks.modality import (
    Degraded,
    DegradeOptions,
    Modality,
    by_limits,
    sampled,
    slice_tensor,
    spread_slices,
)

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from restore_rwkv.tasks.again import MeasureAgain, RestoredScan
    from restore_rwkv.tasks.table import Task
    from restore_rwkv.tasks.turns import Turn

_TISSUES = {  # up to this value, in HU
    "air": -900.0,
    "lung": -300.0,
    "soft-tissue": 200.0,
    "bone": math.inf,
}
_MANY = 0.01  # of the voxels
_FAT = -50.0  # HU: every scan of a body shows fat or air


class CT(Modality):
    """Computed tomography. Values below the range of a task are padding, not tissue."""

    code = "CT"
    title = "CT"
    degraded_from = ("CT",)
    additive_noise = True
    noise_unit = "HU"
    degrade_options = frozenset({"photons", "dose"})

    measures: ClassVar[Mapping[str, Measure]] = {
        "noise": Measure(
            "the noise in soft tissue, in HU,",
            margin=2.0,
            low="it has hardly any noise to remove; leave it as it is",
            high="it has more noise than the weights have seen; restore it from more dose",
        ),
        "noise_frequency": Measure(
            "the frequency of the noise in soft tissue, in cycles per mm,",
            margin=1.2,
            high="its noise is finer than the weights know, as of a sharp kernel; reconstruct it "
            "with a softer one",
        ),
        "noise_correlation": Measure(
            "the correlation of the noise of neighbouring pixels",
            margin=0.15,
            high="its noise is smoother than the weights know, as of an image that was filtered or "
            "enlarged; give the unfiltered reconstruction",
            differences=True,
        ),
    }
    value_limits = (-10000.0, 40000.0)  # HU, with room for padding and the scale of metal
    samples = 5

    def strange_values(self, volume: Volume) -> Finding | None:
        """Return a finding if the values are not in HU, unless the file states that they are."""
        if volume.unit == "HU" or np.quantile(sampled(volume), _MANY) <= _FAT:
            return None
        return Finding(
            "unfit",
            "strange-values",
            f"hardly a value is below {_FAT:g}, so these are not Hounsfield units (air is -1000); "
            "give HU, or another task",
        )

    def fit_measures(self, volume: Volume, task: Task, axis: int) -> dict[str, float]:
        """Return level, frequency and correlation of the noise in soft tissue, of 8 slices.

        Without geometry the frequency is left out.
        """
        import torch

        from restore_rwkv.physics.ct import noise_texture

        slices = spread_slices(volume, axis)[::2]  # eight are enough, and take half the time
        found = noise_texture(torch.from_numpy(slices))
        measures = {"noise": found.level, "noise_correlation": found.correlation}
        if volume.spacing is not None:
            sides = [side for other, side in enumerate(volume.spacing) if other != axis]
            measures["noise_frequency"] = found.frequency(max(sides))
        return measures

    def without_padding(self, slices: NDArray[np.float32], task: Task) -> NDArray[np.float32]:
        """Clip padding to air so that it does not leak into neighbouring pixels."""
        air = task.value_range[0]
        return slices.clip(min=air) if slices.min() < air else slices

    def keep_bounds(
        self,
        restored: NDArray[np.float32],
        slices: NDArray[np.float32],
        lowest: float,
        task: Task,
    ) -> None:
        """Restore padding, and clip to air all values that were not below it in the input."""
        air = task.value_range[0]
        np.maximum(restored, np.minimum(slices, air), out=restored)
        if lowest < air:
            restored[slices == lowest] = lowest
        super().keep_bounds(restored, slices, lowest, task)

    def measured_noise(self, slices: NDArray[np.float32]) -> float:
        """Return the standard deviation in soft tissue; see `restore_rwkv.physics.ct`."""
        import torch

        from restore_rwkv.physics.ct import noise_level

        return noise_level(torch.from_numpy(slices))

    def value_shift(self, before: Volume, after: Volume, axis: int) -> dict[str, float | None]:
        """Return the mean change in air, water-like tissue and bone, in HU."""
        import torch

        from restore_rwkv.physics.ct import tissue_shift

        slices = (torch.from_numpy(spread_slices(volume, axis)) for volume in (before, after))
        return tissue_shift(*slices)

    def degrade(
        self,
        volume: Volume,
        task: Task,
        options: DegradeOptions,
        generator: torch.Generator,
        progress: Progress | None = None,
    ) -> Degraded:
        """Insert the noise of a reduced dose into axial slices; padding becomes air."""
        from restore_rwkv.physics.ct import CTScanner, calibrated, reduce_dose
        from restore_rwkv.physics.ct.dose import AIR, SLICES_TOGETHER
        from restore_rwkv.physics.slices import batches

        axis, (rows, columns) = _axial(volume)
        if volume.data.min() < AIR:  # the low-dose image has no padding either
            volume = volume.with_data(volume.data.clip(min=AIR))
        slices = slice_tensor(volume, axis)
        begin_stage(progress, "measuring the noise")
        scanner = (
            calibrated(CTScanner(), slices, (rows, columns))
            if options.photons is None
            else CTScanner(photons=options.photons)
        )
        dose = 1 / options.factor_for(task)
        begin_stage(progress, "degrading", "slices")
        low, count = slices.clone(), len(slices)
        for part in batches(count, SLICES_TOGETHER):  # as `reduce_dose` itself would
            low[part] = reduce_dose(
                slices[part], (rows, columns), dose=dose, scanner=scanner, generator=generator
            )
            if progress is not None:
                progress(min(part.stop, count), count)
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
        """Add the same noise, which hardly depends on a faint change.

        The counts behind 10 mm of tissue that is 10 HU denser are lower by 0.2 %, and their noise
        is higher by 0.1 %.
        """
        from restore_rwkv.physics.ct.dose import AIR

        low = changed.data + (made.low.data - made.high.data)
        return made.low.with_data(low.clip(min=AIR))

    def measure_again(self, case: RestoredScan) -> MeasureAgain:
        """Add noise of the scan's own dose to axial slices; padding stays.

        The scanner is calibrated to the noise of the scan. Noise is added before slices are turned:
        it belongs to the scanner, whose rays do not turn with the image.
        """
        import torch

        from restore_rwkv.physics.ct import CTScanner, OwnNoise, calibrated
        from restore_rwkv.physics.ct.dose import AIR

        axis, spacing = _axial(case.scan)
        scan = slice_tensor(case.scan, axis).clamp(min=AIR)
        scanner = calibrated(CTScanner(), scan, spacing)
        image = slice_tensor(case.restored, axis)
        padding, body = image < AIR, image.clamp(min=AIR)
        noise = OwnNoise(body, spacing, scanner)

        def again(turn: Turn, generator: torch.Generator) -> NDArray[np.float32]:
            low = (body + noise.draw(generator)).clamp(min=AIR)
            low = torch.where(padding, image, low)
            return turn.turned(case.restored.with_slices(low.numpy(), axis).slices(case.axis))

        return again

    def tissues(
        self, values: NDArray[np.float32], scale: float
    ) -> tuple[NDArray[np.int8], tuple[str, ...]]:
        """Return air up to -900 HU, lung to -300, soft tissue with fat to 200 HU, or bone."""
        return by_limits(values, _TISSUES)


def _axial(volume: Volume) -> tuple[int, tuple[float, float]]:
    """Return the axis across axial slices, and the distance of their rows and columns in mm."""
    if volume.affine is None or volume.spacing is None:
        raise InputError(
            f"{volume.name}: has no geometry, but the noise of CT depends on the size of the "
            "pixels; give NIfTI or DICOM"
        )
    axis = plane_axis(volume.affine, "axial")
    rows, columns = (volume.spacing[other] for other in range(3) if other != axis)
    return axis, (rows, columns)
