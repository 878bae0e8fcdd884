"""The figure of `benchmarks.task_based`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.task_phantoms import CONTRASTS, DIAMETERS, FULL, KINDS, LOW, RESTORED
from restore_rwkv.evaluation.physical import Recovery, TransferFunction
from restore_rwkv.io import atomic_file

if TYPE_CHECKING:
    from benchmarks.task_ct import CTRow

_COLOURS = {FULL: "#555555", LOW: "#d95f02", RESTORED: "#1b6ca8"}
_OTHER = "#7aa650"


def draw(
    path: Path,
    rows: Mapping[str, CTRow],
    edges: Mapping[str, Sequence[TransferFunction]],
    recovered: Mapping[str, Sequence[Sequence[Recovery]]],
) -> None:
    """Draw noise spectra, transfer functions, d' and recovery, by name of the image."""
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    (spectra, bars), (transfers, recoveries) = figure.subplots(2, 2)
    for name, row in rows.items():
        curve = row.spectrum
        level = f"{name}, {np.sqrt(curve.variance):.1f} HU"
        density = curve.radial / (curve.radial.mean() * curve.frequency[-1])
        spectra.plot(curve.frequency, density, color=_colour(name), label=level)
    spectra.set(
        title="CT: texture of the noise (NPS of area 1)",
        xlabel="frequency (1 / mm)",
        ylabel="mm",
        ylim=(0, None),
    )
    _detection(bars, rows)
    _sharpness(transfers, edges)
    for name, scans in recovered.items():
        table = np.array([[sphere.mean for sphere in scan] for scan in scans])
        spread = table.std(0, ddof=1) if len(table) > 1 else None
        recoveries.errorbar(
            DIAMETERS, table.mean(0), spread, color=_colour(name), label=name, capsize=3
        )
    recoveries.axhline(1, color="black", linewidth=0.8)
    recoveries.set(
        title="PET: recovery of hot spheres", xlabel="diameter (mm)", ylabel="mean / true"
    )
    recoveries.set_ylim(0, 1.15)
    for axes in (spectra, transfers, recoveries):
        axes.legend(frameon=False, fontsize=9)
        axes.grid(alpha=0.25)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def _colour(name: str) -> str:
    return _COLOURS.get(name, _OTHER)


def _detection(axes: Axes, rows: Mapping[str, CTRow]) -> None:
    width = 0.8 / len(rows)
    for index, (name, row) in enumerate(rows.items()):
        seen = [lesion.seen for lesion in row.lesions]
        values = np.array([one.d_prime for one in seen])
        reach = [values - [one.low for one in seen], [one.high for one in seen] - values]
        place = np.arange(len(seen)) + (index - (len(rows) - 1) / 2) * width
        axes.bar(place, values, width, yerr=reach, color=_colour(name), label=name, capsize=4)
    names = [f"{contrast:g} HU, radius {radius:g} mm" for contrast, radius in KINDS]
    axes.set_xticks(range(len(KINDS)), names)
    axes.set(title="CT: detection of a lesion, with 95 % intervals", ylabel="d'", ylim=(0, None))
    axes.grid(alpha=0.25, axis="y")
    axes.legend(frameon=False, fontsize=9)


def _sharpness(axes: Axes, edges: Mapping[str, Sequence[TransferFunction]]) -> None:
    for name in (LOW, RESTORED):
        for contrast, found, style in zip(CONTRASTS, edges[name], (":", "--", "-"), strict=True):
            label = f"{name}, {contrast:g} HU"
            axes.plot(found.frequency, found.value, style, color=_colour(name), label=label)
    axes.axhline(0.5, color="black", linewidth=0.8)
    axes.set(title="CT: sharpness of edges (TTF)", xlabel="frequency (1 / mm)", ylim=(0, 1.4))
