"""Pictures of single lesions: the truth, and what methods make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.evaluation.challenge.lesions import Lesion, pixel_of, spacing_of
from restore_rwkv.evaluation.challenge.results import Example
from restore_rwkv.io import Volume, atomic_file
from restore_rwkv.io.views import view_of
from restore_rwkv.tasks import Task, slice_axis

TRUTH = "truth"

_REACH = 22.0  # mm around the lesion
_HU = (-60.0, 140.0)
_RING = 1.6  # radii


def example_of(
    name: str,
    truths: tuple[Volume, Volume],
    images: Mapping[str, Volume],
    lesion: Lesion,
    task: Task,
) -> Example:
    """Cut the surroundings of a lesion out of scans that have it.

    Args:
        name: of the scan.
        truths: the scan of full quality without lesions, which the limits of grey are taken from
            where they are not 40 +- 100 HU, and with the lesion.
        images: what methods made, by name.
        lesion: in the middle of the picture.
        task: of the scans.
    """
    without, truth = truths
    axis = slice_axis(truth, task)
    view = view_of(truth, axis)

    def cut(volume: Volume) -> NDArray[np.float32]:
        sides = [side for other, side in enumerate(spacing_of(volume)) if other != axis]
        rows, columns = (round(lesion.centre[other]) for other in range(3) if other != axis)
        image = volume.slices(axis)[round(lesion.centre[axis])]
        parts = []
        for centre, side, length in zip((rows, columns), sides, image.shape, strict=True):
            reach = min(round(_REACH / side), centre, length - 1 - centre)
            parts.append(slice(centre - reach, centre + reach + 1))
        return view.laid_out(image[parts[0], parts[1]].copy())

    found = {TRUTH: cut(truth)} | {method: cut(image) for method, image in images.items()}
    limits = _HU
    if task.unit != "HU":
        low, high = np.quantile(cut(without), (0.02, 0.99))
        limits = (float(0.8 * low), float(1.2 * high))
    return Example(
        contrast=lesion.contrast,
        radius=lesion.radius / pixel_of(truth),
        scan=name,
        images=found,
        limits=limits,
    )


def clearest(volume: Volume, lesions: Sequence[Lesion], task: Task) -> list[Lesion]:
    """Return the brighter and the darker lesion in the most even surroundings.

    Args:
        volume: the scan without lesions.
        lesions: of one radius.
        task: of the scan.
    """
    axis = slice_axis(volume, task)

    def uneven(lesion: Lesion) -> float:
        parts = [
            slice(max(round(middle - reach), 0), round(middle + reach) + 1)
            for middle, reach in zip(
                lesion.centre,
                (_RING * lesion.radius / side for side in spacing_of(volume)),
                strict=True,
            )
        ]
        middle = round(lesion.centre[axis])
        parts[axis] = slice(middle, middle + 1)
        region = volume.data[tuple(parts)]
        return float(region.std() / (1 if task.unit == "HU" else region.mean()))

    found = []
    for sign in (1, -1):
        alike = [lesion for lesion in lesions if lesion.contrast * sign > 0]
        found += sorted(alike, key=uneven)[:1]
    return found


def draw_examples(examples: Sequence[Example], unit: str, path: Path) -> None:
    """Draw lesions as a PNG: a row for the truth and each method, a column for each example.

    Args:
        examples: at least one, with the same methods.
        unit: of contrasts, "HU" or "%".
        path: file to write; an existing one is replaced.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    names = list(examples[0].images)
    size = (2.0 * len(examples) + 0.4, 2.0 * len(names) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(names), len(examples), squeeze=False)
    for column, example in enumerate(examples):
        for axes, name in zip(grid[:, column], names, strict=True):
            image = example.images[name]
            black, white = example.limits
            axes.imshow(image, cmap="gray", vmin=black, vmax=white)
            rows, columns = image.shape
            middle = ((columns - 1) / 2, (rows - 1) / 2)
            ring = Circle(middle, _RING * example.radius, fill=False, color="tab:orange")
            axes.add_patch(ring)
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(name, fontsize=8)
        grid[0][column].set_title(f"{example.contrast:+g} {unit}", fontsize=9)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100)
