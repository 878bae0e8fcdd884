"""The page of a restored image's report in a real browser: offline, by keyboard, on a phone."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from restore_rwkv.evaluation.fidelity.display import display_of
from restore_rwkv.evaluation.fidelity.page import write_fidelity_page
from restore_rwkv.evaluation.fidelity.results import Fidelity
from tests.helpers.browsers import Offline, settled
from tests.helpers.fidelities import ct, hostile, mri, pet, unknown
from tests.helpers.overviews import HOSTILE
from tests.helpers.tools import needs

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, needs("chromium")]

MADE = {"ct": ct, "mri": mri, "pet": pet, "unknown": unknown}


@pytest.fixture
def opened(pages: Offline, tmp_path: Path, faults: list[str]) -> Iterator[Any]:
    """A function that writes the page of a report and opens it, without any network."""

    def write_and_open(
        of: Fidelity, width: int = 1280, scheme: Any = "light", script: bool = True
    ) -> Page:
        write_fidelity_page(of, tmp_path / "fidelity.html")
        return pages.open(tmp_path / "fidelity.html", width, scheme, script)

    yield write_and_open
    assert faults == []


def number(text: str) -> float:
    """The first number of a text of the page."""
    found = re.search(r"[\u2212+]?[\d,]+(\.\d+)?", text)
    assert found is not None, text
    return float(found[0].replace("\u2212", "-").replace(",", ""))


def pixels(page: Page, view: int) -> Any:
    """What a view shows, as rows and columns of red, green and blue."""
    settled(page)
    address = page.locator("#stage canvas").nth(view).evaluate("canvas => canvas.toDataURL()")
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def fits(page: Page, width: int) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth") <= width)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark"), (390, "light")])
def test_a_page_opens_offline_and_fits_its_screen(
    opened: Any, name: str, width: int, scheme: str
) -> None:
    page = opened(MADE[name](), width, scheme)
    assert fits(page, width)
    behind = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (number(behind) < 60) == (scheme == "dark")
    page.get_by_label("swipe", exact=True).check()
    settled(page)
    assert fits(page, width)
    assert not page.locator("#map-note").is_visible()


def test_the_verdict_is_on_the_first_screen_of_a_phone(opened: Any) -> None:
    page = opened(ct(), 390)
    box = page.locator(".verdict").bounding_box()
    assert box["y"] + box["height"] < 844
    assert page.locator(".verdict svg.mark").is_visible()
    assert page.get_by_text("Not a medical device").first.bounding_box()["y"] < box["y"]


def test_hostile_names_are_shown_as_they_are_and_fit_a_phone(opened: Any) -> None:
    for text in (*HOSTILE.values(), "x" * 200, "\u05d0\u05d1\u05d2 \u202egnp"):
        name = text.replace("/", "|")
        page = opened(hostile(name), 390)
        assert page.title() == f"Fidelity: {name}".replace("\u202e", "\\u202e")
        assert fits(page, 390), name
        page.context.close()


def test_without_scripts_verdict_places_figures_and_maps_are_there(opened: Any) -> None:
    made = ct()
    page = opened(made, script=False)
    assert page.get_by_text(made.verdict).is_visible()
    assert page.locator(".places > li").count() == 5
    assert all(picture.is_visible() for picture in page.locator("img").all())
    assert page.locator("img").count() == 5 * 5 + 2
    assert page.locator("table.figures tbody tr").count() == len(made.figures)
    assert page.get_by_text("A bias that all samples share").first.is_visible()
    for control in page.locator("#viewer, button, select").all():
        assert not control.is_visible()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_place_is_reached_and_seen_by_the_keyboard_only(opened: Any, width: int) -> None:
    made = ct()
    page = opened(made, width)
    for _ in range(12):  # the links at the top come first
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('show')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#stage:focus")
    place = made.places[0]
    row, column = display_of(made.pair).place(place)
    assert page.locator("#values-title").inner_text() == f"Row {row}, column {column}"
    assert page.locator("#why").inner_text() == f"Place 1: {place.says}"
    assert page.locator("#panel option:checked").inner_text().startswith(f"slice {place.slice}, pl")
    assert page.locator("#said").inner_text().startswith(f"Slice {place.slice}, row {row}")
    box = page.locator("#stage canvas").first.bounding_box()
    assert 0 < box["y"] < 844 - box["height"]
    assert "close" in (page.locator("#stage").get_attribute("class") or "")
    page.keyboard.press(">")
    page.wait_for_selector("#why:text-is('No place is in this slice.')")
    assert page.locator("#panel").input_value() == str(place.slice + 1)


def test_a_place_in_the_lung_is_shown_at_the_window_of_the_lung(opened: Any) -> None:
    made = ct()
    number_of = next(n for n, place in enumerate(made.places, 1) if place.before < -500)
    page = opened(made)
    page.locator(f"#place-{number_of} .crops .picture").first.click()
    page.wait_for_selector("#stage:focus")
    pressed = page.get_by_role("button", name="lung")
    assert pressed.get_attribute("aria-pressed") == "true"


def test_values_under_the_views_are_those_of_the_images_and_the_map(opened: Any) -> None:
    made = ct()
    page = opened(made)
    page.locator("#place-1 button").click()
    page.wait_for_selector("#stage:focus")
    settled(page)
    index = made.places[0].index
    before, after = (float(v.data[index]) for v in (made.pair.before, made.pair.after))
    score, half = (float(each.volume.data[index]) for each in made.maps)
    found = [number(text) for text in page.locator("#stage output").all_inner_texts()]
    assert found == pytest.approx([before, after, after - before, score], abs=2.6)
    assert found[3] == pytest.approx(score, abs=0.06)
    page.locator("#choice").select_option(index=1)
    settled(page)
    found = [number(text) for text in page.locator("#stage output").all_inner_texts()]
    assert found[3] == pytest.approx(half, abs=0.3)


def test_a_map_lies_over_the_image_and_says_beside_it_what_it_cannot_see(opened: Any) -> None:
    page = opened(ct())
    note = page.locator("#map-note")
    assert "Structure below the noise of the scan does not show." in note.inner_text()
    restored, removed = pixels(page, 1), pixels(page, 3)
    coloured = np.ptp(removed, axis=2) > 60
    assert 0.001 < coloured.mean() < 0.5
    assert (np.abs(removed - [255, 225, 0]).max(axis=2) < 40).any()  # the line of the threshold
    page.locator("#choice").select_option(label="half width of the 90 % interval")
    assert "A bias that all samples share is invisible" in note.inner_text()
    assert "on 12 validation subjects" in note.inner_text()
    interval = pixels(page, 3)
    assert (interval != removed).any()
    np.testing.assert_array_equal(pixels(page, 1), restored)


def test_a_swipe_shows_before_on_the_left_and_restored_on_the_right(opened: Any) -> None:
    made = ct()
    page = opened(made)
    page.locator("#place-1 button").click()
    page.wait_for_selector("#stage:focus")
    page.get_by_label("swipe", exact=True).check()
    divider = page.get_by_role("slider", name="Divider between the two images")
    shown = {}
    for key in ("Home", "End"):
        divider.press(key)
        found = pixels(page, 0)
        row, column = found.shape[0] // 2, found.shape[1] // 2
        part = found[row + 60 : row + 120, column - 60 : column + 60]
        shown[key] = float(np.abs(np.diff(part, axis=1)).mean())
    assert shown["End"] > 1.2 * shown["Home"] > 0  # the noise of the scan
    assert page.locator("#stage figcaption bdi").inner_text() == "before | restored"
    index = made.places[0].index
    under = page.locator("#stage output").inner_text().split(" | ")
    values = [float(v.data[index]) for v in (made.pair.before, made.pair.after)]
    assert [number(text) for text in under] == pytest.approx(values, abs=2.6)


def test_what_is_printed_is_dark_on_white_with_every_detail(opened: Any) -> None:
    page = opened(ct(), scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    details = "[...document.querySelectorAll('main details')].map(each => each.open)"
    assert all(page.evaluate(details))
    assert page.locator(".places img").first.is_visible()
    assert not page.locator("#viewer").is_visible()
    assert not page.locator("button.show").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not any(page.evaluate(details))
