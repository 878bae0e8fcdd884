"""Whether an image is what the weights are for: what its file says, and what its values say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from restore_rwkv.errors import OperatorError
from restore_rwkv.io import Finding, Volume
from restore_rwkv.tasks import Task
from restore_rwkv.tasks.measures import Measure
from restore_rwkv.tasks.modality import spread_slices

Outcome = Literal["fit", "doubtful", "unfit"]

_NEARLY_EMPTY = 1e-4  # of the voxels
_LABELS = 256  # most different values of labels
_ALIKE = 0.9  # of neighbours, in labels
_SPACINGS = (1e-3, 200.0)  # mm: beyond, the unit is not mm
_PLAUSIBLE = (0.02, 30.0)  # mm, of scanners for animals and people


@dataclass(frozen=True)
class Fit:
    """Whether an image is what the weights are for.

    Attributes:
        findings: what speaks against it: first what its file says, then what its values say.
        measures: what was measured of the image, by name.
        unjudged: why its measures were not compared with the training; None where they were.
    """

    findings: tuple[Finding, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    unjudged: str | None = None

    @property
    def outcome(self) -> Outcome:
        """The worst level of the findings: "fit" without any, "doubtful" or "unfit"."""
        levels = {finding.level for finding in self.findings}
        return "unfit" if "unfit" in levels else "doubtful" if levels else "fit"

    def lines(self) -> list[str]:
        """Describe the outcome in lines of text, one for each finding."""
        note = "" if self.unjudged is None else f", not compared: {self.unjudged}"
        shown = (f"{finding.level}: {finding.text}" for finding in self.findings)
        return [f"fit: {self.outcome}{note}", *shown]


def judge(
    volume: Volume, task: Task, axis: int, ranges: Mapping[str, tuple[float, float]] | None
) -> Fit:
    """Judge whether an image is what the weights are for, before the network runs.

    Args:
        volume: the low-quality scan, on the grid of the network and in the unit of its file.
        task: what it is restored for.
        axis: array axis across the slices.
        ranges: range of each measure in the training, of the record of the weights
            (`WeightsInfo.fit`); None or empty for weights that record none.
    """
    stated = volume.source.findings if volume.source is not None else ()
    findings = [*stated, *_of_geometry(volume)]
    empty = _emptiness(volume)
    if empty is not None:
        return Fit((*findings, empty))
    findings += _of_values(volume, task, axis)
    if not task.rules.measures:
        return Fit(tuple(findings))
    if not ranges:
        return Fit(tuple(findings), unjudged="the weights record no range of their training")
    try:
        measures = task.rules.fit_measures(volume, task, axis)
    except OperatorError as error:
        return Fit(tuple(findings), unjudged=str(error).partition(";")[0])
    for name, measure in task.rules.measures.items():
        if name in ranges and name in measures:
            findings += _compared(name, measure, measures, ranges[name])
    return Fit(tuple(findings), measures)


def _compared(
    name: str, measure: Measure, measures: Mapping[str, float], known: tuple[float, float]
) -> Iterator[Finding]:
    """The finding where a measure lies outside the range of the training."""
    value, (lowest, highest) = measures[name], measure.limits(known)
    meaning = measure.low if value < lowest else measure.high if value > highest else None
    if meaning is None:
        return
    far = measure.far is not None and value > measure.far * known[1]
    text = (
        f"{meaning.format(**measures)} ({measure.title} is {measure.shown(value)}, in the training "
        f"{measure.shown(known[0])} to {measure.shown(known[1])})"
    )
    yield Finding("unfit" if far else "doubtful", name.replace("_", "-"), text)


def _of_geometry(volume: Volume) -> Iterator[Finding]:
    """Spacings that no scanner makes."""
    if volume.spacing is None:
        return
    shown = " x ".join(f"{side:.3g}" for side in volume.spacing)
    low, high = min(volume.spacing), max(volume.spacing)
    if low < _SPACINGS[0] or high > _SPACINGS[1]:
        text = f"voxels of {shown} mm, which no scanner makes; correct the spacing and its unit"
        yield Finding("unfit", "spacing", text)
    elif low < _PLAUSIBLE[0] or high > _PLAUSIBLE[1]:
        text = f"voxels of {shown} mm are unlikely; check the spacing and its unit"
        yield Finding("doubtful", "spacing", text)


def _emptiness(volume: Volume) -> Finding | None:
    """Images without content."""
    low, high = float(volume.data.min()), float(volume.data.max())
    if low == high:
        text = f"all values are {low:g}, so there is nothing to restore; give another image"
        return Finding("unfit", "constant", text)
    share = float(np.count_nonzero(volume.data != np.float32(low))) / volume.data.size
    if share < _NEARLY_EMPTY:
        text = f"all but {100 * share:.2g} % of the values are {low:g}; give an image with content"
        return Finding("unfit", "empty", text)
    return None


def _of_values(volume: Volume, task: Task, axis: int) -> Iterator[Finding]:
    """Values of something else than an image of the modality."""
    lowest, highest = task.rules.value_limits
    low, high = float(volume.data.min()), float(volume.data.max())
    if low < lowest:  # the lowest value of all may be padding
        low = float(volume.data[volume.data > np.float32(low)].min())
    if low < lowest or high > highest:
        text = (
            f"values from {low:g} to {high:g}, which {task.rules.title} cannot have; correct their "
            "slope and intercept"
        )
        yield Finding("unfit", "impossible-values", text)
    strange = task.rules.strange_values(volume)
    if strange is not None:
        yield strange
    labels = _labels(volume, axis)
    if labels:
        text = f"{labels} different whole values in uniform regions are labels; give the image"
        yield Finding("unfit", "label-map", text)


def _labels(volume: Volume, axis: int) -> int:
    """Number of labels, 0 for an image: few whole values, equal in most neighbouring pixels."""
    slices = spread_slices(volume, axis)
    for part in (slices[len(slices) // 2], slices):  # one slice shows it of most images
        if (part != np.rint(part)).any():
            return 0
        different = np.unique(part)
        if len(different) > _LABELS:
            return 0
    first, second = slices[:, :, :-1], slices[:, :, 1:]
    background = different[0]
    inside = (first != background) & (second != background)
    count = int(inside.sum())
    return len(different) if count and (first == second)[inside].mean() > _ALIKE else 0
