"""The page in a real browser that reaches nothing but the files of a plain server."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import nibabel as nib
import numpy as np
import pytest

from tests.helpers import ROOT
from tests.helpers.browsers import note_faults
from tests.helpers.odd_files.images import ct, mri, save_nifti
from tests.helpers.site import given, served
from tests.helpers.tools import needs
from tests.web.conftest import WEIGHTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext
    from playwright.sync_api import Page as Tab

pytestmark = [pytest.mark.slow, needs("chromium")]

CLOSE = 1e-3  # of the range, as the page promises; 4e-7 was measured


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The page below a folder of a site, as the documentation carries it."""
    with served(site.parent) as address:
        yield f"{address}{site.name}/"


@pytest.fixture
def outside() -> list[str]:
    """Requests to elsewhere, which were aborted."""
    return []


@pytest.fixture
def context(
    browser: Browser,
    address: str,
    outside: list[str],
    faults: list[str],
    request: pytest.FixtureRequest,
) -> Iterator[BrowserContext]:
    """A browser at a width and in a colour scheme; requests to elsewhere are aborted."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    note_faults(context, faults)

    def check(route: Any) -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    context.route("**/*", check)
    yield context
    context.close()
    assert outside == []
    assert faults == []


@pytest.fixture
def tab(context: BrowserContext, address: str) -> Tab:
    tab = context.new_page()
    tab.goto(address)
    tab.wait_for_selector("#sample:enabled")
    return tab


def was_read(tab: Tab, *shape: int) -> None:
    """Wait until the page says the size of a scan."""
    size = " \N{MULTIPLICATION SIGN} ".join(map(str, shape))
    tab.get_by_text(f"{size} voxels").wait_for()


def drop(tab: Tab, path: Path) -> None:
    """Drop a file on the page, as from a file manager."""
    tab.evaluate(
        """({ name, text }) => {
            const data = new DataTransfer();
            const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
            data.items.add(new File([bytes], name));
            const options = { dataTransfer: data, bubbles: true, cancelable: true };
            document.querySelector("#drop").dispatchEvent(new DragEvent("drop", options));
        }""",
        given(path),
    )


def restored(tab: Tab, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Press the button, wait for the images, and save the result with its record."""
    tab.get_by_role("button", name="Restore", exact=True).click()
    tab.wait_for_selector(
        "#stage[data-job]:not([aria-busy]), #error:not([hidden])", timeout=240_000
    )
    assert tab.locator("#error").is_hidden(), tab.inner_text("#error")
    saved = []
    for name in ("Download as NIfTI", "Download its record"):
        with tab.expect_download() as waiting:
            tab.get_by_role("link", name=name).click()
        saved.append(folder / waiting.value.suggested_filename)
        waiting.value.save_as(saved[-1])
    return saved[0], json.loads(saved[1].read_text(encoding="utf-8"))


def by_the_command(source: Path, output: Path, *options: str) -> Path:
    command = [sys.executable, "-m", "restore_rwkv", "restore", str(source), "-o", str(output)]
    subprocess.run([*command, "--weights", WEIGHTS, *options], check=True, capture_output=True)
    return output


def same_images(found: Path, right: Path) -> None:
    """Hold an image of the page to that of the command: values, and every byte of the header."""
    values, wanted = (np.asarray(nib.load(path).dataobj) for path in (found, right))
    assert np.ptp(wanted) > 0
    assert np.abs(values - wanted).max() <= CLOSE * np.ptp(wanted)
    headers = [gzip.decompress(path.read_bytes())[:352] for path in (found, right)]
    assert headers[0] == headers[1]


def test_the_sample_is_restored_as_by_the_command_and_nothing_is_asked_of_others(
    tab: Tab, site: Path, tmp_path: Path, outside: list[str]
) -> None:
    tab.get_by_role("button", name="Take the sample").click()
    tab.wait_for_selector("#start:enabled")
    found, record = restored(tab, tmp_path)
    assert outside == []
    assert found.name == "demo-mri-of-low-resolution-restored.nii.gz"
    source = site / "sample" / "demo-mri-of-low-resolution.nii.gz"
    same_images(found, by_the_command(source, tmp_path / "right.nii.gz", "-t", "mri-sr"))
    schema = (ROOT / "docs" / "restoration.schema.json").read_text(encoding="utf-8")
    jsonschema.validate(record, json.loads(schema))
    right = json.loads((tmp_path / "right.restoration.json").read_text(encoding="utf-8"))
    for key in ("weights_sha256", "notice", "not_for", "consistency", "kept", "source_sha256"):
        assert record[key] == right[key], key
    assert record["device"] == "onnxruntime-web 1.30.0, WebAssembly, 1 thread"
    assert record["output_sha256"] == hashlib.sha256(found.read_bytes()).hexdigest()
    stored = np.asarray(nib.load(found).dataobj)
    tab.locator("#stage").press("ArrowUp")
    place = tab.inner_text("#where").partition(": ")[2].split(", ")
    x, y, z = (int(each.split()[1]) for each in place)
    shown = float(tab.inner_text("#value-after").split()[0])
    assert shown == pytest.approx(float(stored[x, y, z]), rel=1e-6)
    assert "Not a medical device" in tab.inner_text("#notice")


