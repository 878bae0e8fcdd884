"""Calibrate the intervals of weights on validation subjects, and measure how often they hold.

    python -m benchmarks.intervals WEIGHTS DATA [--task NAME] [--method turns bootstrap]
        [--slices N] [--write]

WEIGHTS are a file or the name of shipped weights, DATA is the folder of the prepared open sets. Of
each validation and test stack N slices, evenly spread, are restored as `restore` does when it is
told the dose, and their spread is found. The factors are from every other eighth of the validation
slices; printed, as Markdown tables, is the coverage on the other eighths and on the test subjects.
`--write` stores the factors in the weights, whose tensors and thresholds of places stay as they
are. PET is simulated in axial slices: it is restored whole, and its N coronal slices are compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data import PreparedSet, Stack
from restore_rwkv.evaluation.coverage import (
    Coverage,
    SpreadSlices,
    alternating_halves,
    measure_coverage,
)
from restore_rwkv.evaluation.intervals import calibrate_intervals
from restore_rwkv.io import Volume
from restore_rwkv.model import find_weights, read_info
from restore_rwkv.model.checkpoint import save_report
from restore_rwkv.restoration import RestoreOptions, Restorer
from restore_rwkv.restoration.uncertainty import BLIND_TO, find_spread
from restore_rwkv.tasks import Intervals, ReportCalibration, SpreadMethod

METHODS: tuple[SpreadMethod, ...] = ("turns", "bootstrap")
_AXIS = 2  # across the slices of the volumes made here


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One scan with the spread of its restoration.

    Attributes:
        slices: those that are compared with the truth.
        samples: restorations that the spread is from.
        restoring: processor seconds of the restoration.
        spreading: processor seconds of the spread.
        restored: number of slices that both are for.
    """

    slices: SpreadSlices
    samples: int
    restoring: float
    spreading: float
    restored: int


