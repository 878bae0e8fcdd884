"""One worker: every fault of a scan is an outcome, and what is there already is taken or kept."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import nibabel
import numpy as np
import pytest

from restore_rwkv.batch import Job, Outcome, Worker
from restore_rwkv.errors import ConfigError, NoMemoryError, WeightsError
from restore_rwkv.io import Target, plane_axis, read_volume
from restore_rwkv.io.affines import Plane
from restore_rwkv.model import RestoreRWKV, save_weights
from restore_rwkv.restoration import RestoreOptions, Restorer, restorer
from restore_rwkv.tasks import TASKS
from tests.helpers.batches import OPTIONS, job_of, scan, settings
from tests.helpers.derivable_series import write_source


@pytest.fixture
def worker(tiny_weights: Path) -> Worker:
    return Worker(settings(tiny_weights))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return scan(tmp_path / "in" / "a.nii.gz")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "deep" / "a.nii.gz"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_plan(*_: object) -> None:
        pytest.fail("the network was run")

    monkeypatch.setattr(Restorer, "run_plan", run_plan)


def plane_of(source: Path) -> Plane:
    """The plane of the slices as they are stored."""
    volume = read_volume(source)
    assert volume.affine is not None
    return next(p for p in get_args(Plane) if plane_axis(volume.affine, p) == 2)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_scan_is_restored_with_its_record(worker: Worker, source: Path, target: Path) -> None:
    outcome = worker.run(job_of(source, target))
    assert (outcome.state, outcome.kind, outcome.reason) == ("done", "ok", "")
    assert names(target.parent) == {"a.nii.gz", "a.restoration.json"}
    assert outcome.record == json.loads((target.parent / "a.restoration.json").read_text())
    assert outcome.bytes_read == source.stat().st_size
    assert outcome.bytes_written == sum(path.stat().st_size for path in target.parent.iterdir())
    assert 0 < outcome.network_seconds <= outcome.seconds
    assert outcome.worker == worker.name
    assert outcome.worker.endswith(f":{os.getpid()}")


def test_a_series_becomes_a_derived_one(
    tiny_network: RestoreRWKV, tmp_path: Path, target: Path
) -> None:
    weights = tmp_path / "all.safetensors"
    scaling = {name: task.scaling for name, task in TASKS.items()}
    save_weights(weights, tiny_network, scaling=scaling, training={})
    source = write_source(tmp_path / "ct", "CT")
    files = tuple(path.name for path in sorted(source.iterdir()))
    options = RestoreOptions(force=True, plane=plane_of(source))
    one = job_of(source, target.parent / "ct", is_series=True, files=files)
    worker = Worker(settings(weights, task="auto", options=options))
    outcome = worker.run(one)
    assert outcome.state == "done", outcome.reason
    assert len(list((target.parent / "ct").iterdir())) == len(files)
    assert outcome.bytes_written > sum(
        path.stat().st_size for path in (target.parent / "ct").iterdir()
    )
    again = worker.run(one)
    assert (again.state, again.record) == ("skipped", outcome.record)


def gzip_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def gzip_changed(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 255
    path.write_bytes(whole)


def without_values(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.full((32, 32, 2), np.nan, np.float32), np.eye(4)), path)


def of_two_dimensions_too_many(path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 9, (8, 8, 2, 2, 2, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


@pytest.mark.parametrize(
    ("damage", "kind", "reason"),
    [
        (gzip_cut, "input", "a.nii.gz: "),
        (gzip_changed, "input", "a.nii.gz: "),
        (without_values, "input", "a.nii.gz: "),
        (of_two_dimensions_too_many, "input", "a.nii.gz: "),
        (lambda path: path.write_bytes(b""), "input", "the file is empty"),
        (lambda path: path.write_bytes(b"%PDF-1.4"), "input", "a PDF document"),
        (Path.unlink, "input", "no such file"),
    ],
)
def test_a_damaged_scan_is_refused_with_its_reason(
    worker: Worker,
    source: Path,
    target: Path,
    damage: Callable[[Path], object],
    kind: str,
    reason: str,
) -> None:
    one = job_of(source, target)
    damage(source)
    outcome = worker.run(one)
    assert (outcome.state, outcome.kind) == ("refused", kind), outcome.reason
    assert reason in outcome.reason
    assert "\n" not in outcome.reason
    assert ";" in outcome.reason  # the remedy
    assert not target.parent.exists()


def test_a_cut_series_is_refused(worker: Worker, tmp_path: Path, target: Path) -> None:
    source = write_source(tmp_path / "ct", "CT")
    files = sorted(source.iterdir())
    files[1].write_bytes(files[1].read_bytes()[:-500])
    one = job_of(source, target, is_series=True, files=tuple(path.name for path in files))
    outcome = worker.run(one)
    assert (outcome.state, outcome.kind) == ("refused", "input")
    assert not target.parent.exists()


def test_an_unknown_modality_and_an_unfit_scan_are_refused(tmp_path: Path, target: Path) -> None:
    worker = Worker(settings("light-mri-sr", task="auto", options=RestoreOptions()))  # type: ignore[arg-type]
    unknown = worker.run(job_of(scan(tmp_path / "a.nii.gz"), target))
    assert (unknown.state, unknown.kind) == ("refused", "input")
    assert "nothing says whether it is MR, CT or PT" in unknown.reason
    worker = Worker(settings("light-mri-sr", options=RestoreOptions()))  # type: ignore[arg-type]
    unfit = worker.run(job_of(scan(tmp_path / "a_T1map.nii.gz"), target))
    assert (unfit.state, unfit.kind) == ("refused", "unfit")
    assert "T1map in its name" in unfit.reason


def test_weights_are_read_once(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    whole = restorer.load_inference

    def load(path: Path, **more: Any) -> Any:
        read.append(path)
        return whole(path, **more)

    monkeypatch.setattr(restorer, "load_inference", load)
    worker = Worker(settings(tiny_weights))
    for seed, name in enumerate("abc"):
        source = scan(tmp_path / f"{name}.nii", seed)
        assert worker.run(job_of(source, tmp_path / "out" / source.name)).state == "done"
    assert read == [tiny_weights]


def test_settings_that_cannot_be_used_are_refused_at_the_beginning(tiny_weights: Path) -> None:
    with pytest.raises(ConfigError, match="task 'mri' is unknown"):
        Worker(settings(tiny_weights, task="mri"))
    with pytest.raises(WeightsError, match="nowhere"):
        Worker(settings(tiny_weights / "nowhere"))


def bounded(most: int) -> Callable[[int], Any]:
    """Leave for so many bytes only, as `Pool` gives it."""

    @contextmanager
    def leave(size: int) -> Iterator[None]:
        if size > most:
            raise NoMemoryError(f"memory: the scan takes {size} of {most}; allow more")
        yield

    return leave


def test_out_of_memory_is_tried_again_with_smaller_tiles(
    tiny_weights: Path, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = scan(tmp_path / "in" / "a.nii.gz", shape=(600, 500, 1))
    allowed: list[int] = []
    whole = Restorer.run_plan

    def run_plan(self: Restorer, plan: Any, progress: Any = None) -> Any:
        allowed.append(plan.tiling.memory)
        if len(allowed) < 3:
            raise (NoMemoryError("a.nii.gz: no memory; close programs"), MemoryError())[
                len(allowed) - 1
            ]
        return whole(self, plan, progress)

    monkeypatch.setattr(Restorer, "run_plan", run_plan)
    outcome = Worker(settings(tiny_weights)).run(job_of(source, target))
    assert (outcome.state, outcome.attempts) == ("done", 3), outcome.reason
    assert allowed[0] > allowed[1] > allowed[2]
    assert names(target.parent) == {"a.nii.gz", "a.restoration.json"}


def test_a_scan_larger_than_all_memory_is_made_smaller_and_then_refused(
    tiny_weights: Path, tmp_path: Path, target: Path
) -> None:
    source = scan(tmp_path / "in" / "a.nii.gz", shape=(600, 500, 1))
    asked: list[int] = []

    @contextmanager
    def noted(size: int) -> Iterator[None]:
        asked.append(size)
        with bounded(10)(size):
            yield

    refused = Worker(settings(tiny_weights), noted).run(job_of(source, target))
    assert (refused.state, refused.kind) == ("failed", "system")
    assert refused.reason == f"memory: the scan takes {asked[0]} of 10; allow more"
    assert refused.attempts >= len(asked) > 1  # the last one needs less than a tile takes
    assert asked == sorted(asked, reverse=True)
    assert not target.parent.exists()
    fits = Worker(settings(tiny_weights), bounded(asked[0] - 1)).run(job_of(source, target))
    assert (fits.state, fits.attempts) == ("done", 2), fits.reason


@pytest.mark.parametrize(("side", "attempts"), [(256, 2), (200, 2), (900, 4)])
def test_the_last_attempt_is_made_with_the_smallest_tiles(
    side: int,
    attempts: int,
    tiny_weights: Path,
    tmp_path: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = scan(tmp_path / "in" / "a.nii.gz", shape=(side, side, 1))
    whole = Restorer.run_plan

    def run_plan(self: Restorer, plan: Any, progress: Any = None) -> Any:
        if plan.tiling.memory > self.least_memory(plan):
            raise NoMemoryError("a.nii.gz: no memory; close programs")
        return whole(self, plan, progress)

    monkeypatch.setattr(Restorer, "run_plan", run_plan)
    outcome = Worker(settings(tiny_weights)).run(job_of(source, target))
    assert (outcome.state, outcome.attempts) == ("done", attempts), outcome.reason
    assert outcome.record is not None
    assert outcome.record["tile"][0] < min(side, 256)


@pytest.mark.parametrize("before", [False, True])
def test_a_picture_that_fails_costs_only_the_picture(
    before: bool, worker: Worker, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise ZeroDivisionError("no picture")

    if before:
        assert worker.run(job_of(source, target)).thumbnail
    monkeypatch.setattr("restore_rwkv.restoration.thumbnail.thumbnail", fails)
    outcome = worker.run(job_of(source, target))
    assert (outcome.state, outcome.kind) == ("skipped" if before else "done", "ok"), outcome.reason
    assert outcome.thumbnail is None
    assert outcome.record is not None
    assert outcome.record["warnings"] == []


def test_a_full_disk_is_a_fault_of_the_system_and_leaves_nothing(
    worker: Worker, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("restore_rwkv.io.results.encode_volumes", write)
        outcome = worker.run(job_of(source, target))
    assert (outcome.state, outcome.kind) == ("failed", "system")
    assert "a.nii.gz: No space left on device; check" in outcome.reason
    assert not target.parent.exists()
    assert worker.run(job_of(source, target)).state == "done"


def test_a_bug_is_told_with_its_traceback(
    worker: Worker, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Restorer, "run_plan", lambda *_: {}["missing"])
    outcome = worker.run(job_of(source, target))
    assert (outcome.state, outcome.kind) == ("failed", "bug")
    assert "please report it: KeyError: 'missing'" in outcome.reason
    assert "Traceback" in outcome.details
    assert not target.parent.exists()


@pytest.mark.usefixtures("tiny_weights")
def test_what_was_made_before_is_kept_without_the_network(
    worker: Worker, source: Path, target: Path, request: pytest.FixtureRequest
) -> None:
    first = worker.run(job_of(source, target))
    before = target.stat().st_mtime_ns
    request.getfixturevalue("no_network")
    again = worker.run(job_of(source, target))
    assert (again.state, again.record) == ("skipped", first.record)
    assert (again.bytes_read, again.bytes_written) == (first.bytes_read, first.bytes_written)
    assert target.stat().st_mtime_ns == before


def test_what_a_kill_left_is_removed_where_the_output_is_there(
    worker: Worker, source: Path, target: Path
) -> None:
    worker.run(job_of(source, target))
    (target.parent / ".a-01234567.partial.nii.gz").write_bytes(b"x")
    (target.parent / ".a-01234567.partial.restoration.json").write_bytes(b"x")
    (target.parent / ".a.nii.gz.lock").touch()
    (target.parent / ".a.restoration.json.lock").touch()
    assert worker.run(job_of(source, target)).state == "skipped"
    assert names(target.parent) == {"a.nii.gz", "a.restoration.json"}


def test_a_record_whose_output_is_gone_does_not_stand_in_the_way(
    worker: Worker, source: Path, target: Path
) -> None:
    worker.run(job_of(source, target))
    whole = target.read_bytes()
    target.unlink()
    outcome = worker.run(job_of(source, target))
    assert outcome.state == "done", outcome.reason
    assert target.read_bytes() == whole


@pytest.mark.parametrize(
    "text", ['{"output": "b.nii.gz", "source_sha256": ""}', "{}", "my notes", ""]
)
def test_another_file_in_the_place_of_the_record_is_kept(
    worker: Worker, source: Path, target: Path, text: str
) -> None:
    target.parent.mkdir(parents=True)
    record = target.parent / "a.restoration.json"
    record.write_text(text)
    outcome = worker.run(job_of(source, target))
    assert outcome.state == "refused"
    assert "exists already" in outcome.reason
    assert record.read_text() == text
    assert names(target.parent) == {record.name}


@pytest.mark.parametrize(
    "change", [{"options": [1]}, {"options": None}, {"seconds": "long"}, {"task": 5}], ids=str
)
def test_a_record_that_was_edited_is_no_bug(
    worker: Worker, source: Path, target: Path, change: dict[str, Any]
) -> None:
    worker.run(job_of(source, target))
    record = target.parent / "a.restoration.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    outcome = worker.run(job_of(source, target))
    assert (outcome.state, outcome.kind) == ("refused", "input"), outcome.details
    assert target.exists()


@pytest.mark.parametrize("with_record", [False, True])
def test_another_file_in_the_place_of_the_output_is_kept(
    worker: Worker, source: Path, target: Path, with_record: bool
) -> None:
    if with_record:
        worker.run(job_of(source, target))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"somebody else's")
    outcome = worker.run(job_of(source, target))
    assert (outcome.state, outcome.kind) == ("refused", "input")
    assert "remove it, or name another folder" in outcome.reason
    assert target.read_bytes() == b"somebody else's"


def test_a_changed_scan_and_other_options_are_refused(
    worker: Worker, tiny_weights: Path, source: Path, target: Path, tiny_network: RestoreRWKV
) -> None:
    assert worker.run(job_of(source, target)).state == "done"
    before = target.read_bytes()
    other = settings(tiny_weights, options=RestoreOptions(force=True, consistency=1))
    assert "remove it" in Worker(other).run(job_of(source, target)).reason
    less = settings(tiny_weights, options=RestoreOptions(consistency=0, memory=1 << 29))
    assert Worker(less).run(job_of(source, target)).state == "skipped"
    scan(source, 1)
    changed = worker.run(job_of(source, target))
    assert (changed.state, "remove it" in changed.reason) == ("refused", True)
    scan(source, 0)
    next(tiny_network.parameters()).data += 1
    save_weights(
        tiny_weights, tiny_network, scaling={"mri-sr": TASKS["mri-sr"].scaling}, training={}
    )
    assert Worker(settings(tiny_weights)).run(job_of(source, target)).state == "refused"
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    "other", [{"dtype": "source"}, {"dtype": "float32"}, {"keep_nan": True}], ids=str
)
def test_an_output_of_another_type_is_not_taken_for_what_is_asked(
    other: dict[str, Any], worker: Worker, tiny_weights: Path, source: Path, target: Path
) -> None:
    assert worker.run(job_of(source, target)).state == "done"
    outcome = Worker(settings(tiny_weights, **other)).run(job_of(source, target))
    assert (outcome.state, "remove it" in outcome.reason) == ("refused", True)
    assert worker.run(job_of(source, target)).state == "skipped"


def test_an_output_that_another_process_writes_is_no_fault_of_the_scan(
    worker: Worker, source: Path, target: Path
) -> None:
    from restore_rwkv.io import claimed

    one = job_of(source, target)
    record = Target(target, False, None).record  # type: ignore[arg-type]
    with claimed(target, record):
        outcome = worker.run(one)
    assert "another process is writing it" in outcome.reason
    assert (outcome.state, outcome.kind) == ("failed", "system")  # may succeed later
    assert worker.run(one).state == "done"


def test_threads_restore_at_the_same_time(worker: Worker, tmp_path: Path) -> None:
    jobs = [
        job_of(scan(tmp_path / f"{name}.nii", seed), tmp_path / "out" / f"{name}.nii")
        for seed, name in enumerate("abcd")
    ]
    outcomes: list[Outcome] = []

    def work(one: Job) -> None:
        outcomes.append(worker.run(one))

    threads = [threading.Thread(target=work, args=(one,)) for one in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.state for outcome in outcomes] == ["done"] * 4
    alone = Restorer("mri-sr", worker.settings.weights, "cpu")
    for one in jobs:
        alone.file(one.source, tmp_path / "alone.nii", OPTIONS, overwrite=True)
        assert (tmp_path / "alone.nii").read_bytes() == Path(one.target).read_bytes()


def test_a_name_that_is_too_long_is_refused(worker: Worker, source: Path, target: Path) -> None:
    outcome = worker.run(job_of(source, target.with_name("x" * 246 + ".nii.gz")))
    assert (outcome.state, outcome.kind) == ("refused", "input"), outcome.reason
    assert "shorten it" in outcome.reason
