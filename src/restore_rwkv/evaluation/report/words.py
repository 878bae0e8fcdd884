"""An evaluation in words: figures with their units, comparisons, and a verdict on each task."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from restore_rwkv.evaluation.study.results import INPUT
from restore_rwkv.evaluation.study.statistics import caution

if TYPE_CHECKING:
    from restore_rwkv.evaluation.measures.measure import Measure
    from restore_rwkv.evaluation.study.results import PairedTest, Study, Summary

LEVEL = 0.05
"""Of significance, after Holm's correction."""

NONE = "\u2014"
"""Stands for a figure that does not exist."""

_OF_THE_PAPER = ("psnr", "ssim", "rmse")
_OUTCOMES = {
    "worse": "is worse than the input",
    "below": "is below the input",
    "better": "is better than the input",
    "above": "is above the input",
    "equal": "is not shown to differ from the input",
}


@dataclass(frozen=True)
class Comparison:
    """One method beside another by one measure; positive gains mean that the first is better.

    Attributes:
        first, second: names of the methods.
        gain: mean over patients.
        low, high: ends of its 95 % interval; None if unknown.
        test: the test that it is from.
    """

    first: str
    second: str
    gain: float
    low: float | None
    high: float | None
    test: PairedTest

    @property
    def distinct(self) -> bool:
        """Whether the test tells the methods apart, and the interval does not contradict it."""
        p = self.test.p_holm
        unclear = self.low is not None and self.high is not None and self.low <= 0 <= self.high
        return p is not None and p < LEVEL and not unclear and self.gain != 0

    @property
    def outcome(self) -> str:
        """What is said of it: a key of `_OUTCOMES`."""
        if self.distinct:
            return "better" if self.gain > 0 else "worse"
        if self.low is not None and self.low > 0:
            return "above"
        return "below" if self.high is not None and self.high < 0 else "equal"

    @property
    def doubt(self) -> str:
        """What a test says of a difference that the interval shows."""
        if self.outcome not in ("above", "below"):
            return ""
        tested = self.test.p_holm is not None
        return ", which no test confirms" if tested else ", on too few patients for a test"


@dataclass(frozen=True)
class Verdict:
    """What an evaluation says of one task.

    Attributes:
        headline: one short sentence.
        sentences: the figures, what is worse than the input first, and how far they reach.
        tone: "better", "worse" or "undecided", of the headline.
        method: the one that is named first; empty where none was scored.
    """

    headline: str
    sentences: tuple[str, ...]
    tone: str
    method: str = ""


