"""Which slices the page of a report keeps in full, and how its viewer is told about them."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from restore_rwkv.evaluation.fidelity.crops import ring_radius
from restore_rwkv.evaluation.fidelity.display import limit_of_map
from restore_rwkv.evaluation.report.images import StoredSlices, store
from restore_rwkv.io.html import plain

if TYPE_CHECKING:
    from restore_rwkv.evaluation.fidelity.display import Display
    from restore_rwkv.evaluation.fidelity.results import Fidelity

_BUDGET = 5_200_000  # characters of all slices, so that a page has at most about 6 MB
_MOST = 24  # slices


@dataclass(frozen=True)
class KeptSlice:
    """A slice that the page keeps.

    Attributes:
        index: across the axis of the pair.
        images: before and restored.
        maps: of the report, in its order.
    """

    index: int
    images: StoredSlices
    maps: tuple[StoredSlices, ...]

    @property
    def text(self) -> str:
        """All of it, as `viewer.js` reads it."""
        return " ".join([*self.images.texts, *(text for each in self.maps for text in each.texts)])


def kept_slices(fidelity: Fidelity, display: Display) -> list[KeptSlice]:
    """Return the slices of the places, and those between them for as long as they have room.

    Returns:
        At least one slice, by rising index.
    """
    wanted = list(dict.fromkeys(place.slice for place in fidelity.places))
    kept: dict[int, KeptSlice] = {}
    used = 0
    while len(kept) < min(_MOST, display.count):
        index = wanted.pop(0) if wanted else _farthest(kept, display.count)
        stored = _stored(fidelity, display, index)
        used += len(stored.text)
        if kept and used > _BUDGET:
            break
        kept[index] = stored
    return [kept[index] for index in sorted(kept)]


def _farthest(kept: Collection[int], count: int) -> int:
    """Return the slice in the middle of the widest gap between others; the ends count as such."""
    ends = [-1, *sorted(kept), count]
    start, stop = max(itertools.pairwise(ends), key=lambda pair: pair[1] - pair[0])
    return (start + stop) // 2


def viewer_data(fidelity: Fidelity, display: Display, kept: list[KeptSlice]) -> dict[str, Any]:
    """Return what the scripts of the page know: JSON values."""
    return {
        "radius": ring_radius(fidelity.places[0]) if fidelity.places else 0,
        "maps": [
            {
                "title": plain(shown.title),
                "unit": plain(shown.unit),
                "limit": limit_of_map(shown),
                "threshold": shown.threshold,
                "signed": shown.signed,
            }
            for shown in fidelity.maps
        ],
        "places": [
            {
                "at": display.place(place),
                "window": display.windows[display.window_for(place.before, place.after)],
                "says": plain(place.says),
            }
            for place in fidelity.places
        ],
        "panels": [_panel(fidelity, display, each) for each in kept],
    }


def reason(fidelity: Fidelity, index: int) -> str:
    """Return why a slice is kept, such as "Places 1 and 3 are in this slice."."""
    found = [str(n) for n, place in enumerate(fidelity.places, 1) if place.slice == index]
    if not found:
        return "No place is in this slice."
    if len(found) == 1:
        return f"Place {found[0]}: {fidelity.places[int(found[0]) - 1].says}"
    return f"Places {', '.join(found[:-1])} and {found[-1]} are in this slice."


def _panel(fidelity: Fidelity, display: Display, each: KeptSlice) -> dict[str, Any]:
    pair = fidelity.pair
    return {
        "task": pair.task.name,
        "scan": plain(pair.after.name),
        "slice": each.index,
        "why": plain(reason(fidelity, each.index)),
        "unit": pair.task.unit,
        "mm": display.pixel_mm,
        "shape": _shape(display),
        "names": ["restored"],
        "scale": each.images.scale,
        "mapScales": [stored.scale for stored in each.maps],
        "windows": [[plain(name), *ends] for name, ends in display.windows.items()],
        "limit": display.limit,
        "rings": [
            [number, *display.place(place)]
            for number, place in enumerate(fidelity.places, 1)
            if place.slice == each.index
        ],
    }


def _shape(display: Display) -> tuple[int, int]:
    height, width = display.pair.after.slices(display.pair.axis).shape[1:]
    return (width, height) if display.view.swapped else (height, width)


def _stored(fidelity: Fidelity, display: Display, index: int) -> KeptSlice:
    pair = fidelity.pair
    images = [display.shown(volume, index) for volume in (pair.before, pair.after)]
    maps = []
    for each in fidelity.maps:
        limit = limit_of_map(each)
        window = (-limit if each.signed else 0.0, limit)
        maps.append(store([display.shown(each.volume, index)], [window]))
    return KeptSlice(index, store(images, list(display.windows.values())), tuple(maps))
