"""Base class of the modalities, with the options and the result of their physics."""

from __future__ import annotations

import abc
import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from restore_rwkv.errors import ConfigError, InputError, OperatorError
from restore_rwkv.io import Finding, Progress, Volume
from restore_rwkv.options import validated
from restore_rwkv.tasks.measures import Measure
from restore_rwkv.tasks.plane import slice_axis
from restore_rwkv.tasks.scaling import Scaling, ScalingRule
from restore_rwkv.tasks.strength import AddedNoise
from restore_rwkv.tasks.turns import TURNS, Turn

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from restore_rwkv.tasks.again import MeasureAgain, RestoredScan
    from restore_rwkv.tasks.table import Task

ModalityCode = Literal["MR", "CT", "PT"]
AxisFactor = float | tuple[float, float]

_logger = logging.getLogger(__name__)

_SAMPLES = 1_000_000  # voxels looked at; a volume can have a hundred times as many
_FAR_BELOW = 0.05  # of the 99.9 % quantile
_MANY = 0.01  # of the voxels
_SIGNED = 0.1  # of the voxels
_SAME_PIXEL = 0.1  # relative
_MEASURED = 16  # slices in which noise is measured, evenly spread


def check_factor(factor: float | None) -> None:
    """Raise ConfigError unless a reduction of the measurement is above 1, or not given."""
    if factor is not None and not 1 < factor < 1e6:
        raise ConfigError(f"factor is {factor:g}; give a number above 1 and below 1e6, such as 4")


@validated()
@dataclass(frozen=True, kw_only=True)
class DegradeOptions:
    """Options of the simulated scanner; the defaults are the paper's degradations.

    Attributes:
        factor: reduction of the measurement, above 1, as in `Task.factor`: of the k-space extent
            per axis for MRI, of the dose for CT and PET (4 is a quarter of the dose). None for the
            factor of the task.
        sigma: MRI: sd of the complex noise per channel, in image units of a full acquisition.
        photons: CT: photons per ray at the scan's own dose; None estimates them from its noise.
        axes: PET from a T1 scan: directions of its array axes, such as "PIR", for a file
            whose affine is wrong.
        dose: CT, PET: fraction of the dose to keep, instead of its inverse, `factor`.

    Raises:
        ConfigError: a value is out of range, or `factor` and `dose` are both given.
    """

    factor: float | None = None
    sigma: float = 0.0
    photons: float | None = None
    axes: str | None = None
    dose: float | None = None

    def __post_init__(self) -> None:
        check_factor(self.factor)
        if self.dose is not None and self.factor is not None:
            raise ConfigError("dose and factor are both given; give one of them")
        if not 0 <= self.sigma < math.inf:
            raise ConfigError(f"sigma is {self.sigma:g}; give a finite number of at least 0")
        if self.photons is not None and not 0 < self.photons < math.inf:
            raise ConfigError(f"photons is {self.photons:g}; give a finite number above 0")
        if self.dose is not None and not 1e-6 < self.dose < 1:
            raise ConfigError(
                f"dose is {self.dose:g}; give the fraction to keep, above 1e-6 and below 1"
            )

    def factor_for(self, task: Task) -> float:
        """Return the factor for a task, from `factor`, `dose` or the task itself."""
        return self.factor or (task.factor if self.dose is None else 1 / self.dose)

    @property
    def specific(self) -> set[str]:
        """Names of the given options that only some modalities have."""
        names = ("sigma", "photons", "axes", "dose")
        return {name for name in names if getattr(self, name) not in (None, 0)}


@dataclass(frozen=True, eq=False)
class Degraded:
    """A pair of scans on one grid.

    Attributes:
        low: the low-quality scan.
        high: the scan of full quality to compare `low` with.
        record: parameters that the pair was made with, as plain JSON values.
    """

    low: Volume
    high: Volume
    record: Mapping[str, Any]


