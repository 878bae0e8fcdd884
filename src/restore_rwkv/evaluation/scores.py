"""Scores of a restorer against a known truth, by the paper's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from restore_rwkv.data import PreparedSet, Slice, Split, Stack
from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.metrics import MeanScore, SliceScore, mean_score, paper_score
from restore_rwkv.io import PartProgress, Progress, Volume, begin_stage
from restore_rwkv.restoration import RestoreOptions, Restorer
from restore_rwkv.tasks import DegradeOptions, Task, degrade, pick_task, slice_axis

INPUT = "input"
RESTORED = "restored"


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
    progress: Progress | None = None,
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
        progress: told the stages, and called with (slices restored, all).

    Raises:
        InputError: the scan does not suit the task.

    Example:
        >>> evaluation = evaluate(read_volume("t1.nii.gz"), Restorer("mri-sr"))  # doctest: +SKIP
        >>> evaluation.scores["restored"].psnr - evaluation.scores["input"].psnr  # doctest: +SKIP
    """
    task = restorer.task or pick_task(scan)
    begin_stage(progress, "degrading", "slices")
    made = degraded_images(scan, task, physics, seed, progress)
    told = options_told(options, restorer, task, made.factor)
    evaluation = _evaluate_pair(made.images[INPUT], made.truth, task, restorer, told, progress)
    volumes = {**made.images, **evaluation.volumes}
    scores = {
        name: evaluation.slice_scores.get(name)
        or slice_scores(volume, made.truth, made.axis, task.metric_range)
        for name, volume in volumes.items()
    }
    return replace(evaluation, volumes=volumes, slice_scores=scores)


@dataclass(frozen=True, eq=False)
class DegradedImages:
    """A degraded scan, and what can be made of it without a network.

    Attributes:
        truth: scan of full quality.
        axis: array axis across the slices of the task.
        images: "input", and for MRI "cubic", by name.
        factor: of the degradation.
    """

    truth: Volume
    axis: int
    images: dict[str, Volume]
    factor: float


def degraded_images(
    scan: Volume,
    task: Task,
    physics: DegradeOptions | None,
    seed: int,
    progress: Progress | None,
) -> DegradedImages:
    """Degrade a good scan by the physics of a task, and interpolate it where that is possible."""
    pair = degrade(scan, task, physics, seed=seed, progress=progress)
    axis, factor = slice_axis(pair.high, task), float(pair.record["factor"])
    others = task.rules.interpolated(pair.high, axis, factor)
    return DegradedImages(pair.high, axis, {INPUT: pair.low, **others}, factor)


def evaluate_set(
    prepared: PreparedSet,
    restorer: Restorer,
    split: Split = "test",
    options: RestoreOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, MeanScore]]:
    """Score a split of a prepared set, restoring its stored slices.

    Args:
        prepared: a set of the restorer's task.
        restorer: restorer to score.
        split: "train", "validation" or "test".
        options: as for `evaluate`.
        progress: called with (slices restored, all).

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
        raise InputError(f"{prepared.folder}: has no {split} slices; give another split=NAME")
    scores: dict[str, dict[str, list[SliceScore]]] = {}
    begin_stage(progress, "restoring", "slices")
    done, every = 0, sum(stack.shape[0] for stack in prepared.split(split))
    for stack in prepared.split(split):
        low, high = stack_volumes(prepared, stack)
        told = options_told(options, restorer, task, prepared.factor_of(stack))
        count = stack.shape[0]
        part = None if progress is None else PartProgress(progress, done, count, every)
        evaluation = _evaluate_pair(low, high, task, restorer, told, part)
        done += count
        of_patient = scores.setdefault(stack.patient, {})
        for name, found in evaluation.slice_scores.items():
            of_patient.setdefault(name, []).extend(found)
    return {
        patient: {name: mean_score(found) for name, found in by_name.items()}
        for patient, by_name in scores.items()
    }


def mean_over_patients(scores: Mapping[str, Mapping[str, MeanScore]]) -> dict[str, MeanScore]:
    """Average the mean scores of patients or scans by name of the image, all of equal weight.

    Args:
        scores: as `evaluate_set` returns them; patients without a score are left out.

    Returns:
        Means, whose numbers of slices are those of all patients together.
    """
    means = {}
    for name in next(iter(scores.values())):
        each = [by_name[name] for by_name in scores.values()]
        means[name] = replace(
            mean_score(
                [
                    SliceScore(score.psnr, score.ssim, score.rmse)
                    for score in each
                    if score.rmse is not None
                ]
            ),
            slices=sum(score.slices for score in each),
            slices_without_score=sum(score.slices_without_score for score in each),
        )
    return means


def slice_scores(
    volume: Volume, truth: Volume, axis: int, metric_range: tuple[float, float]
) -> list[SliceScore]:
    """Score each slice across `axis` of a volume against the truth by the paper's protocol."""
    pairs = zip(volume.slices(axis), truth.slices(axis), strict=True)
    return [paper_score(image, reference, metric_range) for image, reference in pairs]


def options_told(
    options: RestoreOptions | None, restorer: Restorer, task: Task, factor: float | None
) -> RestoreOptions:
    """Return options in the task's plane, with the factor of the degradation if it matters.

    Args:
        options: as the user gave them.
        restorer: what restores.
        task: task of the scan.
        factor: of the degradation; None where it is not known.
    """
    options = options or RestoreOptions()
    # The degradation is known, and may be one that the weights are not for.
    options = replace(options, plane="auto", force=not options.strict)
    given = options.factor is not None or options.scale is not None
    if factor is not None and not given and restorer.uses_factor(task, options):
        return replace(options, factor=factor)
    return options


def _evaluate_pair(
    low: Volume,
    high: Volume,
    task: Task,
    restorer: Restorer,
    options: RestoreOptions,
    progress: Progress | None,
) -> Evaluation:
    axis = slice_axis(high, task)
    begin_stage(progress, "restoring", "slices")
    restored = restorer.run(low, options, progress).volume
    begin_stage(progress, "scoring")
    volumes = {INPUT: low, RESTORED: restored}
    scores = {
        name: slice_scores(volume, high, axis, task.metric_range)
        for name, volume in volumes.items()
    }
    return Evaluation(high, volumes, axis, scores)


def stack_volumes(prepared: PreparedSet, stack: Stack) -> tuple[Volume, Volume]:
    """Return a stack as two volumes (H, W, N) without geometry, low and high."""
    slices = [Slice(prepared, stack, index) for index in range(stack.shape[0])]
    task = prepared.task
    low, high = (
        Volume(np.stack(images, axis=2), unit=task.unit, modality=task.modality)
        for images in ([item.low() for item in slices], [item.high() for item in slices])
    )
    return low, high
