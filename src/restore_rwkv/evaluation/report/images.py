"""Slices as the HTML report holds them: values of 16 bit for its script, and small pictures.

A page keeps each slice once, as whole numbers, so that the browser can apply any window and show
values. Between the ends of windows, the step from one number to the next is at most a 200th of each
window that reaches there (an 80th of windows narrower than the first), which is near the smallest
difference of grey that an eye sees; the largest error is half a step. On CT that is 1 HU in brain,
2 HU in soft tissue, and 5 HU in lung, air and bone. The numbers are predicted from their neighbours
and from the slice before, as methods leave much the same noise, and what remains is compressed by
zlib; `viewer.js` undoes it.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from restore_rwkv.evaluation.study.results import Panel

TRUTH = "truth"
DIFFERENCE = "difference"

_MISSING = 65535  # code of a pixel without a finite value
_LEVELS = 200  # of the first window and of wider ones, at least
_LEVELS_OF_NARROWER = 80
_MIDDLE = 32768  # stands for no difference from the slice before
_EFFORT = 6  # of zlib; 9 takes three times as long for 2 % less
_SAFE = bytes.maketrans(b"<", b",")  # base85 has no comma, and pages read "<!--" as a mark
_PICTURE = 288  # pixels along the longer side of a small picture
_QUALITY = 82  # of its JPEG
_QUANTILE = 0.995  # of the difference, at the end of its colour scale
COLD, WARM = np.array([64, 160, 255]), np.array([255, 140, 26])
"""Red, green and blue of the ends of differences below 0 and above."""

Codes = NDArray[np.uint16]


@dataclass(frozen=True)
class StoredSlices:
    """Slices of one panel as text for a page.

    Attributes:
        texts: each slice as text: the truth, then one for each method in the panel's order.
        scale: first value, step and count of codes, for each range of values with one step.
    """

    texts: tuple[str, ...]
    scale: tuple[tuple[float, float, int], ...]

    @property
    def values(self) -> NDArray[np.float64]:
        """Value of each code; half of the largest step is the largest error."""
        return np.concatenate(
            [first + step * np.arange(count) for first, step, count in self.scale]
        )


def store_slices(panel: Panel) -> StoredSlices:
    """Return the slices of a panel in the form that the script of the report reads."""
    return store([panel.truth, *panel.images.values()], list(panel.windows.values()))


def store(
    slices: Sequence[NDArray[np.float32]], windows: Sequence[tuple[float, float]]
) -> StoredSlices:
    """Return similar slices (H, W) of one grid in the form that `viewer.js` reads.

    Args:
        slices: each is predicted from the one before.
        windows: what black and white stand for; the first is the most important.
    """
    stored = StoredSlices((), _scale(slices, windows))
    codes = [_codes(image, stored.values) for image in slices]
    before = [None, *codes[:-1]]
    texts = (text_of(encode(*pair)) for pair in zip(codes, before, strict=True))
    return StoredSlices(tuple(texts), stored.scale)


def encode(codes: Codes, before: Codes | None = None) -> bytes:
    """Return numbers (H, W) of 16 bit in few bytes.

    The first byte is the predictor: 0 for none, 1 the left neighbour, 2 the mean of the left and
    upper ones, rounded down, 3 the gradient (left plus upper minus upper left). Neighbours beyond
    the border are 0. From 4 on, they are predictors of the difference from the slice before plus
    32768, which is also what lies beyond the border. The rest is zlib: what remains modulo 65536,
    with the sign in the lowest bit, first all lower bytes and then all upper ones.
    """
    tried = _tried(codes, 0, 0)
    if before is not None:
        apart = (codes.astype(np.int64) - before + _MIDDLE).astype(np.uint16)
        tried += _tried(apart, 4, _MIDDLE)
    kind, data = min(tried, key=lambda item: _bits(item[1]))
    return bytes([kind]) + zlib.compress(data.tobytes(), _EFFORT)


def text_of(data: bytes) -> str:
    """Return bytes as text that a page can hold: base85 of RFC 1924, with a comma for "<"."""
    return base64.b85encode(data).translate(_SAFE).decode("ascii")


def _tried(codes: Codes, first: int, border: int) -> list[tuple[int, NDArray[np.uint8]]]:
    """Return what remains of codes by each predictor, with its number."""
    wide = np.pad(codes.astype(np.int64), ((1, 0), (1, 0)), constant_values=border)
    left, upper, corner = wide[1:, :-1], wide[:-1, 1:], wide[:-1, :-1]
    predictions = (np.full_like(left, border), left, (left + upper) // 2, left + upper - corner)
    return [
        (kind, _remainder(codes, predicted)) for kind, predicted in enumerate(predictions, first)
    ]


def _bits(data: NDArray[np.uint8]) -> float:
    """Return about how many bits bytes take when compressed: the entropy of each half."""
    bits = 0.0
    for half in np.array_split(data, 2):
        counts = np.bincount(half, minlength=256)
        shares = counts[counts > 0] / half.size
        bits -= half.size * float(np.sum(shares * np.log2(shares)))
    return bits


def difference_limit(panel: Panel) -> float:
    """Return the end of the colour scale of differences from the truth."""
    differences = [image - panel.truth for image in panel.images.values()]
    return limit_of(differences, list(panel.windows.values()))


def limit_of(
    differences: Sequence[NDArray[np.float32]], windows: Sequence[tuple[float, float]]
) -> float:
    """Return the end of a colour scale of differences: 1, 2 or 5 times a power of ten.

    Args:
        differences: slices (H, W); values that are not finite are left out.
        windows: of the images; the end is at least a hundredth of the narrowest.
    """
    errors = [np.abs(difference) for difference in differences]
    found = [error[np.isfinite(error)] for error in errors]
    largest = max((float(np.quantile(e, _QUANTILE)) for e in found if e.size), default=0.0)
    narrow = min((abs(high - low) for low, high in windows), default=1.0)
    wanted = max(largest, narrow / 100, 1e-9)
    power = 10.0 ** math.floor(math.log10(wanted))
    nearest = min((1, 2, 5, 10), key=lambda step: abs(math.log(step * power / wanted)))
    return float(f"{nearest * power:.1g}")


def picture(panel: Panel, name: str) -> str:
    """Return a small JPEG picture in base64 of a method, or of `TRUTH`, in the first window."""
    image = panel.truth if name == TRUTH else panel.images[name]
    return jpeg(grey(image, _first_window(panel)), panel.pixel_mm)


def pictures(panel: Panel) -> dict[str, str]:
    """Return small JPEG pictures in base64 of a panel in its first window.

    Returns:
        By name: "input" or what is first, the first restored slice, `TRUTH`, and `DIFFERENCE`, that
        slice minus the truth in colours.
    """
    names = list(panel.images)[:2]
    window = _first_window(panel)
    shown = {name: grey(panel.images[name], window) for name in names}
    shown[TRUTH] = grey(panel.truth, window)
    shown[DIFFERENCE] = coloured(panel.images[names[-1]] - panel.truth, difference_limit(panel))
    return {name: jpeg(image, panel.pixel_mm) for name, image in shown.items()}


def grey(image: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Return a slice (H, W) in greys (H, W, 3) between what is black and what is white."""
    black, white = window
    shades = np.clip((np.nan_to_num(image) - black) / ((white - black) or 1e-9), 0, 1)
    return np.repeat((shades * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)


def coloured(difference: NDArray[np.float32], limit: float) -> NDArray[np.uint8]:
    """Return a difference (H, W) in colours (H, W, 3): blue below 0, black at 0, orange above."""
    share = np.clip(np.nan_to_num(difference) / limit, -1, 1)[..., None]
    return np.asarray(np.where(share < 0, -share * COLD, share * WARM) + 0.5).astype(np.uint8)


def jpeg(
    image: NDArray[np.uint8], pixel_mm: tuple[float, float] | None, longer: int = _PICTURE
) -> str:
    """Return colours (H, W, 3) as a JPEG picture in base64.

    Args:
        image: the colours.
        pixel_mm: distance of rows and columns; None if unknown.
        longer: pixels along the longer side of the picture.
    """
    from PIL import Image

    down, across = pixel_mm or (1.0, 1.0)
    height, width = image.shape[0] * down, image.shape[1] * across
    scale = longer / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    data = io.BytesIO()
    resized = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    resized.save(data, format="jpeg", quality=_QUALITY, optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")


def _first_window(panel: Panel) -> tuple[float, float]:
    return next(iter(panel.windows.values()))


def _scale(
    slices: Sequence[NDArray[np.float32]], windows: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float, int], ...]:
    """Return the ranges of `StoredSlices` for windows, the first of which is the most important."""
    finite = [image[np.isfinite(image)] for image in slices]
    low = min((float(values.min()) for values in finite if values.size), default=0.0)
    high = max((float(values.max()) for values in finite if values.size), default=0.0)
    ordered = [(min(window), max(window)) for window in windows]
    windows = [w for w in ordered if w[1] > w[0]] or [(low, max(high, low + 1.0))]
    steps = {}
    for black, white in windows:
        narrower = white - black < windows[0][1] - windows[0][0]
        levels = _LEVELS_OF_NARROWER if narrower else _LEVELS
        steps[black, white] = _round_down((white - black) / levels)
    coarsest = max(steps.values())
    low, high = math.floor(low / coarsest) * coarsest, high + coarsest
    inside = {end for window in windows for end in window if low < end < high}
    ends = sorted({low, high, *inside})
    ranges = []
    for first, last in itertools.pairwise(ends):
        found = [step for (a, b), step in steps.items() if a < last and b > first]
        ranges.append((first, last, min(found, default=coarsest)))
    if sum((b - a) / step + 1 for a, b, step in ranges) >= _MISSING:  # far beyond every window
        step = (high - low) / (_MISSING - 1)
        return ((low, step, _MISSING - 1),)
    return tuple((a, step, max(1, math.ceil((b - a) / step - 1e-6))) for a, b, step in ranges)


def _round_down(value: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(
        step
        for step in (float(f"{digit * power / 10:.1g}") for digit in (5, 10, 20, 50, 100))
        if step <= value * (1 + 1e-9)
    )


def _codes(image: NDArray[np.float32], values: NDArray[np.float64]) -> Codes:
    """Return the codes whose values are the nearest."""
    codes = np.searchsorted((values[1:] + values[:-1]) / 2, image)
    return np.where(np.isfinite(image), codes, _MISSING).astype(np.uint16)


def _remainder(codes: Codes, predicted: NDArray[np.int64]) -> NDArray[np.uint8]:
    signed = (codes.astype(np.int64) - predicted).astype(np.uint16).view(np.int16).astype(np.int32)
    folded = ((signed << 1) ^ (signed >> 15)).astype(np.uint16)
    return np.concatenate([folded.ravel() & 255, folded.ravel() >> 8]).astype(np.uint8)
