"""`python -m benchmarks.mri_physics HEAD.nii.gz PICTURE.png`: effect and time of MRI degradations.

The scan is a head at about 1 mm in axial slices, whose last axis runs upwards. Only slices and
sections above the eyes are drawn.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.timing import milliseconds, shown
from restore_rwkv import read_volume
from restore_rwkv.physics.mri.kspace import kspace_noise
from restore_rwkv.physics.mri.resolution import (
    fourier_interpolate,
    kspace_crop,
    low_resolution,
    thick_slices,
)

_LEVEL = 0.65  # of the height: the axial slice that is drawn
_ABOVE_EYES = 0.45  # of the height: the lower end of the coronal sections
_SIGMA = 0.15  # of the brightness of white matter

Panel = tuple[Tensor, float]  # image, and millimetres from row to row


def panels(volume: Tensor) -> list[dict[str, Panel]]:
    """Return two rows of images: an axial slice, and a coronal section of a volume (Z, Y, X)."""
    axial, middle = volume[round(_LEVEL * len(volume))], volume.shape[1] // 2
    shape, sigma = (axial.shape[0], axial.shape[1]), _SIGMA * float(axial.quantile(0.95))
    full, low = (
        kspace_noise(shape, sigma, torch.Generator().manual_seed(0), factor) for factor in (1, 4)
    )
    across = thick_slices(volume, 5, 5)[:, middle]
    gaps = thick_slices(volume, 5, 7)[:, middle]
    return [
        {
            "scan": (axial, 1.0),
            "noise of 15 %, all of k-space": (kspace_crop(axial, 1, full), 1.0),
            "k-space / 4": (kspace_crop(axial, 4), 1.0),
            "k-space / 4, noise of 15 %": (kspace_crop(axial, 4, low), 1.0),
            "native grid": (low_resolution(axial, 4), 4.0),
        },
        {
            "scan": (volume[:, middle], 1.0),
            "slices of 5 mm": (across, 5.0),
            "slices of 5 mm, one each 7 mm": (gaps, 7.0),
            "3-D, k-space / 2 on each axis": (kspace_crop(volume, (2.0, 2.0, 2.0))[:, middle], 1.0),
            "3-D, k-space / 4 across": (kspace_crop(volume, (4.0, 1.0, 1.0))[:, middle], 1.0),
        },
    ]


def draw(rows: list[dict[str, Panel]], path: Path) -> None:
    figure = Figure(figsize=(12.5, 4.6), layout="constrained")
    grid = figure.subplots(2, 5, height_ratios=(1.5, 1))
    for axes, row, above in zip(grid, rows, (0.0, _ABOVE_EYES), strict=True):
        scan = row["scan"][0]
        height, width = scan.shape
        bright = float(scan.quantile(0.998))
        inside = torch.nonzero(scan > 0.15 * bright)
        (low, left), (high, right) = inside.amin(0).tolist(), inside.amax(0).tolist()
        limits = sorted((max(low - 6, above * height), high + 6), reverse=above == 0)
        for panel, (title, (image, step)) in zip(axes, row.items(), strict=True):
            panel.imshow(
                image.numpy(),
                cmap="gray",
                vmin=0,
                vmax=bright,
                origin="lower",  # the limits turn the axial slice: its first row is the front
                extent=(0, width, 0, step * len(image)),
                interpolation="nearest",
            )
            panel.set(xlim=(left - 6, right + 6), ylim=limits)
            panel.set_title(title, fontsize=9)
            panel.set_axis_off()
    figure.savefig(path, dpi=80)


def main() -> None:
    scan, picture = Path(sys.argv[1]), Path(sys.argv[2])
    volume = torch.from_numpy(read_volume(scan).data.transpose(2, 1, 0).copy())
    draw(panels(volume), picture)
    axial = volume[round(_LEVEL * len(volume))]
    coarse = low_resolution(axial, 4)
    shape, generator = (axial.shape[0], axial.shape[1]), torch.Generator().manual_seed(0)
    print("| call | ms |")
    print("|---|---|")
    for name, call in (
        ("kspace_crop(slice, 4)", lambda: kspace_crop(axial, 4)),
        ("kspace_noise(shape, sigma, generator, 4)", lambda: kspace_noise(shape, 1, generator, 4)),
        ("low_resolution(slice, 4)", lambda: low_resolution(axial, 4)),
        ("fourier_interpolate(coarse, shape)", lambda: fourier_interpolate(coarse, shape)),
        ("thick_slices(volume, 5, 5)", lambda: thick_slices(volume, 5, 5)),
        ("kspace_crop(volume, (2, 2, 2))", lambda: kspace_crop(volume, (2.0, 2.0, 2.0))),
    ):
        print(f"| `{name}` | {shown(milliseconds(call))} |")
    air = torch.zeros(64, *shape)
    noisy = kspace_crop(air, 4, kspace_noise((64, *shape), 1.0, generator, 4))
    print(f"\nmean in air: {noisy.mean():.4f} sigma, {math.sqrt(math.pi / 2) / 4:.4f} expected")


if __name__ == "__main__":
    main()
