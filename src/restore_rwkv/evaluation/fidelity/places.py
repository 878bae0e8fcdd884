"""The places of a restored image to look at first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.evaluation.fidelity.foreground import foreground
from restore_rwkv.evaluation.fidelity.results import Place, RestoredPair

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 5
_LEAST = 0.5  # a score that says nothing is no place to look at


def find_places(
    scores: NDArray[np.float32],
    pair: RestoredPair,
    radius_mm: float,
    threshold: float | None,
    most: int = MOST,
) -> tuple[Place, ...]:
    """Return the places with the largest scores inside the body, at least two radii apart.

    Args:
        scores: of all slices (N, H, W) of the pair.
        pair: the scan and its restored form.
        radius_mm: of what the detector is matched to.
        threshold: absolute score from which a place is flagged; None to flag none.
        most: largest number of places.

    Returns:
        The places, the largest absolute score first.
    """
    found = peaks(np.where(foreground(pair), scores, 0), pair, radius_mm, most)
    return tuple(_place(at, scores, pair, radius_mm, threshold) for at in found)


def peaks(
    scores: NDArray[np.float32], pair: RestoredPair, radius_mm: float, most: int
) -> list[tuple[int, int, int]]:
    """Return the indices (n, row, column) of the largest absolute scores, two radii apart."""
    size = np.abs(scores)
    sides = _sides(pair)
    reach = [math.ceil(2 * radius_mm / side) for side in sides]
    near = _ball(reach, sides, 2 * radius_mm)
    found: list[tuple[int, int, int]] = []
    while len(found) < most:
        at = np.unravel_index(int(size.argmax()), size.shape)
        if not size[at] > _LEAST:
            break
        index = (int(at[0]), int(at[1]), int(at[2]))
        found.append(index)
        box, part = _around(index, reach, size.shape)
        size[box][near[part]] = 0
    return found


def _place(
    at: tuple[int, int, int],
    scores: NDArray[np.float32],
    pair: RestoredPair,
    radius_mm: float,
    threshold: float | None,
) -> Place:
    sides = _sides(pair)
    reach = [0, *(math.ceil(radius_mm / side) for side in sides[1:])]
    box, part = _around(at, reach, scores.shape)
    disc = _ball(reach, sides, radius_mm)[part]
    before, after = (
        float(volume.slices(pair.axis)[box][disc].mean()) for volume in (pair.before, pair.after)
    )
    index = list(at[1:])
    index.insert(pair.axis, at[0])
    world = None
    if pair.after.affine is not None:
        x, y, z = (pair.after.affine @ [*index, 1.0])[:3].tolist()
        world = (round(x, 2), round(y, 2), round(z, 2))
    score = float(scores[at])
    return Place(
        index=(index[0], index[1], index[2]),
        world=world,
        slice=at[0],
        score=score,
        flagged=threshold is not None and abs(score) > threshold,
        radius_mm=radius_mm,
        before=before,
        after=after,
        says=_sentence(score, before, after, pair, radius_mm),
    )


def _sentence(
    score: float, before: float, after: float, pair: RestoredPair, radius_mm: float
) -> str:
    unit = pair.after.unit or "a.u."
    length = "mm" if pair.after.spacing else "pixels"
    largest = max(abs(before), abs(after))
    digits = max(0, 2 - math.floor(math.log10(largest))) if largest > 0 else 0
    digits = max(digits, 1) if largest < 1000 else digits
    means = (
        f"the mean of a disc of {radius_mm:.3g} {length} radius is {before:.{digits}f} {unit} in "
        f"the scan and {after:.{digits}f} {unit} in the restored image"
    )
    # A score looks farther than the disc, and for MRI at a scan of the restored image.
    agrees = (before - after) * score > 0
    means += "." if agrees else ", which alone does not show it."
    if pair.task.modality == "MR":
        other = "brighter" if score > 0 else "darker"
        return f"The scan is {other} here than a scan of the restored image would be: {means}"
    what, other = ("removed", "darker") if score > 0 else ("added", "brighter")
    made = f" that makes the restored image {other} here" if agrees else " around here"
    return f"Something was {what}{made}: {means}"


def _sides(pair: RestoredPair) -> list[float]:
    """Distance of slices, rows and columns in mm; 1 without geometry."""
    spacing = pair.after.spacing or (1.0, 1.0, 1.0)
    return [spacing[pair.axis], *(s for axis, s in enumerate(spacing) if axis != pair.axis)]


def _ball(reach: list[int], sides: list[float], radius: float) -> NDArray[np.bool_]:
    steps = [np.arange(-n, n + 1) * side for n, side in zip(reach, sides, strict=True)]
    squares = steps[0][:, None, None] ** 2 + steps[1][:, None] ** 2 + steps[2] ** 2
    inside: NDArray[np.bool_] = squares <= radius**2
    return inside


def _around(
    at: tuple[int, int, int], reach: list[int], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the box around an index inside an array, and the part of a full box that it is."""
    box, part = [], []
    for place, n, length in zip(at, reach, shape, strict=True):
        first, last = max(place - n, 0), min(place + n + 1, length)
        box.append(slice(first, last))
        part.append(slice(first - place + n, last - place + n))
    return tuple(box), tuple(part)
