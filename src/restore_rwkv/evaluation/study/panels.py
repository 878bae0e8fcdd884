"""Slices to look at: the worst ones of each method, a typical one and the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.evaluation.measures.measure import Measure
from restore_rwkv.evaluation.study.results import INPUT, Panel
from restore_rwkv.evaluation.study.sources import Case, Images
from restore_rwkv.evaluation.study.tables import unit_of
from restore_rwkv.tasks import Task

_BRIGHTEST = 0.995  # quantile of the truth
_CT = {
    "soft tissue": (-160.0, 240.0),  # window 400, level 40
    "lung": (-1350.0, 150.0),  # window 1500, level -600
    "bone": (-450.0, 1050.0),  # window 1500, level 300
    "brain": (0.0, 80.0),  # window 80, level 40
}
_NEAR = 4  # slices near the median that are kept until it is known


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A slice that may be shown.

    Attributes:
        badness: larger for a worse slice.
        value: of the measure.
        panel: what is shown, without a reason.
    """

    badness: float
    value: float
    panel: Panel


class PanelChooser:
    """Chooses slices of one task while its scans are scored, and keeps no others in memory.

    Args:
        task: the task.
        measure: measure of slices by which they are chosen.
        most: largest number of panels.
    """

    def __init__(self, task: Task, measure: Measure, most: int) -> None:
        self._task, self._measure, self._most = task, measure, most
        self._worst: dict[str, list[_Candidate]] = {}
        self._best: list[_Candidate] = []
        self._near: list[_Candidate] = []
        self._values: list[float] = []
        self._last = ""  # the method whose median and best slices are shown

    def offer(
        self, case: Case, images: Images, values: Mapping[str, Sequence[float | None]]
    ) -> None:
        """Take notice of the slices of a scan.

        Args:
            case: the scan.
            images: its images.
            values: of the measure, by method, for each slice.
        """
        made: dict[int, Panel] = {}

        def candidate(index: int, value: float) -> _Candidate:
            if index not in made:
                made[index] = _panel(case, images, index, self._task)
            return _Candidate(self._badness(value), value, made[index])

        # What restores is judged; the input only where there is nothing else.
        judged = [name for name in values if name != INPUT] or list(values)
        share = max(1, -(-(self._most - 2) // len(judged)))
        scored = {
            method: sorted(
                ((i, v) for i, v in enumerate(values[method]) if v is not None),
                key=lambda item: -self._badness(item[1]),
            )
            for method in judged
        }
        for method, found in scored.items():
            new = [candidate(*item) for item in _apart(found, share, len(values[method]))]
            self._worst[method] = _pruned([*self._worst.get(method, []), *new], share)
        self._last = judged[-1]
        if scored[self._last]:
            self._note_typical(scored[self._last], candidate)

    def panels(self) -> list[Panel]:
        """Return the chosen slices, the worst ones first, each once."""
        shown: dict[tuple[str, int], Panel] = {}

        def show(candidate: _Candidate, why: str, method: str) -> None:
            place = (candidate.panel.scan, candidate.panel.slice)
            if place not in shown and len(shown) < self._most:
                unit = unit_of(self._measure, self._task.name)
                value = f"{candidate.value:.4g}{'' if unit == '1' else f' {unit}'}"
                text = f"{why} {self._measure.title} of {method}, {value}"
                shown[place] = replace(candidate.panel, why=text)

        queues = {method: _one_a_scan_first(found) for method, found in self._worst.items()}
        for place in range(max(map(len, queues.values()), default=0)):
            for method, queue in queues.items():
                if place < len(queue) and len(shown) < max(1, self._most - 2):
                    show(queue[place], "worst" if place == 0 else "poor", method)
        if self._values:
            median = float(np.median(self._values))
            for candidate in sorted(self._near, key=lambda c: abs(c.value - median))[:1]:
                show(candidate, "typical (near the median)", self._last)
        for candidate in self._best:
            show(candidate, "best", self._last)
        return list(shown.values())

    def _note_typical(
        self, scored: Sequence[tuple[int, float]], candidate: Callable[[int, float], _Candidate]
    ) -> None:
        """Keep the best slice so far, and those near the median so far."""
        self._best = sorted([*self._best, candidate(*scored[-1])], key=lambda c: c.badness)[:1]
        self._values += [value for _, value in scored]
        median = float(np.median(self._values))
        near = min(scored, key=lambda item: abs(item[1] - median))
        every = [*self._near, candidate(*near)]
        self._near = sorted(every, key=lambda c: abs(c.value - median))[:_NEAR]

    def _badness(self, value: float) -> float:
        better = self._measure.better
        return -value if better == "higher" else value if better == "lower" else abs(value)


def windows_of(task: Task, truth: NDArray[np.float32]) -> dict[str, tuple[float, float]]:
    """Return what black and white stand for on slices of a task, by name of the window.

    Args:
        task: the task.
        truth: the slice of full quality.
    """
    if task.modality == "CT":
        return dict(_CT)
    low, high = (float(q) for q in np.quantile(truth, (1 - _BRIGHTEST, _BRIGHTEST)))
    low = min(low, 0.0)  # black is no signal
    whole = {"to the 99.5th percentile": (low, high if high > low else low + 1.0)}
    if task.modality == "PT":
        return {"SUV 0 to 5": (0.0, 5.0), **whole, "SUV 0 to 5, inverted": (5.0, 0.0)}
    return whole


def _apart(scored: Sequence[tuple[int, float]], share: int, count: int) -> list[tuple[int, float]]:
    """Return the first of (index, value), without neighbours of others, which look alike.

    Args:
        scored: the worst first.
        share: how many.
        count: number of slices of the scan.
    """
    chosen: list[tuple[int, float]] = []
    for index, value in scored:
        if all(abs(index - other) * 2 * share >= count for other, _ in chosen):
            chosen.append((index, value))
    return chosen[:share]


def _pruned(candidates: list[_Candidate], share: int) -> list[_Candidate]:
    """Return the worst ones of different scans, and the worst ones of all, as many of each."""
    ordered = _one_a_scan_first(candidates)
    worst = sorted(candidates, key=lambda c: -c.badness)[:share]
    return [c for number, c in enumerate(ordered) if number < share or c in worst]


def _one_a_scan_first(candidates: list[_Candidate]) -> list[_Candidate]:
    """Return the worst slice of each scan, and after them all others; both by badness."""
    ordered = sorted(candidates, key=lambda c: -c.badness)
    seen: set[str] = set()
    first = []
    for candidate in ordered:
        if candidate.panel.scan not in seen:
            seen.add(candidate.panel.scan)
            first.append(candidate)
    return [*first, *(c for c in ordered if c not in first)]


def _panel(case: Case, images: Images, index: int, task: Task) -> Panel:
    """Return a slice as it is displayed, copied so that the scan can be freed."""

    def shown(slices: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.array(images.view.laid_out(slices[index]), dtype=np.float32, order="C")

    truth = shown(images.truth.slices(images.axis))
    pixel = images.pixel_mm
    return Panel(
        task=task.name,
        patient=case.patient,
        scan=case.name,
        slice=index,
        why="",
        unit=task.unit,
        pixel_mm=(pixel[1], pixel[0]) if pixel and images.view.swapped else pixel,
        truth=truth,
        images={name: shown(v.slices(images.axis)) for name, v in images.by_method.items()},
        windows=windows_of(task, truth),
    )
