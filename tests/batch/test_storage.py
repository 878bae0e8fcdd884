"""Scans and outputs in a store: a real S3 server on this machine, and fsspec's own in memory."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from pydicom import dcmread

from restore_rwkv.batch import Job, Outcome, Worker, WorkerSettings, find_jobs, staging, storage
from restore_rwkv.batch.storage import Store, is_url, joined, name_of, parent, plain
from restore_rwkv.batch.workspace import workspace
from restore_rwkv.errors import ConfigError, InputError, StorageError
from restore_rwkv.restoration import RestoreOptions
from tests.helpers.derivable_series import write_source
from tests.helpers.source_trees import blob, save_nifti
from tests.helpers.stores import S3

pytestmark = pytest.mark.slow  # beside servers and peers, which takes time

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with S3() as server:
        yield server


@pytest.fixture
def bucket(server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """URL of a new, empty bucket; the temporary folder of the system is one of this test."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield server.bucket()
    assert not list((tmp_path / "tmp").iterdir())


@pytest.fixture
def worker(tiny_weights: Path) -> Worker:
    return make_worker(tiny_weights)


def make_worker(weights: Path, **options: Any) -> Worker:
    chosen = RestoreOptions(force=True, **options)
    return Worker(WorkerSettings(task="mri-sr", weights=str(weights), device="cpu", options=chosen))


def volume_job(source: str, target: str) -> Job:
    return Job(key=KEY, name=name_of(source), source=source, target=target)


def record_without_times(record: Any) -> dict[str, Any]:
    values = json.loads(json.dumps(record))
    return {name: value for name, value in values.items() if name not in ("created", "seconds")}


def restored_here(worker: Worker, source: Path, target: Path) -> Outcome:
    outcome = worker.run(volume_job(str(source), str(target)))
    assert outcome.state == "done", outcome.reason
    return outcome


def test_a_volume_through_s3_is_byte_for_byte_that_of_the_disk(
    server: S3, bucket: str, worker: Worker, scan: Path, tmp_path: Path
) -> None:
    here = restored_here(worker, scan, tmp_path / "out" / "scan.nii.gz")
    server.upload(scan, f"{bucket}/raw/scan.nii.gz")
    outcome = worker.run(volume_job(f"{bucket}/raw/scan.nii.gz", f"{bucket}/out/scan.nii.gz"))
    assert (outcome.state, outcome.reason) == ("done", "")
    there = server.content(bucket)
    assert set(there) == {"raw/scan.nii.gz", "out/scan.nii.gz", "out/scan.restoration.json"}
    assert there["out/scan.nii.gz"] == (tmp_path / "out" / "scan.nii.gz").read_bytes()
    record = json.loads(there["out/scan.restoration.json"])
    assert outcome.record is not None
    assert here.record is not None
    assert record_without_times(record) == record_without_times(here.record)
    assert outcome.bytes_written == sum(len(there[k]) for k in there if k.startswith("out/"))


def test_a_series_through_s3_has_the_pixels_of_the_disk(
    server: S3, bucket: str, worker: Worker, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "knee", "MR")
    server.upload(source, f"{bucket}/raw/knee")
    ((local,), (remote,)) = (
        [found.job for found in find_jobs([root], out)]
        for root, out in ((source, tmp_path / "out"), (f"{bucket}/raw/knee", f"{bucket}/out"))
    )
    assert worker.run(local).state == "done"
    outcome = worker.run(remote)
    assert (outcome.state, outcome.reason) == ("done", "")
    there = server.content(bucket, "out/")
    here = sorted(Path(local.target).iterdir())
    names = [f"out/knee/{file.name}" for file in here]
    assert sorted(there) == sorted([*names, "out/knee.restoration.json"])
    for file, name in zip(here, names, strict=True):
        (tmp_path / "one.dcm").write_bytes(there[name])
        assert dcmread(tmp_path / "one.dcm").PixelData == dcmread(file).PixelData
    assert json.loads(there["out/knee.restoration.json"])["source"] == "knee"


def test_an_output_that_the_store_has_is_kept_and_one_of_other_options_refused(
    server: S3, bucket: str, worker: Worker, tiny_weights: Path, scan: Path
) -> None:
    server.upload(scan, f"{bucket}/scan.nii.gz")
    job = volume_job(f"{bucket}/scan.nii.gz", f"{bucket}/out/scan.nii.gz")
    assert worker.run(job).state == "done"
    before = server.content(bucket)
    again = worker.run(job)
    assert (again.state, again.bytes_written > 0) == ("skipped", True)
    other = make_worker(tiny_weights, consistency=0).run(job)
    assert (other.state, other.kind) == ("refused", "input")
    assert other.reason.startswith(f"{job.target}: exists already")
    assert server.content(bucket) == before


