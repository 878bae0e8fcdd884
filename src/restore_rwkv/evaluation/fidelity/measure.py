"""What a scan and physics say of its restored form."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.fidelity.common import common_figures
from restore_rwkv.evaluation.fidelity.detector import Detector, detector_of, threshold_of
from restore_rwkv.evaluation.fidelity.places import find_places
from restore_rwkv.evaluation.fidelity.results import (
    Fidelity,
    FidelityMap,
    Figure,
    Place,
    RestoredPair,
)
from restore_rwkv.evaluation.fidelity.verdict import overall, places_by, verdict_on
from restore_rwkv.evaluation.measures.measure import NoScoreError
from restore_rwkv.io import begin_stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.io import Progress, Volume

_SAME_MM = 1e-3


def measure_fidelity(pair: RestoredPair, progress: Progress | None = None) -> Fidelity:
    """Measure what supports a restored image, from its scan and physics; no truth is needed.

    Args:
        pair: the scan, the restored image, and what is known of how it was made.
        progress: called with the steps done and all.

    Raises:
        InputError: the images are on different grids, or of another modality than the task, or
            there is no physics for it.
        WeightsError: a spread is given without its calibration.
    """
    start = time.perf_counter()
    check_pair(pair)
    begin_stage(progress, "simulating the noise of the scan", "slices")
    detector, reason = None, ""
    try:
        detector = detector_of(pair, progress)
    except NoScoreError as error:
        reason = str(error)
    scores = None if detector is None else _scores(detector, pair)
    threshold = None if detector is None else threshold_of(pair, detector)
    places: tuple[Place, ...] = ()
    if detector is not None and scores is not None:
        places = find_places(scores, pair, detector.radius_mm, threshold)
    figures = (*_figures(pair, detector, scores, reason), *common_figures(pair))
    support = overall(pair, figures, places)
    return Fidelity(
        pair=pair,
        support=support,
        verdict=verdict_on(pair, support, figures, places),
        figures=figures,
        maps=_maps(pair, detector, scores, threshold),
        places=places,
        places_by=places_by(pair, detector, places, reason),
        seconds=round(time.perf_counter() - start, 3),
    )


def check_pair(pair: RestoredPair) -> None:
    """Raise InputError unless both images are on one grid, and of the task's modality."""
    before, after, task = pair.before, pair.after, pair.task
    if before.data.shape != after.data.shape:
        raise InputError(
            f"{after.name}: has {_sides(after)} voxels, the scan {_sides(before)}; give images on "
            "one grid"
        )
    first, second = before.affine, after.affine
    if first is not None and second is not None:
        # The first voxel and the last along each axis: two opposite corners are those of a grid
        # with exchanged axes too.
        corners = np.ones((4, 4))
        corners[:, :3] = [[0, 0, 0], *np.diag([n - 1 for n in before.data.shape])]
        apart = float(np.abs((first - second) @ corners.T).max())
        if apart > _SAME_MM * max(1.0, *(before.spacing or (1.0,))):
            raise InputError(
                f"{after.name}: lies up to {apart:.3g} mm beside the scan; give images on one grid"
            )
    for volume in (before, after):
        if volume.modality not in (None, task.modality):
            raise InputError(
                f"{volume.name}: is {volume.modality}, and {task.name} is for {task.modality}; "
                "give another task=NAME"
            )
    if None not in (before.unit, after.unit) and before.unit != after.unit:
        raise InputError(
            f"{after.name}: is in {after.unit}, the scan in {before.unit}; give both in one unit"
        )


def _sides(volume: Volume) -> str:
    return " x ".join(str(side) for side in volume.data.shape)


def _scores(detector: Detector, pair: RestoredPair) -> NDArray[np.float32]:
    before, after = (
        np.ascontiguousarray(volume.slices(pair.axis)) for volume in (pair.before, pair.after)
    )
    return detector.scores(before, after)


def _figures(
    pair: RestoredPair,
    detector: Detector | None,
    scores: NDArray[np.float32] | None,
    reason: str,
) -> list[Figure]:
    modality = pair.task.modality
    if modality == "CT":
        from restore_rwkv.evaluation.fidelity.ct import ct_figures

        return ct_figures(pair, detector, scores, reason)
    if modality == "PT":
        from restore_rwkv.evaluation.fidelity.pet import pet_figures

        return pet_figures(pair, detector, scores, reason)
    from restore_rwkv.evaluation.fidelity.mri import mri_figures

    return mri_figures(pair, detector, scores)


def _maps(
    pair: RestoredPair,
    detector: Detector | None,
    scores: NDArray[np.float32] | None,
    threshold: float | None,
) -> tuple[FidelityMap, ...]:
    found: list[FidelityMap] = []
    if detector is not None and scores is not None:
        values = pair.after.with_slices(scores, pair.axis)
        # Scores have no unit, whatever the scan is in.
        values = dataclasses.replace(values, unit=None)
        found.append(dataclasses.replace(detector.map_of(values), threshold=threshold))
    if pair.task.modality == "PT":
        from restore_rwkv.evaluation.fidelity.pet import pet_maps

        found += pet_maps(pair, detector, scores)
    elif pair.task.modality == "MR":
        from restore_rwkv.evaluation.fidelity.mri import mri_maps

        found += mri_maps(pair, detector, scores)
    if pair.spread is not None:
        from restore_rwkv.evaluation.fidelity.interval import interval_map

        found.append(interval_map(pair))
    return tuple(found)
