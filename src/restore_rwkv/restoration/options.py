"""Options of a restoration, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from restore_rwkv.errors import ConfigError
from restore_rwkv.options import Count, Whole, validated
from restore_rwkv.tasks import PlaneChoice
from restore_rwkv.tasks.modality import check_factor

ScalingChoice = Literal["auto", "robust", "paper"]
Unit = Literal["auto", "SUV"]

_LARGEST_SCALE = 8.0
_MOST_STEPS = 1000


@validated()
@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """How a volume is run through the network.

    Attributes:
        plane: slices to restore: "auto" is the task's plane (MRI: that of finest spacing; CT:
            axial; PET: coronal), or across the last axis where an image has no geometry.
        scaling: "robust" (one factor per volume), "paper" (the paper's range for the task, for
            data prepared as the paper's), or "auto", as the weights were trained.
        memory: bytes allowed for the network's activations.
        scale: MRI on its coarse native grid is first interpolated to a grid finer by this factor
            along both axes of its slices, above 1 and at most 8; None keeps the grid.
        unit: "SUV" where PET is in it and its file does not say so, else "auto".
        consistency: MRI: steps that put the measured block of k-space back into each restored
            slice, see `restore_rwkv.physics.mri.keep_measured`; 0 for the network's own output,
            None for the number of the task or, with `scale`, 0.
        ensemble: restore each slice in several turns and mirrors, and take the mean: 8 passes of
            the network, for MRI whose measured block is even along both axes 4.
        factor: how much less was measured, above 1. MRI: ratio of the full to the measured extent
            of k-space per axis, for consistency and ensemble; None for that of the task or, with
            `scale`, for all of the coarse grid. CT, PET: how many times less dose than the scan to
            be reached, for the level of the noise that the network is told and the strength of
            its correction; None to find them from the noise of the scan.
        strength: CT, PET: part of the network's correction that is applied, 0 to 1; 1 for the
            network's own output. None for the calibrated one, if the weights have one.
        force: go on with an image that the weights are not for; the record says so.
        strict: refuse an image also where it is only doubtful that the weights are for it.

    Raises:
        ConfigError: a value is unknown or out of range, or two of them contradict each other.
    """

    plane: PlaneChoice = "auto"
    scaling: ScalingChoice = "auto"
    memory: Count = 2 << 30
    scale: float | None = None
    unit: Unit = "auto"
    consistency: Whole | None = None
    ensemble: bool = False
    factor: float | None = None
    strength: float | None = None
    force: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.force and self.strict:
            raise ConfigError("force and strict are both given; give one of them")
        if self.scale is not None and not 1 < self.scale <= _LARGEST_SCALE:
            raise ConfigError(
                f"scale {self.scale:g} is out of range; give a factor above 1 and at most "
                f"{_LARGEST_SCALE:g}, or leave it out to keep the grid"
            )
        check_factor(self.factor)
        if self.consistency is not None and self.consistency > _MOST_STEPS:
            raise ConfigError(
                f"consistency is {self.consistency}; give at most {_MOST_STEPS}, 5 are enough"
            )
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise ConfigError(f"strength is {self.strength:g}; give a number from 0 to 1")
        if self.factor is not None and self.scale is not None:
            raise ConfigError(
                "factor and scale are both given; leave factor out, since all of a coarse grid "
                "was measured"
            )
