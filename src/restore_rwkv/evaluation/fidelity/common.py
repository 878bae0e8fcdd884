"""Figures that every restored image has: fit of the weights, seams of tiles, clipped values."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.evaluation.fidelity.foreground import foreground, smoothed, tissue_level
from restore_rwkv.evaluation.fidelity.results import Figure, RestoredPair, Support
from restore_rwkv.restoration.tiles import spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEAM = 1.2  # times the differences elsewhere
_CLIPPED = 0.1  # % of the body
_ABOVE = 0.02  # of the range of values: by which a smoothed scan is above where an image is cut off

_OUTCOMES: dict[str, Support] = {"fit": "supported", "doubtful": "look", "unfit": "unsupported"}


def common_figures(pair: RestoredPair) -> list[Figure]:
    """Return whether the weights are for the scan, how tiles meet, and what was clipped."""
    return [_fit(pair), _seams(pair), _clipped(pair)]


def _fit(pair: RestoredPair) -> Figure:
    """Number of findings against restoring the scan with its weights."""
    fit = pair.fit
    says = "Nobody knows what restored the image, nor whether the scan was fit for it."
    if fit is not None:
        says = "The scan looks like those that the weights were trained on."
        if fit.findings:
            says = f"The scan is {fit.outcome}: {'; '.join(f.text for f in fit.findings)}."
        elif fit.unjudged is not None:
            says = f"The scan was not compared with those of the training: {fit.unjudged}."
    support: Support = "unknown"
    if fit is not None:
        support = _OUTCOMES[fit.outcome]
        if fit.unjudged is not None and support == "supported":
            support = "unknown"
    return Figure(
        name="fit",
        title="findings against restoring this scan",
        value=None if fit is None else float(len(fit.findings)),
        unit="",
        support=support,
        expected="0",
        says=says,
        blind_to="It knows noise and resolution, not anatomy: implants and malformations that the "
        "training did not have count as fit.",
        reason="it is not known what restored the image" if fit is None else "",
    )


def _seams(pair: RestoredPair) -> Figure:
    """Change of the correction across the middle of where tiles overlap, over that elsewhere."""
    shape = pair.after.slices(pair.axis).shape
    cut = None if pair.tile in (None, shape[1:]) else pair.tile
    value = None if cut is None else seam_ratio(pair, cut)
    reason = "slices were not cut, or it is not known"
    says = "Slices were not cut into tiles, or it is not known."
    if cut is not None and value is None:
        reason = "nothing was changed beside the seams"
        says = f"The seams of tiles cannot be judged: {reason}."
    if value is not None:
        says = f"Across the seams of tiles the correction changes {value:.2f} times as much as "
        says += "elsewhere."
    support: Support = "unknown"
    if value is not None:
        support = "supported" if value <= _SEAM else "look"
    return Figure(
        name="seams",
        title="change of the correction across the seams of tiles",
        value=value,
        unit="",
        support=support,
        expected=f"below {_SEAM:g}",
        says=says,
        blind_to="It cannot see that a tile knows less of the body than a whole slice.",
        reason="" if value is not None else reason,
    )


def seam_ratio(pair: RestoredPair, tile: tuple[int, int]) -> float | None:
    """Return the mean absolute step of `after - before` at seams over that beside them.

    A seam is the pixel border in the middle of the overlap of two tiles; beside it are the borders
    a quarter of a tile away. None where there is no seam, or no correction.
    """
    correction = pair.after.slices(pair.axis) - pair.before.slices(pair.axis)
    at: list[float] = []
    beside: list[float] = []
    for axis, side in ((1, tile[0]), (2, tile[1])):
        cuts = list(spans(correction.shape[axis], side))
        for (_, stop), (start, _) in pairwise(cuts):
            middle = (start + stop) // 2
            at.append(_step(correction, axis, middle))
            beside += [_step(correction, axis, middle + sign * side // 4) for sign in (-1, 1)]
    if not at or not any(beside):
        return None
    return float(np.mean(at) / np.mean(beside))


def _step(images: NDArray[np.float32], axis: int, place: int) -> float:
    """Mean absolute difference of the rows or columns on both sides of a border."""
    here, there = (np.take(images, place - back, axis) for back in (0, 1))
    return float(np.abs(here - there).mean())


def _clipped(pair: RestoredPair) -> Figure:
    """Share of the body that is at the smallest or the largest value of the image.

    It counts at the smallest where the scan shows tissue, and at the largest where it is brighter.
    Cavities, and tissue without signal, have the smallest value in a faithful image too.
    """
    before, after = (volume.slices(pair.axis) for volume in (pair.before, pair.after))
    lowest = float(after.min())
    body = foreground(pair)
    new = (after == lowest) & (before > max(lowest, tissue_level(pair))) & body
    new |= _cut_off(pair) & body
    value = 100 * float(new.sum()) / max(int(body.sum()), 1)
    support: Support = "supported" if value <= _CLIPPED else "look"
    return Figure(
        name="clipped",
        title="values in the body that were clipped",
        value=value,
        unit="%",
        support=support,
        expected=f"below {_CLIPPED:g} %",
        says=f"In the body, {value:.3g} % of the values are at the lowest one, {lowest:g}, where "
        f"the scan shows tissue, or at the highest, {float(after.max()):g}, where it is brighter.",
        blind_to="It cannot tell values that were clipped from those that are as low by chance.",
    )


def _cut_off(pair: RestoredPair) -> NDArray[np.bool_]:
    """Where the image has its largest value, and the smoothed scan is above it by more than 2 %."""
    after = pair.after.slices(pair.axis)
    highest, lowest = float(after.max()), float(after.min())
    cut = after == highest
    if cut.sum() < 2:  # the largest value, which every image has
        return np.zeros_like(cut)
    above: NDArray[np.bool_] = smoothed(pair.before, pair) > highest + _ABOVE * (highest - lowest)
    found: NDArray[np.bool_] = cut & above
    return found
