"""The open benchmark's results as Markdown that others can quote, and what identifies them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.open_definition import FORMAT, SPLIT, Definition
from restore_rwkv.apps.cli.study_tables import number_text
from restore_rwkv.evaluation.measures.measure import Measure
from restore_rwkv.evaluation.study.naming import printable
from restore_rwkv.evaluation.study.results import INPUT, Study, Summary
from restore_rwkv.evaluation.study.tables import unit_of
from restore_rwkv.tasks import TASKS

_WITH_INTERVAL = 3  # measures of the paper's protocol
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$])")


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method of the benchmark.

    Attributes:
        name: in tables.
        kind: "weights" or "submission".
        sha256: digest of the tensors, or of the statement and all images.
        parameters: of the network; None where unknown.
        seconds: per slice, by task, as measured here or as stated by the authors.
        remark: what a submission says of itself, as one line of plain text; else "".
    """

    name: str
    kind: str
    sha256: str
    parameters: int | None
    seconds: Mapping[str, float]
    remark: str = ""

    @property
    def stated(self) -> bool:
        """Whether parameters and seconds are the words of its authors."""
        return self.kind == "submission"


def table(study: Study, task: str, methods: Mapping[str, Method], note: str = "") -> str:
    """Return the table of a task with its heading and remarks, as Markdown.

    Args:
        study: of all tasks.
        task: name.
        methods: by name.
        note: how seconds were measured; "" where they were not.
    """
    of_task = [summary for summary in study.summaries if summary.task == task]
    measures = [m for m in study.measures if any(s.measure == m.name for s in of_task)]
    by_method: dict[str, dict[str, Summary]] = {}
    for summary in of_task:
        by_method.setdefault(summary.method, {})[summary.measure] = summary
    names = sorted(by_method, key=lambda name: _place(name, by_method[name], measures[0]))
    timed = any(task in methods[name].seconds for name in names if name in methods)
    heads = [_head(measure, task) for measure in measures]
    gain = f"gain in {measures[0].title} ({unit_of(measures[0], task)})"
    columns = ["method", "parameters", *heads[:_WITH_INTERVAL], gain, *heads[_WITH_INTERVAL:]]
    columns += ["seconds per slice"] if timed else []
    lines = [
        f"### {task}",
        "",
        markdown(study.sets[task]),
        "",
        _row(columns),
        "|---" * len(columns) + "|",
    ]
    for name in names:
        method = methods.get(name)
        cells = [
            _cell(by_method[name].get(m.name), number < _WITH_INTERVAL)
            for number, m in enumerate(measures)
        ]
        cells.insert(_WITH_INTERVAL, _gain(study, task, measures[0], name))
        last = [_seconds(method, task)] if timed else []
        lines.append(_row([markdown(name), _parameters(method), *cells, *last]))
    return "\n".join([*lines, "", *_remarks(of_task, names, methods, note if timed else "")])


def citation(
    definition: Definition,
    tasks: Sequence[str],
    methods: Mapping[str, Method],
    code: Mapping[str, Any],
    packages: Mapping[str, str],
) -> str:
    """Return what identifies the figures: the same for the same benchmark, data, methods, code."""
    data = [f"data {task}: {definition.data[task]}" for task in tasks]
    of = [f"{m.kind} {printable(m.name)}: {m.sha256}" for m in methods.values()]
    lines = [
        f"{FORMAT}, version {definition.version}, {SPLIT} split, seed {definition.seed}",
        f"protocol: {', '.join(definition.protocols)}; further: {', '.join(definition.measures)}",
        f"definition: {definition.sha256}",
        *data,
        *of,
        f"code: {code['software']}{', commit ' + code['commit'] if code['commit'] else ''}",
        *(f"code of {part}: {code[part]}" for part in ("scoring", "restoring")),
        f"packages: {', '.join(f'{name} {found}' for name, found in packages.items())}",
        "digests are SHA-256",
    ]
    return "\n".join(["```text", *(line.replace("```", "'''") for line in lines), "```"])


def markdown(text: str) -> str:
    """Return text with escapes for what Markdown would take for markup."""
    return _SPECIAL.sub(r"\\\1", printable(text))


def _place(name: str, row: Mapping[str, Summary], first: Measure) -> tuple[bool, float, str]:
    """Order of the rows: the input, then by the first measure, the best one first."""
    mean = row[first.name].mean if first.name in row else None
    worth = float("-inf") if mean is None else mean if first.better == "higher" else -abs(mean)
    return name != INPUT, -worth, name


def _head(measure: Measure, task: str) -> str:
    unit = unit_of(measure, task)
    return measure.title if unit == "1" else f"{measure.title} ({unit})"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(summary: Summary | None, with_interval: bool) -> str:
    if summary is None or summary.mean is None:
        return "none"
    text = number_text(summary.mean)
    if with_interval and summary.low is not None:
        text += f" [{number_text(summary.low)}, {number_text(summary.high)}]"
    every = summary.slices + summary.without
    return f"{text}, {summary.slices} of {every}" if summary.without else text


def _gain(study: Study, task: str, measure: Measure, name: str) -> str:
    for test in study.tests:
        found = (test.task, test.measure, test.first, test.second)
        if found == (task, measure.name, name, INPUT):
            text = number_text(test.difference, "+")
            if test.low is None:
                return text
            return f"{text} [{number_text(test.low, '+')}, {number_text(test.high, '+')}]"
    return ""


def _parameters(method: Method | None) -> str:
    if method is None or method.parameters is None:
        return ""
    return f"{method.parameters:,}{' (stated)' if method.stated else ''}"


def _seconds(method: Method | None, task: str) -> str:
    if method is None or task not in method.seconds:
        return ""
    return f"{method.seconds[task]:.3g}{' (stated)' if method.stated else ''}"


def _remarks(
    summaries: Sequence[Summary],
    names: Sequence[str],
    methods: Mapping[str, Method],
    note: str,
) -> list[str]:
    patients = max(summary.patients for summary in summaries)
    resampled = {summary.resampled for summary in summaries if summary.resampled}
    of = f"over {patients} patients" if patients > 1 else "over the slices of one patient"
    drawn = "patients" if "patients" in resampled else "slices"
    lines = [f"Means {of}, with 95 % bootstrap intervals over {drawn}."]
    if patients == 1:
        lines[0] += " They say nothing of other patients."
    elif patients < 10:
        lines[0] += f" Intervals over {patients} patients are too narrow."
    task = TASKS[summaries[0].task]
    if task.modality == "PT":
        lines[0] += " PET is simulated."
    lines += [note] if note else []
    lines += [
        f"- **{markdown(name)}**: {markdown(methods[name].remark)}"
        for name in names
        if name in methods and methods[name].remark
    ]
    return ["\n\n".join(lines), ""]
