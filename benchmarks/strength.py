"""Calibrate the strength of the correction of weights for CT and PET on validation subjects.

    python -m benchmarks.strength WEIGHTS DATA [--scans FOLDER] [--figure PNG] [--output FILE]

WEIGHTS are a file or the name of shipped weights, DATA is the folder of the prepared open sets.
Each validation subject is degraded to several noise levels and restored. Printed are the PSNR that
the network gains on its own, told the dose, and with the noise found in the image; and the
calibration, which `--output` stores in a copy of the weights. The noise of CT is that of the set,
scaled; PET is simulated again from the T1 scans (`--scans`; by default those in DATA/scans, which
are fetched if that is missing).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from restore_rwkv.data import PreparedSet, Stack
from restore_rwkv.data.open_scans.convert import fetch_scans, read_scan
from restore_rwkv.data.open_scans.table import OPEN_SCANS
from restore_rwkv.evaluation.figures import gain_curves
from restore_rwkv.evaluation.strength import (
    BlendGains,
    NoisyPair,
    blend_gains,
    calibrate,
    full_noise,
)
from restore_rwkv.io import Volume
from restore_rwkv.model import find_weights, load_weights, save_weights
from restore_rwkv.physics.pet import PETScanner
from restore_rwkv.restoration import Restorer
from restore_rwkv.tasks import TASKS, DegradeOptions, Strength, Task, degrade, slice_axis
from restore_rwkv.training.noise import noise_sigma

LEVELS = (2.0, 3.0, 5.0, 8.0, 12.0, 17.0, 25.0, 40.0)
"""CT: standard deviations of the added noise in HU."""

FACTORS = (2.0, 4.0, 8.0, 12.0, 25.0, 50.0)
"""PET: how many times fewer counts."""

Panels = dict[str, dict[str, list[tuple[float, float]]]]


def main() -> None:
    """Calibrate all tasks of the weights whose low quality is noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("data", type=Path)
    parser.add_argument("--scans", type=Path, help="folder of the open scans")
    parser.add_argument("--every", type=int, default=1, help="take every n-th slice")
    parser.add_argument("--figure", type=Path, help="PNG file of the plot")
    parser.add_argument("--output", type=Path, help="copy of the weights with the calibration")
    words = parser.parse_args()
    path = find_weights(words.weights)
    network, info = load_weights(path)
    strength, panels = {}, {}
    for name in info.scaling:
        if TASKS[name].rules.noise_unit is None:
            continue
        measured, reference = measure(TASKS[name], path, words.data, words.scans, words.every)
        strength[name] = calibrate(measured, reference, pixel_of(TASKS[name]))
        panels |= curves(measured, strength[name], TASKS[name])
        print("\n".join([*table(measured, strength[name], TASKS[name]), ""]), flush=True)
    if not strength:
        sys.exit(f"{path}: its tasks have no noise of a reduced dose; give weights for CT or PET")
    if words.figure is not None:
        gain_curves(panels, words.figure)
    if words.output is not None:
        halved = all(torch.equal(w.half().float(), w) for w in network.state_dict().values())
        save_weights(
            words.output,
            network,
            scaling=info.scaling,
            training=info.training,
            dtype=torch.float16 if halved else torch.float32,
            strength=strength,
            fit=info.fit,
        )


def measure(
    task: Task, weights: Path, data: Path, scans: Path | None = None, every: int = 1
) -> tuple[list[BlendGains], float]:
    """Restore the validation subjects of a task at each noise level.

    Returns:
        Their gains, and the noise of full quality that they were measured with.
    """
    prepared = PreparedSet.read(data / task.name)
    full = (
        _volume(task, np.array(prepared.images(stack, "high"), np.float32))
        for stack in prepared.split("validation")
    )
    reference = full_noise(full, task)
    restorer = Restorer(task.name, weights)
    measured = []
    for stack in prepared.split("validation"):
        pairs = _scaled(prepared, stack) if task.rules.additive_noise else None
        for pair in pairs or simulated(prepared, stack, scans or data / "scans"):
            thinned = (_volume(task, v.slices(2)[::every]) for v in (pair.low, pair.high))
            taken = NoisyPair(pair.subject, pair.level, pair.factor, *thinned)
            measured.append(blend_gains(taken, restorer, task, reference))
            print(f"{task.name}: {pair.subject}, {pair.level:g}", file=sys.stderr, flush=True)
    return measured, reference


def pixel_of(task: Task) -> float | None:
    """Side of the pixels in mm that the noise is for; that of CT hardly depends on them."""
    return None if task.rules.additive_noise else PETScanner().pixel