class Figures:
    """Summaries and tests of a study by what they are of."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self.measures = {measure.name: measure for measure in study.measures}
        self._summaries = {(s.task, s.measure, s.method): s for s in study.summaries}
        self._tests = {(t.task, t.measure, t.first, t.second): t for t in study.tests}
        self._units = {panel.task: panel.unit for panel in study.panels}

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of tasks, in the order of the sets."""
        scored = (summary.task for summary in self._study.summaries)
        return tuple(dict.fromkeys([*self._study.sets, *scored]))

    def of_task(self, task: str) -> tuple[Measure, ...]:
        """Measures that any method has a summary of."""
        return tuple(
            measure
            for measure in self._study.measures
            if any(self.summary(task, measure.name, method) for method in self._study.methods)
        )

    def methods(self, task: str) -> tuple[str, ...]:
        """Names of methods that have a summary for a task."""
        of_task = {method for found, _, method in self._summaries if found == task}
        return tuple(method for method in self._study.methods if method in of_task)

    def summary(self, task: str, measure: str, method: str) -> Summary | None:
        """Summary, if there is one."""
        return self._summaries.get((task, measure, method))

    def unit(self, task: str, measure: Measure) -> str:
        """Unit of a measure's values; empty for pure numbers."""
        if measure.unit == "image":
            return self._units.get(task, "") or _unit_of_task(task)
        return "" if measure.unit == "1" else measure.unit

    def decimals(self, task: str, measure: Measure) -> int:
        """Digits after the point that values of a measure are shown with."""
        if measure.unit == "dB":
            return 2
        means = [
            abs(summary.mean)
            for method in self._study.methods
            if (summary := self.summary(task, measure.name, method)) and summary.mean
        ]
        if measure.unit == "1" and (not means or max(means) <= 1):
            return 4
        largest = max(means, default=1.0)
        return min(6, max(0, 2 - math.floor(math.log10(largest))))

    def compare(self, task: str, measure: Measure, first: str, second: str) -> Comparison | None:
        """Comparison from the paired test of two methods, in whichever order it was made."""
        test = self._tests.get((task, measure.name, first, second))
        turned = test is None
        test = test or self._tests.get((task, measure.name, second, first))
        if test is None or measure.better == "zero":
            return None
        sign = (-1 if turned else 1) * (1 if measure.better == "higher" else -1)
        ends = (test.low, test.high)
        low, high = (
            (None, None)
            if ends[0] is None or ends[1] is None
            else sorted((sign * ends[0], sign * ends[1]))
        )
        return Comparison(first, second, sign * test.difference, low, high, test)

    def best(self, task: str, measure: Measure) -> str | None:
        """Method with the best mean; None if no method has one."""
        means = {
            method: summary.mean
            for method in self._study.methods
            if (summary := self.summary(task, measure.name, method)) and summary.mean is not None
        }
        key = {"higher": lambda v: -v, "lower": lambda v: v, "zero": abs}[measure.better]
        return min(means, key=lambda method: key(means[method]), default=None)

    def distinct_best(self, task: str, measure: Measure) -> Comparison | None:
        """Best method against the nearest other one, if the tests tell it apart from all others."""
        best = self.best(task, measure)
        others = [m for m in self.methods(task) if m != best and self._has_mean(task, measure, m)]
        found = [self.compare(task, measure, best, other) for other in others] if best else []
        kept = [each for each in found if each is not None and each.distinct and each.gain > 0]
        if not kept or len(kept) < len(others):
            return None
        return min(kept, key=lambda each: each.gain)

    def _has_mean(self, task: str, measure: Measure, method: str) -> bool:
        summary = self.summary(task, measure.name, method)
        return summary is not None and summary.mean is not None


def title_of(measure: Measure) -> str:
    """Title of a measure that names its protocol."""
    if measure.name in _OF_THE_PAPER and "paper" not in measure.title.lower():
        return f"{measure.title} (paper protocol)"
    return measure.title


