"""Tables of the HTML report: scores, tests, what has no score, and every slice for its script."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from restore_rwkv.evaluation.report.words import (
    LEVEL,
    NONE,
    Figures,
    listed,
    number,
    p_value,
    title_of,
)
from restore_rwkv.evaluation.study.results import INPUT
from restore_rwkv.io.html import plain

if TYPE_CHECKING:
    from restore_rwkv.evaluation.measures.measure import Measure
    from restore_rwkv.evaluation.study.results import PairedTest, Scored, Study

_REASONS = 200  # listed for one task
_ARROWS = {"higher": "higher is better", "lower": "lower is better", "zero": "zero is best"}


@dataclass(frozen=True)
class Cell:
    """Figures of one method by one measure, as texts; empty where there is nothing to say."""

    mean: str
    interval: str
    slices: str
    missing: str
    best: bool


@dataclass(frozen=True)
class Row:
    """One measure: its title, unit, which values are better, and a cell for each method."""

    title: str
    unit: str
    better: str
    cells: tuple[Cell, ...]


def score_rows(figures: Figures, task: str) -> list[Row]:
    """Return the table of scores of a task: measures by methods."""
    rows = []
    for measure in figures.of_task(task):
        best = figures.distinct_best(task, measure)
        cells = [
            _cell(figures, task, measure, method, best is not None and best.first == method)
            for method in figures.methods(task)
        ]
        unit = figures.unit(task, measure)
        rows.append(Row(title_of(measure), unit, _ARROWS[measure.better], tuple(cells)))
    return rows


def test_rows(figures: Figures, task: str, measure: Measure, study: Study) -> list[dict[str, str]]:
    """Return the paired tests of a task by one measure as texts."""
    return [
        _test_row(figures, measure, test)
        for test in study.tests
        if test.task == task and test.measure == measure.name
    ]


def reasons(study: Study, task: str) -> list[str]:
    """Return why images have no value, those of one reason in one line, and not too many."""
    titles = {measure.name: measure.title for measure in study.measures}
    found: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for score in study.scores:
        if score.task == task:
            for measure, reason in score.reasons.items():
                place = "" if score.slice is None else str(score.slice)
                found[titles.get(measure, measure), score.method, score.scan, reason].append(place)
    lines = [
        f"{title}, {method}, {scan}{_slices(places)}: {reason}"
        for (title, method, scan, reason), places in found.items()
    ]
    rest = len(lines) - _REASONS
    return lines[:_REASONS] + ([f"and {rest:,} more"] if rest > 0 else [])


def gains(study: Study, task: str, measure: Measure) -> dict[str, dict[str, list[float]]]:
    """Return what each method gains over the input in each image, by method and patient.

    Positive gains are improvements: a smaller value, or one nearer to zero, where that is better.
    """
    values: dict[tuple[str, int | None], dict[str, float]] = defaultdict(dict)
    patients = {}
    for score in study.scores:
        value = score.values.get(measure.name)
        if score.task == task and value is not None:
            values[score.scan, score.slice][score.method] = value
            patients[score.scan, score.slice] = score.patient
    found: dict[str, dict[str, list[float]]] = {}
    for method in study.methods:
        by_patient: dict[str, list[float]] = defaultdict(list)
        for image, of_methods in values.items():
            if method != INPUT and method in of_methods and INPUT in of_methods:
                gain = _goodness(of_methods[method], measure) - _goodness(
                    of_methods[INPUT], measure
                )
                by_patient[patients[image]].append(gain)
        if by_patient:
            found[method] = dict(by_patient)
    return found


def slice_table(study: Study, figures: Figures) -> list[dict[str, Any]]:
    """Return all scores as plain values for the script, one entry for each task.

    Each has "task", "methods" (indices into the study's), "images" as (patient, scan, slice,
    index of its panel or -1), and "values": by the measure's index, a row of values for each image
    or None.
    """
    shown: dict[tuple[str, str, int | None], int] = {
        (panel.task, panel.scan, panel.slice): index for index, panel in enumerate(study.panels)
    }
    tables = []
    for task in figures.tasks:
        by_image: dict[tuple[str, str, int | None], dict[str, Scored]] = defaultdict(dict)
        for score in study.scores:
            if score.task == task:
                by_image[score.patient, score.scan, score.slice][score.method] = score
        methods = figures.methods(task)
        images = [
            (plain(patient), plain(scan), place, shown.get((task, scan, place), -1))
            for patient, scan, place in by_image
        ]
        values = {
            str(index): list(_columns(by_image.values(), methods, measure.name))
            for index, measure in enumerate(study.measures)
        }
        tables.append(
            {
                "task": plain(task),
                "methods": [study.methods.index(method) for method in methods],
                "images": images,
                "values": {k: rows for k, rows in values.items() if any(rows)},
            }
        )
    return tables


def worst_rows(study: Study, figures: Figures, task: str, most: int) -> list[dict[str, Any]]:
    """Return the worst slices by the first measure of a task as texts, for pages without script."""
    measures = figures.of_task(task)
    methods = figures.methods(task)
    if not measures:
        return []
    measure = measures[0]
    by_image: dict[tuple[str, str, int | None], dict[str, float | None]] = defaultdict(dict)
    for score in study.scores:
        if score.task == task and measure.name in score.values:
            place = (score.patient, score.scan, score.slice)
            by_image[place][score.method] = score.values[measure.name]
    of = next((method for method in methods if method != INPUT), INPUT)
    ranked = [(place, found) for place, found in by_image.items() if found.get(of) is not None]
    ranked.sort(key=lambda item: _goodness(item[1][of] or 0.0, measure))
    digits = figures.decimals(task, measure)
    return [
        {
            "patient": patient,
            "scan": scan,
            "slice": "all" if place is None else place,
            "values": [number(found.get(method), digits) for method in methods],
        }
        for (patient, scan, place), found in ranked[:most]
    ]


def worst_shown(study: Study, figures: Figures, task: str, method: str) -> tuple[int, str] | None:
    """Return the panel where a method is worst by the first measure, and a sentence about it.

    Returns:
        Index of the panel, and the sentence; None where no panel shows the method.
    """
    measure = next((m for m in figures.of_task(task) if m.of == "slice"), None)
    if measure is None or method == INPUT:
        return None
    values = {
        (score.scan, score.slice): value
        for score in study.scores
        if score.task == task and score.method == method
        if (value := score.values.get(measure.name)) is not None
    }
    shown = {
        index: values[panel.scan, panel.slice]
        for index, panel in enumerate(study.panels)
        if panel.task == task and method in panel.images and (panel.scan, panel.slice) in values
    }
    if not shown:
        return None
    worst = min(shown, key=lambda index: _goodness(shown[index], measure))
    least = min(_goodness(value, measure) for value in values.values())
    start = "Where" if _goodness(shown[worst], measure) == least else "Of the slices shown, where"
    unit = figures.unit(task, measure)
    told = number(shown[worst], figures.decimals(task, measure))
    panel = study.panels[worst]
    return worst, (
        f"{start} {method} is worst: {panel.scan}, slice {panel.slice}, "
        f"{measure.title} {told} {unit}".rstrip()
    )


def _goodness(value: float, measure: Measure) -> float:
    return {"higher": value, "lower": -value, "zero": -abs(value)}[measure.better]


def _columns(
    images: Iterable[Mapping[str, Scored]], methods: Sequence[str], measure: str
) -> Iterator[list[float | None] | None]:
    for of_methods in images:
        row = [_short(of_methods.get(method), measure) for method in methods]
        known = any(m in of_methods and measure in of_methods[m].values for m in methods)
        yield row if known else None


def _short(score: Scored | None, measure: str) -> float | None:
    value = score.values.get(measure) if score else None
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")


def _cell(figures: Figures, task: str, measure: Measure, method: str, best: bool) -> Cell:
    summary = figures.summary(task, measure.name, method)
    if summary is None:
        return Cell(NONE, "", "", "", False)
    digits = figures.decimals(task, measure)
    interval = ""
    if summary.low is not None and summary.high is not None:
        interval = f"{number(summary.low, digits)} to {number(summary.high, digits)}"
        interval += "*" if summary.resampled == "slices" else ""
    kind = "slice" if measure.of == "slice" else "scan"
    missing = f"{summary.without:,} without" if summary.without else ""
    mean, over = number(summary.mean, digits), number(summary.slice_mean, digits)
    over = "" if over == mean else f"over {kind}s {over}"
    return Cell(mean, interval, over, missing, best)


def _test_row(figures: Figures, measure: Measure, test: PairedTest) -> dict[str, str]:
    digits = figures.decimals(test.task, measure)
    interval = NONE
    if test.low is not None and test.high is not None:
        interval = (
            f"{number(test.low, digits, sign=True)} to {number(test.high, digits, sign=True)}"
        )
    says = "differ" if test.p_holm is not None and test.p_holm < LEVEL else "not told apart"
    return {
        "first": test.first,
        "second": test.second,
        "difference": number(test.difference, digits, sign=True),
        "interval": interval,
        "p": p_value(test.p),
        "holm": p_value(test.p_holm),
        "pairs": f"{test.pairs:,} {test.of}",
        "says": "not tested" if test.p_holm is None else says,
    }


def _slices(places: Sequence[str]) -> str:
    kept = [place for place in places if place]
    if not kept:
        return ""
    if len(kept) > 12:
        return f", {len(kept):,} slices from {kept[0]} to {kept[-1]}"
    return f", slice{'s' if len(kept) > 1 else ''} {listed(kept)}"


def provenance_rows(values: Mapping[str, Any], depth: int = 0) -> list[tuple[int, str, str]]:
    """Return nested JSON values as (depth, name, text) in their order."""
    rows: list[tuple[int, str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows.append((depth, str(name), ""))
            rows += provenance_rows(value, depth + 1)
        elif isinstance(value, (list, tuple)) and any(isinstance(v, Mapping) for v in value):
            rows.append((depth, str(name), ""))
            rows += provenance_rows({str(i + 1): v for i, v in enumerate(value)}, depth + 1)
        elif isinstance(value, (list, tuple)):
            rows.append((depth, str(name), ", ".join(map(str, value))))
        else:
            rows.append((depth, str(name), str(value)))
    return rows
