"""An evaluation as tables for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from restore_rwkv.apps.cli.console import plain_table
from restore_rwkv.evaluation.study.request import protocol_of
from restore_rwkv.evaluation.study.results import INPUT, PairedTest, Study, Summary
from restore_rwkv.evaluation.study.statistics import PatientMean, caution, patient_means
from restore_rwkv.evaluation.study.tables import unit_of

if TYPE_CHECKING:
    from rich.table import Table

    from restore_rwkv.evaluation.measures.measure import Measure

_MOST_PATIENTS = 30
_MOST_REASONS = 2
_MOST_COLUMNS = 3  # measures of the table of patients


def study_tables(study: Study) -> list[Table]:
    """Return for each task a table of patients, where there are several, and one of means."""
    tables = []
    for task in study.sets:
        means = [mean for mean in patient_means(study.scores) if mean.task == task]
        patients = len({mean.patient for mean in means})
        if 1 < patients <= _MOST_PATIENTS:
            tables.append(_patients(study, task, means))
        tables.append(_summary(study, task))
    return tables


def decimals(value: float | None) -> int:
    """Return how many digits a number has after its point: four below 1, else two."""
    return 2 if value is not None and abs(value) >= 1 else 4


def number_text(value: float | None, sign: str = "", digits: int | None = None) -> str:
    """Return a number with so many digits after the point, or `decimals`; "none" for None."""
    if value is None:
        return "none"
    return f"{value:{sign}.{decimals(value) if digits is None else digits}f}"


def p_text(p: float | None) -> str:
    """Return a p-value in words."""
    if p is None:
        return "none"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _patients(study: Study, task: str, means: Sequence[PatientMean]) -> Table:
    measures = [m for m in study.measures if any(p.measure == m.name for p in means)]
    measures = measures[:_MOST_COLUMNS]
    table = plain_table("patient", "method", *(_heading(m, task) for m in measures), "slices")
    table.title = f"{task}: means over slices, {_protocols(measures)}"
    _fold(table, "patient", "method")
    by_row: dict[tuple[str, str], dict[str, PatientMean]] = {}
    for mean in means:
        by_row.setdefault((mean.patient, mean.method), {})[mean.measure] = mean
    before = None
    for (patient, method), row in by_row.items():
        first = row.get(measures[0].name)
        cells = [number_text(row[m.name].mean) if m.name in row else "" for m in measures]
        count = _count(first.slices, first.without) if first else ""
        table.add_row(patient if patient != before else "", method, *cells, count)
        before = patient
    return table


def _summary(study: Study, task: str) -> Table:
    summaries = [summary for summary in study.summaries if summary.task == task]
    gains = any(test.task == task and test.second == INPUT for test in study.tests)
    tested = any(test.task == task and test.p is not None for test in study.tests)
    columns = (("change", "Holm p") if tested else ("change",)) if gains else ()
    table = plain_table("method", "mean", "95 % interval", *columns, "slices")
    patients = max((summary.patients for summary in summaries), default=0)
    measures = [m for m in study.measures if any(s.measure == m.name for s in summaries)]
    of = f"mean over {patients} patients" if patients > 1 else "means over slices of one patient"
    table.title = f"{task}: {of}, {_protocols(measures)}"
    _fold(table, "method", "95 % interval")
    for measure in measures:
        table.add_row(_heading(measure, task), style="bold")
        for summary in (s for s in summaries if s.measure == measure.name):
            table.add_row(*_cells(study, summary, columns))
        table.add_section()
    _add_notes(table, study, task, columns)
    return table


def _cells(study: Study, summary: Summary, columns: Sequence[str]) -> Iterator[str]:
    yield f"  {summary.method}"
    yield number_text(summary.mean)
    given = summary.low is not None
    digits = decimals(summary.mean)
    ends = (number_text(end, digits=digits) for end in (summary.low, summary.high))
    yield " to ".join(ends) if given else "none"
    if columns:
        test = _test_over_input(study, summary)
        yield number_text(test.difference, "+") if test else ""
        if "Holm p" in columns:
            yield p_text(test.p_holm) if test else ""
    yield _count(summary.slices, summary.without)


def _test_over_input(study: Study, summary: Summary) -> PairedTest | None:
    return next(
        (
            test
            for test in study.tests
            if (test.task, test.measure, test.first, test.second)
            == (summary.task, summary.measure, summary.method, INPUT)
        ),
        None,
    )


def _add_notes(table: Table, study: Study, task: str, columns: Sequence[str]) -> None:
    """Say under a table what was scored, and how little few patients say."""
    patients = max((s.patients for s in study.summaries if s.task == task), default=0)
    notes = [study.sets[task]]
    if "Holm p" in columns:
        notes.append(
            f"Change and p: against the {INPUT}, over patients; p by Wilcoxon, corrected by Holm."
        )
    elif columns:
        notes.append(f"Change: against the {INPUT}.")
    notes += [said] if (said := caution(patients)) else []
    table.caption = "\n".join([*notes, *_reasons(study, task)])
    table.caption_justify = "left"


def _reasons(study: Study, task: str) -> Iterator[str]:
    """Say of each measure why images have no value of it."""
    counts: dict[str, Counter[str]] = {}
    for score in study.scores:
        if score.task == task:
            for name, reason in score.reasons.items():
                counts.setdefault(name, Counter())[reason] += 1
    for name, reasons in counts.items():
        texts = [
            f"{count} because {reason}" for reason, count in reasons.most_common(_MOST_REASONS)
        ]
        yield f"{name}: {reasons.total()} values are missing, {'; '.join(texts)}."


def _heading(measure: Measure, task: str) -> str:
    unit = unit_of(measure, task)
    title = f"{measure.title} ({measure.name})" if "." in measure.name else measure.title
    return title if unit == "1" else f"{title} {unit}"


def _protocols(measures: Sequence[Measure]) -> str:
    """Name the protocols of measures."""
    names = list(dict.fromkeys(name for m in measures if (name := protocol_of(m))))
    if not names:
        return "no protocol"
    return f"{' and '.join(names)} protocol{'s' if len(names) > 1 else ''}"


def _count(slices: int, without: int) -> str:
    return f"{slices} of {slices + without}" if without else str(slices)


def _fold(table: Table, *names: str) -> None:
    """Break names, and intervals, rather than cut them, as many names differ at their ends only."""
    for column in table.columns:
        column.overflow = "fold"
        column.no_wrap = column.header not in names
        column.min_width = len(str(column.header).rpartition(" ")[2])
