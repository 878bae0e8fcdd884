"""Uploads: caps, hostile names, and what stays on the disk."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from restore_rwkv.apps.page import Page
from restore_rwkv.apps.page.access import COOKIE
from restore_rwkv.apps.words import Words, safe_name
from tests.apps.page.conftest import write_ct
from tests.helpers.local_page import FakeNetwork, Visitor, awaited, served
from tests.helpers.synthetic_series import SeriesWriter

CAP = 1 << 20  # of the fixture `page`


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def of_uploads(visitor: Visitor, count: int = 2) -> list[dict]:
    return [scan for scan in visitor.scans(count) if scan["source"] == "upload"]


def test_a_dropped_file_becomes_a_scan(visitor: Visitor, tmp_path: Path) -> None:
    ct = write_ct(tmp_path / "head.nii.gz")
    key = visitor.drop(ct, tmp_path / "head.json")
    (scan,) = of_uploads(visitor)
    assert (scan["state"], scan["name"], scan["upload"]) == ("ready", "head.nii.gz", key)
    assert visitor.job(visitor.start(scan["id"])["id"])["state"] == "done"


def test_a_file_that_does_not_say_what_it_is_waits_for_a_task(
    visitor: Visitor, tmp_path: Path
) -> None:
    visitor.drop(write_ct(tmp_path / "a.nii.gz"))
    (scan,) = of_uploads(visitor)
    assert (scan["state"], scan["modality"], scan["task"]) == ("ready", None, None)
    refused = visitor.post("/api/jobs", json={"scan": scan["id"]})
    assert (refused.status_code, "choose the task" in refused.json()["error"]) == (400, True)
    address = f"/api/scans/{scan['id']}"
    assert visitor.post(address, json={"task": "none"}).status_code == 400
    assert visitor.post(address, json={"task": "ct-denoise"}).json()["state"] == "looking"
    (looked,) = of_uploads(visitor)
    assert (looked["id"], looked["fit"]["outcome"]) == (scan["id"], "fit")
    assert looked["memory"] > 0
    assert visitor.start(scan["id"])["options"]["task"] == "ct-denoise"
    assert visitor.job(visitor.start(scan["id"], task="ct-denoise")["id"])["state"] == "done"


def test_a_dropped_series_and_its_archive_give_a_derived_series_and_nifti(
    visitor: Visitor, write_series: SeriesWriter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("restore_rwkv.restoration.planning._require_fit", lambda *_: False)
    # The pixels of the synthetic series are too few for the network.
    monkeypatch.setattr("restore_rwkv.model.config.RestoreRWKVConfig.stride", 1)
    files = sorted(write_series().iterdir())
    visitor.drop(*files)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in files:
            archive.write(file, f"export/{file.name}")
    visitor.drop(("export.zip", packed.getvalue()))
    scans = of_uploads(visitor, 3)
    assert [scan["name"].partition("series")[2] for scan in scans] == [" 7 oblique"] * 2
    for scan in scans:
        assert scan["reason"] is None
        job = visitor.job(visitor.start(scan["id"])["id"])
        assert job["state"] == "done", job["error"]
        assert set(job["outputs"]["downloads"]) == {"dicom", "nifti"}
        for form, suffixes in (("dicom", [".dcm"] * 4 + [".json"]), ("nifti", [".gz", ".json"])):
            answer = visitor.get(job["outputs"]["downloads"][form])
            names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
            assert sorted(Path(name).suffix for name in names) == suffixes


@pytest.mark.parametrize("length", [CAP + 1, 1 << 40])
def test_an_upload_over_the_cap_is_refused_before_it_is_read(
    page: Page, visitor: Visitor, length: int
) -> None:
    cookie = f"{COOKIE}={visitor.cookies[COOKIE]}"
    head = f"PUT /api/uploads/a.nii HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n"
    with socket.create_connection(("127.0.0.1", page.port), 10) as connection:
        connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert not list(page.state.uploads.iterdir())


def test_an_upload_in_chunks_is_cut_off_at_the_cap(page: Page, visitor: Visitor) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 16)

    answer = visitor.put("/api/uploads/a.nii", content=chunks())
    assert (answer.status_code, "the most for an upload" in answer.json()["error"]) == (413, True)
    assert not files_below(page.state.uploads)


def test_the_cap_is_for_all_files_of_a_folder(page: Page, visitor: Visitor) -> None:
    half = bytes(600_000)
    answer = visitor.put("/api/uploads/a.dcm", content=half)
    key = {"X-Upload": answer.json()["id"]}
    assert visitor.put("/api/uploads/b.dcm", content=half, headers=key).status_code == 413
    assert visitor.put("/api/uploads/c.dcm", content=b"x", headers=key).status_code == 201
    assert {path.name for path in files_below(page.state.uploads)} == {"a.dcm", "c.dcm"}


def test_a_length_that_lies_leaves_nothing(page: Page, visitor: Visitor) -> None:
    cookie = f"{COOKIE}={visitor.cookies[COOKIE]}"
    head = f"PUT /api/uploads/a.nii HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n"
    with socket.create_connection(("127.0.0.1", page.port), 10) as connection:
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode() + bytes(10))
        awaited(lambda: list(page.state.uploads.iterdir()))
    awaited(lambda: not files_below(page.state.uploads))
    assert visitor.get("/api/state").status_code == 200


HOSTILE = {
    "../../../etc/passwd": "passwd",
    "/etc/passwd": "passwd",
    "..\\..\\windows\\win.ini": "win.ini",
    "C:\\scan.nii": "scan.nii",
    "..": "file",
    ".": "file",
    "": "file",
    ".hidden.nii": "hidden.nii",
    "a\0b.nii": "a_b.nii",
    "CON": "_CON",
    "nul.nii.gz": "_nul.nii.gz",
    "lpt1.dcm": "_lpt1.dcm",
    "\u202egpj.nii": "_gpj.nii",
    "a\nb\r\x1b[31m.nii": "a_b___31m.nii",
    "a:b|c?d*e<f>.nii": "a_b_c_d_e_f_.nii",
    "köpf.nii.gz": "köpf.nii.gz",
    "trailing. ": "trailing",
    "~/.ssh/id_rsa": "id_rsa",
    "$(reboot).nii": "__reboot_.nii",
}


@pytest.mark.parametrize(("given", "safe"), HOSTILE.items())
def test_a_hostile_name_never_becomes_a_path(given: str, safe: str) -> None:
    assert safe_name(given) == safe


@pytest.mark.parametrize("letter", ["a", "ö", "脳"])
def test_a_long_name_keeps_its_suffix(letter: str) -> None:
    name = safe_name(letter * 5000 + ".nii.gz")
    assert name.endswith(f"{letter}.nii.gz")
    assert len(os.fsencode(name)) <= 120
    assert safe_name("a." + "b" * 5000) == safe_name("a." + "b" * 5000)
    assert len(safe_name("." * 3 + "b." * 3000)) <= 120


def test_hostile_names_stay_in_the_folder_of_the_upload(
    visitor: Visitor, page: Page, tmp_path: Path
) -> None:
    before = set(files_below(tmp_path)) - set(files_below(page.state.path))
    for name in HOSTILE:
        answer = visitor.put(f"/api/uploads/{quote(name, safe='')}", content=b"x")
        assert answer.status_code in (201, 404, 405, 409), name
        if answer.status_code == 201:
            key = answer.json()["id"]
            assert visitor.post(f"/api/uploads/{key}/done").status_code == 202
            assert visitor.delete(f"/api/uploads/{key}").status_code == 204
    assert set(files_below(tmp_path)) - set(files_below(page.state.path)) == before
    assert not files_below(page.state.uploads)


def test_an_id_of_an_upload_is_not_a_path(visitor: Visitor) -> None:
    for key in ("../x", "a/b", "", "a" * 65, "a b"):
        answer = visitor.put("/api/uploads/a", content=b"x", headers={"X-Upload": key})
        assert answer.status_code == 422, key
    for key in ("..", "none"):
        assert visitor.post(f"/api/uploads/{quote(key)}/done").status_code in (404, 405)


def test_files_of_one_name_are_kept_apart(visitor: Visitor, page: Page) -> None:
    answer = visitor.put("/api/uploads/one/IM1", content=b"1")
    key = {"X-Upload": answer.json()["id"]}
    for part in ("two", "three"):
        visitor.put(f"/api/uploads/{part}/IM1", content=part.encode(), headers=key)
    found = sorted(path.read_bytes() for path in files_below(page.state.uploads))
    assert found == [b"1", b"three", b"two"]


def test_broken_files_are_listed_with_the_reason(visitor: Visitor, page: Page) -> None:
    for name, content in (
        *(("cut.nii.gz", b"\x1f\x8b\x08\0broken"), ("empty.nii", b""), ("notes.txt", b"hello")),
        *(("picture.jpg", b"\xff\xd8\xff\xe0" + bytes(100)), ("bad.zip", b"PK\x03\x04" + bytes(9))),
    ):
        visitor.drop((name, content))
    scans = of_uploads(visitor, 6)
    assert len(scans) == 5
    for scan in scans:
        assert scan["state"] == "refused"
        assert scan["reason"]
        assert str(page.state.path) not in scan["reason"]
        assert "/" not in scan["reason"].replace("and/or", "")
        assert visitor.post("/api/jobs", json={"scan": scan["id"]}).status_code == 409


def test_uploads_are_removed_when_they_are_forgotten(
    visitor: Visitor, network: FakeNetwork, page: Page, tmp_path: Path
) -> None:
    key = visitor.drop(write_ct(tmp_path / "b.nii.gz"), tmp_path / "b.json")
    (scan,) = of_uploads(visitor)
    network.go.clear()
    number = visitor.start(scan["id"])["id"]
    assert visitor.delete(f"/api/uploads/{key}").status_code == 409  # the job needs it
    network.go.set()
    visitor.job(number)
    assert visitor.delete(f"/api/uploads/{key}").status_code == 204
    assert not list(page.state.uploads.iterdir())
    assert not of_uploads(visitor, 1)
    assert visitor.get(f"/api/jobs/{number}/after.nii.gz").status_code == 200


def test_uploads_survive_a_restart_and_unfinished_ones_do_not(
    network: FakeNetwork, tmp_path: Path
) -> None:
    ct, state = write_ct(tmp_path / "c.nii.gz"), tmp_path / "state"
    with served(state=state) as page, Visitor(page) as visitor:
        visitor.drop(ct, tmp_path / "c.json")
        (before,) = visitor.scans()
        visitor.put("/api/uploads/half.nii", content=b"x")
    with served(state=state) as page, Visitor(page) as visitor:
        (after,) = visitor.scans()
        assert after["id"] == before["id"]
        assert len(list(page.state.uploads.iterdir())) == 1


def test_a_full_disk_is_said_before_anything_is_read(
    visitor: Visitor, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scan,) = visitor.scans()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10 << 20))
    answer = visitor.put("/api/uploads/a.nii", content=b"x")
    assert answer.status_code == 507
    assert "forget jobs and uploads" in answer.json()["error"]
    assert visitor.post("/api/jobs", json={"scan": scan["id"]}).status_code == 507
    assert not list(page.state.uploads.iterdir())


def test_there_is_a_limit_to_the_number_of_uploads(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore_rwkv.apps.page.uploads._MOST_UPLOADS", 2)
    statuses = [visitor.put("/api/uploads/a", content=b"x").status_code for _ in range(3)]
    assert statuses == [201, 201, 409]


def test_messages_lose_their_paths(tmp_path: Path) -> None:
    words = Words([tmp_path / "my scans"])
    for text, shown in (
        (f"{tmp_path}/my scans/a/b.nii: is damaged; copy it", "a/b.nii: is damaged; copy it"),
        (f"{tmp_path}/my scans: is empty; name another", "the folder: is empty; name another"),
        ("/opt/x/y.nii: no such file; check the path", "y.nii: no such file; check the path"),
        ("C:\\data\\x.nii: damaged", "x.nii: damaged"),
        ("5 g/ml and 1/4 of a/b at http://x/y", "5 g/ml and 1/4 of a/b at http://x/y"),
        (
            "a.nii: give task='mri-sr' or force=True",
            "a.nii: give task mri-sr or restore-rwkv restore --force",
        ),
        ("two\nlines \u202e", "two lines \\u202e"),
    ):
        assert words.line(text) == shown