class Modality(abc.ABC):
    """Rules of one modality: checks, scaling, bounds and degradation of its scans.

    Each modality is one subclass in its own file, listed in `tasks.modalities.MODALITIES`. A task
    gives access to it as `task.rules`.

    Attributes:
        code: DICOM's code, such as "MR".
        title: its name in sentences, such as "MRI".
        degraded_from: codes of the scans that `degrade` accepts.
        stored_pairs: whether the physics draws random numbers, so that prepared sets store the
            low-quality slices; otherwise they are computed when slices are read.
        additive_noise: whether low quality is full quality plus Gaussian noise of mean 0, so that
            realisations of it can be mixed and scaled.
        finer_grid: whether a scan may be restored on a finer grid than its own.
        holds_measurement: whether a low-quality scan holds what was measured, so that a restored
            one can be held to it.
        noise_unit: unit of the noise that `noise_of` measures, where low quality is the noise of a
            reduced dose; None where it is not.
        degrade_options: names of the `DegradeOptions` that its physics uses besides `factor`.
        measures: how the results of `fit_measures` are compared with those of the training, by
            name.
        value_limits: smallest and largest value that its scans can have, in the unit of its tasks.
        samples: number of times that a scan is measured again for a bootstrap, at most the seven
            turns and mirrors; with the time of the physics it takes at most eight restorations.
    """

    code: ClassVar[ModalityCode]
    title: ClassVar[str]
    degraded_from: ClassVar[tuple[str, ...]]
    stored_pairs: ClassVar[bool] = True
    additive_noise: ClassVar[bool] = False
    finer_grid: ClassVar[bool] = False
    holds_measurement: ClassVar[bool] = False
    noise_unit: ClassVar[str | None] = None
    degrade_options: ClassVar[frozenset[str]] = frozenset()
    measures: ClassVar[Mapping[str, Measure]] = {}
    value_limits: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    samples: ClassVar[int] = 7

    def warn_of_strange_values(self, volume: Volume) -> None:
        """Log a warning if the values are impossible for this modality."""
        strange = self.strange_values(volume)
        if strange is not None:
            _logger.warning("%s: %s", volume.name, strange.text)

    def strange_values(self, volume: Volume) -> Finding | None:
        """Return a finding if the values are impossible for this modality; else None.

        The default implementation looks for values far below 0 in a scan of unknown modality.
        """
        if volume.modality is not None:
            return None
        values = sampled(volume)
        below = float(np.mean(values < -_FAR_BELOW * np.quantile(values, 0.999)))
        if below <= _MANY:
            return None
        return Finding(
            "doubtful",
            "strange-values",
            f"{100 * below:.0f} % of the values are far below 0, impossible for {self.title}; is "
            "it CT (task='ct-denoise')?",
        )

    def fit_measures(self, volume: Volume, task: Task, axis: int) -> dict[str, float]:
        """Return what tells whether a scan is of the kind that weights were trained for.

        The default implementation measures nothing.

        Args:
            volume: the low-quality scan, on the grid of the network.
            task: what it is restored for.
            axis: array axis across its slices.

        Returns:
            Values by name, among them those of `measures`, from 16 slices.

        Raises:
            OperatorError: the slices are too small, or do not show enough tissue.
        """
        return {}

    def find_scaling(
        self, volume: Volume, rule: ScalingRule, *, in_task_unit: bool = False
    ) -> tuple[Scaling, dict[str, Any]]:
        """Return the scaling of a volume onto network values, and entries for the record.

        Args:
            volume: volume in the unit of its file.
            rule: scaling rule of the weights, or the one that the user chose.
            in_task_unit: whether the user states that values of unknown unit are in the task's.
        """
        return rule.scaling_of(volume.data), {"scaling_rule": rule.kind}

    def to_task_unit(self, volume: Volume, task: Task) -> Volume:
        """Return the volume in the unit of its task, which is assumed where the file states none.

        Raises:
            InputError: the volume is of another modality or unit.
        """
        if volume.modality not in (None, self.code):
            raise InputError(f"{volume.name}: is {volume.modality}, not {self.code}; leave it out")
        if volume.unit not in (None, task.unit):
            raise InputError(f"{volume.name}: is in {volume.unit}; convert it to {task.unit}")
        self.warn_of_strange_values(volume)
        return dataclasses.replace(volume, modality=self.code, unit=task.unit)

    def require_degradable(self, volume: Volume, task: Task) -> None:
        """Raise InputError for a scan that the physics of this modality cannot degrade.

        Raises:
            InputError: the scan is of another modality.
        """
        if volume.modality is not None and volume.modality not in self.degraded_from:
            raise InputError(
                f"{volume.name}: is {volume.modality}; {task.name} degrades "
                f"{' or '.join(self.degraded_from)}, give another task=NAME"
            )

    def without_padding(self, slices: NDArray[np.float32], task: Task) -> NDArray[np.float32]:
        """Return slices (N, H, W) for the network, without padding, in physical units."""
        return slices

    def keep_bounds(
        self,
        restored: NDArray[np.float32],
        slices: NDArray[np.float32],
        lowest: float,
        task: Task,
    ) -> None:
        """Clip restored slices in place to bounds that follow from the values of the input.

        An input without negative values gives an output without negative values.

        Args:
            restored: restored slices (N, H, W) in physical units; changed in place.
            slices: the same slices of the input.
            lowest: smallest value of the whole input.
            task: task of the scan.
        """
        if lowest >= 0:
            np.maximum(restored, 0, out=restored)

    def turns(self, shape: tuple[int, int], factor: AxisFactor) -> tuple[Turn, ...]:
        """Return the turns and mirrors of which a degraded slice is again a degraded slice.

        The slice as it is comes first. The default implementation returns all eight.

        Args:
            shape: (H, W) of the slices.
            factor: of the degradation, one number or one for each of (H, W).
        """
        return TURNS

    def keep_measured(
        self,
        restored: NDArray[np.float32],
        slices: NDArray[np.float32],
        factor: AxisFactor,
        steps: int,
        signed: bool,
    ) -> None:
        """Hold restored slices in place to what was measured of them.

        Args:
            restored: restored slices (N, H, W) in physical units; changed in place.
            slices: the same slices of the input.
            factor: reduction of the measurement, one number or one for each of (H, W).
            steps: 1 or more.
            signed: whether the input has signs of its own (`is_signed`).

        Raises:
            TypeError: scans of this modality do not hold it (`holds_measurement`).
        """
        raise TypeError(f"{self.title}: images do not hold what was measured")

    def noise_of(self, volume: Volume, task: Task) -> float:
        """Return the noise of a scan in `noise_unit`, from 16 slices in the plane of its task.

        Raises:
            OperatorError: the slices do not show enough tissue to measure it in.
        """
        return self.measured_noise(spread_slices(volume, slice_axis(volume, task)))

    def measured_noise(self, slices: NDArray[np.float32]) -> float:
        """Return the noise of slices (N, H, W) in `noise_unit`.

        Raises:
            OperatorError: as `noise_of`.
            TypeError: low quality of this modality is not noise (`noise_unit`).
        """
        raise TypeError(f"{self.title}: low quality is not the noise of a reduced dose")

    def value_shift(self, before: Volume, after: Volume, axis: int) -> dict[str, float | None]:
        """Return the mean change of the values of a scan by kind of tissue; empty by default.

        Args:
            before: the scan.
            after: the same scan after a change, on the same grid.
            axis: array axis across its slices.
        """
        return {}

    def added_noise(
        self,
        volume: Volume,
        task: Task,
        factor: float | None,
        reference: float | None,
        pixel: float | None = None,
    ) -> AddedNoise:
        """Return how much of the noise of a scan was added by a reduced dose.

        Args:
            volume: the low-quality scan.
            task: what it is restored for.
            factor: how many times less dose it was taken with; None to compare its noise with the
                reference. Where that is not possible it is the factor of the task, with a warning.
            reference: noise of a scan of full quality in `noise_unit`; None where it is not known.
            pixel: side in mm of the pixels that the reference is for; None for any. Noise in others
                counts as not measurable.

        Raises:
            TypeError: as `measured_noise`.
        """
        if factor is not None:
            return AddedNoise.told(factor)
        reason = "the weights do not know the noise of a full dose"
        other = None if pixel is None else other_pixel(volume, slice_axis(volume, task), pixel)
        if other is not None:
            reason = f"its pixels are {other:.3g} mm, and the noise is known for {pixel:g} mm"
        elif reference is not None:
            try:
                return AddedNoise.measured(self.noise_of(volume, task), reference)
            except OperatorError as error:
                reason = f"its noise cannot be measured ({str(error).partition(';')[0]})"
        _logger.warning(
            "%s: %s, so 1/%g of the dose is assumed; give factor=F if it is 1/F",
            *(volume.name, reason, task.factor),
        )
        return AddedNoise.told(task.factor, reason)

    @abc.abstractmethod
    def degrade(
        self,
        volume: Volume,
        task: Task,
        options: DegradeOptions,
        generator: torch.Generator,
        progress: Progress | None = None,
    ) -> Degraded:
        """Make a low-quality scan from a good one; see `restore_rwkv.degrade`.

        Where slices are made one after the other, `progress` is called with (slices done, all).
        """

    def degrade_changed(
        self,
        made: Degraded,
        changed: Volume,
        task: Task,
        options: DegradeOptions,
        generator: torch.Generator,
    ) -> Volume:
        """Return the low-quality form of a scan that differs a little from one that was degraded.

        The noise is the same, so that the difference of both is that of the scans.

        Args:
            made: what `degrade` returned.
            changed: `made.high` with other values in a few places.
            task: as for `degrade`.
            options: as for `degrade`.
            generator: in the state in which `degrade` was given it.
        """
        return self.degrade(changed, task, options, generator).low

    @abc.abstractmethod
    def measure_again(self, case: RestoredScan) -> MeasureAgain:
        """Prepare to measure a restored scan again, as its own scanner did.

        The noise is that of the scan at its own dose, and not of a further reduction.

        Returns:
            A function that draws the low-quality slices of a turn; what it needs of the scan is
            found once, here.

        Raises:
            InputError: the physics needs a geometry that the scan has not.
            OperatorError: the noise of the scan cannot be measured.
        """

    def tissues(
        self, values: NDArray[np.float32], scale: float
    ) -> tuple[NDArray[np.int8], tuple[str, ...]]:
        """Return the kind of tissue of each value of a restored scan, roughly, by its value.

        Intervals are calibrated for each kind on its own. The default has one kind, "all".

        Args:
            values: of any shape, in the unit of the scan.
            scale: of the scaling of the scan, in its unit.

        Returns:
            Index of the kind of each value, and the names of all kinds.
        """
        return np.zeros(values.shape, np.int8), ("all",)

    def degrade_slice(self, image: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
        """Degrade one slice (H, W) as it is read from a set that stores no low quality.

        Raises:
            TypeError: sets of this modality store the low quality (`stored_pairs`).
        """
        raise TypeError(f"{self.title}: low-quality slices are stored, not made as they are read")

    def interpolated(self, high: Volume, axis: int, factor: float) -> dict[str, Volume]:
        """Return images made without a network, by name, to compare a restored image with."""
        return {}


def other_pixel(volume: Volume, across: int, pixel: float) -> float | None:
    """Return the side in mm of pixels that are not of a given size; None without geometry.

    Args:
        volume: scan.
        across: array axis across its slices.
        pixel: side in mm; one within a tenth of it is of that size.
    """
    if volume.spacing is None:
        return None
    sides = [side for axis, side in enumerate(volume.spacing) if axis != across]
    return next((side for side in sides if abs(side / pixel - 1) > _SAME_PIXEL), None)


def is_signed(volume: Volume) -> bool:
    """Return whether an image has signs of its own: more than a tenth of its voxels are below 0.

    A few negative values come from interpolation, or from a rescale intercept.
    """
    return float(np.mean(volume.data < 0)) > _SIGNED


def spread_slices(volume: Volume, axis: int) -> NDArray[np.float32]:
    """Return a copy of 16 slices (N, H, W) across an axis, evenly spread; all if there are less."""
    count = volume.data.shape[axis]
    every = np.unique(((np.arange(_MEASURED) + 0.5) * count / _MEASURED).astype(int))
    return np.ascontiguousarray(volume.slices(axis)[every])


def slice_tensor(volume: Volume, axis: int) -> torch.Tensor:
    """Return a copy of the slices (N, H, W) across an axis as a tensor."""
    import torch  # imported here, so that tasks can be listed without it

    return torch.from_numpy(np.ascontiguousarray(volume.slices(axis)))


def sampled(volume: Volume) -> NDArray[np.float32]:
    """Return at most about a million voxels of a volume, without those of the smallest value."""
    values = volume.data.ravel(order="K")
    values = values[:: max(1, values.size // _SAMPLES)]
    return values[values > values.min()] if np.ptp(values) else values


def by_limits(
    values: NDArray[np.float32], limits: Mapping[str, float]
) -> tuple[NDArray[np.int8], tuple[str, ...]]:
    """Return the kind of each value, and the names of the kinds.

    Args:
        values: of any shape.
        limits: largest value of each kind by its name, rising.
    """
    kinds: NDArray[np.int8]
    kinds = np.searchsorted(list(limits.values()), values).astype(np.int8)
    return kinds, tuple(limits)
