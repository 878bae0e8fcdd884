"""Scores of several methods on scans, prepared sets, or images restored by anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.evaluation.measures.measure import Measure, NoScoreError, Setting
from restore_rwkv.evaluation.scores import options_told
from restore_rwkv.evaluation.study.faults import FaultList
from restore_rwkv.evaluation.study.looking import look_at
from restore_rwkv.evaluation.study.methods import CUBIC, Methods, find_methods
from restore_rwkv.evaluation.study.panels import PanelChooser
from restore_rwkv.evaluation.study.predictions import Predictions, kept_in
from restore_rwkv.evaluation.study.provenance import provenance_of, sentence_of
from restore_rwkv.evaluation.study.request import StudyRequest, measures_for
from restore_rwkv.evaluation.study.results import INPUT, Scored, Study
from restore_rwkv.evaluation.study.sources import Case, Images
from restore_rwkv.evaluation.study.spectra import SpectrumMeans
from restore_rwkv.evaluation.study.statistics import summarise
from restore_rwkv.io import PartProgress, Progress, Volume, begin_stage
from restore_rwkv.restoration import RestoreOptions, Restorer
from restore_rwkv.tasks import TASKS, Task

Inspect = Callable[[str, Volume, Restorer, RestoreOptions], None]
"""Takes a name, the low-quality form of a scan, its restorer, and how it is restored."""

_STEPS = 1000  # of the progress of one share
_READING, _RESTORING, _SCORING = 4, 20, 2  # shares of time; a stack is read, a scan degraded too


def evaluate_study(
    request: StudyRequest, *, inspect: Inspect | None = None, progress: Progress | None = None
) -> Study:
    """Score several methods on the same scans, and compare them.

    Every input is read before the first is scored, so that all that cannot be used is refused at
    once. One scan at a time is in memory, and the slices that are to be looked at.

    Args:
        request: what is scored, and how.
        inspect: called with the low-quality form of each scan, or of the first one of each set, and
            each restorer of it.
        progress: told the stages, and called with (done, all) in shares of the whole.

    Raises:
        InputError: inputs cannot be used; the message has a line for each.
        ConfigError: a protocol, measure, name or device cannot be used.
        WeightsError: weights are missing, damaged, or for none of the tasks.

    Example:
        >>> request = StudyRequest(truths=(Path("data/ct"),))  # doctest: +SKIP
        >>> for summary in evaluate_study(request).summaries:  # doctest: +SKIP
        ...     print(summary.method, summary.measure, summary.mean, summary.low, summary.high)
    """
    measures_for(request.protocols, request.measures, list(TASKS.values()))  # names, at once
    with kept_in(request.keep, request.inputs) as predictions:
        faults = FaultList()
        cases = look_at(request, faults, progress)
        methods = find_methods(request, cases, faults)
        faults.refuse()
        tasks = list({case.task.name: case.task for case in cases}.values())
        measures = measures_for(request.protocols, request.measures, tasks)
        choosers = _choosers(request, tasks, measures)
        run = _Run(request, methods, measures, choosers)
        run.score_all(cases, predictions, inspect, progress)
    begin_stage(progress, "comparing the methods")
    summaries, tests = summarise(run.scores, measures, request.seed)
    return Study(
        methods=_in_order(run.scores, methods),
        measures=measures,
        scores=tuple(run.scores),
        summaries=summaries,
        tests=tests,
        panels=tuple(panel for chooser in choosers.values() for panel in chooser.panels()),
        spectra=run.spectra.spectra(),
        provenance=provenance_of(request, cases, measures, run.weights),
        sets={task.name: sentence_of(task, cases, request) for task in tasks},
    )


class _Run:
    """Scores of the scans so far."""

    def __init__(
        self,
        request: StudyRequest,
        methods: Methods,
        measures: Sequence[Measure],
        choosers: Mapping[str, PanelChooser],
    ) -> None:
        self._request, self._methods = request, methods
        self._measures, self._choosers = measures, choosers
        self.scores: list[Scored] = []
        self.spectra = SpectrumMeans()
        self.weights: dict[str, dict[str, str]] = {}  # file and digest, by name of the method

    def score_all(
        self,
        cases: Sequence[Case],
        predictions: Predictions | None,
        inspect: Inspect | None,
        progress: Progress | None,
    ) -> None:
        """Score one scan after the other; arguments are those of `evaluate_study`."""
        sizes = [_size(case, self._methods) for case in cases]
        seen: set[tuple[str, str]] = set()
        for number, case in enumerate(cases):
            part = None
            if progress is not None:
                before, every = sum(sizes[:number]), sum(sizes)
                part = PartProgress(progress, before, sizes[number], every, case.name)
            first = not case.stack or (case.origin, case.task.name) not in seen
            seen.add((case.origin, case.task.name))
            self.score(case, predictions, inspect if first else None, part)

    def score(
        self,
        case: Case,
        predictions: Predictions | None,
        inspect: Inspect | None,
        progress: Progress | None,
    ) -> None:
        """Restore a scan by every method, and score all images of it."""
        restorers = self._methods.restorers[case.task.name]
        shares = [1 if case.stack else _READING, *(_RESTORING for _ in restorers), _SCORING]

        def part(number: int) -> Progress | None:
            if progress is None:
                return None
            before = sum(shares[:number]) * _STEPS
            return PartProgress(progress, before, shares[number] * _STEPS, sum(shares) * _STEPS)

        images = case.read(part(0))
        low = images.by_method.get(INPUT)
        for number, (name, restorer) in enumerate(restorers.items(), 1):
            assert low is not None  # `find_methods` has looked at it
            begin_stage(progress, f"restoring by {name}" if len(restorers) > 1 else "restoring")
            options = options_told(self._request.options, restorer, case.task, images.factor)
            restored = restorer.run(low, options, part(number))
            images.by_method[name] = restored.volume
            record = restored.record
            self.weights[name] = {"weights": record.weights, "sha256": record.weights_sha256}
            if inspect is not None:
                shown = f"{case.origin}: {case.patient}" if case.stack else case.name
                inspect(f"{shown}: {name}" if len(restorers) > 1 else shown, low, restorer, options)
        images = replace(images, made=images.made | restorers.keys())
        if predictions is not None:
            begin_stage(progress, "writing")
            predictions.add(case, images)
        begin_stage(progress, "scoring")
        self._score_images(case, images, part(len(shares) - 1))

    def _score_images(self, case: Case, images: Images, progress: Progress | None) -> None:
        truth = images.truth.slices(images.axis)
        setting = Setting(task=case.task, pixel_mm=images.pixel_mm, peak=float(truth.max()))
        measures = [measure for measure in self._measures if measure.suits(case.task)]
        of_slice = [measure for measure in measures if measure.of == "slice"]
        of_volume = [measure for measure in measures if measure.of == "volume"]
        chooser = self._choosers.get(case.task.name)
        by_method: dict[str, list[float | None]] = {}
        every, done = len(images.by_method) * len(truth), 0
        for method, volume in images.by_method.items():
            found = []
            slices = volume.slices(images.axis)
            for index in range(len(truth)):
                pair = (_exact(slices[index]), _exact(truth[index]))
                found.append(_scored(case, method, index, of_slice, pair, setting))
                done += 1
                if progress is not None:
                    progress(done, every)
            if of_volume:
                pair = (_exact(slices), _exact(truth))
                self.scores.append(_scored(case, method, None, of_volume, pair, setting))
            self.scores += found if of_slice else []
            if of_slice:
                by_method[method] = [score.values[of_slice[0].name] for score in found]
        if chooser is not None and by_method:
            chooser.offer(case, images, by_method)
        if self._request.panels:
            stacks = {name: x.slices(images.axis) for name, x in images.by_method.items()}
            self.spectra.add(case.task.name, truth, stacks, images.pixel_mm)


def _exact(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return values in float64, in one order in memory, so that sums do not depend on the file."""
    return np.ascontiguousarray(values, dtype=np.float64)


