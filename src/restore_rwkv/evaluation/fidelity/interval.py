"""The map of the intervals of restored values."""

from __future__ import annotations

import numpy as np

from restore_rwkv.errors import WeightsError
from restore_rwkv.evaluation.fidelity.results import FidelityMap, RestoredPair
from restore_rwkv.restoration import uncertainty

_WAYS = {
    "turns": "the spread over turned and mirrored slices",
    "bootstrap": "an equivariant bootstrap with the simulated scanner",
}


def interval_map(pair: RestoredPair) -> FidelityMap:
    """Return the half-width of the interval of each restored value, in its unit.

    Raises:
        WeightsError: the weights have no calibration for the way that the spread was found, and a
            spread on its own is no interval.
    """
    spread = pair.spread
    assert spread is not None
    calibration = pair.calibration
    intervals = None if calibration is None else calibration.intervals_by(spread.method)
    if intervals is None:
        raise WeightsError(
            f"the weights have no calibration of intervals by {spread.method} for "
            f"{pair.task.name}; leave uncertainty out, or calibrate them (docs/trust.md)"
        )
    half = uncertainty.interval_map(pair.after, spread, intervals, pair.task)
    level = 100 * intervals.level
    return FidelityMap(
        name="interval",
        title=f"half-width of the {level:g} % interval",
        volume=half,
        unit=pair.after.unit or "a.u.",
        limit=float(np.quantile(half.data, 0.999)) or 1.0,
        threshold=None,
        signed=False,
        meaning=f"The truth lies within this distance of the restored value in {level:g} % of the "
        f"pixels of validation scans ({100 * intervals.coverage:.1f} % of those that it was not "
        f"fitted on; {intervals.subjects} subjects), by {_WAYS[spread.method]}.",
        blind_to="It cannot see what all samples of the network share: a lesion that it always "
        "removes is removed in every sample, and its interval is narrow.",
    )