def test_big_endian_whole_numbers_with_a_slope_in_odd_sizes(tab: Tab, tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    affine = np.array([[0.05, -0.8, 0, 7], [0.9, 0.05, 0.1, 4], [0, 0.1, 2.5, -9], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(ct((61, 53, 7)), affine, header)
    image.header.set_slope_inter(0.5, -1024)
    image.header.set_sform(affine, 2)
    nib.save(image, tmp_path / "odd.nii")
    tab.set_input_files("#file", tmp_path / "odd.nii")
    was_read(tab, 61, 53, 7)
    assert tab.locator("#start").is_disabled()  # the file does not say what it is
    tab.select_option("#task", value="ct-denoise")
    found, record = restored(tab, tmp_path)
    right = by_the_command(tmp_path / "odd.nii", tmp_path / "right.nii.gz", "-t", "ct-denoise")
    same_images(found, right)
    assert nib.load(found).header.endianness == ">"
    assert record["slice_axis"] == 2  # axial, as the affine says
    assert 0 < record["strength"] < 1
    assert tab.locator("#window option").first.inner_text() == "Soft tissue"


def test_a_restoration_is_cancelled_and_another_one_runs(tab: Tab, tmp_path: Path) -> None:
    save_nifti(tmp_path / "long.nii.gz", ct((64, 64, 200)).astype(np.int16))
    tab.set_input_files("#file", tmp_path / "long.nii.gz")
    tab.locator("#options").wait_for()
    tab.select_option("#task", value="ct-denoise")
    tab.get_by_role("button", name="Restore", exact=True).click()
    tab.get_by_text("of 200, about").wait_for()
    tab.get_by_role("button", name="Cancel").click()
    assert tab.inner_text("#stage-text") == "Cancelled"
    assert tab.locator("#result").is_hidden()
    assert tab.locator("#running").is_hidden()
    save_nifti(tmp_path / "short.nii.gz", ct((32, 40, 2)).astype(np.int16))
    tab.set_input_files("#file", tmp_path / "short.nii.gz")
    was_read(tab, 32, 40, 2)
    tab.select_option("#task", value="ct-denoise")
    found, _ = restored(tab, tmp_path)
    assert nib.load(found).shape == (32, 40, 2)


def test_what_cannot_be_restored_is_refused_in_one_line(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(gzip.compress(b"no image" * 100))
    drop(tab, tmp_path / "broken.nii.gz")
    tab.locator("#error").wait_for()
    line = tab.inner_text("#error")
    assert line == "broken.nii.gz: not a NIfTI file; give a .nii or .nii.gz image"
    assert tab.locator("#options").is_hidden()
    noise = 400 * np.random.default_rng(0).random((64, 52, 5))
    save_nifti(tmp_path / "full.nii", (mri((64, 52, 5)) + noise).astype(np.float32))
    tab.set_input_files("#file", tmp_path / "full.nii")
    was_read(tab, 64, 52, 5)
    assert tab.locator("#error").is_hidden()
    tab.select_option("#task", value="mri-sr")
    tab.get_by_role("button", name="Restore", exact=True).click()
    tab.locator("#error").wait_for()
    line = tab.inner_text("#error")
    assert "more resolution than the weights know" in line
    assert line.endswith('or tick "Restore it all the same"')
    tab.get_by_label("Restore it all the same").check()
    _, record = restored(tab, tmp_path)
    assert record["fit"]["forced"]


def test_a_file_that_changes_meanwhile_is_restored_as_it_was_or_not_at_all(
    tab: Tab, tmp_path: Path
) -> None:
    path = tmp_path / "scan.nii"
    save_nifti(path, ct((32, 40, 2)).astype(np.int16))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    tab.set_input_files("#file", path)
    was_read(tab, 32, 40, 2)
    path.write_bytes(path.read_bytes() + b"changed")
    tab.select_option("#task", value="ct-denoise")
    _, record = restored(tab, tmp_path)
    assert record["source_sha256"] == digest
    assert record["source_files"] == {"scan.nii": digest}
    save_nifti(path, ct((64, 64, 200)).astype(np.int16))
    tab.set_input_files("#file", path)
    was_read(tab, 64, 64, 200)
    tab.select_option("#task", value="ct-denoise")
    tab.get_by_role("button", name="Restore", exact=True).click()
    tab.get_by_text("of 200, about").wait_for()
    tab.get_by_role("button", name="Cancel").click()  # so that the file is read anew
    path.write_bytes(path.read_bytes() + b"changed")
    tab.get_by_role("button", name="Restore", exact=True).click()
    tab.locator("#error:not([hidden])").wait_for()
    assert "scan.nii: cannot be read, it was changed or removed" in tab.inner_text("#error")


def test_what_the_server_does_not_give_is_said(
    tab: Tab, context: BrowserContext, faults: list[str], tmp_path: Path
) -> None:
    save_nifti(tmp_path / "small.nii", ct((24, 32, 2)).astype(np.int16))
    tab.set_input_files("#file", tmp_path / "small.nii")
    was_read(tab, 24, 32, 2)
    tab.select_option("#task", value="ct-denoise")
    answers: list[tuple[Callable[[Any], None], str]] = [
        (lambda route: route.fulfill(status=404), "the server answers 404; load the page again"),
        (
            lambda route: route.abort(),
            "cannot be fetched; check the connection, and load the page again",
        ),
    ]
    for answer, says in answers:
        context.route("**/*.onnx", answer)
        tab.get_by_role("button", name="Restore", exact=True).click()
        tab.locator("#error:not([hidden])").wait_for()
        assert tab.inner_text("#error") == f"{WEIGHTS}: {says}"
        context.unroute("**/*.onnx")
    faults.clear()  # the browser reports both
    restored(tab, tmp_path)


def test_a_hidden_strength_that_is_not_allowed_does_not_stop_another_task(
    tab: Tab, tmp_path: Path
) -> None:
    save_nifti(tmp_path / "small.nii", mri((24, 32, 2)).astype(np.int16))
    tab.set_input_files("#file", tmp_path / "small.nii")
    was_read(tab, 24, 32, 2)
    tab.select_option("#task", value="ct-denoise")
    tab.get_by_label("Strength").fill("7")
    tab.select_option("#task", value="mri-sr")
    tab.get_by_label("Restore it all the same").check()
    restored(tab, tmp_path)


def test_the_policy_holds_for_the_page_and_its_worker(
    tab: Tab, context: BrowserContext, address: str, outside: list[str], faults: list[str]
) -> None:
    elsewhere = "http://elsewhere.invalid/"
    tab.get_by_role("button", name="Take the sample").click()  # starts the worker
    tab.wait_for_selector("#start:enabled")
    ask = "address => fetch(address).then(() => 'sent', (error) => error.name)"
    assert tab.evaluate(ask, elsewhere) == "TypeError"
    (worker,) = tab.workers
    assert worker.evaluate(ask, elsewhere) == "TypeError"
    assert outside == []  # refused by the policy, before the network is asked
    assert faults
    assert all("Content Security Policy" in fault for fault in faults)
    faults.clear()
    free = context.new_page()  # without the policy, the same request is seen and aborted
    free.goto(f"{address}blank")
    assert free.evaluate(ask, elsewhere) == "TypeError"
    assert outside == [elsewhere]
    outside.clear()
    faults.clear()


@pytest.mark.parametrize("context", [(1280, "light"), (390, "dark")], indirect=True)
def test_the_keyboard_alone_leads_to_a_restored_image(tab: Tab, tmp_path: Path) -> None:
    def focus(wanted: str, key: str = "Tab") -> None:
        for _ in range(60):
            if tab.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
                return
            tab.keyboard.press(key)
        raise AssertionError(f"{wanted} is not reached")

    save_nifti(tmp_path / "small.nii", ct((24, 32, 2)).astype(np.int16))
    # Well before the key: Chromium may open a chooser of its own while this is only being set.
    tab.on("filechooser", lambda chooser: chooser.set_files(tmp_path / "small.nii"))
    tab.wait_for_timeout(500)
    focus("#pick")
    tab.keyboard.press("Enter")
    was_read(tab, 24, 32, 2)
    focus("#task")
    for _ in range(3):
        if tab.input_value("#task") == "ct-denoise":
            break
        tab.keyboard.press("ArrowDown")
    focus("#start")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#stage[data-job]:not([aria-busy])", timeout=240_000)
    focus("#divider")
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#divider").get_attribute("aria-valuenow") == "48"
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