def main() -> None:
    """Calibrate and measure all tasks of the weights by each method, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", help="only this task of the weights")
    parser.add_argument("--method", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--slices", type=int, default=16, help="slices of each stack")
    parser.add_argument("--write", action="store_true", help="store the factors in the weights")
    words = parser.parse_args()
    path = find_weights(words.weights)
    tasks = read_info(path).scaling if words.task is None else [words.task]
    for task in tasks:
        prepared = PreparedSet.read(words.data / task)
        for method in words.method:
            intervals, lines = calibrated(path, prepared, method, words.slices)
            print("\n".join([f"## {path.stem}, `{task}`, {method}", "", *lines, ""]), flush=True)
            if words.write:
                store(path, task, intervals)


def calibrated(
    weights: Path, prepared: PreparedSet, method: SpreadMethod, count: int
) -> tuple[Intervals, list[str]]:
    """Calibrate one method for one task.

    Returns:
        The intervals, and the lines of a Markdown table of their coverage.
    """
    restorer = Restorer(prepared.task_name, weights)
    validation, test = (
        [measure(restorer, prepared, stack, method, count) for stack in prepared.split(split)]
        for split in ("validation", "test")
    )
    parts = [alternating_halves(each.slices) for each in validation]
    calibration, held_out = [first for first, _ in parts], [second for _, second in parts]
    intervals = calibrate_intervals(calibration, held_out, method)
    found = (
        measure_coverage(scans, intervals) for scans in (held_out, [each.slices for each in test])
    )
    lines = [
        _summary(intervals, [*validation, *test], prepared.task.unit),
        "",
        *_table(*found, unit=prepared.task.unit),
        "",
        _by_subject([*held_out, *(each.slices for each in test)], intervals),
        "",
        BLIND_TO[method],
    ]
    return intervals, lines


def measure(
    restorer: Restorer, prepared: PreparedSet, stack: Stack, method: SpreadMethod, count: int
) -> Measured:
    """Restore slices of a stack, find their spread, and compare both with the truth."""
    task = prepared.task
    kept = np.unique(((np.arange(count) + 0.5) * stack.shape[0] / count).astype(int))
    whole = task.modality == "PT"
    low, high = (
        _volume(prepared, stack, images if whole else images[kept])
        for images in _qualities(prepared, stack)
    )
    told = restorer.uses_factor(task, RestoreOptions())
    factor = prepared.factor_of(stack) if told else None
    restorer.network(task)
    plan = restorer.plan(low, RestoreOptions(factor=factor, force=True))
    begin = time.process_time()
    restored = restorer.run_plan(plan)
    middle = time.process_time()
    spread = find_spread(restorer, plan, restored, method)
    end = time.process_time()
    scored = SpreadSlices.of(stack.patient, high, restored.volume, spread, task, _AXIS)
    return Measured(
        slices=scored.part(kept) if whole else scored,
        samples=spread.samples,
        restoring=middle - begin,
        spreading=end - middle,
        restored=low.data.shape[_AXIS],
    )


def store(path: Path, task: str, intervals: Intervals) -> None:
    """Write intervals into a weight file, beside those of other tasks and methods."""
    report = dict(read_info(path).report)
    known = report.get(task, ReportCalibration())
    others = [each for each in known.intervals if each.method != intervals.method]
    report[task] = dataclasses.replace(known, intervals=(*others, intervals))
    save_report(path, report)


def _qualities(
    prepared: PreparedSet, stack: Stack
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    high = np.array(prepared.images(stack, "high"), np.float32)
    if "low" in stack.files:
        return np.array(prepared.images(stack, "low"), np.float32), high
    degrade = prepared.task.rules.degrade_slice
    return np.stack([degrade(image, prepared.factor) for image in high]), high


def _volume(prepared: PreparedSet, stack: Stack, slices: NDArray[np.float32]) -> Volume:
    """Return slices (N, H, W) as a volume (H, W, N) that lies in the plane of the task."""
    across, rows, columns = stack.spacing or (1.0, 1.0, 1.0)
    affine = np.diag([rows, columns, across, 1.0])
    if prepared.task.plane == "coronal":  # columns run to the head, slices to the front
        affine = affine[[0, 2, 1, 3]]
    task = prepared.task
    return Volume(np.moveaxis(slices, 0, _AXIS), affine, unit=task.unit, modality=task.modality)


def _summary(intervals: Intervals, measured: Sequence[Measured], unit: str) -> str:
    factors = ", ".join(f"{name} {factor:.3g}" for name, factor in intervals.factors.items())
    floor = intervals.floor * measured[0].slices.scale
    restoring, spreading = (
        sum(times) for times in zip(*((m.restoring, m.spreading) for m in measured), strict=True)
    )
    return (
        f"Factors for {100 * intervals.level:g} %: {factors}; floor {intervals.floor:.3g} of the "
        f"scaling ({floor:.3g} {unit} in the first scan); from {intervals.pixels} pixels of "
        f"{intervals.subjects} validation subject(s). The spread is from {measured[0].samples} "
        f"restorations and takes {spreading:.0f} s of the processor for "
        f"{sum(m.restored for m in measured)} slices, {spreading / restoring:.1f} times the "
        f"restoration ({restoring:.0f} s)."
    )


def _table(validation: Sequence[Coverage], test: Sequence[Coverage], unit: str) -> list[str]:
    """Coverage and width of each group, side by side for validation and test."""
    heads = [
        f"{name}: held % (95 %), {found[0].slices} slices | width {unit}"
        for name, found in (("validation, held out", validation), ("test", test))
    ]
    lines = [f"| pixels | {' | '.join(heads)} |", "|---|---|---|---|---|"]
    columns = [{each.group: each for each in found} for found in (validation, test)]
    for group in dict.fromkeys(each.group for each in (*validation, *test)):
        cells = (_cells(column.get(group)) for column in columns)
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return lines


def _by_subject(scans: Sequence[SpreadSlices], intervals: Intervals) -> str:
    """Name what is held of each subject: they differ more than their slices do."""
    shares = {
        subject: measure_coverage([scan for scan in scans if scan.subject == subject], intervals)
        for subject in dict.fromkeys(scan.subject for scan in scans)
    }
    said = (f"{subject} {100 * found[0].share:.1f} %" for subject, found in shares.items())
    return f"All pixels by subject: {', '.join(said)}."


def _cells(found: Coverage | None) -> str:
    if found is None:
        return "- | -"
    low, high = (math.nan if end is None else 100 * end for end in (found.low, found.high))
    ends = "" if math.isnan(low) else f" ({low:.1f}-{high:.1f})"
    return f"{100 * found.share:.1f}{ends} | {found.width:.3g}"


if __name__ == "__main__":
    main()