def test_a_file_of_somebody_else_is_never_overwritten(
    server: S3, bucket: str, worker: Worker, scan: Path
) -> None:
    server.upload(scan, f"{bucket}/scan.nii.gz")
    server.upload(scan, f"{bucket}/out/scan.nii.gz")
    job = volume_job(f"{bucket}/scan.nii.gz", f"{bucket}/out/scan.nii.gz")
    outcome = worker.run(job)
    assert outcome.state == "refused"
    assert "without a record" in outcome.reason
    assert server.content(bucket)["out/scan.nii.gz"] == scan.read_bytes()


@pytest.mark.parametrize("step", ["write", "put", "read", "_confirm", "second put"])
def test_a_kill_before_the_record_leaves_what_the_next_attempt_overwrites(
    step: str,
    server: S3,
    bucket: str,
    worker: Worker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = write_source(tmp_path / "knee", "MR")
    server.upload(source, f"{bucket}/raw/knee")
    (found,) = find_jobs([f"{bucket}/raw"], f"{bucket}/out")
    with monkeypatch.context() as patch:
        _die_at(patch, step)
        with pytest.raises(_Killed):
            worker.run(found.job)
    left = server.content(bucket, "out/")
    assert not any(name.endswith(".json") for name in left)
    outcome = worker.run(found.job)
    assert (outcome.state, outcome.reason) == ("done", "")
    there = server.content(bucket, "out/")
    assert outcome.record is not None
    files = set(outcome.record["output_files"])
    assert {name.rpartition("/")[2] for name in there} == files | {"knee.restoration.json"}
    assert worker.run(found.job).state == "skipped"


class _Killed(BaseException):
    pass


def _die_at(patch: pytest.MonkeyPatch, step: str) -> None:
    """Have the process die before a step of an upload; nothing is removed, as after kill -9."""
    calls: list[None] = []
    owner = staging._Output if step == "_confirm" else Store
    name = step.rpartition(" ")[2]
    method = getattr(owner, name)

    def dying(self: Any, *values: Any) -> Any:
        calls.append(None)
        if len(calls) == (2 if step.startswith("second") else 1):
            patch.setattr(Store, "remove", lambda *_: None)
            raise _Killed
        return method(self, *values)

    patch.setattr(owner, name, dying)


def test_two_attempts_at_once_end_with_one_complete_output(
    server: S3, bucket: str, worker: Worker, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.upload(scan, f"{bucket}/scan.nii.gz")
    job = volume_job(f"{bucket}/scan.nii.gz", f"{bucket}/out/scan.nii.gz")
    put, inner = Store.put, list[Outcome]()

    def interrupted(self: Store, *values: Any) -> None:
        put(self, *values)
        if not inner:  # while the first is on its way, a second one begins and ends
            monkeypatch.setattr(Store, "put", put)
            inner.append(worker.run(job))

    monkeypatch.setattr(Store, "put", interrupted)
    outcome = worker.run(job)
    assert inner[0].state == "done"
    assert (outcome.state, outcome.kind) == ("failed", "system")
    assert "another process is writing it" in outcome.reason
    assert worker.run(job).state == "skipped"


def test_a_source_that_changes_while_it_is_read_is_a_fault(
    server: S3, bucket: str, worker: Worker, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.upload(scan, f"{bucket}/scan.nii.gz")
    fetch = Store.fetch

    def changing(self: Store, *values: Any) -> None:
        fetch(self, *values)
        changed = bytearray(scan.read_bytes())
        changed[4] ^= 1  # of the time in the header of gzip: the size remains
        server.write(f"{bucket}/scan.nii.gz", bytes(changed))

    monkeypatch.setattr(Store, "fetch", changing)
    outcome = worker.run(volume_job(f"{bucket}/scan.nii.gz", f"{bucket}/out.nii.gz"))
    assert (outcome.state, outcome.kind) == ("refused", "input")
    assert "has changed while it was read" in outcome.reason


def test_an_upload_that_arrives_damaged_is_a_fault_and_no_output(
    server: S3, bucket: str, worker: Worker, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.upload(scan, f"{bucket}/scan.nii.gz")

    def damaging(self: Store, paths: list[Path], urls: list[str]) -> None:
        for path, url in zip(paths, urls, strict=True):
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            server.write(url, bytes(content))

    monkeypatch.setattr(Store, "put", damaging)
    outcome = worker.run(volume_job(f"{bucket}/scan.nii.gz", f"{bucket}/out/scan.nii.gz"))
    assert (outcome.state, outcome.kind) == ("failed", "system")
    assert "does not hold what was written" in outcome.reason
    assert not [name for name in server.content(bucket, "out/") if "partial" not in name]


def test_what_a_store_refuses_is_one_line_without_credentials(
    server: S3, bucket: str, worker: Worker, scan: Path
) -> None:
    missing = worker.run(volume_job(f"{bucket}/none.nii.gz", f"{bucket}/out.nii.gz"))
    assert (missing.state, missing.kind) == ("refused", "input")
    assert missing.reason == f"{bucket}/none.nii.gz: no such object; check the URL"
    other = "s3://no-such-bucket-here/x.nii.gz"
    for source, target in ((other, f"{bucket}/out.nii.gz"), (str(scan), other)):
        outcome = worker.run(volume_job(source, target))
        assert (outcome.state, outcome.kind) == ("failed", "system"), outcome.reason
        assert outcome.reason.startswith("s3://no-such-bucket-here/")
        assert "no such bucket" in outcome.reason
        assert "\n" not in outcome.reason


@pytest.mark.slow
def test_a_store_that_is_not_reached_is_a_fault_of_the_machine(
    server: S3, bucket: str, worker: Worker
) -> None:
    with server.elsewhere("http://127.0.0.1:9"):
        outcome = worker.run(volume_job("s3://some/x.nii.gz", f"{bucket}/out.nii.gz"))
    assert (outcome.state, outcome.kind) == ("failed", "system")
    assert "cannot be used" in outcome.reason
    assert server.secret not in outcome.reason
    assert "\n" not in outcome.reason


def test_what_cannot_be_a_url_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="holds a password") as error:
        storage.store_of("ftp://me:geheim@host/x.nii")
    assert "geheim" not in str(error.value)
    with pytest.raises(ConfigError, match="unknown kind of URL"):
        storage.store_of("gibberish://host/x.nii")


def test_a_disk_without_room_is_refused_before_anything_is_fetched(
    server: S3, bucket: str, worker: Worker, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.upload(scan, f"{bucket}/scan.nii.gz")

    class Full:
        free = 10

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Full)
    monkeypatch.setattr(Store, "fetch", lambda *_: pytest.fail("it is fetched"))
    outcome = worker.run(volume_job(f"{bucket}/scan.nii.gz", f"{bucket}/out/scan.nii.gz"))
    assert (outcome.state, outcome.kind) == ("failed", "system")
    assert "set TMPDIR" in outcome.reason


def test_a_store_and_a_disk_give_the_same_jobs(server: S3, bucket: str, tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree")
    server.upload(tree, f"{bucket}/a/tree")
    local = {found.job.key: found.job for found in find_jobs([tree], tmp_path / "out")}
    found = list(find_jobs([f"{bucket}/a/tree/"], f"{bucket}/a/tree/restored"))
    remote = {one.job.key: one.job for one in found}
    assert len(remote) == len(found)
    assert remote.keys() == local.keys()
    for key, job in remote.items():
        other = local[key]
        assert (job.name, job.series, job.files, job.is_series, job.size) == (
            *(other.name, other.series, other.files, other.is_series, other.size),
        )
        assert job.source.removeprefix(f"{bucket}/a/tree") == other.source.removeprefix(str(tree))
        assert job.target.removeprefix(f"{bucket}/a/tree/restored") == (
            other.target.removeprefix(str(tmp_path / "out"))
        )
    assert all(one.modified > 0 for one in found)


def _tree(tree: Path) -> Path:
    """Volumes, a pair, a series in two folders, one with a long header, and other files."""
    data = blob(16, 16, 4)
    save_nifti(tree / "sub-1" / "t1.nii.gz", data)
    save_nifti(tree / "sub-1" / "pair.hdr", data)
    (tree / "sub-1" / "notes.txt").write_text("nothing\n")
    (tree / "sub-1" / ".hidden.nii").write_bytes(b"1")
    (tree / "sub-1" / "t1.json").write_text("{}")
    (tree / "without-suffix").write_bytes(save_nifti(tree / "x.nii", data).read_bytes())
    write_source(tree / "sub-2", "MR", lambda image: image.__setattr__("SeriesNumber", 3))
    parts = write_source(
        tree / "sub-3", "CT", lambda image: image.__setattr__("SeriesInstanceUID", "1.2.9")
    )
    (parts / "more").mkdir()
    for file in sorted(parts.glob("IM*"))[:2]:
        file.rename(parts / "more" / file.name)

    def lengthen(image: Any) -> None:
        image.SeriesInstanceUID = "1.2.10"
        block = image.private_block(0x0029, "LONG", create=True)
        block.add_new(0x10, "OB", bytes(200_000))

    write_source(tree / "sub-4", "MR", lengthen)
    return tree


def test_only_the_beginnings_of_dicom_files_are_fetched_to_find_them(
    server: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enlarge(image: Any) -> None:
        image.Rows = image.Columns = 400
        image.PixelData = np.zeros((400, 400), np.uint16).tobytes()

    server.upload(write_source(tmp_path / "ct", "CT", enlarge), f"{bucket}/ct")
    monkeypatch.setattr(Store, "fetch", lambda *_: pytest.fail("a whole file is fetched"))
    (found,) = find_jobs([f"{bucket}/ct"], f"{bucket}/out")
    assert found.job.size > 4 * 320_000


def test_single_files_and_archives_are_found_by_their_urls(
    server: S3, bucket: str, worker: Worker, scan: Path, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "knee", "MR")
    archive = Path(shutil.make_archive(str(tmp_path / "knee"), "zip", source))
    server.upload(archive, f"{bucket}/knee.zip")
    server.upload(scan, f"{bucket}/scan.nii.gz")
    for root, local in ((f"{bucket}/knee.zip", archive), (f"{bucket}/scan.nii.gz", scan)):
        (there,) = find_jobs([root], f"{bucket}/out")
        (here,) = find_jobs([local], tmp_path / "out")
        assert (there.job.key, there.job.name) == (here.job.key, here.job.name)
        outcome = worker.run(there.job)
        assert (outcome.state, outcome.reason) == ("done", "")
    with pytest.raises(InputError, match="there is nothing at this URL"):
        list(find_jobs([f"{bucket}/none"], f"{bucket}/out"))
    with pytest.raises(StorageError, match="no such bucket"):
        list(find_jobs(["s3://no-such-bucket-here/a"], f"{bucket}/out"))


def test_archives_below_a_url_are_looked_into(
    server: S3, bucket: str, worker: Worker, tmp_path: Path
) -> None:
    (tmp_path / "in" / "old").mkdir(parents=True)
    source = write_source(tmp_path / "in" / "knee", "MR")
    archive = Path(shutil.make_archive(str(tmp_path / "in" / "old" / "knee"), "zip", source))
    cut = archive.with_name("cut.zip")
    cut.write_bytes(archive.read_bytes()[:500])
    server.upload(tmp_path / "in", f"{bucket}/in")
    there = {one.job.key: one for one in find_jobs([f"{bucket}/in"], f"{bucket}/out")}
    here = {one.job.key: one for one in find_jobs([tmp_path / "in"], tmp_path / "out")}
    assert {one.job.name for one in there.values()} >= {"old/cut.zip"}
    assert {key: (one.job.name, bool(one.fault)) for key, one in there.items()} == {
        key: (one.job.name, bool(one.fault)) for key, one in here.items()
    }
    (packed,) = (one.job for one in there.values() if one.job.source.endswith("knee.zip"))
    assert worker.run(packed).state == "done"


def test_names_that_no_disk_has_cost_one_scan_and_not_the_tree(
    server: S3, bucket: str, worker: Worker, scan: Path
) -> None:
    content = scan.read_bytes()
    for key in ("a/../../evil.nii.gz", f"a/{'n' * 300}.nii.gz", "a//b.nii.gz", "a/good.nii.gz"):
        server.write(f"{bucket}/{key}", content)
    found = list(find_jobs([bucket], f"{bucket}/out"))
    assert [one.job.name for one in found if not one.fault] == ["a/good.nii.gz"]
    assert len([one for one in found if one.fault]) == 3
    outcome = worker.run(volume_job(f"{bucket}/a/..", f"{bucket}/out.nii.gz"))
    assert (outcome.state, outcome.kind) == ("refused", "input")


def test_files_beside_an_image_are_fetched_with_it(
    server: S3, bucket: str, worker: Worker, tmp_path: Path
) -> None:
    root = tmp_path / "raw"
    image = save_nifti(root / "sub-1" / "anat" / "sub-1_T1w.nii.gz", blob(16, 16, 4))
    save_nifti(root / "sub-1" / "pair.hdr", blob(16, 16, 4))
    voxels = blob(16, 16, 4).astype("<i2").tobytes(order="F")
    (root / "detached").mkdir()
    (root / "detached" / "a.raw").write_bytes(voxels)
    (root / "detached" / "a.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 2\n"
        "DimSize = 16 16 4\nElementType = MET_SHORT\nElementDataFile = a.raw\n"
    )
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    (root / "T1w.json").write_text('{"Modality": "MR", "DeepLearning": true}')
    image.with_name("sub-1_T1w.json").write_text('{"Modality": "MR"}')
    server.upload(root, f"{bucket}/raw")
    local = [found.job for found in find_jobs([root], tmp_path / "out")]
    remote = [found.job for found in find_jobs([f"{bucket}/raw"], f"{bucket}/out")]
    assert [job.name for job in local] == [job.name for job in remote]
    assert len(local) == 3
    for here, there in zip(local, remote, strict=True):
        first, second = worker.run(here), worker.run(there)
        assert (first.state, second.state) == ("done", "done"), (first.reason, second.reason)
        assert first.record is not None
        assert second.record is not None
        assert record_without_times(first.record) == record_without_times(second.record)


def test_what_killed_processes_have_left_is_removed_and_what_others_use_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, used, other = (tmp_path / f"restore-rwkv-stage-{name}" for name in "abc")
    for folder in (left, used, other):
        folder.mkdir()
        (folder / "scan.nii").write_text("patient\n")
    (left / ".lock").touch()
    with FileLock(used / ".lock"), workspace() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not left.exists()
        assert (used / "scan.nii").exists()
        assert (other / "scan.nii").exists()
    assert not folder.exists()


@pytest.mark.skipif(os.name == "nt", reason="everybody has a folder of his own there")
def test_folders_of_others_are_left_and_no_link_in_them_is_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / ".lock").write_text("of another program\n")
    (shared / "restore-rwkv-stage-link").symlink_to(mine)
    theirs = shared / "restore-rwkv-stage-theirs"
    theirs.mkdir()
    (theirs / ".lock").touch()
    lstat = Path.lstat

    def of_another(path: Path) -> os.stat_result:
        found = list(lstat(path))
        found[4] += path == theirs  # its user
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", of_another)
    with workspace():
        assert theirs.is_dir()
    assert (mine / ".lock").read_text() == "of another program\n"


def test_urls_of_this_disk_are_paths_and_used_in_place(
    worker: Worker, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "workspace", lambda: pytest.fail("it is copied"))
    target = tmp_path / "o u t" / "scan.nii.gz"
    url = target.as_uri()
    assert "%20" in url
    outcome = worker.run(volume_job(scan.as_uri(), url))
    assert (outcome.state, target.exists()) == ("done", True)


@pytest.mark.parametrize(
    ("place", "expected"),
    [("s3://b/x", True), ("memory://x", True), ("C:\\x", False), ("/a://b", False), ("a/b", False)],
)
def test_urls_are_told_from_paths(place: str, expected: bool) -> None:
    assert is_url(place) == expected


def test_parts_of_urls() -> None:
    assert parent("s3://b/x/y.nii") == "s3://b/x"
    assert parent("s3://b") == "s3://b"
    assert (name_of("s3://b/x/"), name_of("s3://b")) == ("x", "b")
    assert joined("s3://b/", "x") == "s3://b/x"
    assert (plain("file:///a%20b"), plain("s3://a%20b")) == ("/a b", "s3://a%20b")


def test_a_store_in_memory_serves_as_well(worker: Worker, scan: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/raw/scan.nii.gz", scan.read_bytes())
    (found,) = find_jobs(["memory://raw"], "memory://restored")
    outcome = worker.run(found.job)
    assert (outcome.state, outcome.reason) == ("done", "")
    assert storage.exists(found.job.target)
    assert not storage.exists("memory://none")
    assert worker.run(found.job).state == "skipped"
    memory.rm("/restored", recursive=True)
    memory.rm("/raw", recursive=True)
