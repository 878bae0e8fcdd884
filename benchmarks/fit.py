"""Find the ranges of images that weights were trained with, and how well they tell other images.

    python -m benchmarks.fit DATA [WEIGHTS ...] [--scans FOLDER] [--write] [--quick]

DATA is the folder of the prepared open sets; WEIGHTS are files or names of shipped weights, all of
those by default. Each measure of an image is taken in the training subjects at the quality that the
network was trained with; `--write` stores the smallest and the largest value in the weight files,
whose tensors stay as they are. Printed is a Markdown table of what is then said of the training
subjects and of the others: at the right degradation, at full quality, and at others. PET at other
counts is simulated again from the T1 scans of validation and test (`--scans`; by default those in
DATA/scans), some minutes that `--quick` leaves out.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.strength import simulated
from restore_rwkv.data import PreparedSet, Stack
from restore_rwkv.io import Volume
from restore_rwkv.model import WeightsInfo, find_weights, read_info
from restore_rwkv.model.checkpoint import FitRanges, save_fit
from restore_rwkv.model.shipped import shipped_weights
from restore_rwkv.physics.mri import low_resolution
from restore_rwkv.restoration.fit import judge
from restore_rwkv.restoration.planning import finer
from restore_rwkv.tasks import Task
from restore_rwkv.training.noise import noise_sigma

_SLICES = 16  # of a stack, evenly spread, as `fit_measures` takes them
_FACTORS = (2.0, 3.0, 6.0)  # MRI, besides that of the task
_DOSES = (2.0, 0.5)  # CT, PET: of that of the task

Image = NDArray[np.float32]
Case = tuple[str, Volume]


def main() -> None:
    """Measure the ranges of weights, print the table, and write the ranges if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", nargs="*", default=list(shipped_weights()))
    parser.add_argument("--scans", type=Path, help="folder of the open scans")
    parser.add_argument("--write", action="store_true", help="store the ranges in the weights")
    parser.add_argument("--quick", action="store_true", help="leave out PET at other counts")
    words = parser.parse_args()
    scans = None if words.quick else words.scans or words.data / "scans"
    shown: dict[str, tuple[FitRanges, str]] = {}
    for name in words.weights:
        path = find_weights(name)
        fit = ranges_of(read_info(path), words.data)
        print(f"## {path.stem}\n")
        for task, ranges in fit.items():
            if task in shown and shown[task][0] == ranges:
                print(f"`{task}`: as {shown[task][1]}\n")
                continue
            shown[task] = ranges, path.stem
            prepared = PreparedSet.read(words.data / task)
            print("\n".join([_line(ranges, task), "", *table(prepared, ranges, scans), ""]))
        if words.write:
            save_fit(path, fit)
            print(f"wrote the ranges into {path}\n")


def ranges_of(info: WeightsInfo, data: Path) -> dict[str, FitRanges]:
    """Measure the training subjects of each task at the quality that weights were trained with."""
    fit: dict[str, FitRanges] = {}
    for name in info.scaling:
        prepared, found = PreparedSet.read(data / name), []
        levels = info.training.get("recipe", {}).get("data", {}).get("noise")
        for stack in prepared.split("train"):
            for low in _trained(prepared, stack, levels):
                volume = _volume(prepared.task, stack, low)
                found.append(prepared.task.rules.fit_measures(volume, prepared.task, 2))
        fit[name] = {
            measure: (min(row[measure] for row in found), max(row[measure] for row in found))
            for measure in prepared.task.rules.measures
        }
    return fit


def table(prepared: PreparedSet, ranges: FitRanges, scans: Path | None) -> list[str]:
    """Return the lines of a Markdown table: what is said of the subjects of a set, by case."""
    counts: dict[str, dict[bool, Counter[str]]] = {}
    for stack in prepared.stacks:
        for case, volume in _cases(prepared, stack, scans):
            rows = counts.setdefault(case, {True: Counter(), False: Counter()})
            fit = judge(volume, prepared.task, 2, ranges)
            rows[stack.split == "train"][fit.outcome if fit.unjudged is None else "unknown"] += 1
    lines = [
        f"| `{prepared.task_name}` | in training: fit, doubtful, unfit | others: fit, doubtful, "
        "unfit |",
        "|---|---|---|",
    ]
    for case, rows in counts.items():
        cells = (_cell(rows[trained]) for trained in (True, False))
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return lines


def _line(ranges: FitRanges, task: str) -> str:
    shown = (f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in ranges.items())
    return f"`{task}`: {', '.join(shown)}"


def _cell(count: Counter[str]) -> str:
    said = ", ".join(str(count[outcome]) for outcome in ("fit", "doubtful", "unfit"))
    return said + (f" ({count['unknown']} not measurable)" if count["unknown"] else "")