def _scaled(prepared: PreparedSet, stack: Stack) -> Iterator[NoisyPair]:
    """Scale the stored noise of a stack, whose variance is inversely proportional to the dose."""
    high, low = (np.array(prepared.images(stack, q), np.float32) for q in ("high", "low"))
    sigma = noise_sigma(prepared, stack)
    given = prepared.factor_of(stack)
    for level in LEVELS:
        noisy = high + np.float32(level / sigma) * (low - high)
        noisy = noisy.clip(min=prepared.task.value_range[0])
        factor = 1 + (given - 1) * (level / sigma) ** 2
        volumes = (_volume(prepared.task, images) for images in (noisy, high))
        yield NoisyPair(stack.patient, level, factor, *volumes)


def simulated(
    prepared: PreparedSet, stack: Stack, scans: Path, factors: Sequence[float] = FACTORS
) -> Iterator[NoisyPair]:
    """Simulate a stack of PET again with fewer counts; its full quality must come out as stored."""
    if not scans.exists():
        fetch_scans(scans, table=OPEN_SCANS)
    table = {scan.name: scan for scan in OPEN_SCANS}
    if stack.patient not in table:
        sys.exit(f"{prepared.folder}: {stack.patient} is not an open scan; give their sets")
    scan = read_scan(table[stack.patient], scans)
    kept = [
        index
        for run in stack.origin["slices"].split(", ")
        for ends in (run.split("-"),)
        for index in range(int(ends[0]), int(ends[-1]) + 1)
    ]
    seed = stack.origin["physics"]["seed"]
    for factor in factors:
        made = degrade(scan, prepared.task, DegradeOptions(factor=factor), seed=seed)
        axis = slice_axis(made.high, prepared.task)
        low, high = (volume.slices(axis)[kept] for volume in (made.low, made.high))
        if not np.array_equal(high, prepared.images(stack, "high")):
            sys.exit(f"{stack.name}: is not what its scan gives; prepare the sets again")
        volumes = (_volume(prepared.task, images) for images in (low, high))
        yield NoisyPair(stack.patient, factor, factor, *volumes)


def _volume(task: Task, slices: NDArray[np.float32]) -> Volume:
    """Return slices (N, H, W) as a volume (H, W, N) without geometry."""
    return Volume(np.moveaxis(slices, 0, 2), unit=task.unit, modality=task.modality)


def curves(measured: Sequence[BlendGains], strength: Strength, task: Task) -> Panels:
    """Return the panel of a task for `gain_curves`."""
    scaled = task.rules.additive_noise
    label = f"{task.name}: noise added ({task.unit})" if scaled else f"{task.name}: counts, 1/x"
    panel: dict[str, list[tuple[float, float]]] = {}
    for gains in measured:
        ways = {
            "network on its own": gains.told_gains[-1],
            "dose given": gains.told_gain(strength)[1],
            "noise found": gains.found_gain(strength)[1],
        }
        for way, gain in ways.items():
            panel.setdefault(f"{gains.subject}, {way}", []).append((gains.level, gain))
    return {label: panel}


def table(measured: Sequence[BlendGains], strength: Strength, task: Task) -> list[str]:
    """Return the lines of a Markdown table of gains, and the calibration below it."""
    unit = task.rules.noise_unit
    level = f"noise added {task.unit}" if task.rules.additive_noise else "counts"
    lines = [
        f"| `{task.name}`, subject | {level} | noise {unit} | input dB | network on its own dB | "
        "dose given dB (strength) | noise found dB (strength) |",
        "|---|---|---|---|---|---|---|",
    ]
    for gains in measured:
        told, found = gains.told_gain(strength), gains.found_gain(strength)
        shown = f"{gains.level:g}" if task.rules.additive_noise else f"1/{gains.level:g}"
        noise = "unknown" if gains.found.found is None else f"{gains.found.found:.3g}"
        ways = (f"{gain:+.2f} ({at:.2f})" for at, gain in (told, found))
        cells = (gains.subject, shown, noise, f"{gains.psnr:.2f}", f"{gains.told_gains[-1]:+.2f}")
        lines.append(f"| {' | '.join((*cells, *ways))} |")
    points = ", ".join(f"{ratio:.3f}: {value:.3f}" for ratio, value in strength.points)
    return [
        *lines,
        "",
        f"Noise of full quality at most {strength.reference:.3g} {unit}. Strength by the fraction "
        f"of the noise that was added: {points}.",
    ]


if __name__ == "__main__":
    main()
