"""Scores of several scans on disk and prepared sets, with their means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from restore_rwkv.data import PreparedSet, Split
from restore_rwkv.data.prepared import holds_sets, read_sets
from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.metrics import MeanScore
from restore_rwkv.evaluation.scores import (
    INPUT,
    evaluate,
    evaluate_set,
    mean_over_patients,
    options_told,
    stack_volumes,
)
from restore_rwkv.io import Progress, Volume, begin_stage, part_of, read_volume
from restore_rwkv.restoration import RestoreOptions, Restorer
from restore_rwkv.tasks import AUTO, DegradeOptions, Task, pick_task

Inspect = Callable[[str, Volume, Restorer, RestoreOptions], None]
"""Takes the name of a scan, the scan in low quality, its restorer, and how it is restored."""

Scores = dict[str, MeanScore]
"""Mean scores over slices, by name of the image."""


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
    progress: Progress | None = None,
) -> Iterator[tuple[str, Scores]]:
    """Score scans on disk and prepared sets, one after the other.

    Each of them is read before the first is scored, so that one that cannot be used is refused at
    once.

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
        progress: told the stages, and called with (done, all): of one scan or set its slices, of
            several the share of them all.

    Yields:
        Name of the scan, or of the set's folder and the patient, and mean scores over slices by
        name of the image. Names are file names, with as much of the path as tells them apart. A
        set with several patients ends with "FOLDER: mean over N patients"; several scans end with
        "mean over N scans", for each task where there are several.
    """
    restorers: dict[str, Restorer] = {}
    physics = DegradeOptions(axes=axes)

    def restorer(name: str) -> Restorer:
        if name not in restorers:
            restorers[name] = Restorer(name, weights, device)
        return restorers[name]

    inputs = _look_at(paths, task, split, progress)
    for item in inputs:
        restorer(item.task.name)
    by_task: dict[str, dict[str, Scores]] = {}  # by the number of the scan
    for number, item in enumerate(inputs):
        of_task = restorer(item.task.name)
        part = part_of(progress, item.name, number, len(inputs))
        if item.prepared is not None:
            yield from _of_set(item, item.prepared, of_task, options, part)
            if inspect is not None:
                inspect(*_first_of_set(item, item.prepared, of_task, options))
            continue
        begin_stage(part, f"reading {item.path.name}")
        found = evaluate(item.volume(), of_task, options, physics=physics, seed=seed, progress=part)
        by_task.setdefault(item.task.name, {})[str(number)] = found.scores
        yield item.name, found.scores
        if inspect is not None:
            how = options_told(options, of_task, item.task, physics.factor_for(item.task))
            inspect(item.name, found.volumes[INPUT], of_task, how)
    yield from _means_of_scans(by_task)


@dataclass(eq=False)
class _Input:
    """A scan, or a prepared set with the split to be scored; the first scan is kept in memory."""

    path: Path
    task: Task
    split: Split
    prepared: PreparedSet | None = None
    kept: Volume | None = None
    name: str = ""

    def volume(self) -> Volume:
        """Return the scan, which is forgotten here."""
        volume, self.kept = self.kept, None
        return volume or read_volume(self.path)


def _look_at(
    paths: Sequence[Path], task: str, split: Split, progress: Progress | None
) -> list[_Input]:
    """Read each input, and name them.

    Raises:
        InputError: a scan or set cannot be used.
    """
    inputs: list[_Input] = []
    for path in paths:
        begin_stage(progress, f"reading {path.name}")
        if path.is_dir() and holds_sets(path):
            for prepared in read_sets(path):
                if not prepared.split(split):
                    raise InputError(
                        f"{prepared.folder}: has no {split} slices; give another split=NAME"
                    )
                inputs.append(_Input(prepared.folder, prepared.task, split, prepared))
        else:
            volume = read_volume(path)
            chosen = pick_task(volume, task)
            chosen.rules.require_degradable(volume, chosen)
            kept = None if inputs else volume  # memory holds one scan at a time
            inputs.append(_Input(path, chosen, split, kept=kept))
    for item, name in zip(inputs, _names([item.path for item in inputs]), strict=True):
        item.name = name
    return inputs


def _names(paths: Sequence[Path]) -> list[str]:
    """Return file names, each with as many of its folders as tell it from the others."""
    names = [path.name for path in paths]
    for level in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        twice = {name for name in names if names.count(name) > 1}
        if not twice:
            break
        names = [
            str(Path(*path.parts[-level:])) if name in twice else name
            for name, path in zip(names, paths, strict=True)
        ]
    return names


def _of_set(
    item: _Input,
    prepared: PreparedSet,
    restorer: Restorer,
    options: RestoreOptions | None,
    progress: Progress | None,
) -> Iterator[tuple[str, Scores]]:
    scores = evaluate_set(prepared, restorer, item.split, options, progress)
    for patient, found in scores.items():
        yield f"{item.name}: {patient}", found
    if len(scores) > 1:
        mean = mean_over_patients(scores)
        yield f"{item.name}: mean over {len(scores)} patients", mean


def _first_of_set(
    item: _Input, prepared: PreparedSet, restorer: Restorer, options: RestoreOptions | None
) -> tuple[str, Volume, Restorer, RestoreOptions]:
    """Return what an `Inspect` takes, for the first stack of a set."""
    stack = prepared.split(item.split)[0]
    low, _ = stack_volumes(prepared, stack)
    how = options_told(options, restorer, item.task, prepared.factor_of(stack))
    return f"{item.name}: {stack.patient}", low, restorer, how


def _means_of_scans(by_task: Mapping[str, Mapping[str, Scores]]) -> Iterator[tuple[str, Scores]]:
    for name, scores in by_task.items():
        if len(scores) > 1:
            of_task = f" of {name}" if len(by_task) > 1 else ""
            yield f"mean over {len(scores)} scans{of_task}", mean_over_patients(scores)