def _scored(
    case: Case,
    method: str,
    index: int | None,
    measures: Sequence[Measure],
    pair: tuple[Any, Any],
    setting: Setting,
) -> Scored:
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for measure in measures:
        try:
            value = float(measure.compute(*pair, setting))
        except NoScoreError as error:
            values[measure.name], reasons[measure.name] = None, str(error)
            continue
        values[measure.name] = value if math.isfinite(value) else None
        if not math.isfinite(value):
            reasons[measure.name] = "the result is not finite"
    return Scored(
        task=case.task.name,
        patient=case.patient,
        scan=case.name,
        slice=index,
        method=method,
        values=values,
        reasons=reasons,
    )


def _size(case: Case, methods: Methods) -> int:
    """Voxels that are computed of a scan, by which its share of the time is estimated."""
    return math.prod(case.shape) * (1 + len(methods.restorers[case.task.name]))


def _choosers(
    request: StudyRequest, tasks: Sequence[Task], measures: Sequence[Measure]
) -> dict[str, PanelChooser]:
    choosers = {}
    for task in tasks:
        of_slice = [m for m in measures if m.of == "slice" and m.suits(task)]
        if request.panels and of_slice:
            choosers[task.name] = PanelChooser(task, of_slice[0], request.panels)
    return choosers


def _in_order(scores: Sequence[Scored], methods: Methods) -> tuple[str, ...]:
    """Names of the methods, the input and what is interpolated first."""
    found = dict.fromkeys(score.method for score in scores)
    wanted = (INPUT, CUBIC, *methods.names)
    return tuple(name for name in wanted if name in found)
