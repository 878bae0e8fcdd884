"""Scores of a restorer against a known truth, by the paper's protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from restore_rwkv.data import PreparedSet, Slice, Split, Stack
from restore_rwkv.data.prepared import holds_sets, read_sets
from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.metrics import MeanScore, SliceScore, mean_score, paper_score
from restore_rwkv.io import Volume, read_volume
from restore_rwkv.restoration import RestoreOptions, Restorer
from restore_rwkv.tasks import AUTO, DegradeOptions, Task, degrade, pick_task, slice_axis

INPUT = "input"
RESTORED = "restored"

Inspect = Callable[[str, Volume, Restorer, RestoreOptions], None]
"""Takes the name of a scan, the scan in low quality, its restorer, and how it is restored."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Images (X, Y, Z) of one scan and their scores against the truth.

    Attributes:
        truth: full-quality scan that the images are compared with, on the same grid.
        volumes: images by name: "input" (the low-quality scan given to the network), "restored",
            and for MRI "cubic" (spline interpolation of the coarse image); in the truth's unit.
        slice_axis: array axis across the scored slices, which lie in the task's plane.
        slice_scores: score of each slice, by name of the image.
    """

    truth: Volume
    volumes: dict[str, Volume]
    slice_axis: int
    slice_scores: dict[str, list[SliceScore]]

    @property
    def scores(self) -> dict[str, MeanScore]:
        """Mean scores over slices, by name of the image."""
        return {name: mean_score(scores) for name, scores in self.slice_scores.items()}


def evaluate(
    scan: Volume,
    restorer: Restorer,
    options: RestoreOptions | None = None,
    *,
    physics: DegradeOptions | None = None,
    seed: int = 0,
) -> Evaluation:
    """Degrade a good scan by the physics of a task, restore it, and score each image.

    Args:
        scan: a scan of full quality, in physical units; for PET also a T1-weighted scan of a head,
            see `degrade`.
        restorer: restorer to score; without a task it takes that of the scan's modality.
        options: options of the restoration; `plane` is ignored, the task's plane is used. Where
            `factor` matters and is not given, it is that of the degradation.
        physics: options of the degradation.
        seed: seed of the degradation.

    Raises:
        InputError: the scan does not suit the task.

    Example:
        >>> evaluation = evaluate(read_volume("t1.nii.gz"), Restorer("mri-sr"))  # doctest: +SKIP
        >>> evaluation.scores["restored"].psnr - evaluation.scores["input"].psnr  # doctest: +SKIP
    """
    task = restorer.task or pick_task(scan)
    pair = degrade(scan, task, physics, seed=seed)
    factor = pair.record["factor"]
    evaluation = _evaluate_pair(pair.low, pair.high, task, restorer, options, factor)
    axis = evaluation.slice_axis
    others = task.rules.interpolated(pair.high, axis, factor)
    volumes = {INPUT: evaluation.volumes[INPUT]} | others | evaluation.volumes
    scores = {
        name: evaluation.slice_scores.get(name)
        or slice_scores(volume, pair.high, axis, task.metric_range)
        for name, volume in volumes.items()
    }
    return replace(evaluation, volumes=volumes, slice_scores=scores)


def evaluate_set(
    prepared: PreparedSet,
    restorer: Restorer,
    split: Split = "test",
    options: RestoreOptions | None = None,
) -> dict[str, dict[str, MeanScore]]:
    """Score a split of a prepared set, restoring its stored slices.

    Args:
        prepared: a set of the restorer's task.
        restorer: restorer to score.
        split: "train", "validation" or "test".
        options: as for `evaluate`.

    Returns:
        Mean scores over slices of "input" and "restored", by patient.

    Raises:
        InputError: the set is for another task, or the split has no slices.
    """
    task = restorer.task
    if task is None or prepared.task_name != task.name:
        given = "auto" if task is None else task.name
        raise InputError(
            f"{prepared.folder}: is for {prepared.task_name}; restore it with that task, "
            f"not {given}"
        )
    if not prepared.split(split):
        raise InputError(f"{prepared.folder}: has no {split} slices; choose another split")
    scores: dict[str, dict[str, list[SliceScore]]] = {}
    for stack in prepared.split(split):
        low, high = _volumes(prepared, stack)
        factor = prepared.factor_of(stack)
        evaluation = _evaluate_pair(low, high, task, restorer, options, factor)
        of_patient = scores.setdefault(stack.patient, {})
        for name, found in evaluation.slice_scores.items():
            of_patient.setdefault(name, []).extend(found)
    return {
        patient: {name: mean_score(found) for name, found in by_name.items()}
        for patient, by_name in scores.items()
    }


def evaluate_paths(
    paths: Sequence[Path],
    *,
    task: str = AUTO,
    weights: str | Path | None = None,
    split: Split = "test",
    axes: str | None = None,
    seed: int = 0,
    device: str = "auto",
    options: RestoreOptions | None = None,
    inspect: Inspect | None = None,
) -> Iterator[tuple[str, dict[str, MeanScore]]]:
    """Score scans on disk and prepared sets, one after the other.

    Args:
        paths: good scans, prepared sets, or folders of such sets.
        task: task of the scans; "auto" picks the one for the modality that each file states.
        weights: as for `Restorer`.
        split: split of prepared sets to score.
        axes: as in `DegradeOptions`.
        seed: seed of the degradation of scans.
        device: as for `Restorer`.
        options: as for `evaluate`.
        inspect: called with the low-quality form of each scan, and of the first one of each set.

    Yields:
        Name of the scan, or of the set's folder and the patient, and mean scores over slices by
        name of the image. A set with several patients ends with "FOLDER: mean over patients".
    """
    restorers: dict[str, Restorer] = {}

    def restorer(name: str) -> Restorer:
        if name not in restorers:
            restorers[name] = Restorer(name, weights, device)
        return restorers[name]

    for path in paths:
        if path.is_dir() and holds_sets(path):
            for prepared in read_sets(path):
                yield from _of_set(prepared, restorer(prepared.task_name), split, options, inspect)
        else:
            scan = read_volume(path)
            chosen = pick_task(scan, task)
            of_task, physics = restorer(chosen.name), DegradeOptions(axes=axes)
            found = evaluate(scan, of_task, options, physics=physics, seed=seed)
            yield path.name, found.scores
            if inspect is not None:
                how = _told(options, of_task, chosen, physics.factor_for(chosen))
                inspect(path.name, found.volumes[INPUT], of_task, how)


def _of_set(
    prepared: PreparedSet,
    restorer: Restorer,
    split: Split,
    options: RestoreOptions | None,
    inspect: Inspect | None,
) -> Iterator[tuple[str, dict[str, MeanScore]]]:
    scores = evaluate_set(prepared, restorer, split, options)
    for patient, found in scores.items():
        yield f"{prepared.folder.name}: {patient}", found
    if len(scores) > 1:
        yield f"{prepared.folder.name}: mean over patients", mean_over_patients(scores)
    if inspect is not None:
        stack = prepared.split(split)[0]
        low, _ = _volumes(prepared, stack)
        how = _told(options, restorer, prepared.task, prepared.factor_of(stack))
        inspect(f"{prepared.folder.name}: {stack.patient}", low, restorer, how)


def mean_over_patients(scores: Mapping[str, Mapping[str, MeanScore]]) -> dict[str, MeanScore]:
    """Average the patients' mean scores by name of the image; all patients have equal weight.

    Args:
        scores: as `evaluate_set` returns them.
    """
    means = {}
    names = next(iter(scores.values()))
    for name in names:
        of_patients = [
            SliceScore(score.psnr, score.ssim, score.rmse)
            for score in (by_name[name] for by_name in scores.values())
            if score.rmse is not None
        ]
        means[name] = mean_score(of_patients)
    return means


def slice_scores(
    volume: Volume, truth: Volume, axis: int, metric_range: tuple[float, float]
) -> list[SliceScore]:
    """Score each slice across `axis` of a volume against the truth by the paper's protocol."""
    pairs = zip(volume.slices(axis), truth.slices(axis), strict=True)
    return [paper_score(image, reference, metric_range) for image, reference in pairs]


