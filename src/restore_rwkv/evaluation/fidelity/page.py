"""The report of a restored image: one page of HTML that needs nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_rwkv.evaluation.fidelity import words
from restore_rwkv.evaluation.fidelity.crops import map_picture, pictures_of
from restore_rwkv.evaluation.fidelity.display import display_of, limit_of_map
from restore_rwkv.evaluation.fidelity.slices import kept_slices, viewer_data
from restore_rwkv.evaluation.report.tables import provenance_rows
from restore_rwkv.evaluation.report.viewer import (
    BASICS,
    CONTROLS,
    STYLE,
    VIEWER,
    controls,
    packed,
    texts,
)
from restore_rwkv.evaluation.report.words import number
from restore_rwkv.io import atomic_file
from restore_rwkv.io.html import page_template
from restore_rwkv.io.record import program_version
from restore_rwkv.tasks import NOTICE

if TYPE_CHECKING:
    from restore_rwkv.evaluation.fidelity.display import Display
    from restore_rwkv.evaluation.fidelity.results import Fidelity, FidelityMap, Place
    from restore_rwkv.evaluation.fidelity.slices import KeptSlice

_PACKAGE = "restore_rwkv.evaluation.fidelity"


def write_fidelity_page(fidelity: Fidelity, path: Path) -> None:
    """Write the report of a restored image as one page of HTML.

    The page loads nothing. Its verdict, places, figures and maps are there without its script,
    which shows slices at any window, zoomed, side by side or with a swipe, with each map over
    them. The page has at most about 6 MB and keeps so many slices as fit, those of the places
    first. Equal reports give equal bytes.

    Args:
        fidelity: what is reported.
        path: file to write; its folder must exist. An existing file is replaced in one step.

    Raises:
        OSError: the file cannot be written.
    """
    html = page_template(_PACKAGE, "page.html").render(_values(fidelity))
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8", newline="\n")


def _values(fidelity: Fidelity) -> dict[str, Any]:
    """What the template says."""
    display = display_of(fidelity.pair)
    kept = kept_slices(fidelity, display)
    indices = [each.index for each in kept]
    return {
        "fidelity": fidelity,
        "pair": fidelity.pair,
        "headline": words.HEADLINES[fidelity.support],
        "marks": words.MARKS,
        "weights": words.weights_of(fidelity.pair.provenance),
        "places": [_place(fidelity, display, place, indices) for place in fidelity.places],
        "figures": [(each, words.value_of(each.value, each.unit)) for each in fidelity.figures],
        "maps": [_map(fidelity, display, each) for each in fidelity.maps],
        "shown": _shown(kept, display),
        "layout": words.layout(display),
        "difference": f"\u00b1{words.value_of(display.limit, fidelity.pair.task.unit)}",
        "viewer": controls([_name(fidelity, index) for index in indices], "Map"),
        "slices": [each.text for each in kept],
        "data": packed(viewer_data(fidelity, display, kept)),
        "unseen": words.unseen(fidelity),
        "facts": words.facts(fidelity),
        "provenance": provenance_rows(fidelity.pair.provenance),
        "notice": NOTICE,
        "software": program_version(),
        "style": texts(STYLE) + texts("page.css", package=_PACKAGE),
        "script": texts(BASICS, VIEWER, CONTROLS) + texts("page.js", package=_PACKAGE),
    }


def _place(
    fidelity: Fidelity, display: Display, place: Place, indices: list[int]
) -> dict[str, Any]:
    detector = fidelity.maps[0] if fidelity.maps else None
    pictures = pictures_of(place, display, detector)
    black, white = display.windows[pictures.window]
    unit = fidelity.pair.task.unit
    return {
        "place": place,
        "kind": "Removed" if place.score > 0 else "Added",
        "score": number(place.score, 2, sign=True),
        "flag": words.flag_of(place, detector),
        "position": words.position(place),
        "means": words.means_at(place, display),
        "pictures": pictures,
        "window": f"{pictures.window}, {black:g} to {white:g} {unit}".replace("-", "\u2212"),
        "panel": indices.index(place.slice) if place.slice in indices else None,
    }


def _map(fidelity: Fidelity, display: Display, shown: FidelityMap) -> dict[str, Any]:
    index, picture = map_picture(shown, fidelity, display)
    low, high = words.scale_words(shown, limit_of_map(shown))
    return {
        "map": shown,
        "slice": index,
        "picture": picture,
        "low": low,
        "high": high,
        "threshold": words.value_of(shown.threshold, shown.unit) if shown.threshold else "",
        "calibration": words.calibration_of(shown, fidelity.pair),
    }


def _shown(kept: list[KeptSlice], display: Display) -> str:
    """Say how many of the slices the page shows."""
    if len(kept) == display.count:
        return f"All {display.count:,} slices." if display.count > 1 else "The only slice."
    return (
        f"{len(kept)} of {display.count:,} slices: those of the places, and others between them; "
        "the files of the maps have all."
    )


def _name(fidelity: Fidelity, index: int) -> str:
    """Name of a slice in the list of the viewer."""
    found = [str(n) for n, place in enumerate(fidelity.places, 1) if place.slice == index]
    if not found:
        return f"slice {index}"
    return f"slice {index}, place{'s' if len(found) > 1 else ''} {', '.join(found)}"
