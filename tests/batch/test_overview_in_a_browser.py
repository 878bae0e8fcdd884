"""The overview in a real browser: nothing is fetched, nothing goes wrong, and its script works."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.browsers import Offline
from tests.helpers.overviews import HOSTILE, RECORD, entry, picture, write
from tests.helpers.tools import needs

pytestmark = [pytest.mark.slow, needs("chromium")]

READY = "output:not(:empty)"  # the count, which the script writes
ELSEWHERE = "http://elsewhere.example/a"


def requests(faults: list[str]) -> list[str]:
    """The addresses among what a browser notes."""
    return [fault for fault in faults if fault.startswith("http")]


@pytest.fixture
def overview(tmp_path: Path) -> Path:
    """Scans with hostile names, and two restored ones."""
    entries = [entry(name, "refused", reason=name) for name in HOSTILE.values()]
    image = picture()
    entries += [
        entry("b10.nii", record=RECORD, thumbnail=image, seconds=1.0, bytes_read=5),
        entry("b9.nii", record=RECORD, thumbnail=image, seconds=2.0, bytes_read=1),
    ]
    return write(tmp_path, entries)


def test_the_browser_reports_requests_and_errors_of_other_pages(
    pages: Offline, faults: list[str], tmp_path: Path
) -> None:
    other = tmp_path / "other.html"
    other.write_text(f"<img src='{ELSEWHERE}'><script>nothing()</script>")
    pages.open(other, ready="img")
    assert requests(faults) == [ELSEWHERE]
    assert "nothing is not defined" in faults


def test_a_page_asks_for_nothing_and_has_no_errors(
    pages: Offline, faults: list[str], overview: Path
) -> None:
    page = pages.open(overview, ready=READY)
    assert page.inner_text("output") == "8 of 8 shown"  # its policy allows its script
    assert faults == []


def test_the_policy_of_a_page_stops_what_would_be_added_to_it(
    pages: Offline, faults: list[str], overview: Path
) -> None:
    added = f"<img src='{ELSEWHERE}'><script>document.title = 'taken'</script>"
    text = overview.read_text(encoding="utf-8")
    overview.write_text(text.replace("<main>", f"<main>{added}"), encoding="utf-8")
    page = pages.open(overview, ready=READY)
    assert page.title() != "taken"
    assert requests(faults) == []
    assert len([fault for fault in faults if "Content Security Policy" in fault]) == 2


def test_scans_are_found_by_state_and_by_text(pages: Offline, overview: Path) -> None:
    page = pages.open(overview, ready=READY)

    def shown() -> int:
        return page.locator(".scan:not([hidden])").count()

    counts = [shown()]
    for text in ("B9", "b9 tiles", "b9 nowhere", ""):
        page.fill("[name=text]", text)
        counts.append(shown())
    page.locator("[value=refused]").click()
    assert [*counts, shown()] == [8, 1, 1, 0, 8, 2]
    assert page.inner_text("output") == "2 of 8 shown"


@pytest.mark.parametrize(
    ("order", "first"), [("seconds", "b9.nii"), ("size", "b10.nii"), ("given", HOSTILE["script"])]
)
def test_scans_are_put_in_order(pages: Offline, overview: Path, order: str, first: str) -> None:
    page = pages.open(overview, ready=READY)
    page.select_option("select", "seconds")
    page.select_option("select", order)
    assert page.locator(".scan").first.get_attribute("data-name") == first


def test_names_are_sorted_by_their_numbers(pages: Offline, overview: Path) -> None:
    page = pages.open(overview, ready=READY)
    page.select_option("select", "name")
    names = [row.get_attribute("data-name") for row in page.locator(".scan").all()]
    assert names.index("b9.nii") < names.index("b10.nii")


def test_a_picture_is_enlarged_by_the_keyboard_too(pages: Offline, overview: Path) -> None:
    page = pages.open(overview, ready=READY)
    image = page.locator(".picture img").first

    def width() -> int:
        found: int = image.evaluate("image => image.clientWidth")
        return found

    before = width()
    control = page.locator(".picture summary").first
    control.focus()
    assert control.evaluate("control => control === document.activeElement")
    control.press("Enter")
    assert width() > 1.4 * before


def test_a_narrow_screen_needs_no_scrolling_to_the_side(pages: Offline, tmp_path: Path) -> None:
    long = entry("x" * 300, "refused", reason="y" * 300)
    path = write(tmp_path, [long, entry("b.nii", record=RECORD, thumbnail=picture())])
    page = pages.open(path, width=390, ready=READY)
    shown = "document.documentElement"
    assert page.evaluate(f"{shown}.scrollWidth <= {shown}.clientWidth")
    assert page.evaluate(f"{shown}.clientWidth") <= 390
