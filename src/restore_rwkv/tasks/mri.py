"""MRI in arbitrary units: low resolution from the centre of k-space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from restore_rwkv.io import Finding, Progress, Volume
from restore_rwkv.tasks.measures import Measure
from restore_rwkv.tasks.modality import (
    AxisFactor,
    Degraded,
    DegradeOptions,
    Modality,
    by_limits,
    is_signed,
    slice_tensor,
    spread_slices,
)
from restore_rwkv.tasks.plane import slice_axis
from restore_rwkv.tasks.scaling import FOREGROUND_LEVEL
from restore_rwkv.tasks.turns import TURNS, Turn

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from restore_rwkv.tasks.again import MeasureAgain, RestoredScan
    from restore_rwkv.tasks.table import Task


_AIR = FOREGROUND_LEVEL / 4
_TISSUES = {"background": _AIR, "dark": FOREGROUND_LEVEL, "bright": math.inf}  # scaled, up to this
_TOGETHER = 16  # slices that are measured again at once
_PHASES = ((math.pi, 0.01), (4096.0, 2.0), (180.0, 0.5))  # largest value, and how close to it


class MRI(Modality):
    """Magnetic resonance imaging. Low quality is computed on reading, so sets do not store it."""

    code = "MR"
    title = "MRI"
    degraded_from = ("MR",)
    stored_pairs = False
    finer_grid = True
    holds_measurement = True
    degrade_options = frozenset({"sigma"})
    measures: ClassVar[Mapping[str, Measure]] = {
        "power_outside": Measure(
            "the share of the power of k-space outside the block that the weights assume",
            margin=3.0,
            high="it has more resolution than the weights know (its k-space reaches to "
            "1/{kspace_factor:.2g} of the matrix per axis), and they would replace detail that was "
            "measured; leave it as it is",
            far=8.0,
            percent=True,
        ),
        "power_in_rim": Measure(
            "the share of the power of k-space in the rim of the block that the weights assume",
            margin=3.0,
            low="it has less resolution than the weights know, as an image that was measured with "
            "fewer samples, or filtered; expect it to stay blurred",
            percent=True,
        ),
    }

    def strange_values(self, volume: Volume) -> Finding | None:
        """Return a finding for the values of a phase, or as for other modalities."""
        low, high = float(volume.data.min()), float(volume.data.max())
        for limit, near in _PHASES:
            if max(abs(low + limit), abs(high - limit)) <= near:
                return Finding(
                    "unfit",
                    "phase",
                    f"values from {low:.4g} to {high:.4g} are those of a phase; give the magnitude",
                )
        return super().strange_values(volume)

    def fit_measures(self, volume: Volume, task: Task, axis: int) -> dict[str, float]:
        """Return where the power of k-space lies; see `restore_rwkv.physics.mri.kspace_extent`."""
        import torch

        from restore_rwkv.physics.mri import kspace_extent

        found = kspace_extent(torch.from_numpy(spread_slices(volume, axis)), task.factor)
        return {
            "power_outside": found.outside,
            "power_in_rim": found.rim,
            "kspace_factor": min(found.factors),
        }

    def to_task_unit(self, volume: Volume, task: Task) -> Volume:
        """Return the volume unchanged: MRI has no physical unit."""
        return volume if volume.modality == self.code else super().to_task_unit(volume, task)

    def turns(self, shape: tuple[int, int], factor: AxisFactor) -> tuple[Turn, ...]:
        """Return all eight, or the four that an even block of k-space allows.

        The complex image of a block that is even along both axes becomes, mirrored along both, its
        own conjugate, and transposed that of the transposed block. Mirrored along one axis it
        belongs to a block with the highest frequency on the other side, which no slice has.
        """
        from restore_rwkv.physics.mri import CartesianMRI

        if any(CartesianMRI(shape, factor).symmetric):
            return TURNS
        return tuple(turn for turn in TURNS if turn.rows == turn.columns)

    def keep_measured(
        self,
        restored: NDArray[np.float32],
        slices: NDArray[np.float32],
        factor: AxisFactor,
        steps: int,
        signed: bool,
    ) -> None:
        """Put the measured block of k-space back; see `restore_rwkv.physics.mri.keep_measured`."""
        import torch

        from restore_rwkv.physics.mri import keep_measured

        for image, low in zip(restored, slices, strict=True):
            measured = torch.from_numpy(np.ascontiguousarray(low))
            measured = measured if signed else measured.clamp(min=0)
            image[...] = keep_measured(
                torch.from_numpy(image), measured, factor, steps, magnitude=not signed
            ).numpy()

    def degrade(
        self,
        volume: Volume,
        task: Task,
        options: DegradeOptions,
        generator: torch.Generator,
        progress: Progress | None = None,
    ) -> Degraded:
        """Keep the centre of k-space in the task's plane, with noise if sigma is above 0."""
        from restore_rwkv.physics.mri import CartesianMRI, reduce_resolution

        axis, factor = slice_axis(volume, task), options.factor_for(task)
        images = slice_tensor(volume, axis)
        low = reduce_resolution(images, factor=factor, sigma=options.sigma, generator=generator)
        kept = list(CartesianMRI((images.shape[1], images.shape[2]), factor).kept)
        record = {"slice_axis": axis, "kept": kept, "sigma": options.sigma}
        return Degraded(volume.with_slices(low.numpy(), axis), volume, record)

    def degrade_slice(self, image: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
        """Low-resolution slice (H, W) on the unchanged matrix; see `kspace_crop`."""
        import torch

        from restore_rwkv.physics.mri import kspace_crop

        low: NDArray[np.float32]
        low = kspace_crop(torch.from_numpy(np.ascontiguousarray(image)), factor).numpy()
        return low

    def interpolated(self, high: Volume, axis: int, factor: float) -> dict[str, Volume]:
        """Interpolate the coarse image of the measured k-space by cubic splines, as viewers do."""
        import torch

        from restore_rwkv.physics.mri import cubic_interpolate, low_resolution

        slices = [
            cubic_interpolate(low_resolution(torch.from_numpy(image.copy()), factor), image.shape)
            for image in high.slices(axis)
        ]
        return {"cubic": high.with_slices(np.stack(slices), axis)}

    def measure_again(self, case: RestoredScan) -> MeasureAgain:
        """Keep the block of k-space of turned slices, with the noise that the scan has in air.

        Slices are turned first: mirrored along one axis, an even block holds other frequencies.
        """
        import torch

        from restore_rwkv.physics.mri import (
            CartesianMRI,
            corner_noise,
            kspace_block,
            kspace_noise,
            zero_fill,
        )
        from restore_rwkv.physics.slices import batches

        signed = is_signed(case.scan)
        image = case.restored.slices(case.axis)
        shape = (image.shape[1], image.shape[2])
        kept = CartesianMRI(shape, case.factor).kept
        scan = kspace_block(slice_tensor(case.scan, case.axis), case.factor)
        # A full acquisition has more noise, of which the block keeps its share of the samples.
        sigma = corner_noise(zero_fill(scan, kept).real, magnitude=not signed)
        sigma *= math.sqrt(math.prod(shape) / math.prod(kept))

        def again(turn: Turn, generator: torch.Generator) -> NDArray[np.float32]:
            slices, factor = turn.turned(image), turn.factor(case.factor)
            for part in batches(len(slices), _TOGETHER):
                block = kspace_block(torch.from_numpy(slices[part]), factor)
                block += kspace_noise(slices[part].shape, sigma, generator, factor)
                filled = zero_fill(block, slices.shape[1:])
                slices[part] = (filled.real if signed else filled.abs()).numpy()
            return slices

        return again

    def tissues(
        self, values: NDArray[np.float32], scale: float
    ) -> tuple[NDArray[np.int8], tuple[str, ...]]:
        """Return background, up to a quarter of the foreground's mean; dark, up to it; bright.

        The mean is that of the robust scaling, ten times its scale.
        """
        return by_limits(values / np.float32(scale), _TISSUES)
