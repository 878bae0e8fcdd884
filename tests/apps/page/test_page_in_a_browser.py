"""The page in a real browser: from a dropped file to images that are compared."""

from __future__ import annotations

import base64
import gzip
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

from restore_rwkv.apps.page import Page
from restore_rwkv.apps.page.restoring import REPORT
from tests.apps.page.conftest import SHAPE, ct_values, write_ct
from tests.apps.page.test_reports import fake_module
from tests.helpers.browsers import WEBGL, drawn, note_faults, started
from tests.helpers.local_page import FakeNetwork, Visitor
from tests.helpers.tools import needs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext
    from playwright.sync_api import Page as Tab

pytestmark = [pytest.mark.slow, needs("chromium")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started(*WEBGL) as browser:
        yield browser


@pytest.fixture
def context(
    browser: Browser, page: Page, faults: list[str], request: pytest.FixtureRequest
) -> Iterator[BrowserContext]:
    """A browser that has opened the page's address, at a width and in a colour scheme."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    note_faults(context, faults)

    def check(asked: Any) -> None:
        if not asked.url.startswith((page.address, "data:", "blob:")):
            faults.append(f"request to {asked.url}")

    context.on("request", check)
    yield context
    context.close()
    assert faults == []


@pytest.fixture
def tab(context: BrowserContext, page: Page) -> Tab:
    tab = context.new_page()
    tab.goto(page.url)
    return tab


def drop(tab: Tab, *files: Path) -> None:
    """Drop files on the page, as from a file manager."""
    given = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files]
    tab.evaluate(
        """files => {
            const data = new DataTransfer();
            for (const [name, text] of files) {
                const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
                data.items.add(new File([bytes], name));
            }
            const options = { dataTransfer: data, bubbles: true, cancelable: true };
            document.querySelector("#drop").dispatchEvent(new DragEvent("drop", options));
        }""",
        given,
    )


def restore(tab: Tab, name: str = "ct.nii.gz") -> None:
    """Choose a scan, restore it and wait for its images."""
    tab.get_by_role("radio", name=name, exact=True).check()
    tab.get_by_role("button", name="Restore", exact=True).click()
    shown(tab)


def shown(tab: Tab) -> None:
    tab.wait_for_selector("#stage[data-job]:not([aria-busy])")


def numbers(tab: Tab, *ids: str) -> list[float]:
    """Numbers that the page says in these places."""
    texts = [tab.inner_text(f"#{each}") for each in ids]
    return [float(text.split()[0].replace("\u2212", "-")) for text in texts]


def voxel(tab: Tab) -> tuple[int, ...]:
    """Index of the voxel whose values the page says."""
    places = tab.inner_text("#where").partition(": ")[2].split(", ")
    return tuple(int(place.split()[1]) for place in places)


def cross(tab: Tab, name: str) -> np.ndarray:
    """Where the cursor is in a pane, in pixels."""
    path = tab.locator(f"#pane-{name} .cross").get_attribute("d") or ""
    found = re.fullmatch(r"M0 ([-\d.]+)H.*M([-\d.]+) 0V.*", path)
    assert found is not None
    return np.array([float(found[2]), float(found[1])])


def pixels(tab: Tab, name: str) -> np.ndarray:
    """What a pane shows on the screen once what is to be drawn is drawn, RGB."""
    from PIL import Image

    drawn(tab)
    data = tab.locator(f"#pane-{name}").screenshot()
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_dropped_scan_is_restored_and_its_values_are_those_of_the_file(
    tab: Tab, tmp_path: Path
) -> None:
    # Axes of the file that run backwards and in another order than right, front, top.
    affine = np.array([[0, 0, -2.5, 0], [0.9, 0, 0, 0], [0, -0.8, 0, 0], [0, 0, 0, 1.0]])
    values = ct_values((24, 20, 10))
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "odd axes.nii.gz")
    side = tmp_path / "odd axes.json"
    side.write_text('{"Modality": "CT"}')
    drop(tab, tmp_path / "odd axes.nii.gz", side)
    restore(tab, "odd axes.nii.gz")
    stored = np.asarray(nib.load(tmp_path / "odd axes.nii.gz").dataobj)
    stage = tab.locator("#stage")
    seen = set()
    for key in ("ArrowRight", "ArrowUp", "PageUp", "ArrowLeft", "ArrowUp", "Shift+ArrowUp"):
        stage.press(key)
        at = voxel(tab)
        seen.add(at)
        before, after, difference = numbers(tab, "value-before", "value-after", "value-difference")
        assert (before, after, difference) == (stored[at], stored[at] + 1, 1)
    assert len(seen) == 6
    assert tab.inner_text("#value-before").endswith("HU")


def test_the_value_under_the_mouse_is_that_of_the_voxel_drawn_there(
    tab: Tab, page: Page, folder: Path
) -> None:
    restore(tab)
    values = np.asarray(nib.load(folder / "ct.nii.gz").dataobj)
    area = tab.locator("#pane-difference").bounding_box()
    assert area is not None
    tab.mouse.click(area["x"] + area["width"] / 3, area["y"] + area["height"] / 2)
    one = voxel(tab)
    assert numbers(tab, "value-before") == [values[one]]
    tab.mouse.move(area["x"] + area["width"] * 2 / 3, area["y"] + area["height"] / 2)
    two = voxel(tab)
    # The patient's right is on the left; the first axis of this file runs to the patient's left.
    assert two[0] > one[0]
    assert two[1:] == one[1:]
    assert numbers(tab, "value-before") == [values[two]]


def test_the_divider_shows_before_on_its_left_and_restored_on_its_right(
    tab: Tab, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "restore_rwkv.restoration.restorer.restore_slices",
        lambda _, slices, *rest: np.full_like(slices, 3000.0),
    )
    restore(tab)
    divider = tab.get_by_role("slider", name="Divider")
    assert "before" in divider.inner_text()

    def white() -> float:
        return float(np.mean(pixels(tab, "after").min(axis=2) > 250))

    (after,) = numbers(tab, "value-after")
    assert after == 3000
    half = white()
    divider.press("End")
    assert divider.get_attribute("aria-valuenow") == "100"
    none = white()
    divider.press("Home")
    all_of_it = white()
    assert none < 0.1 < half < all_of_it
    for _ in range(3):
        divider.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "6"
    box = divider.bounding_box()
    area = tab.locator("#pane-before").bounding_box()
    assert box is not None
    assert area is not None
    tab.mouse.move(box["x"] + 14, box["y"] + 200)
    tab.mouse.down()
    tab.mouse.move(area["x"] + area["width"] * 0.75, box["y"] + 210)
    tab.mouse.up()
    assert divider.get_attribute("aria-valuenow") == "75"


def test_windows_of_ct_and_a_free_one_change_what_is_drawn(tab: Tab) -> None:
    restore(tab)
    tab.get_by_role("radio", name="Side by side").check()
    options = tab.locator("#window option").all_inner_texts()
    assert options == ["Soft tissue", "Brain", "Lung", "Bone", "All values", "Free"]
    assert (tab.input_value("#low"), tab.input_value("#high")) == ("-160", "240")
    tab.locator("#stage").press("ArrowRight")
    (value,) = numbers(tab, "value-before")

    def assert_grey(expected: float) -> None:
        """What is drawn at the cursor, of which the middle is free; NiiVue draws when it can."""
        for _ in range(50):
            x, y = cross(tab, "before")
            grey = float(pixels(tab, "before")[int(y), int(x)].mean())
            if grey == pytest.approx(expected, abs=3):
                return
            tab.wait_for_timeout(100)
        assert grey == pytest.approx(expected, abs=3)

    assert_grey(255 * (value + 160) / 400)
    tab.select_option("#window", label="Lung")
    assert (tab.input_value("#low"), tab.input_value("#high")) == ("-1350", "150")
    assert_grey(255 * (value + 1350) / 1500)
    tab.fill("#low", "2000")
    tab.fill("#high", "3000")
    assert tab.locator("#window option:checked").inner_text() == "Free"
    assert np.median(pixels(tab, "before")) < 5
    tab.get_by_label("Inverted").check()
    inverted = pixels(tab, "before")
    assert np.mean(inverted.min(axis=2) > 250) > 0.3


def test_slices_planes_zoom_and_a_profile(tab: Tab) -> None:
    restore(tab)
    assert tab.inner_text("#slice-text") == f"Slice 4 of {SHAPE[2]}"
    tab.locator("#slice").press("ArrowRight")
    assert tab.inner_text("#slice-text") == f"Slice 5 of {SHAPE[2]}"
    tab.locator("#pane-difference .touch").hover()
    tab.mouse.wheel(0, 100)
    tab.wait_for_function("document.querySelector('#slice-text').textContent.startsWith('Slice 4')")
    tab.get_by_role("radio", name="Coronal").check()
    assert tab.inner_text("#slice-text") == f"Slice {SHAPE[1] // 2 + 1} of {SHAPE[1]}"
    tab.get_by_role("radio", name="Axial").check()
    stage = tab.locator("#stage")
    before = pixels(tab, "difference")
    tab.get_by_role("button", name="Zoom in").click()
    assert not np.array_equal(before, pixels(tab, "difference"))
    tab.get_by_role("button", name="Fit").click()
    stage.press("p")
    for _ in range(2):
        stage.press("Shift+ArrowRight")
    stage.press("p")
    assert tab.inner_text("#profile-text").startswith("21 voxels.")
    assert "18.0 mm" in (tab.locator("#plot").get_attribute("aria-label") or "")
    assert tab.locator("#plot polyline").count() == 2
    tab.get_by_role("button", name="Remove it").click()
    assert tab.locator("#plot").is_hidden()
    tab.get_by_role("button", name="Draw a line").click()
    area = tab.locator("#pane-difference").bounding_box()
    assert area is not None
    y = area["y"] + area["height"] / 2
    tab.mouse.move(area["x"] + area["width"] * 0.4, y)
    tab.mouse.down()
    tab.mouse.move(area["x"] + area["width"] * 0.6, y, steps=3)
    tab.mouse.up()
    assert tab.locator("#plot").is_visible()


@pytest.mark.parametrize("plane", ["Axial", "Coronal", "Sagittal"])
def test_zoom_keeps_the_cursor_in_place_and_the_image_follows_the_mouse(
    tab: Tab, plane: str
) -> None:
    restore(tab)
    tab.get_by_role("radio", name=plane).check()
    area = tab.locator("#pane-difference").bounding_box()
    assert area is not None
    middle = np.array([area["x"] + area["width"] / 2, area["y"] + area["height"] / 2])
    corner, aside = np.array([area["x"], area["y"]]), middle + np.array([40, 2])
    tab.mouse.click(*aside)
    start = cross(tab, "difference")
    assert np.abs(start - (aside - corner)).max() < 30  # within its voxel
    for _ in range(3):
        tab.get_by_role("button", name="Zoom in").click()
    assert np.abs(cross(tab, "difference") - start).max() < 2
    tab.keyboard.down("Shift")
    tab.mouse.move(*middle)
    tab.mouse.down()
    tab.mouse.move(*(middle + np.array([30, 20])), steps=3)
    tab.mouse.up()
    tab.keyboard.up("Shift")
    assert np.abs(cross(tab, "difference") - start - np.array([30, 20])).max() < 3
    tab.mouse.click(*middle)
    assert np.abs(cross(tab, "difference") - (middle - corner)).max() < 60


def test_a_job_shows_its_progress_and_is_cancelled(tab: Tab, network: FakeNetwork) -> None:
    network.go.clear()
    tab.get_by_role("radio", name="ct.nii.gz").check()
    tab.get_by_role("button", name="Restore", exact=True).click()
    assert network.begun.wait(60)
    tab.wait_for_selector("li[data-state=running]")
    tab.get_by_role("button", name="Cancel ct.nii.gz").click()
    network.go.set()
    tab.wait_for_selector("li[data-state=cancelled]")
    assert "Cancelled" in tab.inner_text("#jobs li")
    tab.get_by_role("button", name="Forget ct.nii.gz").click()
    tab.wait_for_selector("#no-jobs", state="visible")


def test_a_reload_in_the_middle_loses_nothing(tab: Tab, network: FakeNetwork) -> None:
    network.go.clear()
    tab.get_by_role("radio", name="ct.nii.gz").check()
    tab.get_by_role("button", name="Restore", exact=True).click()
    assert network.begun.wait(60)
    tab.reload()
    tab.wait_for_selector("li[data-state=running]")
    assert tab.get_by_role("radio", name="ct.nii.gz").is_checked()
    network.go.set()
    shown(tab)  # what this tab waited for is shown, as without the reload
    tab.get_by_role("slider", name="Divider").press("Home")
    tab.select_option("#window", label="Bone")
    tab.locator("#stage").press("ArrowRight")
    place = voxel(tab)
    tab.reload()
    shown(tab)
    assert voxel(tab) == place
    assert tab.locator("#window option:checked").inner_text() == "Bone"
    assert tab.locator("#divider").get_attribute("aria-valuenow") == "0"


def test_two_tabs_show_the_same_queue(tab: Tab, context: BrowserContext, page: Page) -> None:
    other = context.new_page()
    other.goto(page.address)
    other.get_by_role("radio", name="ct.nii.gz").wait_for()
    restore(tab)
    other.wait_for_selector("li[data-state=done]")
    assert other.locator("#result").is_hidden()  # only the tab that asked shows it by itself
    other.get_by_role("button", name="Show ct.nii.gz").click()
    shown(other)
    other.get_by_role("button", name="Forget ct.nii.gz").click()
    tab.wait_for_selector("#nothing", state="visible")
    assert tab.locator("#jobs li").count() == 0


def test_a_broken_file_is_listed_with_its_reason(tab: Tab, tmp_path: Path) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(gzip.compress(b"no image"))
    drop(tab, broken)
    row = tab.locator(".scan", has_text="broken.nii.gz")
    row.locator(".refused").wait_for()
    assert "Cannot be restored" in row.inner_text()
    assert str(tmp_path) not in row.inner_text()
    row.get_by_role("radio").check()
    assert tab.get_by_role("button", name="Restore", exact=True).is_disabled()
    tab.get_by_role("button", name="Remove broken.nii.gz").click()
    row.wait_for(state="detached")


def test_a_file_above_the_cap_is_refused_in_one_line(tab: Tab, tmp_path: Path) -> None:
    large = tmp_path / "large.nii"
    large.write_bytes(bytes((1 << 20) + 1))
    drop(tab, large)
    tab.wait_for_selector("#error", state="visible")
    line = tab.inner_text("#error")
    assert line.startswith("large.nii: 1 MB are more than the 1 MB")
    assert "\n" not in line
    assert tab.locator(".scan").count() == 1


def test_a_scan_of_unknown_kind_waits_for_its_task(tab: Tab, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(ct_values(), np.diag([0.9, 0.9, 2.5, 1])), tmp_path / "plain.nii.gz")
    drop(tab, tmp_path / "plain.nii.gz")
    tab.get_by_role("radio", name="plain.nii.gz").check()
    tab.locator(".scan", has_text="plain.nii.gz").get_by_text("choose the task below").wait_for()
    start = tab.get_by_role("button", name="Restore", exact=True)
    assert start.is_disabled()
    tab.select_option("#task", value="ct-denoise")
    tab.wait_for_selector("#start:enabled")
    start.click()
    shown(tab)


@pytest.mark.parametrize("context", [(1280, "light"), (390, "dark")], indirect=True)
def test_the_keyboard_alone_leads_to_a_restored_image(tab: Tab) -> None:
    tab.get_by_role("radio", name="ct.nii.gz").wait_for()
    tab.wait_for_selector("#start", state="attached")

    def focus(wanted: str, key: str = "Tab") -> None:
        for _ in range(60):
            if tab.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
                return
            tab.keyboard.press(key)
        raise AssertionError(f"{wanted} is not reached")

    focus("input[name=scan]")
    tab.keyboard.press("Space")
    tab.wait_for_selector("#start:enabled")
    focus("#start")
    tab.keyboard.press("Enter")
    shown(tab)
    focus("#divider")
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#divider").get_attribute("aria-valuenow") == "48"
    focus("#stage", "Shift+Tab")
    place = voxel(tab)
    tab.keyboard.press("ArrowLeft")
    assert voxel(tab) != place
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_record_and_the_download_belong_to_the_job(tab: Tab, visitor: Visitor) -> None:
    restore(tab)
    tab.get_by_text("Record of how the image was made").click()
    tab.get_by_text('"task": "ct-denoise"').wait_for()
    with tab.expect_download() as waiting:
        tab.get_by_role("link", name="Download as NIfTI").click()
    assert waiting.value.suggested_filename == "ct-restored-nifti.zip"
    assert "Not a medical device" in tab.inner_text("#notice")


def test_a_folder_is_sent_as_one_scan(tab: Tab, tmp_path: Path) -> None:
    folder = tmp_path / "chosen"
    folder.mkdir()
    write_ct(folder / "inner.nii.gz")
    tab.set_input_files("#folder", folder)
    row = tab.locator(".scan", has_text="inner.nii.gz")
    row.get_by_text("that suits").or_(row.get_by_text("may not suit")).wait_for()


def test_windows_suit_the_modality(tab: Tab) -> None:
    def windows(**outputs: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = tab.evaluate(
            """async outputs => {
                const { windowsFor } = await import("/static/windows.js");
                return windowsFor(outputs, Float32Array.from({ length: 1001 }, (_, n) => n));
            }""",
            outputs,
        )
        return found

    brain = next(each for each in windows(modality="CT") if each["name"] == "Brain")
    assert (brain["low"], brain["high"]) == (0, 80)
    suv = windows(modality="PT", unit="Bq/ml", suv_per_unit=0.001)[0]
    assert (suv["name"], suv["low"], suv["high"], suv["inverted"]) == ("SUV 0 to 5", 0, 5000, True)
    assert windows(modality="PT", unit="SUVbw")[0]["high"] == 5
    unknown = windows(modality="PT", unit="counts")[0]
    assert (unknown["name"], unknown["inverted"]) == ("Up to the 99.5th percentile", True)
    mr = windows(modality="MR")[0]
    assert (mr["low"], mr["high"]) == (10, 990)


def test_a_map_of_the_report_lies_over_the_restored_image(
    tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, REPORT, fake_module())
    tab.get_by_label("Fidelity report").check()
    restore(tab)
    tab.get_by_role("radio", name="Side by side").check()
    plain = pixels(tab, "after")
    tab.select_option("#map", label="structure removed")
    tab.get_by_text("what it cannot see").wait_for()
    assert tab.inner_text("#map-meaning") == "what it says"
    over = pixels(tab, "after")
    assert np.ptp(over.astype(int), axis=2).max() > np.ptp(plain[40:-60].astype(int), axis=2).max()
    assert numbers(tab, "value-map") == numbers(tab, "value-after")
    tab.locator("#opacity").fill("0")
    tab.wait_for_timeout(300)
    clear = pixels(tab, "after").astype(float)
    assert np.abs(clear - plain).mean() < 1 < np.abs(clear - over).mean()
    link = tab.get_by_role("link", name="Fidelity report")
    assert link.get_attribute("href", timeout=1000) == "/api/jobs/1/report"
