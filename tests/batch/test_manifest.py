"""The manifest: what it keeps, and what it is not."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from restore_rwkv.batch import Manifest, Outcome
from restore_rwkv.errors import InputError, StorageError
from tests.helpers.batches import job

DONE = {"source_sha256": "ab", "weights_sha256": "cd", "device": "cpu", "torch": "2"}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest(tmp_path / "manifest.sqlite")


def add(manifest: Manifest, *names: str) -> None:
    manifest.add((place, job(name, size=5), 7) for place, name in enumerate(names))


def test_an_outcome_comes_back_as_it_was_kept(manifest: Manifest) -> None:
    kept = Outcome(
        key="a",
        state="done",
        seconds=1.5,
        network_seconds=0.5,
        bytes_read=10,
        bytes_written=20,
        record=DONE,
        thumbnail=b"png",
        attempts=2,
        worker="node:1",
    )
    manifest.begin({})
    add(manifest, "a", "b")
    manifest.keep(kept)
    first, second = Manifest(manifest.path).entries()
    assert first.outcome == kept
    assert (second.name, second.outcome) == ("b", None)
    assert [
        entry.outcome and entry.outcome.thumbnail for entry in manifest.entries(pictures=False)
    ] == [None, None]
    assert manifest.counts() == {"done": 1, "waiting": 1}


def test_hashes_versions_and_device_have_columns(manifest: Manifest) -> None:
    manifest.begin({"task": "mri-sr"})
    add(manifest, "a")
    manifest.keep(Outcome(key="a", state="done", record=DONE))
    manifest.end()
    with contextlib.closing(sqlite3.connect(manifest.path)) as database:
        row = database.execute("SELECT source_sha256, weights_sha256, device, torch FROM scans")
        assert row.fetchone() == ("ab", "cd", "cpu", "2")
        settings, software, ended = database.execute(
            "SELECT settings, software, ended FROM runs"
        ).fetchone()
    assert json.loads(settings) == manifest.settings() == {"task": "mri-sr"}
    assert software.startswith("restore-rwkv ")
    assert ended is not None


def test_faults_are_told_apart(manifest: Manifest) -> None:
    add(manifest, "c", "b", "a")
    manifest.keep(Outcome(key="b", state="refused", kind="input", reason="b: damaged"))
    manifest.keep(Outcome(key="c", state="failed", kind="system", reason="disk"))
    manifest.keep(Outcome(key="a", state="skipped"))
    assert [entry.name for entry in manifest.entries(faults=True)] == ["c", "b"]
    assert [entry.name for entry in manifest.entries(faults=False)] == ["a"]


def test_what_is_not_found_any_more_is_forgotten_unless_it_is_done(manifest: Manifest) -> None:
    add(manifest, "a", "b", "c")
    manifest.keep(Outcome(key="a", state="done"))
    manifest.keep(Outcome(key="b", state="refused", kind="input", reason="b: damaged"))
    add(manifest, "c", "d")
    assert [entry.name for entry in manifest.entries()] == ["c", "d", "a"]
    assert list(manifest.finished()) == ["a"]


def test_scans_to_be_restored_again_lose_their_outcome(manifest: Manifest) -> None:
    add(manifest, "a")
    manifest.keep(Outcome(key="a", state="done"))
    manifest.add([(0, job("a", size=6), 8)], again=["a"])
    assert manifest.finished() == {}
    assert manifest.counts() == {"waiting": 1}


def test_what_a_part_has_done_is_taken_over_and_nothing_else(
    manifest: Manifest, tmp_path: Path
) -> None:
    part = Manifest(tmp_path / "part.sqlite")
    part.begin({})
    add(part, "a", "b", "c")
    part.keep(Outcome(key="a", state="done", record=DONE, thumbnail=b"png", attempts=3))
    part.keep(Outcome(key="b", state="failed", kind="system", reason="disk"))
    part.keep(Outcome(key="c", state="done", worker="part"))
    add(manifest, "a", "c")
    manifest.keep(Outcome(key="c", state="done", worker="own"))
    manifest.begin({})
    manifest.take_over(part)
    entries = {entry.name: entry.outcome for entry in manifest.entries()}
    assert set(entries) == {"a", "c"}
    assert entries["a"] == Outcome(key="a", state="done", record=DONE, thumbnail=b"png", attempts=3)
    assert entries["c"] is not None
    assert entries["c"].worker == "own"
    assert manifest.finished()["a"].size == 5


def test_names_that_are_not_unicode_are_kept_readably(manifest: Manifest) -> None:
    name = os.fsdecode(b"latin\xe9\n[red].nii")
    manifest.add([(0, job("a", name=name, source=name, target=name), 0)])
    manifest.keep(Outcome(key="a", state="refused", kind="input", reason=name, details=name))
    (entry,) = manifest.entries()
    assert entry.name == entry.source == entry.target == "latin\\udce9\n[red].nii"
    assert entry.outcome is not None
    assert entry.outcome.reason == entry.name


@pytest.mark.parametrize(
    "content", [b"no database at all, but a text of some length" * 30, b"\0" * 5000]
)
def test_another_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.sqlite"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read as the manifest .*; name another folder"):
        Manifest(path)
    assert path.read_bytes() == content


def test_a_newer_manifest_or_another_database_is_refused(tmp_path: Path) -> None:
    for version in (0, 99):
        path = tmp_path / f"{version}.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE other (x)")
            database.execute(f"PRAGMA user_version = {version}")
        with pytest.raises(InputError, match=f"manifest of version {version}, and this program"):
            Manifest(path)


def test_a_folder_that_cannot_be_written_to_is_a_fault_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="unable to open database file") as fault:
        Manifest(tmp_path / "nowhere" / "manifest.sqlite")
    assert fault.value.filename == str(tmp_path / "nowhere" / "manifest.sqlite")


@pytest.mark.slow
def test_one_who_reads_it_for_a_while_stops_nothing(manifest: Manifest) -> None:
    manifest.add([(0, job("a"), 5)])
    reader = sqlite3.connect(manifest.path, check_same_thread=False)
    reader.execute("BEGIN")
    assert reader.execute("SELECT name FROM scans").fetchall() == [("a",)]
    timer = threading.Timer(6, reader.close)  # Python itself waits for 5 s
    timer.start()
    manifest.keep(Outcome(key="a", state="done"))
    timer.join()
    assert manifest.counts() == {"done": 1}


def test_one_who_reads_it_for_long_is_named_with_the_remedy(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore_rwkv.batch.manifest._SECONDS_LOCKED", 0.1)
    path = manifest.path
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT name FROM scans").fetchall()
    with Manifest(path) as second, pytest.raises(StorageError, match="another program holds it"):
        second.add([(0, job("a"), 5)])
    reader.close()


def test_a_full_disk_is_a_fault_of_the_system(manifest: Manifest) -> None:
    add(manifest, "a")
    manifest._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(OSError, match="database or disk is full"):
        manifest.keep(Outcome(key="a", state="done", thumbnail=bytes(1 << 20)))
    manifest._database.execute("PRAGMA max_page_count = 10000")
    manifest.keep(Outcome(key="a", state="done", thumbnail=bytes(1 << 20)))
    assert manifest.counts() == {"done": 1}
