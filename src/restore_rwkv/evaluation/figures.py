"""Figures: training curves, and images before and after restoration with their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.io import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Panel:
    """Curves on two axes.

    Attributes:
        x: label of the axis across.
        y: label of the axis upwards.
        curves: curves by label, each a list of (x, y); those of one label have one colour.
        levels: height of a dashed line in the colour of a label.
        logarithmic: whether the axis upwards is.
    """

    x: str
    y: str
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]]
    levels: Mapping[str, float] = field(default_factory=dict)
    logarithmic: bool = False


def training_curve(
    rows: Sequence[Mapping[str, Any]], inputs: Mapping[str, float | None], path: Path
) -> None:
    """Draw loss and validation PSNR over iterations as a PNG.

    Args:
        rows: rows of the log, with "iteration", "loss" and "TASK.psnr" (dB) for each task.
        inputs: PSNR of the low-quality validation slices by task, drawn as dashed lines.
        path: PNG file to write; an existing one is replaced.
    """

    def curve(key: str) -> list[list[tuple[float, float]]]:
        return [[(int(row["iteration"]), float(row[key])) for row in rows]]

    losses = Panel("iteration", "loss (network values)", {"loss": curve("loss")}, logarithmic=True)
    scores = Panel(
        "iteration",
        "validation PSNR (dB, paper protocol)",
        {task: curve(f"{task}.psnr") for task in inputs},
        {task: psnr for task, psnr in inputs.items() if psnr is not None},
    )
    draw_panels([("", [losses, scores])], path)


def draw_panels(rows: Sequence[tuple[str, Sequence[Panel]]], path: Path) -> None:
    """Draw rows of panels as a PNG, each with the labels of its last panel below.

    Args:
        rows: title and panels of each row.
        path: PNG file to write; an existing one is replaced.
    """
    from matplotlib import color_sequences
    from matplotlib.figure import Figure

    widest = max(len(panels) for _, panels in rows)
    labels = max(len(panels[-1].curves) for _, panels in rows)
    height = 3.4 + 0.2 * -(-labels // widest)
    figure = Figure(figsize=(4 * widest, height * len(rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (title, panels) in zip(parts, rows, strict=True):
        names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
        palette = color_sequences["tab10" if len(names) <= 10 else "tab20"]
        colours = {name: palette[i % len(palette)] for i, name in enumerate(names)}
        every = part.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(every, panels, strict=True):
            _draw_panel(axes, panel, colours)
        handles, shown = every[-1].get_legend_handles_labels()
        part.legend(handles, shown, loc="outside lower center", ncols=widest, fontsize=8)
        part.suptitle(title, fontsize=9)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_panel(axes: Axes, panel: Panel, colours: Mapping[str, Any]) -> None:
    for name, curves in panel.curves.items():
        for number, points in enumerate(curves):
            if points:
                across, up = zip(*points, strict=True)
                axes.plot(*(across, up, ".-"), color=colours[name], label=None if number else name)
    for name, level in panel.levels.items():
        axes.axhline(level, color=colours[name], linestyle="--", label=f"input, {name}")
    axes.set(yscale="log" if panel.logarithmic else "linear")
    axes.set_xlabel(panel.x, fontsize=9)
    axes.set_ylabel(panel.y, fontsize=9)
    axes.grid(alpha=0.3)


def gain_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], path: Path
) -> None:
    """Draw the PSNR gained over the input against the noise of the input, as a PNG.

    Args:
        panels: curves by label of the noise, one panel each; a curve is (noise, gain in dB) by its
            name.
        path: PNG file to write; an existing one is replaced.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(panels), 3.4), layout="constrained")
    for axes, (label, curves) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for number, (name, points) in enumerate(curves.items()):
            levels, gains = zip(*sorted(points), strict=True)
            # Shapes tell apart curves that lie on one another.
            axes.plot(levels, gains, "o^sxd+"[number % 6] + "-", label=name, alpha=0.8)
        axes.axhline(0, color="black", linewidth=1)
        axes.set(xlabel=label, ylabel="PSNR gained over the input (dB)", xscale="log")
        ticks = sorted({level for points in curves.values() for level, _ in points})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=80)


