"""Sentences of the page of a report: values, positions, and what the report cannot see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from restore_rwkv.evaluation.report.words import NONE, number

if TYPE_CHECKING:
    from restore_rwkv.evaluation.fidelity.display import Display
    from restore_rwkv.evaluation.fidelity.results import (
        Fidelity,
        FidelityMap,
        Place,
        RestoredPair,
        Support,
    )
    from restore_rwkv.tasks.report_calibration import Intervals

MARKS: dict[Support, str] = {
    "supported": "supported",
    "look": "look",
    "unsupported": "not supported",
    "unknown": "not known",
}
"""Words of the support of one figure."""

HEADLINES: dict[Support, str] = {
    "supported": "Supported by what was measured",
    "look": "Look at the places and figures that are marked",
    "unsupported": "Not supported by what was measured",
    "unknown": "Not known: what would support it could not be measured",
}
"""Words of the support of the image as a whole."""

_LAYOUT = {
    "axial": "Axial slices; the right of the patient is on the left.",
    "coronal": "Coronal slices; the right of the patient is on the left.",
    "sagittal": "Sagittal slices; the patient looks to the left.",
    "": "Slices as they are in the file: its geometry is not known.",
}
_ALWAYS = (
    "The truth is not known. The image is held against the scan that it was made from, and against "
    "simulated noise: structure that this scan does not show above its noise can be lost or made "
    "up, and no figure here would see it.",
    "A place that is not listed is not proven to be right: only the places with the largest scores "
    "are.",
    "Whether the scan itself is right is not looked at: its artefacts are kept, and are no "
    "difference.",
    "What a reader would conclude from the image is not predicted. Look at the original too.",
)
_INTERVALS = "interval"
_DIGITS = 3  # significant ones of a figure


def value_of(value: float | None, unit: str) -> str:
    """Return the value of a figure with three digits and its unit; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    if value and not 1e-6 <= abs(value) < 1e9:
        text = f"{value:.2e}".replace("-", "\u2212")
    else:
        size = math.floor(math.log10(abs(value))) if value else 0
        text = number(value, max(0, _DIGITS - 1 - size))
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{text}\u00a0{unit}".rstrip("\u00a0")


def position(place: Place) -> str:
    """Return where a place is, such as "L 12.3, P 45.0, S 101.2 mm"; empty without geometry."""
    if place.world is None:
        return ""
    letters = (("R", "L"), ("A", "P"), ("S", "I"))
    parts = [
        f"{names[value < 0]}\u00a0{number(abs(value), 1)}"
        for names, value in zip(letters, place.world, strict=True)
    ]
    return f"{', '.join(parts)}\u00a0mm"


def means_at(place: Place, display: Display) -> str:
    """Return the means before and after at a place, such as "41.0 to 48.1 HU (+7.1)"."""
    unit, digits = display.pair.task.unit, display.decimals
    values = (number(value, digits) for value in (place.before, place.after))
    return f"{' to '.join(values)} {unit} ({number(place.after - place.before, digits, sign=True)})"


def flag_of(place: Place, detector: FidelityMap | None) -> str:
    """Return whether a place is beyond the threshold of its detector."""
    if detector is None or detector.threshold is None:
        return "flagged" if place.flagged else "no threshold is known"
    limit = f"\u00b1{value_of(detector.threshold, detector.unit)}"
    return f"flagged: beyond {limit}" if place.flagged else f"not flagged: within {limit}"


def calibration_of(shown: FidelityMap, pair: RestoredPair) -> str:
    """Return what the intervals of a map hold; empty for a map of something else."""
    if shown.name != _INTERVALS:
        return ""
    intervals = _intervals(pair)
    if intervals is None:
        return "The weights have no calibration of these intervals: how often they hold is unknown."
    return (
        f"Calibrated to hold the truth in {_percent(intervals.level)} of the pixels, on "
        f"{intervals.subjects:,} validation subjects; on slices of theirs that were left out it "
        f"was {_percent(intervals.coverage)}."
    )


def layout(display: Display) -> str:
    """Return how the slices are turned."""
    return _LAYOUT[display.view.plane]


def scale_words(shown: FidelityMap, limit: float) -> tuple[str, str]:
    """Return what the ends of the colours of a map stand for."""
    low = f"\u2212{value_of(limit, shown.unit)}" if shown.signed else value_of(0.0, shown.unit)
    return low, f"{'+' if shown.signed else ''}{value_of(limit, shown.unit)}"


def unseen(fidelity: Fidelity) -> list[tuple[str, str]]:
    """Return what the report cannot see, as (of what, sentence), each sentence once."""
    found: dict[str, str] = dict.fromkeys(_ALWAYS, "")
    every = [(each.blind_to, each.title) for each in fidelity.figures]
    every += [(each.blind_to, each.title) for each in fidelity.maps]
    for sentence, title in every:
        if sentence:
            found.setdefault(sentence, title)
    return [(title, sentence) for sentence, title in found.items()]


def weights_of(provenance: Mapping[str, Any]) -> str:
    """Return the name of the weights in a provenance; empty where it names none."""
    found = provenance.get("weights")
    if isinstance(found, Mapping):
        found = found.get("name") or next(iter(found), "")
    return found if isinstance(found, str) else ""


def facts(fidelity: Fidelity) -> list[tuple[str, str]]:
    """Return what the image is, as (name, text)."""
    pair = fidelity.pair
    rows = [
        ("task", f"{pair.task.name}: {pair.task.title}"),
        ("reduction", _factor(pair)),
        ("grid", f"{_by(pair.after.data.shape)} voxels{_spacing(pair)}"),
        ("tiles", f"{_by(pair.tile)} pixels" if pair.tile else "none known"),
    ]
    if pair.fit is None:
        rows.append(("fit to the weights", "not judged"))
    else:
        note = f", not compared: {pair.fit.unjudged}" if pair.fit.unjudged else ""
        rows.append(("fit to the weights", f"{pair.fit.outcome}{note}"))
        rows += [(f.level, f.text) for f in pair.fit.findings]
    if pair.spread is not None:
        rows.append(("spread", f"{pair.spread.method}, {pair.spread.samples} restorations"))
    rows.append(("seed of the simulated noise", str(pair.seed)))
    rows.append(("time for this report", f"{number(fidelity.seconds, 1)} s"))
    return rows


def _factor(pair: RestoredPair) -> str:
    if pair.factor is None:
        return "not given"
    factors = pair.factor if isinstance(pair.factor, tuple) else (pair.factor,)
    return f"{_by(factors)} times less was measured"


def _spacing(pair: RestoredPair) -> str:
    if pair.after.spacing is None:
        return ", of unknown size"
    return f" of {_by(pair.after.spacing)} mm"


def _by(sizes: Sequence[float]) -> str:
    return " \u00d7 ".join(value_of(size, "") for size in sizes)


def _intervals(pair: RestoredPair) -> Intervals | None:
    if pair.calibration is None:
        return None
    if pair.spread is not None:
        return pair.calibration.intervals_by(pair.spread.method)
    return next(iter(pair.calibration.intervals), None)


def _percent(share: float) -> str:
    return f"{number(100 * share, 1).removesuffix('.0')}\u00a0%"
