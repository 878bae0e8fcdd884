"""Rates and scores of methods, from single lesions and places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore_rwkv.evaluation.challenge.agreement import Agreement
from restore_rwkv.evaluation.challenge.results import (
    EXAGGERATED,
    INVENTED,
    KEPT,
    LOST,
    LesionRow,
    Overall,
    PlaceRow,
    Rate,
    Summary,
)
from restore_rwkv.evaluation.challenge.seeing import Kind, SeenRegions


def summaries_of(
    methods: Sequence[str],
    lesions: Sequence[LesionRow],
    places: Sequence[PlaceRow],
    seen: SeenRegions,
) -> tuple[Summary, ...]:
    """Summarise lesions by method, contrast and radius.

    Args:
        methods: names, in the order of the result.
        lesions: of all scans.
        places: without lesions, of all scans.
        seen: what the observer is shown.
    """
    by_kind: dict[Kind, list[LesionRow]] = {}
    for row in lesions:
        by_kind.setdefault((row.method, abs(row.contrast), row.radius), []).append(row)
    by_place: dict[tuple[str, float], list[float]] = {}
    for place in places:
        by_place.setdefault((place.method, place.radius), []).append(place.painted)
    found = []
    for kind in sorted(by_kind, key=lambda kind: (kind[2], kind[1], methods.index(kind[0]))):
        painted = np.asarray(by_place.get((kind[0], kind[2]), []))
        invented = Rate.of(painted > INVENTED * kind[1])
        found.append(_summary(kind, by_kind[kind], invented, seen))
    return tuple(found)


def overall_of(
    methods: Sequence[str], summaries: Sequence[Summary], agreement: Agreement
) -> tuple[Overall, ...]:
    """Return the score of each method over all contrasts and radii, and its flagged patches."""
    found = []
    for method in methods:
        flagged, median = agreement.of(method)
        score = float(np.mean([s.score for s in summaries if s.method == method]))
        found.append(Overall(method=method, score=score, flagged=flagged, agreement=median))
    return tuple(found)


def _summary(kind: Kind, rows: Sequence[LesionRow], invented: Rate, seen: SeenRegions) -> Summary:
    retained = np.asarray([row.retained for row in rows])
    bright = np.asarray([row.contrast > 0 for row in rows])
    lost = retained < LOST
    kept = Rate.of((retained >= KEPT[0]) & (retained <= KEPT[1]))
    d_prime, reason = seen.seen(kind)
    return Summary(
        method=kind[0],
        contrast=kind[1],
        radius=kind[2],
        lesions=len(rows),
        scans=len({row.scan for row in rows}),
        retained=float(retained.mean()),
        spread=float(retained.std(ddof=1)) if len(rows) > 1 else 0.0,
        lost=Rate.of(lost),
        kept=kept,
        exaggerated=Rate.of(retained > EXAGGERATED),
        lost_bright=Rate.of(lost[bright]),
        lost_dark=Rate.of(lost[~bright]),
        invented=invented,
        seen=d_prime,
        reason=reason,
        score=float(np.maximum(1 - np.abs(retained - 1), 0).mean()) - (invented.share or 0.0),
    )
