"""Do the places of a report show lesions that a restored image has lost, or made up?

    python -m benchmarks.places DATA [--tasks ct-denoise ...] [--scans 4 15] [--output FILE]
    python -m benchmarks.places --table          # of the file, for docs/trust.md; draws the curves
    python -m benchmarks.places --write          # the thresholds into the shipped weights

DATA has the prepared open sets. Lesions are planted in good scans, scans with and without them are
degraded in the same noise and restored, and the pairs are crossed: a scan with lesions and the
image restored from the scan without (they were *removed*), and the other way round (*invented*).
Each lesion counts on its own: its score is the largest of its sign in the box that holds it, and it
is among the five places if a report would list it at all and fewer than five peaks of the same scan
without lesions are higher. Those peaks, of either sign, are the false alarms. The threshold is the
score that 0.1 of them exceed in a slice of the validation subjects; the test subjects are measured
at that threshold. A slice counts once for each realisation of its noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.train_shipped import ROOT
from restore_rwkv.data import PreparedSet, Stack
from restore_rwkv.data.prepared import find_sets
from restore_rwkv.evaluation.challenge import Lesion, crossing_pairs, find_sites
from restore_rwkv.evaluation.challenge.lesions import edge_of, is_relative
from restore_rwkv.evaluation.challenge.methods import ByWeights
from restore_rwkv.evaluation.challenge.pairs import PairedScan
from restore_rwkv.evaluation.challenge.sources import fullest_part, stack_volume
from restore_rwkv.evaluation.fidelity import Detector, RestoredPair, detector_of
from restore_rwkv.evaluation.fidelity.foreground import foreground
from restore_rwkv.evaluation.fidelity.places import MOST, peaks
from restore_rwkv.io import Volume, atomic_file
from restore_rwkv.model import find_weights, read_info
from restore_rwkv.model.checkpoint import save_report
from restore_rwkv.restoration import Restorer
from restore_rwkv.tasks import TASKS, PlaceThreshold, ReportCalibration, Task

CONTRASTS = {
    "ct-denoise": (5.0, 10.0, 20.0),
    "mri-sr": (5.0, 10.0, 20.0),
    "pet-synth": (50.0, 100.0, 200.0),
}
"""HU for CT, percent of the local value for others."""
RADIUS = 5.0  # mm
ALARMS = 0.1  # peaks beyond the threshold in a slice of a faithful image
SPLITS = ("validation", "test")
_SLICES = 24  # of a scan; PET has all
_PLACES = 80  # in a scan
_PEAKS = 40  # of a scan that are counted
_LEAST = 1.0  # standard deviations: no lower threshold is worth a look
_LISTED = 0.5  # `find_places` lists no lower score, even where there are fewer than five places
_WIDE = 1.0  # radii: how far from its middle a lesion's score may lie, along each axis

Kind = str


@dataclass
class Scores:
    """Scores of one split.

    Attributes:
        lesions: by "removed" or "invented" and contrast, the score of each lesion, above 0 if its
            sign is right.
        none: largest absolute score at the same places without lesions.
        above: by the same, how many peaks without lesions are higher than each lesion.
        peaks: absolute scores of peaks without lesions.
        complete: score above which all peaks of every scan are in `peaks`.
        slices: number of slices, each counted once for each realisation of its noise.
        scans: names.
    """

    lesions: dict[tuple[Kind, float], list[float]] = field(default_factory=dict)
    none: list[float] = field(default_factory=list)
    above: dict[tuple[Kind, float], list[int]] = field(default_factory=dict)
    peaks: list[float] = field(default_factory=list)
    complete: float = 0.0
    slices: int = 0
    scans: list[str] = field(default_factory=list)


def measure(task: Task, data: Path, split: str, scans: int) -> Scores:
    """Score lesions and peaks of a split, each scan in `scans` realisations of its noise."""
    found = Scores()
    for prepared, stack in stacks(task, data, split):
        volume = fullest_part(stack_volume(prepared, stack), task, _SLICES, RADIUS)
        for seed in range(scans):
            measure_scan(volume, task, seed, found)
        found.scans.append(stack.name)
    return found


def stacks(task: Task, data: Path, split: str) -> Iterator[tuple[PreparedSet, Stack]]:
    """Yield the scans of a split."""
    for prepared in find_sets([data], (task.name,)):
        for stack in prepared.stacks:
            if stack.split == split:
                yield prepared, stack


def measure_scan(volume: Volume, task: Task, seed: int, into: Scores) -> None:
    """Add the scores of one realisation of a scan."""
    scan = PairedScan.of(volume, task, seed=seed)
    restorer = ByWeights(Restorer(task.name), task, scan.factor)
    good = scan.made.high
    sites = find_sites(good, task, _PLACES, seed, radius=RADIUS)
    edge, relative = edge_of(task, good), is_relative(task)
    without: Volume | None = None
    detector: Detector | None = None
    higher: NDArray[np.float64] = np.empty(0)
    for contrast in CONTRASTS[task.name]:
        lesions = [
            Lesion(centre=site, radius=RADIUS, contrast=contrast, relative=relative, edge=edge)
            for site in sites
        ]
        pairs = crossing_pairs(scan, lesions, restorer, without)
        if detector is None:
            without, clean = pairs.after_without, pairs.clean()
            detector = detector_of(clean)
            plain = scored(detector, clean)
            inside = np.where(foreground(clean), plain, 0)
            tops = peaks(inside, clean, detector.radius_mm, _PEAKS)
            higher = np.sort([abs(float(inside[at])) for at in tops])
            into.peaks += higher.tolist()
            if len(higher) == _PEAKS:  # there may be lower ones
                into.complete = max(into.complete, float(higher[0]))
            into.slices += len(plain)
            into.none += [near(np.abs(plain), site, clean) for site in sites]
        for kind, pair, sign in (
            ("removed", pairs.removed(), 1),
            ("invented", pairs.invented(), -1),
        ):
            scores = sign * scored(detector, pair)
            values = [near(scores, site, pair) for site in sites]
            into.lesions.setdefault((kind, contrast), []).extend(values)
            above = len(higher) - np.searchsorted(higher, values)
            into.above.setdefault((kind, contrast), []).extend(above.tolist())
    print(f"{task.name} {volume.name} seed {seed}: {len(sites)} places", flush=True)


def scored(detector: Detector, pair: RestoredPair) -> NDArray[np.float32]:
    """Return the scores of a pair, (N, H, W)."""
    before, after = (
        np.ascontiguousarray(volume.slices(pair.axis)) for volume in (pair.before, pair.after)
    )
    return detector.scores(before, after)


def near(scores: NDArray[np.float32], site: Sequence[int], pair: RestoredPair) -> float:
    """Return the largest score in the box that holds a lesion at a place."""
    spacing = pair.after.spacing or (1.0, 1.0, 1.0)
    order = [pair.axis, *(axis for axis in range(3) if axis != pair.axis)]
    box = []
    for axis in order:
        reach = int(_WIDE * RADIUS / spacing[axis])
        box.append(slice(max(site[axis] - reach, 0), site[axis] + reach + 1))
    return float(scores[tuple(box)].max())


def threshold_of(scores: Scores) -> float:
    """Return the score that `ALARMS` peaks a slice exceed; at least one standard deviation."""
    allowed = int(ALARMS * scores.slices)
    ordered = sorted([*scores.peaks, *[_LEAST] * (allowed + 1)], reverse=True)
    return max(ordered[allowed], _LEAST)


def auc(lesions: Sequence[float], none: Sequence[float]) -> float:
    """Return the area under the ROC curve: how often a lesion scores higher than no lesion.

    Ties count one half.
    """
    low = np.sort(none)
    below = np.searchsorted(low, lesions, "left") + np.searchsorted(low, lesions, "right")
    return float(np.mean(below) / 2 / len(low))


def rows(scores: Scores, threshold: float) -> list[dict[str, Any]]:
    """Return what the table says of a split."""
    return [
        {
            "kind": kind,
            "contrast": contrast,
            "lesions": len(values),
            "in_five": float(
                np.mean(
                    (np.asarray(scores.above[kind, contrast]) < MOST)
                    & (np.asarray(values) > _LISTED)
                )
            ),
            "flagged": float(np.mean(np.asarray(values) > threshold)),
            "auc": auc(values, scores.none),
            "curve": curve(values, scores),
        }
        for (kind, contrast), values in scores.lesions.items()
    ]


def curve(values: Sequence[float], scores: Scores) -> list[tuple[float, float]]:
    """Return false alarms a slice and share of lesions found, over thresholds.

    Thresholds below `Scores.complete` are left out, as their false alarms are not all known.
    """
    highest = max(*values, *scores.peaks, _LEAST)
    levels = np.linspace(scores.complete, highest, 60)
    return [
        (
            round(float(np.sum(np.asarray(scores.peaks) > level)) / scores.slices, 4),
            round(float(np.mean(np.asarray(values) > level)), 4),
        )
        for level in levels
    ]


def table(results: dict[str, Any]) -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| task, weights | split: scans x noise, slices | lesions of 5 mm radius | contrast "
        "| number | "
        "among the five places | flagged | AUC of a place |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, of_task in results.items():
        unit = "HU" if TASKS[name].unit == "HU" else "%"
        for split in SPLITS:
            part = of_task[split]
            for row in part["rows"]:
                lines.append(
                    f"| `{name}`, {of_task['weights']} | {split}: {len(part['scans'])} x "
                    f"{part['realisations']}, {part['slices']} | {row['kind']} | "
                    f"{row['contrast']:g} {unit} | "
                    f"{row['lesions']} | {100 * row['in_five']:.0f} % | "
                    f"{100 * row['flagged']:.0f} % | {row['auc']:.3f} |"
                )
    return lines


def thresholds(results: dict[str, Any]) -> list[str]:
    """Return the lines of the table of thresholds and false alarms."""
    lines = [
        "| task | threshold | flagged places in a slice without lesions, validation | test |",
        "|---|---|---|---|",
    ]
    for name, of_task in results.items():
        alarms = [f"{of_task[split]['alarms']:.2f}" for split in SPLITS]
        lines.append(f"| `{name}` | {of_task['threshold']:.2f} | {' | '.join(alarms)} |")
    return lines


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the share of lesions found over false alarms a slice, for the test subjects."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(results), 4), layout="constrained")
    places = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, (name, of_task) in zip(places, results.items(), strict=True):
        unit = "HU" if TASKS[name].unit == "HU" else "%"
        for number, row in enumerate(of_task["test"]["rows"]):
            alarms, found = zip(*row["curve"], strict=True)
            style = "-" if row["kind"] == "removed" else "--"
            colour = f"C{number // 2}"
            label = f"{row['kind']}, {row['contrast']:g} {unit}"
            axes.plot(np.maximum(alarms, 1e-2), found, style, color=colour, label=label)
        axes.axvline(ALARMS, color="gray", linewidth=1)
        axes.set(xscale="log", ylim=(0, 1.02), title=name)
        axes.set(xlabel="false alarms in a slice", ylabel="lesions found, test")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100)


def store(results: dict[str, Any]) -> None:
    """Write the thresholds into the shipped weights, if they were measured with these."""
    for name, of_task in results.items():
        path = find_weights(of_task["weights"])
        info = read_info(path)
        if info.sha256 != of_task["sha256"]:
            sys.exit(f"{path.name}: {name} was measured with other weights; measure it again")
        report = dict(info.report)
        places = PlaceThreshold(
            threshold=of_task["threshold"],
            false_alarms=of_task["validation"]["alarms"],
            slices=of_task["validation"]["slices"],
        )
        known = report.get(name, ReportCalibration())
        report[name] = ReportCalibration(intervals=known.intervals, places=places)
        save_report(path, report)


def main() -> None:
    """Measure, print, or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=ROOT / "runs" / "open")
    parser.add_argument("--tasks", nargs="+", choices=CONTRASTS, default=list(CONTRASTS))
    parser.add_argument(
        "--scans",
        type=int,
        nargs="+",
        default=[2],
        help="realisations of each scan; a second number is for those of the test",
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "places.json")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--write", action="store_true")
    words = parser.parse_args()
    path: Path = words.output
    results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if words.table:
        print(*table(results), "", *thresholds(results), sep="\n")
        draw(results, path.with_suffix(".png"))
        return
    if words.write:
        store(results)
        return
    torch.set_num_threads(1)
    for name in words.tasks:
        task = TASKS[name]
        drawn = dict(zip(SPLITS, [words.scans[0], words.scans[-1]], strict=True))
        parts = {split: measure(task, words.data, split, drawn[split]) for split in SPLITS}
        threshold = threshold_of(parts["validation"])
        results[name] = {
            "weights": task.weights,
            "sha256": read_info(find_weights(task.weights)).sha256,
            "threshold": threshold,
        } | {
            split: {
                "scans": part.scans,
                "realisations": drawn[split],
                "slices": part.slices,
                "alarms": float(np.sum(np.asarray(part.peaks) > threshold)) / part.slices,
                "rows": rows(part, threshold),
            }
            for split, part in parts.items()
        }
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
