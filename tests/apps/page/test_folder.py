"""The folder given, the folder of the state, and the end of the page."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import httpx
import pytest

from restore_rwkv.apps.page import Page, PageSettings
from restore_rwkv.apps.page.demo import NAME
from restore_rwkv.apps.page.state import StateFolder
from restore_rwkv.errors import ConfigError, InputError
from tests.apps.page.conftest import write_ct
from tests.helpers.local_page import FakeNetwork, Visitor, served

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has other permissions")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_state_says_what_the_page_can_do(visitor: Visitor, folder: Path) -> None:
    state = visitor.get("/api/state").json()
    assert set(state) == {"version", "notice", "device", "tasks", "folder", "upload_cap", "jobs"}
    assert (state["folder"], state["upload_cap"], state["jobs"]) == (folder.name, 1 << 20, [])
    assert "cpu" in state["device"]["choices"]
    tasks = {task["name"]: task for task in state["tasks"]}
    assert tasks["ct-denoise"]["weights"][0] == "light-ct-denoise"
    assert set(tasks["ct-denoise"]) == {"name", "title", "modality", "unit", "weights"}


def test_links_that_leave_the_folder_are_not_followed(
    network: FakeNetwork, folder: Path, tmp_path: Path
) -> None:
    secret = write_ct(tmp_path / "secret.nii.gz")
    (folder / "link.nii.gz").symlink_to(secret)
    (folder / "inside.nii.gz").symlink_to(folder / "ct.nii.gz")
    (folder / "away").symlink_to(tmp_path)
    with served(path=folder, state=tmp_path / "state") as page, Visitor(page) as visitor:
        scans = {scan["name"]: scan for scan in visitor.scans(2)}
    assert set(scans) == {"ct.nii.gz", "link.nii.gz"}
    assert scans["link.nii.gz"]["state"] == "refused"
    assert "link" in scans["link.nii.gz"]["reason"]
    assert scans["link.nii.gz"]["shape"] is None


def test_a_header_beside_a_link_that_leaves_the_folder_is_refused(
    network: FakeNetwork, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "voxels.raw").write_bytes(bytes(8))
    (folder / "x.raw").symlink_to(tmp_path / "voxels.raw")
    (folder / "x.nhdr").write_text(
        "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: x.raw\n"
    )
    with served(path=folder) as page, Visitor(page) as visitor:
        scan = next(scan for scan in visitor.scans(2) if scan["name"] == "x.nhdr")
    assert (scan["state"], "link" in scan["reason"]) == ("refused", True)


def test_a_demo_scan_that_cannot_be_made_is_refused(
    network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("restore_rwkv.tasks.degrade_file", full)
    with served(demo=True) as page, Visitor(page) as visitor:
        (scan,) = visitor.scans()
    assert (scan["name"], scan["state"]) == (NAME, "refused")
    assert "No space left" in scan["reason"]


def test_one_file_can_be_given(network: FakeNetwork, folder: Path) -> None:
    with served(path=folder / "ct.nii.gz") as page, Visitor(page) as visitor:
        (scan,) = visitor.scans()
        assert (scan["name"], scan["state"]) == ("ct.nii.gz", "ready")


@pytest.mark.slow
def test_without_a_folder_the_demo_scan_is_offered(
    network: FakeNetwork,
) -> None:
    with served(demo=True) as page, Visitor(page) as visitor:
        (scan,) = visitor.scans()
        assert (scan["name"], scan["task"], scan["fit"]["outcome"]) == (NAME, "mri-sr", "fit")
        assert visitor.job(visitor.start(scan["id"])["id"])["state"] == "done"


@posix
def test_the_state_folder_is_for_its_user_only(tmp_path: Path) -> None:
    for given in (tmp_path / "new" / "state", None):
        state = StateFolder(given)
        for path in (state.path, state.uploads, state.results, state.unpacked):
            assert mode(path) == 0o700
        assert mode(state.path / "page.sqlite") == 0o600
        state.close()
        assert state.path.exists() == (given is not None)


@posix
def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "something").touch()
    with pytest.raises(InputError, match="chmod 700"):
        StateFolder(shared)
    assert mode(shared) == 0o755
    (shared / "something").unlink()
    StateFolder(shared).close()  # an empty one is made private
    assert mode(shared) == 0o700


def test_two_pages_cannot_have_one_state_folder(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    with pytest.raises(InputError, match="another page uses this folder"):
        StateFolder(tmp_path / "state")
    state.close()
    StateFolder(tmp_path / "state").close()


def test_private_folders_of_killed_pages_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old, young, other = (tmp_path / f"restore-rwkv-page-{name}" for name in "abc")
    for folder in (old, young, other):
        folder.mkdir()
    for folder in (old, young):
        (folder / "page.lock").touch()
    before = time.time() - 3600
    os.utime(old / "page.lock", (before, before))
    used = StateFolder()
    os.utime(used.path / "page.lock", (before, before))
    again = StateFolder()
    assert not old.exists()
    assert young.exists()
    assert other.exists()
    assert used.path.exists()
    again.close()
    used.close()


def test_the_end_stops_the_job_and_closes_every_tab(
    network: FakeNetwork, folder: Path, tmp_path: Path
) -> None:
    network.go.clear()
    page = Page(PageSettings(path=folder))
    page.start()
    with Visitor(page) as visitor:
        (scan,) = visitor.scans()
        visitor.start(scan["id"])
        assert network.begun.wait(30)
        with visitor.events() as events:
            next(events)
            threading.Timer(0.2, network.go.set).start()
            start = time.monotonic()
            page.stop()
            assert time.monotonic() - start < 5
            for _ in events:
                pass  # ends
    assert not page.state.path.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(page.address, trust_env=False)


def test_a_port_in_use_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    page = Page(PageSettings(state=tmp_path / "a"))
    try:
        with pytest.raises(ConfigError, match=r"port \d+: is in use; give another port=N"):
            Page(PageSettings(port=page.port, state=tmp_path / "b"))
        assert not (tmp_path / "b").exists()
    finally:
        page.stop()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": 70000}, "port 70000: is not a port"),
        ({"host": "192.0.2.1"}, "host 192.0.2.1: is not an address of this machine"),
        ({"path": Path("missing")}, "missing: no such file or folder"),
    ],
)
def test_what_cannot_be_served_is_refused(settings: dict, words: str) -> None:
    with pytest.raises((ConfigError, InputError), match=words):
        Page(PageSettings(**settings))