def number(value: float | None, decimals: int, *, sign: bool = False) -> str:
    """Return a number with a true minus sign; `NONE` where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:+,.{decimals}f}" if sign else f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\u2212")


def p_value(p: float | None) -> str:
    """Return a p-value such as "0.012" or "< 0.0001"; `NONE` where there is none."""
    if p is None:
        return NONE
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def listed(names: Iterable[str]) -> str:
    """Return names such as "a, b and c"."""
    every = list(names)
    return every[0] if len(every) == 1 else f"{', '.join(every[:-1])} and {every[-1]}"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as "1 patient" or "2,000 slices"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def verdict(figures: Figures, task: str) -> Verdict:
    """Return what the first measure of a task says of its methods."""
    measures = figures.of_task(task)
    restored = [method for method in figures.methods(task) if method != INPUT]
    if not measures or not restored:
        return Verdict("No method was scored.", (), "undecided")
    measure = measures[0]
    found = {method: figures.compare(task, measure, method, INPUT) for method in restored}
    gains = {method: each for method, each in found.items() if each is not None}
    words = _Words(figures, task, measure)
    if not gains:
        return Verdict(
            f"Nothing compares the methods with the input by {title_of(measure)}.",
            (),
            "undecided",
            figures.best(task, measure) or restored[0],
        )
    order = list(_OUTCOMES)[:2]  # what is worse comes first, others by their gain
    ranked = sorted(gains.values(), key=lambda c: (c.outcome not in order, -c.gain))
    sentences = [words.against_input(each) for each in ranked]
    ties = words.ties([each.first for each in ranked if each.outcome not in order])
    sentences += [f"{ties}."] if ties else []
    sentences += words.reach(ranked[0])
    headline, tone = _headline(words, ranked)
    return Verdict(headline, tuple(sentences), tone, ranked[0].first)


def _headline(words: _Words, ranked: list[Comparison]) -> tuple[str, str]:
    by: dict[str, list[Comparison]] = {outcome: [] for outcome in _OUTCOMES}
    for each in ranked:
        by[each.outcome].append(each)
    parts = []
    for outcome in ("worse", "below"):
        if by[outcome]:
            names = listed(each.first for each in by[outcome])
            verb = "is" if len(by[outcome]) == 1 else "are"
            says = f"{_OUTCOMES[outcome].removeprefix('is ')}{by[outcome][0].doubt}"
            parts.append(f"{names} {verb} {says}")
    if by["better"]:
        first = by["better"][0]
        part = f"{first.first} gains {words.size(first.gain)} over the input"
        tied = words.tied([each.first for each in by["better"]])
        parts.append(f"{part}, not told apart from {listed(tied)}" if tied else part)
    elif by["above"]:
        first = by["above"][0]
        size = words.size(first.gain)
        parts.append(f"{first.first} gains {size} over the input{first.doubt}")
    elif by["equal"]:
        names = listed(each.first for each in by["equal"])
        parts.append(f"{names}: no difference from the input is shown")
    tone = "worse" if by["worse"] or by["below"] else "better" if by["better"] else "undecided"
    text = "; ".join(parts)
    return f"{words.on(ranked[0])}{text}.", tone


@dataclass(frozen=True)
class _Words:
    """Sentences about methods of one task by one measure."""

    figures: Figures
    task: str
    measure: Measure

    def size(self, gain: float) -> str:
        """A gain with its unit and measure; for measures of which less is better, a change."""
        value = -gain if self.measure.better == "lower" else gain
        unit = self.figures.unit(self.task, self.measure)
        digits = number(value, self.figures.decimals(self.task, self.measure), sign=True)
        return " ".join(part for part in (digits, unit, self.measure.title) if part)

    def against_input(self, found: Comparison) -> str:
        """A method against the input, with interval and test."""
        tested = found.test.p_holm is not None
        says = f"{_OUTCOMES[found.outcome]}{found.doubt if tested else ''}"
        return f"{found.first} {says}: {self._figure(found)}."

    def ties(self, methods: list[str]) -> str:
        """The best restored method and those that no test tells apart from it."""
        tied = self.tied(methods)
        if not tied:
            return ""
        return f"{listed([methods[0], *tied])} cannot be told apart by {self.measure.title}"

    def tied(self, methods: list[str]) -> list[str]:
        """Names of those that no test tells apart from the first."""
        found = {
            other: self.figures.compare(self.task, self.measure, methods[0], other)
            for other in methods[1:]
        }
        return [
            other
            for other, each in found.items()
            if each is not None and each.test.p_holm is not None and not each.distinct
        ]

    def on(self, found: Comparison) -> str:
        """Number of patients, to begin a sentence with."""
        patients = self._patients(found)
        return f"On {counted(patients, 'patient')}, " if patients else ""

    def _patients(self, found: Comparison) -> int:
        summary = self.figures.summary(self.task, self.measure.name, found.first)
        return summary.patients if summary else 0

    def reach(self, found: Comparison) -> list[str]:
        """Say how far the figures reach, where patients are few."""
        said = caution(self._patients(found))
        return [said] if said else []

    def _figure(self, found: Comparison) -> str:
        decimals = self.figures.decimals(self.task, self.measure)
        value, low, high = found.gain, found.low, found.high
        if self.measure.better == "lower":
            value = -value
            low, high = (None, None) if low is None or high is None else (-high, -low)
        unit = self.figures.unit(self.task, self.measure)
        text = f"{number(value, decimals, sign=True)}\u00a0{unit} {title_of(self.measure)}"
        if low is not None:
            ends = f"{number(low, decimals, sign=True)} to {number(high, decimals, sign=True)}"
            text += f", 95\u00a0% interval {ends}\u00a0{unit}".rstrip("\u00a0")
        if found.test.p_holm is not None:
            p = f"p = {p_value(found.test.p_holm)}".replace("= <", "<").replace(" ", "\u00a0")
            text += f", {p} over {counted(found.test.pairs, 'patient')}"
        return " ".join(part for part in text.split(" ") if part)


def _unit_of_task(task: str) -> str:
    from restore_rwkv.tasks import TASKS

    return TASKS[task].unit if task in TASKS else ""