def _told(
    options: RestoreOptions | None, restorer: Restorer, task: Task, factor: float
) -> RestoreOptions:
    """Return options in the task's plane, with the factor of the degradation if it matters."""
    options = replace(options or RestoreOptions(), plane="auto")
    if restorer.uses_factor(task, options) and options.factor is None and options.scale is None:
        return replace(options, factor=factor)
    return options


def _evaluate_pair(
    low: Volume,
    high: Volume,
    task: Task,
    restorer: Restorer,
    options: RestoreOptions | None,
    factor: float,
) -> Evaluation:
    axis = slice_axis(high, task)
    restored = restorer.run(low, _told(options, restorer, task, factor)).volume
    volumes = {INPUT: low, RESTORED: restored}
    scores = {
        name: slice_scores(volume, high, axis, task.metric_range)
        for name, volume in volumes.items()
    }
    return Evaluation(high, volumes, axis, scores)


def _volumes(prepared: PreparedSet, stack: Stack) -> tuple[Volume, Volume]:
    """Return a stack as two volumes (H, W, N) without geometry, low and high."""
    slices = [Slice(prepared, stack, index) for index in range(stack.shape[0])]
    task = prepared.task
    low, high = (
        Volume(np.stack(images, axis=2), unit=task.unit, modality=task.modality)
        for images in ([item.low() for item in slices], [item.high() for item in slices])
    )
    return low, high
