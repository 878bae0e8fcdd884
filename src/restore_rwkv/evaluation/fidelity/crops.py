"""Small pictures of a report: what surrounds each place, and each map on one slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from restore_rwkv.evaluation.fidelity.display import overlaid
from restore_rwkv.evaluation.report.images import coloured, grey, jpeg

if TYPE_CHECKING:
    from restore_rwkv.evaluation.fidelity.display import Display, Image
    from restore_rwkv.evaluation.fidelity.results import Fidelity, FidelityMap, Place

_RING = 1.6  # radii of the detector: so that the ring does not cover what it shows
_FIELD_MM = 70.0  # side of a crop
_FEWEST = 24  # rows and columns of a crop, at least
_FINE = 220  # rows or columns of a crop of which lines are thin, about
_LOCATOR = 200  # pixels along the longer side


@dataclass(frozen=True)
class Picture:
    """A picture with the place of its marks.

    Attributes:
        title: its name in sentences.
        data: JPEG in base64.
        wide, high: sides of what it shows, in mm, or in pixels without geometry.
        marks: centre (x, y) and radius of a ring, or left, top and sides of a box, in the same.
    """

    title: str
    data: str
    wide: float
    high: float
    marks: tuple[float, ...] = ()


@dataclass(frozen=True)
class PlacePictures:
    """Pictures of a place.

    Attributes:
        locator: the whole slice with a box around what the crops show.
        crops: before, restored, their difference, and the detector's map.
        window: name of the window that they are shown at.
    """

    locator: Picture
    crops: tuple[Picture, ...]
    window: str


def pictures_of(place: Place, display: Display, detector: FidelityMap | None) -> PlacePictures:
    """Return pictures of a place, at the window that shows its values."""
    pair = display.pair
    name = display.window_for(place.before, place.after)
    window = display.windows[name]
    before, after = (display.shown(volume, place.slice) for volume in (pair.before, pair.after))
    rows, columns = _field(display, place, after.shape)
    down, across = display.spacing
    before, after, whole = before[rows, columns], after[rows, columns], after
    parts = {
        "before": grey(before, window),
        "restored": grey(after, window),
        "restored \u2212 before": coloured(after - before, display.limit),
    }
    if detector is not None:
        values = display.shown(detector.volume, place.slice)[rows, columns]
        parts[detector.title] = overlaid(*_finer(after, values), window=window, of=detector)
    row, column = display.place(place)
    ring = (
        (column + 0.5 - columns.start) * across,
        (row + 0.5 - rows.start) * down,
        ring_radius(place),
    )
    sides = ((columns.stop - columns.start) * across, (rows.stop - rows.start) * down)
    crops = tuple(
        Picture(title, jpeg(part, display.pixel_mm), *sides, ring) for title, part in parts.items()
    )
    locator = Picture(
        "where in the slice",
        jpeg(grey(whole, window), display.pixel_mm, _LOCATOR),
        whole.shape[1] * across,
        whole.shape[0] * down,
        (columns.start * across, rows.start * down, *sides),
    )
    return PlacePictures(locator, crops, name)


def ring_radius(place: Place) -> float:
    """Radius of the ring around a place, a little wider than the detector, in its unit."""
    return _RING * place.radius_mm


def map_picture(shown: FidelityMap, fidelity: Fidelity, display: Display) -> tuple[int, Picture]:
    """Return a slice and its picture with a map over it: that of the first place, or the middle."""
    places = fidelity.places
    index = places[0].slice if places else display.count // 2
    image = display.shown(display.pair.after, index)
    window = next(iter(display.windows.values()))
    values = display.shown(shown.volume, index)
    colours = overlaid(*_finer(image, values), window=window, of=shown)
    down, across = display.spacing
    data = jpeg(colours, display.pixel_mm)
    return index, Picture(shown.title, data, image.shape[1] * across, image.shape[0] * down)


def _finer(*images: Image) -> tuple[Image, ...]:
    """Return crops with more pixels, so that the line around what is beyond a threshold is thin."""
    from scipy.ndimage import zoom

    times = max(1, round(_FINE / max(images[0].shape)))
    return tuple(zoom(image, times, order=1, mode="nearest", grid_mode=True) for image in images)


def _field(display: Display, place: Place, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of a slice around a place, moved inwards at its borders."""
    found = []
    for at, size, spacing in zip(display.place(place), shape, display.spacing, strict=True):
        mm = display.pixel_mm is not None
        length = min(size, max(_FEWEST, round(_FIELD_MM / spacing) if mm else 2 * _FEWEST))
        start = min(max(0, at - length // 2), size - length)
        found.append(slice(start, start + length))
    return found[0], found[1]
