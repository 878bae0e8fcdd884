"""The verdict of a report, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore_rwkv.evaluation.fidelity.detector import Detector
from restore_rwkv.evaluation.fidelity.results import Figure, Place, RestoredPair, Support

_ORDER: tuple[Support, ...] = ("supported", "unknown", "look", "unsupported")

_AGREES = {
    "CT": "What was removed looks like the noise of this scan",
    "PT": "What was removed looks like the noise of this scan",
    "MR": "The restored image agrees with the k-space that was measured",
}
_ALWAYS = {
    "CT": "No flag does not mean that no faint lesion was lost: keep the original.",
    "PT": "No flag does not mean that no small lesion was lost: keep the original.",
    "MR": "Detail finer than the measured block of k-space is inferred, not measured.",
}


_MAIN = {"CT": "largest_score", "PT": "region_shift", "MR": "consistency"}
"""The figure without which nothing speaks for an image, by modality."""


def overall(pair: RestoredPair, figures: Sequence[Figure], places: Sequence[Place]) -> Support:
    """Return the worst support of figures and places.

    Figures without a value do not count, but for that which the verdict stands on: without it
    nothing speaks for the image, and the support is "unknown" unless something speaks against it.
    """
    main = _main(pair, figures)
    found: list[Support] = [each.support for each in figures if each.value is not None]
    found += ["look"] if any(place.flagged for place in places) else []
    found += ["unknown"] if main is None or main.value is None else []
    return max(found, key=_ORDER.index)


def _main(pair: RestoredPair, figures: Sequence[Figure]) -> Figure | None:
    return next((each for each in figures if each.name == _MAIN[pair.task.modality]), None)


def verdict_on(
    pair: RestoredPair, support: Support, figures: Sequence[Figure], places: Sequence[Place]
) -> str:
    """Return two or three sentences: does the scan support the image, and what speaks against."""
    modality = pair.task.modality
    against = [each for each in figures if each.support == "unsupported"]
    doubtful = [each for each in figures if each.support == "look" and each.value is not None]
    flagged = sum(place.flagged for place in places)
    main = _main(pair, figures)
    missing = "it could not be measured" if main is None else main.reason
    if support == "unknown":
        first = f"Whether the scan supports the restored image is not known: {missing}."
    elif np.array_equal(pair.before.data, pair.after.data):
        first = "The image is the scan, unchanged: nothing was restored."
    elif against:
        first = f"The scan does not support the restored image: {_lowered(against[0].says)}"
    elif doubtful or flagged:
        first = (
            f"{_AGREES[modality]}, with exceptions."
            if not doubtful
            else (
                f"Look closer before you rely on the restored image: {_lowered(doubtful[0].says)}"
            )
        )
        if main is None or main.value is None:
            first += f" The rest is not known: {missing}."
    else:
        first = f"{_AGREES[modality]}."
    return " ".join(
        part for part in (first, _flags(flagged, len(places)), _ALWAYS[modality]) if part
    )


def _flags(flagged: int, count: int) -> str:
    if not count:
        return ""
    if count == 1:
        return f"The one place to look at first is {'' if flagged else 'not '}flagged."
    if not flagged:
        return f"None of the {count} places to look at first is flagged."
    verb = "is" if flagged == 1 else "are"
    return f"{flagged} of the {count} places to look at first {verb} flagged."


def _lowered(sentence: str) -> str:
    """Return a sentence as it goes on after a colon; names and abbreviations keep their case."""
    head, _, rest = sentence.partition(" ")
    return f"{head.lower() if head.istitle() and head != 'SUVmean' else head} {rest}"


def places_by(
    pair: RestoredPair, detector: Detector | None, found: Sequence[Place], reason: str
) -> str:
    """Return how the places were found, in one sentence."""
    if detector is None:
        return f"No places were looked for: {reason}."
    if not found:
        return "No place is listed: no score is larger than 0.5, so hardly anything was changed."
    places = None if pair.calibration is None else pair.calibration.places
    if places is not None:
        return (
            f"Flagged above {places.threshold:.2f}, which was chosen on validation scans, where "
            f"a slice of a faithful image has {places.false_alarms:.2g} such places in the mean "
            f"({places.slices} slices)."
        )
    if detector.simulated_threshold is not None:
        return (
            f"Flagged above {detector.simulated_threshold:.2f}, which noise on its own exceeds in "
            "5 % of scans, by simulation."
        )
    return "The largest scores; none is flagged, since no threshold is known."
