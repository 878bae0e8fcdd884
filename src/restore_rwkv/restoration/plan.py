"""The plan of a restoration: everything that is decided before any weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from restore_rwkv.io import Volume
from restore_rwkv.physics.mri import kspace_block_shape
from restore_rwkv.restoration.fit import Fit
from restore_rwkv.restoration.memory import expected_memory
from restore_rwkv.restoration.options import RestoreOptions
from restore_rwkv.restoration.slices import NETWORK_ONLY, Refinement
from restore_rwkv.restoration.strength import strength_line
from restore_rwkv.restoration.tiles import Tiling
from restore_rwkv.tasks import AddedNoise, AxisFactor, Scaling, Task


@dataclass(frozen=True, eq=False)
class Plan:
    """What is decided about one volume before the network runs.

    Attributes:
        task: what the volume is restored for.
        volume: what the network is given, on the grid of the result, in the unit of its file.
        axis: array axis across the slices.
        scale: factor of the finer grid; None where the grid is kept.
        scaling: onto the network's values.
        scaling_found: how the scaling was found: "scaling_rule" and, for PET, "suv_per_unit" or
            "no_suv".
        tiling: batch, tile and memory of the network's runs.
        refinement: turns to average over, steps towards the measured data, and the strength.
        parameters: number of weights of the network.
        fit: whether the volume is what the weights are for.
        forced: whether it is restored although it is not.
        noise: how much of the noise was added; None where that does not matter.
        factor_from: file name of the record that the factor is from; None where there was none.
        options: what the user asked for.
    """

    task: Task
    volume: Volume
    axis: int
    scale: float | None
    scaling: Scaling
    scaling_found: Mapping[str, Any]
    tiling: Tiling
    parameters: int = 0
    fit: Fit = field(default_factory=Fit)
    forced: bool = False
    refinement: Refinement = NETWORK_ONLY
    noise: AddedNoise | None = None
    factor_from: str | None = None
    options: RestoreOptions = field(default_factory=RestoreOptions)

    @property
    def factor(self) -> AxisFactor | None:
        """Reduction of the measurement that is used; None where it does not matter."""
        if self.noise is not None:
            return self.noise.factor
        used = self.refinement.steps > 0 or len(self.refinement.turns) > 1
        return self.refinement.factor if used and self.task.rules.holds_measurement else None

    @property
    def kept(self) -> tuple[int, int] | None:
        """Samples of k-space per axis of a slice that are held to the scan's; None for none."""
        if not self.refinement.steps:
            return None
        _, height, width = self.volume.slices(self.axis).shape
        return kspace_block_shape(height, width, self.refinement.factor)

    @property
    def memory(self) -> int:
        """Largest resident memory of a process that runs this plan only, in bytes."""
        robust = self.scaling_found["scaling_rule"] == "robust"
        size = self.volume.data.nbytes
        masked = self.volume.missing is not None
        return expected_memory(size, self.tiling, self.parameters, robust=robust, masked=masked)

    def lines(self) -> list[str]:
        """Describe the plan in lines of text."""
        count, height, width = self.volume.slices(self.axis).shape
        tile = self.tiling.tile
        cut = "whole" if tile == (height, width) else f"in tiles of {tile[0]} x {tile[1]}"
        lines = [
            f"task: {self.task.name}, {self.task.title}",
            f"slices: {count} of {height} x {width} across axis {self.axis}, {cut}, "
            f"{self.tiling.batch} at a time",
            f"scaling: {self.scaling_found['scaling_rule']}, (value - {self.scaling.offset:g}) / "
            f"{self.scaling.scale:g} {self.volume.unit or ''}".rstrip(),
            f"memory: about {self.memory / 2**30:.1f} GiB, {self.tiling.memory / 2**30:.1f} GiB "
            "of it for what the network computes",
            *self.fit.lines(),
        ]
        if self.scale is not None:
            lines.insert(1, f"grid: finer by {self.scale:g} along both axes of a slice")
        if len(self.refinement.turns) > 1:
            passes = len(self.refinement.turns)
            lines.append(f"ensemble: mean over {passes} turns and mirrors, so {passes} passes")
        if self.kept is not None:
            rows, columns = self.kept
            lines.append(
                f"consistency: {self.refinement.steps} steps keep the measured {rows} x {columns} "
                "samples of k-space"
            )
        line = strength_line(self.task, self.noise, self.refinement.strength)
        if line is not None:
            lines.append(line)
        if self.factor_from is not None:
            lines.append(f"factor: {self.factor:g}, from {self.factor_from}")
        return lines