def _trained(
    prepared: PreparedSet, stack: Stack, levels: Sequence[float] | None
) -> Iterator[Image]:
    """The slices of a stack as a network was trained with them."""
    high = _slices(prepared, stack, "high")
    if not prepared.task.rules.stored_pairs:
        yield _degraded(prepared.task, high, prepared.factor)
        return
    low = _slices(prepared, stack, "low")
    if not (levels and prepared.task.rules.additive_noise):
        yield low
        return
    sigma = noise_sigma(prepared, stack)
    for level in levels:
        yield _noisy(prepared.task, high, low, level / sigma)


def _cases(prepared: PreparedSet, stack: Stack, scans: Path | None) -> Iterator[Case]:
    task = prepared.task
    images = {"MR": _mri_cases, "CT": _ct_cases}.get(task.modality)
    if images is not None:
        yield from ((case, volume) for case, volume in images(prepared, stack))
        return
    yield "full counts", _volume(task, stack, _slices(prepared, stack, "high"))
    given = prepared.factor_of(stack)
    yield f"1/{given:g} of the counts", _volume(task, stack, _slices(prepared, stack, "low"))
    if scans is None or stack.split == "train":
        return
    for factor in (task.factor / dose for dose in _DOSES):
        for pair in simulated(prepared, stack, scans, (factor,)):
            low = np.moveaxis(pair.low.data, 2, 0)
            yield f"1/{factor:g} of the counts", _volume(task, stack, _spread(low))


def _mri_cases(prepared: PreparedSet, stack: Stack) -> Iterator[Case]:
    task, high = prepared.task, _slices(prepared, stack, "high")
    right = _degraded(task, high, task.factor)
    rows, columns = (side // 6 for side in right.shape[1:])
    yield f"factor {task.factor:g}", _volume(task, stack, right)
    yield f"factor {task.factor:g}, whole numbers", _volume(task, stack, right.round())
    cut = right[:, rows:-rows, columns:-columns]
    yield f"factor {task.factor:g}, two thirds of the field of view", _volume(task, stack, cut)
    coarse = low_resolution(torch.from_numpy(high), task.factor).numpy()
    native = finer(_volume(task, stack, coarse), 2, task.factor)
    yield f"coarse grid, `--scale {task.factor:g}`", native
    yield "full resolution", _volume(task, stack, high)
    for factor in _FACTORS:
        yield f"factor {factor:g}", _volume(task, stack, _degraded(task, high, factor))


def _ct_cases(prepared: PreparedSet, stack: Stack) -> Iterator[Case]:
    task, factor = prepared.task, prepared.factor_of(stack)
    high, low = _slices(prepared, stack, "high"), _slices(prepared, stack, "low")
    yield f"1/{factor:g} of the dose", _volume(task, stack, low)
    yield "full dose", _volume(task, stack, high)
    for other in (factor / dose for dose in _DOSES):
        part = math.sqrt((other - 1) / (factor - 1))
        yield f"1/{other:g} of the dose", _volume(task, stack, _noisy(task, high, low, part))
    white = noise_sigma(prepared, stack) * np.random.default_rng(0).standard_normal(high.shape)
    yield "white noise", _volume(task, stack, (high + white).astype(np.float32))
    smooth = torch.nn.functional.avg_pool2d(torch.from_numpy(low)[:, None], 5, 1, 2)
    yield "means over 5 x 5 pixels", _volume(task, stack, smooth[:, 0].numpy())


def _noisy(task: Task, high: Image, low: Image, part: float) -> Image:
    """Slices with a multiple of the stored noise."""
    return (high + np.float32(part) * (low - high)).clip(min=task.value_range[0])


def _degraded(task: Task, high: Image, factor: float) -> Image:
    return np.stack([task.rules.degrade_slice(image, factor) for image in high])


def _slices(prepared: PreparedSet, stack: Stack, quality: str) -> Image:
    images = prepared.images(stack, "low" if quality == "low" else "high")
    return np.array(_spread(images), np.float32)


def _spread(images: NDArray[np.generic]) -> NDArray[np.generic]:
    """Some slices of a stack, evenly spread; of them all are measured."""
    places = (np.arange(_SLICES) + 0.5) * len(images) / _SLICES
    return images[np.unique(places.astype(int))]


def _volume(task: Task, stack: Stack, slices: NDArray[np.generic]) -> Volume:
    """Return slices (N, H, W) as a volume (H, W, N), with the spacing of their stack."""
    across, rows, columns = stack.spacing or (1.0, 1.0, 1.0)
    affine = np.diag([rows, columns, across, 1.0])
    data = np.moveaxis(slices, 0, 2).astype(np.float32)
    return Volume(data, affine, unit=task.unit, modality=task.modality)


if __name__ == "__main__":
    main()
