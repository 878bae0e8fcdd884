"""A small picture of a restored scan: one slice before, after, and their difference, as a PNG."""

from __future__ import annotations

import logging
import math
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.io.views import View, view_of
from restore_rwkv.tasks import task_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.io import Volume

_logger = logging.getLogger(__name__)
_SIDE = 160  # pixels, the longer side of a panel
_GAP = 4  # pixels between panels
_BYTES_PER_PIXEL = 60_000 / _SIDE**2  # at most, of a square panel
_CANDIDATES = 32  # slices that are looked at
_SAMPLES = 64  # rows and columns of a slice that are looked at
_DARKEST, _BRIGHTEST = 0.01, 0.995  # quantiles shown as black and white where no window is known
_LARGEST = 0.97  # quantile of the differences at the end of their scale
_LEAST = 0.01  # of the window, the end of that scale where hardly anything has changed
_LOWER = (64, 160, 255)  # colour of the largest decrease; black is no change
_HIGHER = (255, 144, 32)


def thumbnail(
    before: Volume,
    after: Volume,
    axis: int,
    modality: str | None = None,
    *,
    index: int | None = None,
    side: int = _SIDE,
) -> bytes:
    """Return one slice of a scan before and after restoration, and their difference, as a PNG.

    The three panels stand side by side, each at most `side` pixels long, in the proportions of the
    scan. With an affine, slices are shown as radiologists expect them: anterior or superior up, the
    right of the patient on the left; sagittal ones look to the left. Without one, they are image
    matrices. Both images have one window: for CT that of the task; for PET from 0 (white) to nearly
    the largest value of the slice before (black); otherwise nearly all of its values. In the
    difference blue is lower, black the same, and orange higher. The PNG holds no name; what it says
    of itself is returned by `thumbnail_texts`.

    Args:
        before: what was restored; of a 4-D image one volume.
        after: the result, on the same grid or on another one over the same field of view.
        axis: array axis across the slices.
        modality: DICOM's code, where the volumes do not say it.
        index: slice of `before` that is shown; None for the one with most signal near the middle.
        side: pixels along the longer side of a panel. The file has less than 60 kB at 160 pixels,
            and in proportion to their square at others.
    """
    modality = after.modality or before.modality or modality
    index = _telling_slice(before, axis) if index is None else index
    count = before.data.shape[axis]
    place = (index + 0.5) * after.data.shape[axis] / count
    view = view_of(before, axis)
    old, new = before.slices(axis)[index], after.slices(axis)[int(place)]
    size = _size(view, side)
    panels = [_resized(view.laid_out(image), size) for image in (old, new)]
    difference = panels[1] - panels[0]
    low, high = display_window(old, modality)
    limit = _limit(difference, high - low)
    unit = after.unit or before.unit or (task_of("CT").unit if modality == "CT" else "")
    texts = {
        "slice": f"{view.plane} slice {index + 1} of {count}".strip(),
        "window": f"{_rounded(low)} to {_rounded(high)} {unit}".strip(),
        "difference": f"\u00b1{limit:g} {unit}".strip(),
    }
    shades = [(panel - low) / (high - low) for panel in panels]
    if modality == "PT":
        shades = [1 - shade for shade in shades]
    most_bytes = _BYTES_PER_PIXEL * side**2
    return _encoded(shades, (difference / limit + 1) / 2, texts, most_bytes)


def thumbnail_or_none(
    before: Volume,
    after: Volume,
    axis: int | None,
    modality: str | None = None,
    *,
    index: int | None = None,
    side: int = _SIDE,
) -> bytes | None:
    """Return a thumbnail; None where it cannot be made, which is no fault of the result."""
    if axis is None:
        return None
    try:
        return thumbnail(before, after, axis, modality, index=index, side=side)
    except Exception:
        _logger.info("%s: has no picture", before.name, exc_info=True)
        return None


