"""Box plots and spectra of the HTML report, as positions in percent that SVG draws at any width."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_DOTS = 400
_DECADES = 6  # of the axis of spectra, at most


@dataclass(frozen=True)
class Tick:
    """A line across a chart: its place in percent, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Box:
    """Distribution of one method's gains; places in percent of the width.

    Attributes:
        method: its name.
        low, first, median, third, high: ends of the whiskers (the farthest values within 1.5 times
            the distance of the quartiles), quartiles and median.
        outliers: places of values beyond the whiskers.
        dots: (place, height in percent, name) of the means of patients.
        words: the same in words.
    """

    method: str
    low: float
    first: float
    median: float
    third: float
    high: float
    outliers: tuple[float, ...]
    dots: tuple[tuple[float, float, str], ...]
    words: str


@dataclass(frozen=True)
class BoxPlot:
    """Boxes one below the other, on one axis."""

    boxes: tuple[Box, ...]
    ticks: tuple[Tick, ...]
    zero: float


@dataclass(frozen=True)
class Curve:
    """A line: name of the method, and the `d` of an SVG path in a square of 1000."""

    method: str
    path: str


@dataclass(frozen=True)
class LineChart:
    """Curves over two axes."""

    curves: tuple[Curve, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def box_plot(gains: Mapping[str, Mapping[str, Sequence[float]]]) -> BoxPlot | None:
    """Return box plots of gains by method and patient; None without a single gain."""
    every = [
        value for patients in gains.values() for values in patients.values() for value in values
    ]
    if not every:
        return None
    low, high = min(0.0, *every), max(0.0, *every)
    margin = 0.04 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return _rounded(100 * (value - low) / (high - low))

    ticks = round_values(low, high, 5)
    digits = _digits(ticks)
    boxes = [_box(method, patients, place) for method, patients in gains.items()]
    return BoxPlot(
        tuple(box for box in boxes if box is not None),
        tuple(Tick(place(value), _signed(value, digits)) for value in ticks),
        place(0.0),
    )


def line_chart(
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> LineChart | None:
    """Return curves with a logarithmic axis upwards; None without a single positive value.

    Args:
        curves: by method, places across and values.
    """
    shown = {}
    for method, (across, up) in curves.items():
        kept = np.isfinite(across) & np.isfinite(up) & (up > 0)
        if kept.sum() > 1:
            shown[method] = (across[kept], np.log10(up[kept]))
    if not shown:
        return None
    right = max(float(across.max()) for across, _ in shown.values())
    top = max(float(up.max()) for _, up in shown.values())
    bottom = max(min(float(up.min()) for _, up in shown.values()), top - _DECADES)
    margin = 0.05 * (top - bottom) or 0.5
    bottom, top = bottom - margin, top + margin
    ticks = round_values(0.0, right, 5)
    digits = _digits(ticks)
    return LineChart(
        tuple(
            Curve(method, _path(across / right, (up - bottom) / (top - bottom)))
            for method, (across, up) in shown.items()
        ),
        tuple(Tick(_rounded(100 * value / right), f"{value:.{digits}f}") for value in ticks),
        tuple(_powers(bottom, top)),
    )


def round_values(low: float, high: float, most: int) -> list[float]:
    """Return at most that many multiples of 1, 2 or 5 times a power of ten in a range."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(s * power for s in (1, 2, 5, 10, 20) if (high - low) / (s * power) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _box(
    method: str, patients: Mapping[str, Sequence[float]], place: Callable[[float], float]
) -> Box | None:
    values = np.sort([value for found in patients.values() for value in found])
    if not values.size:
        return None
    first, median, third = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    reach = 1.5 * (third - first)
    inside = values[(values >= first - reach) & (values <= third + reach)]
    beyond = values[(values < first - reach) | (values > third + reach)]
    means = [(name, float(np.mean(found))) for name, found in patients.items() if len(found)]
    digits = max(0, 2 - math.floor(math.log10(max(abs(values).max(), 1e-12))))
    words = (
        f"median {_signed(median, digits)}, quartiles {_signed(first, digits)} and "
        f"{_signed(third, digits)}, all from {_signed(float(values[0]), digits)} to "
        f"{_signed(float(values[-1]), digits)}, {values.size} values"
    )
    dots = [
        (place(mean), 50.0 + (0, -14, 14, -7, 7)[index % 5], f"{name}: {_signed(mean, digits)}")
        for index, (name, mean) in enumerate(means[:_MOST_DOTS])
    ]
    return Box(
        method,
        place(float(inside.min())),
        place(first),
        place(median),
        place(third),
        place(float(inside.max())),
        tuple(place(float(value)) for value in beyond[:_MOST_DOTS]),
        tuple(dots),
        words,
    )


def _powers(bottom: float, top: float) -> list[Tick]:
    digits = (1,) if top - bottom > 1.5 else (1, 2, 5)
    ticks = []
    for power in range(math.floor(bottom), math.ceil(top) + 1):
        for digit in digits:
            height = power + math.log10(digit)
            if bottom <= height <= top:
                place = _rounded(100 * (top - height) / (top - bottom))
                ticks.append(Tick(place, _short(digit * 10.0**power)))
    return ticks


def _path(across: NDArray[np.float64], up: NDArray[np.float64]) -> str:
    points = (f"{1000 * x:.1f} {1000 * (1 - y):.1f}" for x, y in zip(across, up, strict=True))
    return "M" + "L".join(points)


def _short(value: float) -> str:
    return f"{value:,.0f}" if 1 <= value < 1e6 else f"{value:.3g}"


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    return "0" if float(text) == 0 else text.replace("-", "\u2212")


def _digits(values: Sequence[float]) -> int:
    steps = [abs(b - a) for a, b in itertools.pairwise(values)] or [1.0]
    return max(0, -math.floor(math.log10(min(steps)) + 1e-9))


def _rounded(value: float) -> float:
    return round(value, 2)
