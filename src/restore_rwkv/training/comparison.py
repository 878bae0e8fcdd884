"""Training runs side by side: which can be compared, means over seeds, and curves."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.figures import Panel, draw_panels
from restore_rwkv.training.runs import Run


@dataclass(frozen=True, eq=False)
class Seeds:
    """Runs that differ in nothing but the seed, with at least one validation each.

    Attributes:
        name: name of the first, and how many there are.
        runs: the runs.
    """

    name: str
    runs: tuple[Run, ...]

    def values(self) -> dict[str, Any]:
        """Return means and sample standard deviations (n - 1) over the seeds, of gains in dB."""
        best = [run.best.gain for run in self.runs if run.best and run.best.gain is not None]
        last = [run.points[-1].gain for run in self.runs]
        ends = [gain for gain in last if gain is not None]
        return {
            "runs": [run.name for run in self.runs],
            "seeds": [run.recipe.seed for run in self.runs],
            "iterations": sorted({run.iterations for run in self.runs}),
            **{f"best_gain_{name}_db": value for name, value in _mean_and_sd(best).items()},
            **{f"last_gain_{name}_db": value for name, value in _mean_and_sd(ends).items()},
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs whose PSNR can be compared, since they were validated on the same slices.

    Attributes:
        title: task, data and number of validated slices.
        runs: the runs, in the order given.
        seeds: those of them that differ only in the seed, where there are at least two.
    """

    title: str
    runs: tuple[Run, ...]
    seeds: tuple[Seeds, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {
            "title": self.title,
            "runs": [run.values() for run in self.runs],
            "seeds": [seeds.values() for seeds in self.seeds],
        }


def compare_runs(runs: Iterable[Run]) -> list[Comparison]:
    """Sort runs into those whose PSNR can be compared; see `Run.conditions`."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.conditions, []).append(run)
    return [Comparison(_title(group[0]), tuple(group), _seeds(group)) for group in groups.values()]


def draw_runs(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw gain over iterations and processor time, and loss over iterations, as a PNG.

    Args:
        comparisons: one row of pictures each; runs that differ only in the seed have one colour.
        path: PNG file to write; an existing one is replaced.

    Raises:
        InputError: no run has been validated yet.
    """
    shown = [one for one in comparisons if any(run.points for run in one.runs)]
    if not shown:
        raise InputError(
            f"{comparisons[0].runs[0].folder}: no run has been validated yet; leave output out, or "
            "wait"
        )
    draw_panels([(one.title, _panels(one)) for one in shown], path)


def _panels(comparison: Comparison) -> list[Panel]:
    together = {run.name: seeds.name for seeds in comparison.seeds for run in seeds.runs}
    gains: dict[str, list[list[tuple[float, float]]]] = {}
    costs: dict[str, list[list[tuple[float, float]]]] = {}
    losses: dict[str, list[list[tuple[float, float]]]] = {}
    for run in comparison.runs:
        if not run.points:
            continue
        label = together.get(run.name, run.name)
        if run.state == "unfinished" and run.name not in together:
            label += f" (at {run.iterations:,} of {run.recipe.training.iterations:,})"
        scored = [(point, point.gain) for point in run.points if point.gain is not None]
        gains.setdefault(label, []).append([(p.iteration, gain) for p, gain in scored])
        known = [] if run.cpu_hours is None else scored
        costs.setdefault(label, []).append([(p.cpu_hours or 0.0, gain) for p, gain in known])
        losses.setdefault(label, []).append([(p.iteration, p.loss) for p in run.points])
    kinds = sorted({run.recipe.training.loss for run in comparison.runs})
    gained = "PSNR gained over the input (dB, paper)"
    return [
        Panel("iteration", gained, gains),
        Panel("processor time (hours)", gained, costs),
        Panel("iteration", f"training loss ({' or '.join(kinds)})", losses, logarithmic=True),
    ]


def _title(run: Run) -> str:
    slices = run.recipe.data.validation_slices
    sets = ", ".join(f"{task} of {dataset} ({digest[:8]})" for dataset, task, digest in run.data)
    return f"{sets}; {f'{slices} validation slices a task' if slices else 'all validation slices'}"


def _seeds(runs: Sequence[Run]) -> tuple[Seeds, ...]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.points:
            recipe = {**run.recipe.to_dict(), "seed": None}
            groups.setdefault(json.dumps(recipe, sort_keys=True, default=str), []).append(run)
    several = [
        group for group in groups.values() if len({run.recipe.seed for run in group}) == len(group)
    ]
    return tuple(
        Seeds(f"{group[0].name} and {len(group) - 1} other seed{'s' * (len(group) > 2)}", (*group,))
        for group in several
        if len(group) > 1
    )


def _mean_and_sd(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.mean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }
