"""The tables and the picture of `benchmarks.compare`, from its file of results."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch

from restore_rwkv.io import atomic_file
from restore_rwkv.model import build_network, profile_network
from restore_rwkv.training.recipe import Recipe

TASKS = ("mri-sr", "ct-denoise")
_SIZE = 256
_BESIDE: dict[str, Any] = {"xytext": (6, 4), "textcoords": "offset points", "fontsize": 8}
_BUDGETS = ("iterations", "seconds")


def costs(recipes: dict[str, Recipe], repeats: int = 5) -> dict[str, Any]:
    """Measure what an image of 256 x 256 costs each network, with one thread, taking turns.

    Args:
        recipes: recipe of each network, by its name.
        repeats: rounds, in each of which every network is timed once.
    """
    torch.set_num_threads(1)
    networks = {name: build_network(recipe.network) for name, recipe in recipes.items()}
    rounds = [
        {name: profile_network(network, _SIZE, repeats=1) for name, network in networks.items()}
        for _ in range(repeats)
    ]
    return {
        name: {
            "parameters": first.parameters,
            "gmacs": first.macs.total / 1e9,
            "seconds": statistics.median(found[name].median for found in rounds),
            "peak_mib": (first.peak or 0) / 2**20,
        }
        for name, first in rounds[0].items()
    }


def table(results: dict[str, Any], task: str) -> list[str]:
    """Return the lines of the table of a task, best first under equal seconds."""
    rows, costs_of = results.get(task, {}), results.get("costs", {})
    lines = [
        "| network | parameters | GMAC | s a slice | peak MiB | ms a step | sweep's choice | "
        "gain after equal iterations, dB | in equal seconds, dB | iterations in these |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(rows, key=lambda name: -_gain(rows[name], "seconds")):
        row, cost = rows[name], costs_of.get(name, {})
        cells = [
            f"{cost['parameters']:,}" if cost else "-",
            f"{cost['gmacs']:.1f}" if cost else "-",
            f"{cost['seconds']:.2f}" if cost else "-",
            f"{cost['peak_mib']:.0f}" if cost else "-",
            f"{1e3 * results['step_seconds'][name]:.0f}",
            row["choice"],
            *(_spread(row, budget) for budget in _BUDGETS),
            str(_of(row, "seconds").get("iterations", "-")),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def filter_table(results: dict[str, Any], task: str) -> list[str]:
    """Return the lines of the table of the methods without training."""
    lines = [
        "| method | gain, dB | SSIM | s a slice | factor on the noise |",
        "|---|---|---|---|---|",
    ]
    for name, row in results.get("filters", {}).get(task, {}).items():
        cells = [f"{row['gain']:+.2f}", f"{row['ssim']:.4f}", f"{row['seconds_per_slice']:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} | {row.get('strength', 'none')} |")
    return lines


def sweep_table(results: dict[str, Any], task: str) -> list[str]:
    """Return the lines of the table of the sweep: gains on validation in dB."""
    rows = {name: row["sweep"] for name, row in results.get(task, {}).items()}
    choices = list(next(iter(rows.values()), {}))
    lines = [f"| network | {' | '.join(choices)} |", "|---" * (1 + len(choices)) + "|"]
    for name, gains in rows.items():
        best = max(gains.values())
        cells = [f"**{x:+.2f}**" if x == best else f"{x:+.2f}" for x in gains.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the gain in equal seconds over the seconds of a slice, for each task, as a PNG."""
    from matplotlib.figure import Figure

    tasks = [task for task in TASKS if results.get(task)]
    figure = Figure(figsize=(5.5 * len(tasks), 4.2), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for name, row in results[task].items():
            gains = [run["gain"]["test"] for run in _of(row, "seconds").get("runs", [])]
            if gains:
                spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
                seconds = results["costs"][name]["seconds"]
                axes.errorbar(seconds, statistics.mean(gains), spread, fmt="o", capsize=3)
                axes.annotate(name, (seconds, statistics.mean(gains)), **_BESIDE)
        for name, row in results.get("filters", {}).get(task, {}).items():
            axes.plot(row["seconds_per_slice"], row["gain"], "x", color="gray")
            axes.annotate(name, (row["seconds_per_slice"], row["gain"]), color="gray", **_BESIDE)
        axes.axhline(0, color="black", linewidth=1)
        axes.set(xscale="log", xlabel="seconds of a slice, one thread", title=task)
        axes.set_ylabel("PSNR gained over the input (dB), test")
        axes.grid(alpha=0.3)
        axes.margins(x=0.18)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _of(row: dict[str, Any], budget: str) -> dict[str, Any]:
    """Return the runs of a budget; the first network's two budgets are the same runs."""
    found: dict[str, Any] = row.get(budget) or (row.get("iterations", {}) if budget else {})
    return found


def _gain(row: dict[str, Any], budget: str) -> float:
    runs = _of(row, budget).get("runs", [])
    return statistics.mean(run["gain"]["test"] for run in runs) if runs else float("-inf")


def _spread(row: dict[str, Any], budget: str) -> str:
    gains = [run["gain"]["test"] for run in _of(row, budget).get("runs", [])]
    if not gains:
        return "-"
    spread = f" ± {statistics.stdev(gains):.2f}" if len(gains) > 1 else ""
    return f"{statistics.mean(gains):+.2f}{spread} ({len(gains)})"
