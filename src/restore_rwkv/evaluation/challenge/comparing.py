"""Two methods on the same lesions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore_rwkv.evaluation.challenge.results import LOST, Comparison, LesionRow
from restore_rwkv.evaluation.study.statistics import bootstrap_interval

Place = tuple[str, tuple[int, int, int]]


def comparisons_of(methods: Sequence[str], lesions: Sequence[LesionRow]) -> tuple[Comparison, ...]:
    """Compare the first method with every other one, lesion by lesion.

    What makes a lesion easy or hard is the same for both, so a difference shows in fewer lesions
    than two means with intervals of their own would need.

    Args:
        methods: names, in the order of the result.
        lesions: of all scans; every method has the same ones.
    """
    by_kind: dict[tuple[float, float], dict[str, dict[Place, LesionRow]]] = {}
    for row in lesions:
        of_kind = by_kind.setdefault((row.radius, abs(row.contrast)), {})
        of_kind.setdefault(row.method, {})[row.scan, row.index] = row
    return tuple(
        _comparison(list(of_kind[methods[0]].values()), of_kind[other])
        for _, of_kind in sorted(by_kind.items())
        for other in methods[1:]
    )


def _comparison(rows: Sequence[LesionRow], of_other: dict[Place, LesionRow]) -> Comparison:
    other = [of_other[row.scan, row.index] for row in rows]
    first, second = (np.asarray([row.retained for row in each]) for each in (rows, other))
    lost = int(np.sum((first < LOST) & (second >= LOST)))
    lost_by_other = int(np.sum((second < LOST) & (first >= LOST)))
    return Comparison(
        method=rows[0].method,
        other=other[0].method,
        contrast=abs(rows[0].contrast),
        radius=rows[0].radius,
        lesions=len(rows),
        scans=len({row.scan for row in rows}),
        retained=float(np.mean(first - second)),
        interval=bootstrap_interval((first - second).tolist()),
        lost=lost,
        lost_by_other=lost_by_other,
        p=_mcnemar(lost, lost_by_other),
    )


def _mcnemar(first: int, second: int) -> float | None:
    """Return the two-sided exact p-value of two discordant counts; None where there are none."""
    if not first + second:
        return None
    from scipy.stats import binomtest

    return float(binomtest(first, first + second).pvalue)