def thumbnail_texts(png: bytes) -> dict[str, str]:
    """Return what a thumbnail says of itself.

    Args:
        png: as `thumbnail` returns it.

    Returns:
        "slice", such as "axial slice 5 of 20"; "window", such as "-160 to 240 HU"; and
        "difference", the ends of its scale, such as "±40 HU". Empty for other bytes.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(png), formats=["PNG"]) as image:
            found = dict(image.info)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return {}
    names = ("slice", "window", "difference")
    return {name: found[name] for name in names if isinstance(found.get(name), str)}


def display_window(image: NDArray[np.float32], modality: str | None) -> tuple[float, float]:
    """Return the lowest and the highest value that are told apart when an image is looked at.

    Args:
        image: values of any shape.
        modality: DICOM's code. CT has the window of its task for soft tissue; PET begins at 0; the
            rest is nearly all values of the image.
    """
    if modality == "CT":
        return task_of("CT").metric_range  # the clinical window for soft tissue
    low, high = (float(value) for value in np.quantile(image, (_DARKEST, _BRIGHTEST)))
    low = 0.0 if modality == "PT" else low
    if high <= low:  # hardly anything is above the air
        high = float(image.max())
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))


def _telling_slice(volume: Volume, axis: int) -> int:
    """Index of the slice with most signal, where those near the middle count twice."""
    slices = volume.slices(axis)
    count, height, width = slices.shape
    indices = np.unique(np.linspace(0, count - 1, min(count, _CANDIDATES)).round().astype(int))
    sampled = slices[indices, :: -(-height // _SAMPLES), :: -(-width // _SAMPLES)]
    # Neither air of -1000 HU nor a few bright voxels count.
    low, high = np.quantile(sampled, (0.05, 0.99))
    signal = np.clip(sampled - low, 0, high - low).mean(axis=(1, 2), dtype=np.float64)
    middle = (count - 1) / 2
    nearness = 1 - 0.5 * np.abs(indices - middle) / max(middle, 1)
    return int(indices[int(np.argmax(signal * nearness))]) if signal.any() else count // 2


def _size(view: View, longer: int) -> tuple[int, int]:
    """Width and height of a panel in pixels."""
    height, width = (max(1, round(longer * side / max(view.sides))) for side in view.sides)
    return width, height


def _resized(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
    """Image (H, W) with another width and height; no values beyond those of the image."""
    from PIL import Image

    whole = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.asarray(whole.resize(size, Image.Resampling.HAMMING), dtype=np.float64)


def _limit(difference: NDArray[np.float64], width: float) -> float:
    """End of the scale of differences: 1, 2 or 5 times a power of ten."""
    wanted = max(float(np.quantile(np.abs(difference), _LARGEST)), _LEAST * width)
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= wanted * 0.999)


def _rounded(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def _steps(shades: NDArray[np.float64], levels: int) -> NDArray[np.uint8]:
    """Shades from 0 to 1 as whole numbers from 0 up to `levels - 1`."""
    return (np.clip(shades, 0, 1) * (levels - 1) + 0.5).astype(np.uint8)


def _encoded(
    greys: list[NDArray[np.float64]],
    difference: NDArray[np.float64],
    texts: dict[str, str],
    most_bytes: float,
) -> bytes:
    """PNG of panels of shades from 0 to 1, with as many of them as the size allows."""
    for levels in (127, 63, 31):  # the last ones fit always, for mere noise too
        panels = [_steps(shade, levels) for shade in (*greys, difference)]
        panels[-1] += np.uint8(levels)
        encoded = _png(panels, levels, texts)
        if len(encoded) < most_bytes:
            break
    return encoded


def _png(panels: list[NDArray[np.uint8]], levels: int, texts: dict[str, str]) -> bytes:
    """PNG of panels of palette indices; the gaps between them are transparent."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    clear = 2 * levels
    gap = np.full((panels[0].shape[0], _GAP), clear, np.uint8)
    image = Image.fromarray(np.hstack([panels[0], gap, panels[1], gap, panels[2]]))
    image.putpalette(_palette(levels))
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    stream = BytesIO()
    image.save(stream, "PNG", pnginfo=info, transparency=clear, compress_level=9)
    return stream.getvalue()


def _palette(levels: int) -> list[int]:
    """Red, green and blue of the grey levels, of as many for differences, and of the gap."""
    greys = np.linspace(0, 255, levels)[:, None].repeat(3, axis=1)
    steps = np.linspace(-1, 1, levels)[:, None]
    differences = np.abs(steps) * np.where(steps < 0, _LOWER, _HIGHER)
    colours = np.vstack([greys, differences, np.zeros((1, 3))]).round().astype(int)
    return [int(value) for value in colours.ravel()]
