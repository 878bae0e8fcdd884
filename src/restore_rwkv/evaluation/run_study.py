"""Scores of several methods on scans, prepared sets, or images restored by anything."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.evaluation.faults import FaultList
from restore_rwkv.evaluation.looking import look_at
from restore_rwkv.evaluation.measures import Measure, NoScoreError, Setting
from restore_rwkv.evaluation.methods import CUBIC, Methods, find_methods
from restore_rwkv.evaluation.pairing import find_images
from restore_rwkv.evaluation.panels import PanelChooser
from restore_rwkv.evaluation.predictions import Predictions, kept_in
from restore_rwkv.evaluation.request import StudyRequest, measures_for
from restore_rwkv.evaluation.scores import options_told
from restore_rwkv.evaluation.sources import Case, Images
from restore_rwkv.evaluation.statistics import summarise
from restore_rwkv.evaluation.study import INPUT, Scored, Study
from restore_rwkv.io import PartProgress, Progress, Volume, begin_stage
from restore_rwkv.io.record import file_sha256, joint_sha256, program_version
from restore_rwkv.restoration import RestoreOptions, Restorer
from restore_rwkv.tasks import Task

Inspect = Callable[[str, Volume, Restorer, RestoreOptions], None]
"""Takes a name, the low-quality form of a scan, its restorer, and how it is restored."""

_STEPS = 1000  # of the progress of a scan
_PACKAGES = ("torch", "numpy", "scipy", "torchmetrics", "scikit-image")


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
        spectra=(),
        provenance=_provenance(request, cases, run, measures),
        sets={task.name: _sentence(task, cases, request) for task in tasks},
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
        steps = len(restorers) + 2

        def part(number: int) -> Progress | None:
            if progress is None:
                return None
            return PartProgress(progress, number * _STEPS, _STEPS, steps * _STEPS)

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
        self._score_images(case, images, part(steps - 1))

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


def _sentence(task: Task, cases: Sequence[Case], request: StudyRequest) -> str:
    """Return what was scored of a task, in a sentence."""
    of_task = [case for case in cases if case.task.name == task.name]
    patients = len({case.patient for case in of_task})
    slices = sum(case.shape[0] for case in of_task)
    split = f", {request.split} split" if all(case.stack for case in of_task) else ""
    origins = list(dict.fromkeys(case.origin for case in of_task))
    of = origins[0] if len(origins) == 1 else f"{origins[0]} and {len(origins) - 1} more"
    how = "" if request.from_files or split else f", degraded with seed {request.seed}"
    return (
        f"{task.title}: {of}{split}{how}; {_count(patients, 'patient')}, "
        f"{_count(len(of_task), 'scan')}, {_count(slices, 'slice')}."
    )


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _provenance(
    request: StudyRequest, cases: Sequence[Case], run: _Run, measures: Sequence[Measure]
) -> dict[str, Any]:
    """Return versions, options, and digests of weights and data, as plain JSON values."""
    folders = {
        name: {"folder": root.name, "sha256": _digest(root)}
        for name, root in request.restored.items()
    }
    return {
        "software": program_version(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "command": request.command,
        "seed": request.seed,
        "split": request.split,
        "protocols": list(request.protocols),
        "measures": [measure.name for measure in measures],
        "options": {
            name: getattr(request.options, name)
            for name in ("consistency", "ensemble", "strength", "force", "strict")
        },
        "methods": {**folders, **run.weights},
        "data": {case.origin: case.digest for case in cases},
    }


def _digest(root: Path) -> str:
    """SHA-256 of a file, or of those of all images in a folder by their names."""
    found = {}
    for name, path in find_images(root).items():
        if path.is_dir():
            files = {f.name: file_sha256(f) for f in path.iterdir() if f.is_file()}
            found[name] = joint_sha256(files)
        else:
            found[name] = file_sha256(path)
    return joint_sha256(found)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
