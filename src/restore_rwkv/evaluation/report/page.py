"""The report of an evaluation: one page of HTML that needs nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_rwkv.evaluation.report.charts import box_plot, line_chart
from restore_rwkv.evaluation.report.images import (
    DIFFERENCE,
    TRUTH,
    StoredSlices,
    difference_limit,
    picture,
    pictures,
    store_slices,
)
from restore_rwkv.evaluation.report.tables import (
    gains,
    provenance_rows,
    reasons,
    score_rows,
    slice_table,
    test_rows,
    worst_rows,
    worst_shown,
)
from restore_rwkv.evaluation.report.viewer import (
    BASICS,
    CONTROLS,
    PACKAGE,
    STYLE,
    VIEWER,
    controls,
    packed,
    texts,
)
from restore_rwkv.evaluation.report.words import Figures, title_of, verdict
from restore_rwkv.evaluation.study.results import INPUT
from restore_rwkv.io import atomic_file
from restore_rwkv.io.html import page_template, plain
from restore_rwkv.io.record import program_version
from restore_rwkv.tasks import NOTICE, TASKS

if TYPE_CHECKING:
    from restore_rwkv.evaluation.study.results import Panel, Study

_COLOURS = 8  # of methods, before they repeat with other dashes
_WORST = 20  # slices of a task listed without the script


def write_report(study: Study, path: Path) -> None:
    """Write an evaluation as one page of HTML.

    The page loads nothing, and shows its verdict, tables, charts and small pictures without its
    script, which sorts and filters slices and shows them at any window, zoomed, side by side or
    with a swipe, with values and profiles. Equal studies give equal bytes.

    Args:
        study: what is reported.
        path: file to write; its folder must exist. An existing file is replaced in one step.

    Raises:
        OSError: the file cannot be written.
    """
    html = page_template(PACKAGE, "page.html").render(_values(study))
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8", newline="\n")


def _values(study: Study) -> dict[str, Any]:
    """What the template says."""
    figures = Figures(study)
    stored = [store_slices(panel) for panel in study.panels]
    panels = [_panel(panel) for panel in study.panels]
    data = {
        "methods": [plain(method) for method in study.methods],
        "measures": [_measure(figures, measure) for measure in study.measures],
        "tasks": slice_table(study, figures),
        "panels": [
            _panel_data(panel, each) for panel, each in zip(study.panels, stored, strict=True)
        ],
    }
    return {
        "tasks": [_task(study, figures, task) for task in figures.tasks],
        "measures": [(measure, title_of(measure)) for measure in study.measures],
        "panels": panels,
        "viewer": controls(_slice_names(study, figures), "Restored by"),
        "slices": [" ".join(each.texts) for each in stored],
        "data": packed(data),
        "provenance": provenance_rows(study.provenance),
        "colour": {method: index % _COLOURS for index, method in enumerate(study.methods)},
        "dash": {method: index // _COLOURS for index, method in enumerate(study.methods)},
        "input": INPUT,
        "notice": NOTICE,
        "software": program_version(),
        "style": texts(STYLE),
        "script": texts(BASICS, "page.js", VIEWER, CONTROLS, "glance.js"),
    }


def _slice_names(study: Study, figures: Figures) -> list[str]:
    """Names of the panels in the list of the viewer."""
    several = len(figures.tasks) > 1
    return [
        f"{f'{panel.task}: ' if several else ''}{panel.scan}, slice {panel.slice}"
        for panel in study.panels
    ]


def _task(study: Study, figures: Figures, task: str) -> dict[str, Any]:
    measures = figures.of_task(task)
    said = verdict(figures, task)
    return {
        "name": task,
        "title": TASKS[task].title if task in TASKS else task,
        "set": study.sets.get(task, ""),
        "verdict": said,
        "glance": _glance(study, figures, task, said.method),
        "methods": figures.methods(task),
        "rows": score_rows(figures, task),
        "starred": any(s.resampled == "slices" for s in study.summaries if s.task == task),
        "tests": [
            (title_of(measure), rows)
            for measure in measures
            if (rows := test_rows(figures, task, measure, study))
        ],
        "reasons": reasons(study, task),
        "boxes": [
            (study.measures.index(measure), measure, figures.unit(task, measure), plot)
            for measure in measures
            if (plot := box_plot(gains(study, task, measure)))
        ],
        "first": measures[0].title if measures else "",
        "worst": worst_rows(study, figures, task, _WORST),
        "spectra": _spectra(study, task),
    }


def _glance(study: Study, figures: Figures, task: str, method: str) -> dict[str, Any] | None:
    """Return the worst slice of a method beside the input, or the truth where there is none."""
    found = worst_shown(study, figures, task, method)
    if found is None:
        return None
    index, words = found
    panel = study.panels[index]
    left, right = (INPUT, method) if INPUT in panel.images else (method, TRUTH)
    names = [TRUTH, *panel.images]
    return {
        "panel": index,
        "words": words,
        "ratio": _ratio(panel),
        "sides": [
            {"place": names.index(name), "name": name, "picture": picture(panel, name)}
            for name in (left, right)
        ],
    }


def _ratio(panel: Panel) -> float:
    """Width of a slice divided by its height, in mm where they are known."""
    down, across = panel.pixel_mm or (1.0, 1.0)
    height, width = panel.truth.shape
    return float(round(width * across / (height * down), 4))


def _spectra(study: Study, task: str) -> dict[str, Any] | None:
    found = [spectrum for spectrum in study.spectra if spectrum.task == task]
    chart = line_chart({each.method: (each.frequency, each.power) for each in found})
    if chart is None:
        return None
    unit = TASKS[task].unit if task in TASKS else "unit"
    length = "mm" if all(each.per_mm for each in found) else "pixel"
    across = f"spatial frequency, {'1/mm' if length == 'mm' else 'cycles per pixel'}"
    return {"chart": chart, "across": across, "up": f"power, ({unit})² {length}²"}


def _panel(panel: Panel) -> dict[str, Any]:
    """What the page shows of a panel without its script."""
    black, white = next(iter(panel.windows.values()))
    name = next(iter(panel.windows))
    return {
        "panel": panel,
        "pictures": pictures(panel),
        "labels": {TRUTH: "truth", DIFFERENCE: f"{list(panel.images)[:2][-1]} \u2212 truth"},
        "window": f"{name}, {black:g} to {white:g} {panel.unit}".replace("-", "\u2212"),
        "limit": f"\u00b1{difference_limit(panel):g} {panel.unit}",
    }


def _panel_data(panel: Panel, stored: StoredSlices) -> dict[str, Any]:
    """What the script knows of a panel."""
    return {
        "task": plain(panel.task),
        "patient": plain(panel.patient),
        "scan": plain(panel.scan),
        "slice": panel.slice,
        "why": plain(panel.why),
        "unit": plain(panel.unit),
        "mm": panel.pixel_mm,
        "shape": panel.truth.shape,
        "names": [plain(name) for name in panel.images],
        "scale": stored.scale,
        "windows": [[plain(name), *ends] for name, ends in panel.windows.items()],
        "limit": difference_limit(panel),
    }


def _measure(figures: Figures, measure: Any) -> dict[str, Any]:
    decimals = [figures.decimals(task, measure) for task in figures.tasks]
    return {
        "title": plain(title_of(measure)),
        "better": measure.better,
        "units": [plain(figures.unit(task, measure)) for task in figures.tasks],
        "decimals": decimals,
    }
