"""Figures: training curves, and images before and after restoration with their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.io import atomic_file


def training_curve(
    rows: Sequence[Mapping[str, Any]], inputs: Mapping[str, float | None], path: Path
) -> None:
    """Draw loss and validation PSNR over iterations as a PNG.

    Args:
        rows: rows of the log, with "iteration", "loss" and "TASK.psnr" (dB) for each task.
        inputs: PSNR of the low-quality validation slices by task, drawn as dashed lines.
        path: PNG file to write; an existing one is replaced.
    """
    from matplotlib.figure import Figure

    iterations = [int(row["iteration"]) for row in rows]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(iterations, [float(row["loss"]) for row in rows], ".-")
    left.set(xlabel="iteration", ylabel="loss (network values)", yscale="log")
    for task, psnr in inputs.items():
        (line,) = right.plot(iterations, [float(row[f"{task}.psnr"]) for row in rows], ".-")
        line.set_label(task)
        if psnr is not None:
            right.axhline(psnr, color=line.get_color(), linestyle="--", label="its input")
    right.set(xlabel="iteration", ylabel="validation PSNR (dB, paper protocol)")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120)


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
