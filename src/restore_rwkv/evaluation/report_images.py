"""Slices as the HTML report holds them: values of 16 bit for its script, and small pictures.

A page keeps each slice once, as whole numbers `code` with `value = offset + step * code`, so that
the browser can apply any window and show values. The step is at most a 200th of the first window
and an 80th of the narrowest one, which is near the smallest difference of grey that an eye sees;
the largest error is half a step. The numbers are predicted from their neighbours, and what remains
is compressed by zlib; `report_viewer.js` undoes it.
"""

from __future__ import annotations

import base64
import io
import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from restore_rwkv.evaluation.study import Panel

TRUTH = "truth"
DIFFERENCE = "difference"

_MISSING = 65535  # code of a pixel without a finite value
_LEVELS = 200  # of the first window, at least
_LEVELS_OF_NARROWEST = 80
_PICTURE = 288  # pixels along the longer side of a small picture
_QUALITY = 82  # of its JPEG
_QUANTILE = 0.995  # of the difference, at the end of its colour scale
_COLD, _WARM = np.array([64, 160, 255]), np.array([255, 140, 26])

Codes = NDArray[np.uint16]


@dataclass(frozen=True)
class StoredSlices:
    """Slices of one panel as text for a page.

    Attributes:
        texts: base64 of each slice: the truth, then one for each method in the panel's order.
        offset: value of code 0.
        step: difference of values between codes; half of it is the largest error.
    """

    texts: tuple[str, ...]
    offset: float
    step: float


def store_slices(panel: Panel) -> StoredSlices:
    """Return the slices of a panel in the form that the script of the report reads."""
    slices = [panel.truth, *panel.images.values()]
    offset, step = _scale(slices, [high - low for low, high in panel.windows.values()])
    texts = tuple(_text(encode(_codes(image, offset, step))) for image in slices)
    return StoredSlices(texts, offset, step)


def encode(codes: Codes) -> bytes:
    """Return numbers (H, W) of 16 bit in few bytes.

    The first byte is the predictor: 0 for none, 1 the left neighbour, 2 the mean of the left and
    upper ones, rounded down, 3 the gradient (left plus upper minus upper left). Neighbours beyond
    the border are 0. The rest is zlib: what remains modulo 65536, with the sign in the lowest bit,
    first all lower bytes and then all upper ones.
    """
    wide = np.pad(codes.astype(np.int64), ((1, 0), (1, 0)))
    left, upper, corner = wide[1:, :-1], wide[:-1, 1:], wide[:-1, :-1]
    predictions = (np.zeros_like(left), left, (left + upper) // 2, left + upper - corner)
    tried = (
        bytes([kind]) + zlib.compress(_remainder(codes, predicted), 9)
        for kind, predicted in enumerate(predictions)
    )
    return min(tried, key=len)


def difference_limit(panel: Panel) -> float:
    """Return the end of the colour scale of differences: 1, 2 or 5 times a power of ten."""
    errors = [np.abs(image - panel.truth) for image in panel.images.values()]
    found = [error[np.isfinite(error)] for error in errors]
    largest = max((float(np.quantile(e, _QUANTILE)) for e in found if e.size), default=0.0)
    narrow = min((high - low for low, high in panel.windows.values()), default=1.0)
    wanted = max(largest, narrow / 100, 1e-9)
    power = 10.0 ** math.floor(math.log10(wanted))
    nearest = min((1, 2, 5, 10), key=lambda step: abs(math.log(step * power / wanted)))
    return float(f"{nearest * power:.1g}")


def pictures(panel: Panel) -> dict[str, str]:
    """Return small JPEG pictures in base64 of a panel in its first window.

    Returns:
        By name: "input" or what is first, the first restored slice, `TRUTH`, and `DIFFERENCE`, that
        slice minus the truth in colours.
    """
    names = list(panel.images)[:2]
    shown = {name: _grey(panel.images[name], panel) for name in names}
    shown[TRUTH] = _grey(panel.truth, panel)
    shown[DIFFERENCE] = _coloured(panel.images[names[-1]] - panel.truth, difference_limit(panel))
    return {name: _jpeg(image, panel.pixel_mm) for name, image in shown.items()}


def _scale(slices: list[NDArray[np.float32]], widths: list[float]) -> tuple[float, float]:
    """Return the value of code 0 and the step, for windows of these widths."""
    finite = [image[np.isfinite(image)] for image in slices]
    low = min((float(values.min()) for values in finite if values.size), default=0.0)
    high = max((float(values.max()) for values in finite if values.size), default=0.0)
    least = (high - low) / (_MISSING - 2)
    widths = [width for width in widths if width > 0] or [max(high - low, 1.0)]
    wanted = min(widths[0] / _LEVELS, min(widths) / _LEVELS_OF_NARROWEST)
    if least > wanted:  # values far beyond every window
        return low, least
    step = _round_down(wanted)
    step = step if step >= least else wanted
    return math.floor(low / step) * step, step


def _round_down(value: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(
        step
        for step in (float(f"{digit * power / 10:.1g}") for digit in (5, 10, 20, 50, 100))
        if step <= value * (1 + 1e-9)
    )


def _codes(image: NDArray[np.float32], offset: float, step: float) -> Codes:
    with np.errstate(invalid="ignore"):
        codes = np.rint((image.astype(np.float64) - offset) / step)
    return np.where(np.isfinite(codes), codes, _MISSING).astype(np.uint16)


def _remainder(codes: Codes, predicted: NDArray[np.int64]) -> bytes:
    signed = (codes.astype(np.int64) - predicted).astype(np.uint16).view(np.int16).astype(np.int32)
    folded = ((signed << 1) ^ (signed >> 15)).astype(np.uint16)
    return (folded & 255).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()


def _grey(image: NDArray[np.float32], panel: Panel) -> NDArray[np.uint8]:
    black, white = next(iter(panel.windows.values()))
    shades = np.clip((np.nan_to_num(image) - black) / max(white - black, 1e-9), 0, 1)
    return np.repeat((shades * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)


def _coloured(difference: NDArray[np.float32], limit: float) -> NDArray[np.uint8]:
    share = np.clip(np.nan_to_num(difference) / limit, -1, 1)[..., None]
    return np.asarray(np.where(share < 0, -share * _COLD, share * _WARM) + 0.5).astype(np.uint8)


def _jpeg(image: NDArray[np.uint8], pixel_mm: tuple[float, float] | None) -> str:
    from PIL import Image

    down, across = pixel_mm or (1.0, 1.0)
    height, width = image.shape[0] * down, image.shape[1] * across
    scale = _PICTURE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    data = io.BytesIO()
    resized = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    resized.save(data, format="jpeg", quality=_QUALITY, optimize=True)
    return _text(data.getvalue())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