def picture_grid(
    rows: Sequence[tuple[str, NDArray[Any], NDArray[Any], NDArray[Any]]],
    limits: Sequence[tuple[float, float]],
    path: Path,
) -> None:
    """Draw one slice per row (low quality, restored, full quality and error) as a PNG.

    Args:
        rows: title, and the images low, restored and high (H, W) in the same unit, drawn as image
            matrices: first axis down.
        limits: values shown as black and as white in each row, in the same unit.
        path: PNG file to write; an existing one is replaced.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.7 * len(rows) + 0.2), layout="constrained")
    grid = figure.subplots(len(rows), 4, squeeze=False)
    columns = ("low quality", "restored", "full quality", "restored - full quality")
    for place, ((title, low, restored, high), (black, white)) in enumerate(
        zip(rows, limits, strict=True)
    ):
        span = (white - black) / 4
        for axes, image, name in zip(
            grid[place], (low, restored, high, restored - high), columns, strict=True
        ):
            error = name == columns[-1]
            axes.imshow(
                image,
                cmap="RdBu_r" if error else "gray",
                vmin=-span if error else black,
                vmax=span if error else white,
            )
            axes.set_xticks([])
            axes.set_yticks([])
            if place == 0:
                axes.set_title(name, fontsize=10)
        grid[place][0].set_ylabel(title, fontsize=7)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=80)


def comparison(images: Mapping[str, NDArray[Any]], reference: NDArray[Any], path: Path) -> None:
    """Draw images above their absolute differences from a reference, as a PNG.

    Args:
        images: images (H, W) by title, in the unit and on the grid of the reference, drawn as
            image matrices: first axis down.
        reference: the truth (H, W), drawn last.
        path: PNG file to write; an existing one is replaced.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    height, width = reference.shape
    columns = len(images) + 1
    figure = Figure(figsize=(3 * columns, 6 * height / width + 0.8), layout="constrained")
    top, bottom = figure.subplots(2, columns)
    differences = {title: np.abs(image - reference) for title, image in images.items()}
    bright = float(np.quantile(reference, 0.999))
    worst = float(max(np.quantile(difference, 0.995) for difference in differences.values()))
    error = ScalarMappable(Normalize(0, worst), "inferno")
    for axes, (title, image) in zip(top, {**images, "truth": reference}.items(), strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=bright)
        axes.set_title(title, fontsize=10)
    for axes, difference in zip(bottom, differences.values(), strict=False):
        axes.imshow(difference, cmap=error.cmap, norm=error.norm)
        axes.set_title("difference from the truth", fontsize=9)
    for axes in (*top, *bottom):
        axes.set_axis_off()
    scale = bottom[-1].inset_axes((0.05, 0.1, 0.06, 0.8))
    figure.colorbar(error, cax=scale, label="difference in image units")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100)


def receptive_fields(fields: Mapping[str, tuple[NDArray[Any], str]], path: Path) -> None:
    """Draw effective receptive fields beside each other, as a PNG.

    Args:
        fields: fields (H, W) and the text below each, by name; drawn on a logarithmic scale, each
            relative to its largest value.
        path: PNG file to write; an existing one is replaced.
    """
    from matplotlib.figure import Figure

    columns = min(5, len(fields))
    rows = -(-len(fields) // columns)
    figure = Figure(figsize=(2.9 * columns + 0.9, 3.5 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    drawn = None
    for axes in grid.flat[len(fields) :]:
        axes.set_axis_off()
    for axes, (name, (values, text)) in zip(grid.flat, fields.items(), strict=False):
        shown = np.log10(values / values.max() + 1e-6)
        drawn = axes.imshow(shown, cmap="magma", vmin=-6, vmax=0, interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(text, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=grid, shrink=0.7)
        bar.set_label("|gradient| over its largest, log10", fontsize=8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100)
