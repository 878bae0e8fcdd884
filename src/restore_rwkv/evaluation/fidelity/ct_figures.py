"""Figures of a restored CT scan: its CT numbers and its noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import InputError, OperatorError
from restore_rwkv.evaluation.fidelity.reasons import reason_of
from restore_rwkv.evaluation.fidelity.results import Figure, RestoredPair, Support
from restore_rwkv.evaluation.measures.measure import NoScoreError, Setting
from restore_rwkv.tasks.modality import spread_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHIFT = (2.0, 5.0)  # HU; to look at, and too much
_SIDE = 32  # pixels; of the regions whose noise power spectrum is taken
_COARSER = 0.7  # of the frequency before: noise that looks blotchy
_TISSUES = {"air": "air", "water": "soft tissue without fat", "bone": "bone"}


def shift_figures(pair: RestoredPair) -> list[Figure]:
    """Return the mean change of CT numbers in air, soft tissue and bone."""
    return [
        _shift(name, value)
        for name, value in pair.task.rules.value_shift(pair.before, pair.after, pair.axis).items()
    ]


def _shift(name: str, value: float | None) -> Figure:
    title = _TISSUES.get(name, name)
    support: Support = "unknown"
    if value is not None:
        size = abs(value)
        support = "supported" if size <= _SHIFT[0] else "look"
        support = "unsupported" if size > _SHIFT[1] else support
    return Figure(
        name=f"shift_{name}",
        title=f"mean change of CT numbers in {title}",
        value=value,
        unit="HU",
        support=support,
        expected=f"within ±{_SHIFT[0]:g} HU",
        says=f"The mean of {title} could not be compared."
        if value is None
        else f"The mean of {title} changed by {value:+.1f} HU.",
        blind_to="A mean cannot see small structure, nor changes that cancel each other.",
        reason="hardly any such tissue" if value is None else "",
    )


def noise_figures(pair: RestoredPair) -> list[Figure]:
    """Return the level of the noise, and the mean frequency of its power spectrum."""
    return [*_levels(pair), _texture(pair)]


def _levels(pair: RestoredPair) -> list[Figure]:
    import torch

    from restore_rwkv.physics.ct import noise_level

    levels, reason = [], ""
    try:
        for volume in (pair.before, pair.after):
            levels.append(noise_level(torch.from_numpy(spread_slices(volume, pair.axis))))
    except OperatorError as error:
        reason = reason_of(error)
    figures = []
    for place, when in enumerate(("before", "after")):
        value = None if reason else levels[place]
        support: Support = "unknown"
        says = f"The noise {when} restoration cannot be measured: {reason}."
        if value is not None:
            support = "look" if place and levels[1] > levels[0] else "supported"
            says = f"Fine noise in soft tissue {when} restoration is {value:.1f} HU."
        figures.append(
            Figure(
                name=f"noise_{when}",
                title=f"noise {when} restoration",
                value=value,
                unit="HU",
                support=support,
                expected="less after restoration than before",
                says=says,
                blind_to="It cannot see coarse noise, nor tell noise from fine structure.",
                reason=reason,
            )
        )
    return figures


def _texture(pair: RestoredPair) -> Figure:
    """Mean frequency of the noise power spectrum after restoration."""
    value: float | None = None
    support: Support = "unknown"
    reason = ""
    try:
        before, value = mean_frequencies(pair)
    except (NoScoreError, InputError) as error:
        reason = reason_of(error)
        says = f"The texture of the noise cannot be measured: {reason}."
    else:
        says = f"The mean frequency of the noise is {value:.2f} / mm, before it was {before:.2f}"
        support = "look" if value < _COARSER * before else "supported"
        says += ": what is left is coarser and looks blotchy." if support == "look" else "."
    return Figure(
        name="noise_frequency",
        title="mean frequency of the noise power spectrum after restoration",
        value=value,
        unit="1/mm",
        support=support,
        expected=f"at least {100 * _COARSER:g} % of that before",
        says=says,
        blind_to="It is a mean over homogeneous tissue, and cannot see texture elsewhere.",
        reason=reason,
    )


def mean_frequencies(pair: RestoredPair) -> tuple[float, float]:
    """Return the mean frequency of the noise before and after, `sum f S(f) / sum S(f)` in 1/mm.

    The spectra are those of homogeneous regions of the scan before, 32 pixels a side.

    Raises:
        NoScoreError: there is no such region, or no geometry.
        InputError: slices are too small.
    """
    from restore_rwkv.evaluation.physical import noise_power_spectrum
    from restore_rwkv.evaluation.physical.noise import flat_regions

    spacing = pair.after.spacing
    if spacing is None:
        raise NoScoreError("the scan has no geometry")
    rows, columns = (side for axis, side in enumerate(spacing) if axis != pair.axis)
    images = [
        np.asarray(spread_slices(volume, pair.axis)[::2], dtype=np.float64)
        for volume in (pair.before, pair.after)
    ]
    setting = Setting(task=pair.task, pixel_mm=(rows, columns), peak=float(np.abs(images[0]).max()))
    if min(images[0].shape[1:]) < 2 * _SIDE:
        raise NoScoreError(f"slices are smaller than {2 * _SIDE} x {2 * _SIDE} pixels")
    places = flat_regions(images[0], setting, _SIDE)
    found = []
    for stack in images:
        regions: NDArray[np.float64] = np.stack(
            [stack[n, top : top + _SIDE, left : left + _SIDE] for n, top, left in places]
        )
        spectrum = noise_power_spectrum(regions, (rows, columns))
        weight = spectrum.radial * spectrum.frequency  # rings are longer at higher frequencies
        found.append(float(np.sum(weight * spectrum.frequency) / np.sum(weight)))
    return found[0], found[1]
