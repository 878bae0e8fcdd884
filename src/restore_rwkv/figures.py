"""Pictures: the curve of a training run, and an image before and after with its differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.io import atomic_file


def training_curve(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss and validation PSNR over iterations as a PNG.

    Args:
        rows: records with "iteration", "loss" and "psnr" (dB), in order.
        path: PNG to write, replaced if there.
    """
    from matplotlib.figure import Figure

    iterations = [int(row["iteration"]) for row in rows]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(iterations, [float(row["loss"]) for row in rows], ".-")
    left.set(xlabel="iteration", ylabel="L1 loss (network values)", yscale="log")
    right.plot(iterations, [float(row["psnr"]) for row in rows], ".-")
    right.set(xlabel="iteration", ylabel="validation PSNR (dB, paper protocol)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120)


def comparison(images: Mapping[str, NDArray[Any]], reference: NDArray[Any], path: Path) -> None:
    """Draw images above their absolute differences from a reference, as a PNG.

    Args:
        images: title -> (H, W), in the unit and on the grid of the reference, drawn as an image
            matrix: first axis down.
        reference: the truth (H, W); drawn last.
        path: PNG to write, replaced if there.
    """
    from matplotlib.figure import Figure

    height, width = reference.shape
    columns = len(images) + 1
    figure = Figure(figsize=(3 * columns, 6.4 * height / width + 0.6), layout="constrained")
    top, bottom = figure.subplots(2, columns)
    bright = float(np.quantile(reference, 0.999))
    error = float(np.quantile(np.abs(next(iter(images.values())) - reference), 0.995))
    shown = None
    for above, below, (title, image) in zip(top, bottom, images.items(), strict=False):
        above.imshow(image, cmap="gray", vmin=0, vmax=bright)
        above.set_title(title, fontsize=10)
        shown = below.imshow(np.abs(image - reference), cmap="inferno", vmin=0, vmax=error)
        below.set_title("difference from the truth", fontsize=9)
    top[-1].imshow(reference, cmap="gray", vmin=0, vmax=bright)
    top[-1].set_title("truth", fontsize=10)
    for axes in (*top, *bottom):
        axes.set_axis_off()
    if shown is not None:
        figure.colorbar(shown, ax=bottom[-1], location="left", label="image units")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100)
