"""The report in a real browser: it asks for nothing, and its tables and images can be used."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from restore_rwkv.evaluation.report.page import write_report
from restore_rwkv.evaluation.study.results import Study
from tests.helpers.browsers import Offline, settled
from tests.helpers.overviews import HOSTILE
from tests.helpers.studies import MEASURES, joined, panel, study
from tests.helpers.tools import needs

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, needs("chromium")]

METHODS = ("input", "light", "unet")


@pytest.fixture
def opened(pages: Offline, tmp_path: Path, faults: list[str]) -> Iterator[Any]:
    """A function that writes a study and opens its report, without any network."""

    def write_and_open(
        of: Study, width: int = 1280, scheme: Any = "light", script: bool = True
    ) -> Page:
        write_report(of, tmp_path / "report.html")
        return pages.open(tmp_path / "report.html", width, scheme, script)

    yield write_and_open
    assert faults == []


def number(text: str) -> float:
    """The first number of a text of the page."""
    found = re.search(r"[\u2212+]?[\d,]+(\.\d+)?", text)
    assert found is not None, text
    return float(found[0].replace("\u2212", "-").replace(",", ""))


def values(page: Page) -> list[float]:
    return [number(text) for text in page.locator("#values dd").all_inner_texts()]


def pixels(page: Page, view: int) -> Any:
    """What a view shows, as rows and columns of red, green and blue."""
    settled(page)
    address = page.locator("#stage canvas").nth(view).evaluate("canvas => canvas.toDataURL()")
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def to_place(page: Page, view: int, row: int, column: int) -> tuple[float, float]:
    """Where a pixel of an unzoomed image is on the screen."""
    canvas = page.locator("#stage canvas").nth(view)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    return (
        box["x"] + box["width"] * (column + 0.5) / 128,
        box["y"] + box["height"] * (row + 0.5) / 96,
    )


def test_what_a_page_asks_for_and_gets_wrong_is_noticed(opened: Any, faults: list[str]) -> None:
    page = opened(study())
    page.evaluate(
        "() => { document.body.append(Object.assign(new Image(), {src: 'http://a.example/b'})); }"
    )
    page.evaluate("() => { setTimeout(() => nothing(), 0); }")
    page.wait_for_timeout(200)
    assert any("Content Security Policy" in fault for fault in faults)
    assert any("nothing is not defined" in fault for fault in faults)
    faults.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_opens_offline_and_fits_its_screen(opened: Any, width: int, scheme: str) -> None:
    page = opened(study(), width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    behind = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (number(behind) < 60) == (scheme == "dark")
    page.get_by_label("swipe", exact=True).check()
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_names_are_shown_as_they_are_and_fit_a_phone(opened: Any) -> None:
    names = [*HOSTILE.values(), "x" * 300, "\u05d0\u05d1\u05d2 \u202egnp"]
    for name in names:
        made = study({name: 2.0}, scan=name)
        shown = panel(("input", name), scan=f"p0-{name}", why=name)
        page = opened(dataclasses.replace(made, panels=(shown,)), 390)
        plain = name.replace("\u202e", "\\u202e")
        assert page.locator("#values dt").nth(1).inner_text() == plain
        assert plain in page.locator("#slices thead").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.title() == "Evaluation: ct-denoise"
        page.context.close()


def test_without_scripts_tables_and_small_pictures_are_there(opened: Any) -> None:
    page = opened(study(), script=False)
    assert page.locator(".plot svg.box").count() == 2 * len(MEASURES)
    assert all(plot.is_visible() for plot in page.locator(".plot").all())
    assert page.locator(".static tbody tr").count() == 20
    assert all(picture.is_visible() for picture in page.locator(".pictures img").all())
    for control in page.locator("form, #viewer, button, select").all():
        assert not control.is_visible()


def test_values_at_the_cursor_are_those_of_the_images(opened: Any) -> None:
    made = study(panels=[panel(METHODS)])
    page = opened(made)
    (shown,) = made.panels
    images = [*shown.images.values(), shown.truth]
    for view, row, column in ((0, 20, 30), (1, 48, 100), (2, 95, 127), (3, 0, 0)):
        page.mouse.move(*to_place(page, view, row, column))
        settled(page)
        assert page.locator("#values-title").inner_text() == f"Row {row}, column {column}"
        wanted = [float(image[row, column]) for image in images]
        # Half a step: 2 HU in the window of soft tissue, 5 HU beyond.
        most = np.array([1.0 if -160 <= value <= 240 else 2.5 for value in wanted])
        assert (np.abs(np.array(values(page)) - wanted) <= most + 1e-6).all()
        under = page.locator("#stage output").all_inner_texts()
        difference = wanted[1] - wanted[3]
        found = np.array([number(text) for text in under])
        apart = np.abs(found - [*wanted[:2], wanted[3], difference])
        assert (apart <= [*most[:2], most[3], most[1] + most[3] + 0.5]).all()


def test_zoom_and_movement_are_the_same_in_all_views(opened: Any) -> None:
    page = opened(study(panels=[panel(METHODS)]))
    before = [pixels(page, view) for view in range(4)]
    x, y = to_place(page, 2, 24, 32)
    page.mouse.click(x, y)
    page.mouse.wheel(0, -400)
    settled(page)
    page.mouse.move(x, y)
    settled(page)
    # The place below the cursor has not moved, in the view of the cursor nor in another.
    assert page.locator("#values-title").inner_text() == "Row 24, column 32"
    page.mouse.move(*to_place(page, 0, 24, 32))
    settled(page)
    assert page.locator("#values-title").inner_text() == "Row 24, column 32"
    assert all((pixels(page, view) != before[view]).any() for view in range(4))
    page.mouse.move(*to_place(page, 0, 48, 64))
    page.mouse.down()
    page.mouse.move(*to_place(page, 0, 48, 34), steps=4)
    page.mouse.up()
    page.mouse.move(*to_place(page, 1, 24, 32))
    settled(page)
    title = page.locator("#values-title").inner_text()
    assert title.startswith("Row 24, ")
    assert int(title.split()[-1]) > 32
    page.locator("#reset").click()
    page.mouse.move(*to_place(page, 1, 24, 32))
    settled(page)
    assert page.locator("#values-title").inner_text() == "Row 24, column 32"


def test_the_wheel_scrolls_the_page_until_the_images_are_chosen(opened: Any) -> None:
    page = opened(study(panels=[panel(METHODS)]))
    page.locator("#stage").scroll_into_view_if_needed()
    before = pixels(page, 2)
    page.mouse.move(*to_place(page, 2, 24, 32))
    marked = pixels(page, 2)
    page.mouse.wheel(0, 60)
    page.wait_for_timeout(300)
    assert (marked != before).any()  # the cross hair has moved
    assert page.evaluate("document.querySelector('#stage').classList.contains('close')") is False


def test_the_keyboard_is_enough_for_the_images(opened: Any) -> None:
    made = study(panels=[panel(METHODS, slice=0), panel(METHODS, slice=7, why="second")])
    page = opened(made)
    page.locator("#stage").focus()
    start = pixels(page, 2)
    for key in ("+", "+", "ArrowRight", "ArrowDown", "Shift+ArrowLeft", "Shift+ArrowUp"):
        page.keyboard.press(key)
    assert (pixels(page, 2) != start).any()
    assert page.locator("#values-title").inner_text() == "Row 47, column 63"
    assert page.locator("#said").inner_text().startswith("row 47, column 63: input ")
    page.keyboard.press("0")
    page.keyboard.press("s")
    for _ in range(5):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("e")
    settled(page)
    assert page.get_by_label("a line that you draw").is_checked()
    assert "2" in page.locator("#profile text").all_text_contents()  # of 5 pixels of 0.7 mm
    page.keyboard.press(">")
    page.wait_for_selector("#why:text-is('second')")
    assert page.locator("#panel").input_value() == "1"


def test_a_swipe_shows_one_image_on_each_side_of_its_divider(opened: Any) -> None:
    page = opened(study(panels=[panel(METHODS)]))
    page.get_by_label("swipe", exact=True).check()
    page.locator("#right").select_option(label="truth")
    divider = page.get_by_role("slider", name="Divider between the two images")
    half = pixels(page, 0)
    divider.focus()
    page.keyboard.press("Home")
    settled(page)
    right = pixels(page, 0)
    page.keyboard.press("End")
    settled(page)
    left = pixels(page, 0)
    assert divider.get_attribute("aria-valuenow") == "100"
    quarter = half.shape[1] // 4
    np.testing.assert_array_equal(half[:, :quarter], left[:, :quarter])
    np.testing.assert_array_equal(half[:, -quarter:], right[:, -quarter:])
    assert (left != right).any()
    box = page.locator("#stage canvas").bounding_box()
    at = divider.bounding_box()
    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 20, steps=3)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") == "25"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_first_screen_has_the_verdict_and_a_swipe_of_its_worst_slice(
    opened: Any, width: int
) -> None:
    shown = panel(METHODS, scan="p0-scan", slice=1)
    page = opened(study(panels=[shown]), width)
    box = page.locator(".swiped")
    place = box.bounding_box()
    assert place["y"] + place["height"] < page.viewport_size["height"]
    down, across = shown.pixel_mm or (1.0, 1.0)
    ratio = 96 * down / (128 * across)
    assert place["height"] / place["width"] == pytest.approx(ratio, abs=0.02)
    assert "unet is worst: p0-scan, slice 1, PSNR" in page.locator(".glance").inner_text()
    canvases = page.locator(".swiped canvas")
    assert [each.get_attribute("aria-label") for each in canvases.all()] == ["input", "unet"]
    grey = page.evaluate("""() => [...document.querySelectorAll('.swiped canvas')].map(
        canvas => canvas.getContext('2d').getImageData(30, 20, 1, 1).data[0])""")
    black, white = next(iter(shown.windows.values()))
    images = (shown.images["input"], shown.images["unet"])
    wanted = [255 * (float(image[20, 30]) - black) / (white - black) for image in images]
    np.testing.assert_allclose(grey, np.clip(wanted, 0, 255), atol=1.5)
    divider = page.get_by_role("slider", name="Divider: input to its left, unet to its right")
    divider.press("Home")
    assert divider.get_attribute("aria-valuenow") == "0"
    assert "inset(0px 0px 0px 0%)" in canvases.nth(1).evaluate("c => c.style.clipPath")
    page.locator(".glance").get_by_role("button", name="Look closer").click()
    page.wait_for_selector("#stage:focus")


def test_an_inverted_window_is_shown_as_such_by_every_control(opened: Any) -> None:
    windows = {"usual": (-160.0, 240.0), "inverted": (240.0, -160.0)}
    shown = dataclasses.replace(panel(METHODS, scan="p0-scan", slice=1), windows=windows)
    page = opened(study(panels=[shown]))
    before = pixels(page, 0).astype(int)
    page.get_by_role("button", name="inverted").click()
    settled(page)
    after = pixels(page, 0).astype(int)
    middle = (slice(None, None, 9), slice(None, None, 9), slice(0, 3))
    apart = np.abs(before[middle] + after[middle] - 255)
    assert np.median(apart) <= 1  # all but the cross hair and the scale
    assert page.locator("#width-value").inner_text().startswith("400")
    page.locator("#level").press("ArrowRight")
    settled(page)
    assert np.abs(pixels(page, 0).astype(int)[middle] - after[middle]).mean() < 3


def test_windows_are_buttons_and_sliders(opened: Any) -> None:
    page = opened(study(panels=[panel(METHODS)]))
    soft = pixels(page, 2)
    page.get_by_role("button", name="lung").click()
    lung = pixels(page, 2)
    assert page.get_by_role("button", name="lung").get_attribute("aria-pressed") == "true"
    assert lung.mean() > soft.mean()
    assert page.locator("#level-value").inner_text() == "\u2212600 HU"
    page.locator("#level").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#level-value").inner_text() == "\u2212598 HU"
    assert page.get_by_role("button", name="lung").get_attribute("aria-pressed") == "false"
    page.locator("#limit").fill("20")
    assert page.locator("#limit-value").inner_text() == "\u00b120 HU"
    assert (pixels(page, 3).max(axis=(0, 1)) > 200).all()


def test_a_line_can_be_drawn_and_its_profile_is_shown(opened: Any) -> None:
    page = opened(study(panels=[panel(METHODS)]))
    before = page.locator("#profile path").first.get_attribute("d")
    page.get_by_label("a line that you draw").check()
    page.mouse.move(*to_place(page, 0, 20, 20))
    page.mouse.down()
    page.mouse.move(*to_place(page, 0, 80, 100), steps=4)
    page.mouse.up()
    settled(page)
    assert page.locator("#profile path").count() == 4
    assert page.locator("#profile path").first.get_attribute("d") != before


def test_slices_are_sorted_filtered_and_shown_by_any_measure(opened: Any) -> None:
    made = study()
    page = opened(made)
    table = page.locator("#slices tbody tr")

    def column(index: int) -> list[float]:
        return [number(row.locator("td").nth(index).inner_text()) for row in table.all()
                if "\u2014" not in row.locator("td").nth(index).inner_text()]  # fmt: skip

    first = column(1)
    assert len(first) == 47  # one of 48 slices has no PSNR, and comes last
    assert first == sorted(first)
    assert "\u2014" in table.last.inner_text()
    button = page.locator("#slices thead").get_by_role("button", name="light")
    button.click()
    assert column(1) == sorted(first, reverse=True)
    form = page.locator("#finder")
    form.locator("[name=measure]").select_option(label="RMSE (paper protocol)")
    assert page.locator("#gains select").input_value() == "2"
    assert page.locator(".plot[data-measure]:not([hidden])").count() == 1
    page.locator("#gains select").select_option(label="PSNR (paper protocol)")
    form.locator("[name=gains]").check()
    assert all(value > 0 for value in column(1))
    assert table.first.locator("td").first.inner_text() == "\u2014"  # the input gains nothing
    form.locator("[name=text]").fill("P3 SCAN")
    assert table.count() == 6
    assert form.locator("output").inner_text() == "6 of 48 slices"
    form.locator("[name=text]").fill("")
    form.locator("[name=shown]").check()
    assert table.count() == 2
    table.filter(has_text="slice 1").get_by_role("button", name="Look").click()
    page.wait_for_selector("#stage:focus")
    assert page.locator("#panel").input_value() == "1"


def test_images_of_unknown_spacing_have_no_scale_and_missing_pixels_no_value(opened: Any) -> None:
    shown = panel(METHODS, pixel_mm=None)
    shown.images["light"][48, 64] = np.nan
    page = opened(study(panels=[shown]))
    settled(page)
    found = page.locator("#values dd").all_inner_texts()
    assert found[1] == "\u2014 HU"
    assert "pixels along the line" in page.locator("#profile").inner_html()


def test_two_fingers_zoom(opened: Any) -> None:
    page = opened(study(panels=[panel(METHODS)]), 390)
    page.locator("#stage").scroll_into_view_if_needed()
    x, y = to_place(page, 0, 48, 64)
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        at = [{"x": px, "y": py, "id": index} for index, (px, py) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    before = pixels(page, 2)
    touch("touchStart", (x - 10, y), (x + 10, y))
    for apart in (20, 35, 50):
        touch("touchMove", (x - apart, y), (x + apart, y))
    touch("touchEnd")
    settled(page)
    assert "close" in (page.locator("#stage").get_attribute("class") or "")
    assert (pixels(page, 2) != before).any()


def test_slices_of_each_task_are_listed_on_their_own(opened: Any) -> None:
    page = opened(joined(study(), study(task="mri-sr", patients=3, scan="head")), 390)
    rows = page.locator("#slices tbody tr")
    assert rows.count() == 48
    page.locator("#finder [name=task]").select_option(label="mri-sr")
    assert rows.count() == 18
    assert "p1-head" in page.locator("#slices").inner_text()
    page.locator("#finder [name=text]").fill("nowhere")
    assert page.locator("#slices tbody").inner_text() == "No such slices."
    assert page.locator(".plot[data-measure]:not([hidden])").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_printed_is_dark_on_white_with_every_detail(opened: Any) -> None:
    page = opened(study(), scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#provenance dl").is_visible()
    assert page.locator("#slices thead").get_by_text("unet").is_visible()
    assert not page.locator("#viewer").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.locator("#provenance dl").is_visible()
