"""A whole batch: nothing stops it, nothing is done twice, and nothing of it is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from restore_rwkv.batch import (
    BatchRequest,
    FoundJob,
    Job,
    Manifest,
    Outcome,
    Part,
    WorkerSettings,
    find_jobs,
    run_batch,
)
from restore_rwkv.errors import ConfigError, InputError, RestoreError
from restore_rwkv.io import claimed
from restore_rwkv.model import RestoreRWKV, find_weights, read_info, save_weights
from restore_rwkv.restoration import RestoreOptions, Restorer
from restore_rwkv.tasks import TASKS
from tests.helpers.batches import Listening, OneByOne, below, run_small, scan, settings, states
from tests.helpers.source_trees import blob, save_ct

NAMES = ("a.nii", "p1/b.nii.gz", "p1/c.nii", "p2/d.nrrd")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES[:3]):
        scan(tmp_path / "in" / name, seed)
    import SimpleITK

    (tmp_path / "in" / "p2").mkdir()
    image = SimpleITK.ReadImage(str(tmp_path / "in" / "a.nii"))
    SimpleITK.WriteImage(image, str(tmp_path / "in" / "p2" / "d.nrrd"))
    return tmp_path / "in"


@pytest.fixture
def request_(tiny_weights: Path, tmp_path: Path) -> BatchRequest:
    return BatchRequest(output=tmp_path / "out", settings=settings(tiny_weights))


def again(request: BatchRequest, **changes: Any) -> BatchRequest:
    return dataclasses.replace(request, **({"resume": True} | changes))


@contextlib.contextmanager
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(Restorer, "run_plan", lambda *_: pytest.fail("the network was run"))
        yield


def test_every_scan_has_its_output_and_its_row(tree: Path, request_: BatchRequest) -> None:
    before = below(tree), [path.stat().st_mtime_ns for path in sorted(tree.rglob("*"))]
    summary, listening = run_small(tree, request_)
    assert summary.counts == {"done": 4, "skipped": 0, "refused": 0, "failed": 0}
    assert (summary.found, summary.faults) == (4, 0)
    assert set(states(request_.manifest)) == set(listening.outcomes) == set(NAMES)
    outputs = {"a.nii", "p1/b.nii.gz", "p1/c.nii", "p2/d.nrrd"}
    records = {"a", "p1/b", "p1/c", "p2/d"}
    assert set(below(request_.output)) == outputs | {f"{x}.restoration.json" for x in records}
    assert summary.bytes_read == sum(map(len, before[0].values()))
    assert summary.bytes_written == sum(map(len, below(request_.output).values()))
    assert 0 < summary.network_seconds < summary.seconds
    assert before == (below(tree), [path.stat().st_mtime_ns for path in sorted(tree.rglob("*"))])


def test_outputs_are_those_of_restore(tree: Path, request_: BatchRequest, tmp_path: Path) -> None:
    run_small(tree, request_)
    one = request_.settings
    restorer = Restorer(one.task, one.weights, one.device)
    for name in NAMES:
        alone = tmp_path / "alone" / name
        restorer.file(tree / name, alone, one.options)
        assert alone.read_bytes() == (request_.output / name).read_bytes()


def test_one_bad_scan_never_stops_the_others(tree: Path, request_: BatchRequest) -> None:
    (tree / "p1" / "b.nii.gz").write_bytes(b"\x1f\x8b no gzip")
    (tree / "p1" / "cut.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL" + b"\xff" * 40)
    (tree / "empty.nii").touch()
    summary, listening = run_small(tree, request_)
    assert summary.counts == {"done": 3, "skipped": 0, "refused": 3, "failed": 0}
    assert summary.faults == 3
    with Manifest(request_.manifest) as manifest:
        reasons = {
            entry.name: entry.outcome.reason
            for entry in manifest.entries(faults=True)
            if entry.outcome
        }
    assert set(reasons) == {"p1/b.nii.gz", "p1/cut.dcm", "empty.nii"}
    assert all("; " in reason for reason in reasons.values())
    assert listening.outcomes["p1/cut.dcm"].kind == "input"


def test_what_is_done_is_not_done_again(tree: Path, request_: BatchRequest) -> None:
    (tree / "bad.nii").write_bytes(b"bad")
    run_small(tree, request_)
    before = {path: path.stat().st_mtime_ns for path in request_.output.rglob("*.nii*")}
    summary, listening = run_small(tree, again(request_))
    assert set(listening.outcomes) == {"bad.nii"}  # it may have been corrected
    assert listening.counted == (1, 4)
    assert summary.counts == {"done": 0, "skipped": 4, "refused": 1, "failed": 0}
    assert before == {path: path.stat().st_mtime_ns for path in request_.output.rglob("*.nii*")}
    scan(tree / "bad.nii", 9)
    summary, listening = run_small(tree, again(request_))
    assert summary.counts["done"] == 1
    (tree / "bad.nii").write_bytes(b"bad")
    os.remove(tree / "bad.nii")
    summary, listening = run_small(tree, again(request_))
    assert summary.counts == {"done": 0, "skipped": 4, "refused": 0, "failed": 0}


def test_a_refused_scan_that_is_gone_is_no_fault_any_more(
    tree: Path, request_: BatchRequest
) -> None:
    (tree / "bad.nii").write_bytes(b"bad")
    run_small(tree, request_)
    os.remove(tree / "bad.nii")
    summary, _ = run_small(tree, again(request_))
    assert summary.faults == 0
    assert "bad.nii" not in states(request_.manifest)


@pytest.mark.parametrize("with_record", [False, True])
def test_an_output_that_is_gone_is_made_again(
    tree: Path, request_: BatchRequest, with_record: bool
) -> None:
    run_small(tree, request_)
    before = below(request_.output)
    (request_.output / "p1" / "b.nii.gz").unlink()
    if with_record:
        (request_.output / "p1" / "b.restoration.json").unlink()
    summary, listening = run_small(tree, again(request_))
    assert set(listening.outcomes) == {"p1/b.nii.gz"}
    assert summary.counts == {"done": 1, "skipped": 3, "refused": 0, "failed": 0}
    assert below(request_.output)["p1/b.nii.gz"] == before["p1/b.nii.gz"]


def test_a_scan_that_has_changed_is_refused_with_the_remedy(
    tree: Path, request_: BatchRequest
) -> None:
    run_small(tree, request_)
    before = (request_.output / "a.nii").read_bytes()
    scan(tree / "a.nii", 77)
    for _ in range(2):
        summary, listening = run_small(tree, again(request_))
        assert summary.counts == {"done": 0, "skipped": 3, "refused": 1, "failed": 0}
        assert "remove it" in listening.outcomes["a.nii"].reason
        assert (request_.output / "a.nii").read_bytes() == before
    (request_.output / "a.nii").unlink()
    summary, _ = run_small(tree, again(request_))
    assert summary.counts["done"] == 1
    assert (request_.output / "a.nii").read_bytes() != before


def test_a_scan_that_was_only_copied_is_not_restored_again(
    tree: Path, request_: BatchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_small(tree, request_)
    for name in NAMES:
        os.utime(tree / name, (5, 5))
    with no_network(monkeypatch):
        summary, listening = run_small(tree, again(request_))
        assert (summary.counts["skipped"], len(listening.outcomes)) == (4, 4)
        _, listening = run_small(tree, again(request_))
        assert listening.outcomes == {}  # their times are known now


def test_another_tree_with_the_same_names_and_times_is_not_taken_for_the_first(
    tree: Path, request_: BatchRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As archives unpack them: files of one time, and of one size where they are not packed."""
    scan(tree / "a.nii")
    other = scan(tmp_path / "other" / "in" / "a.nii", 9).parent
    shutil.copytree(tree, tmp_path / "moved")
    for folder in (tree, other, tmp_path / "moved"):
        for file in (path for path in folder.rglob("*") if path.is_file()):
            os.utime(file, (5, 5))
    run_small(tree, request_)
    before = (request_.output / "a.nii").read_bytes()
    with no_network(monkeypatch):
        summary, listening = run_small(other, again(request_))
        assert summary.counts == {"done": 0, "skipped": 0, "refused": 1, "failed": 0}
        assert "was made from this scan" in listening.outcomes["a.nii"].reason
        assert (request_.output / "a.nii").read_bytes() == before
        summary, _ = run_small(tmp_path / "moved", again(request_))
        assert summary.counts == {"done": 0, "skipped": 4, "refused": 0, "failed": 0}


@pytest.mark.parametrize("task", ["mri-sr", "auto"])
def test_new_weights_of_a_task_are_not_mixed_with_the_former(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = WorkerSettings(task=task, device="cpu")
    request = BatchRequest(output=tmp_path / "out", settings=own)
    run_small(tmp_path, request)
    run_small(tmp_path, again(request))
    info = read_info(find_weights("light-mri-sr"))
    newer = dataclasses.replace(info, sha256="0" * 64)
    monkeypatch.setattr("restore_rwkv.batch.request.read_info", lambda _: newer)
    with pytest.raises(InputError, match="was begun with other weights; give the same"):
        run_small(tmp_path, again(request))


def test_other_settings_are_refused(tree: Path, request_: BatchRequest, tiny_weights: Path) -> None:
    run_small(tree, request_)
    for changes, word in (
        ({"options": RestoreOptions(force=True, consistency=1)}, "consistency=0"),
        ({"options": RestoreOptions(force=True, consistency=0, scale=2)}, "no scale"),
        ({"task": "auto"}, "task='mri-sr'"),
        ({"keep_nan": True}, "keep_nan=False"),
        ({"weights": None}, "other weights"),
    ):
        other = again(request_, settings=dataclasses.replace(request_.settings, **changes))  # type: ignore[arg-type]
        with pytest.raises(InputError, match=f"was begun with {word}; give the same, or name"):
            run_small(tree, other)
    with pytest.raises(InputError, match="was begun with format='auto'"):
        run_small(tree, again(request_, format="nifti"))


def test_settings_that_leave_results_alone_may_change(
    tree: Path, request_: BatchRequest, tiny_weights: Path
) -> None:
    run_small(tree, request_)
    options = RestoreOptions(strict=True, consistency=0, memory=1 << 29)
    other = settings(tiny_weights, options=options, threads=1)
    assert run_small(tree, again(request_, settings=other))[0].counts["skipped"] == 4


def test_weights_are_known_by_their_content(
    tree: Path, request_: BatchRequest, tiny_weights: Path, tiny_network: RestoreRWKV
) -> None:
    run_small(tree, request_)
    moved = shutil.copy(tiny_weights, tiny_weights.with_name("moved.safetensors"))
    assert run_small(tree, again(request_, settings=settings(Path(moved))))[0].faults == 0
    next(tiny_network.parameters()).data += 1
    scaling = {"mri-sr": TASKS["mri-sr"].scaling}
    save_weights(tiny_weights, tiny_network, scaling=scaling, training={})
    with pytest.raises(InputError, match="was begun with other weights; give the same"):
        run_small(tree, again(request_))


def test_a_folder_that_holds_a_batch_asks_for_resume(tree: Path, request_: BatchRequest) -> None:
    run_small(tree, request_)
    with pytest.raises(InputError, match="holds a batch already; give resume=True to go on"):
        run_small(tree, request_)
    (tree.parent / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match="link: leads nowhere; name a folder for the outputs"):
        run_small(tree, again(request_, output=tree.parent / "link"))
    with pytest.raises(InputError, match="is a file; name a folder for the outputs"):
        run_small(tree, again(request_, output=tree / "a.nii"))
    new = again(request_, output=request_.output.with_name("new"))  # nothing to resume is no fault
    assert run_small(tree, new)[0].counts["done"] == 4


def test_of_two_batches_in_one_folder_the_second_is_refused(
    tree: Path, request_: BatchRequest
) -> None:
    busy = pytest.raises(InputError, match=r"manifest.sqlite: another process is writing it")
    with claimed(request_.manifest), busy:
        run_small(tree, request_)
    assert run_small(tree, request_)[0].counts["done"] == 4


def test_the_engine_is_closed_whatever_happens(tree: Path, request_: BatchRequest) -> None:
    class Closing(OneByOne):
        closed = 0

        def close(self) -> None:
            Closing.closed += 1

    def engine() -> Closing:
        return Closing(request_.settings)

    with pytest.raises(InputError, match="no such file"):
        run_batch(request_, lambda: find_jobs([tree / "no"], request_.output), engine, Listening())
    assert Closing.closed == 1

    class Stopped(Listening):
        def ended(self, job: Job, outcome: Outcome) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(again(request_), lambda: find_jobs([tree], request_.output), engine, Stopped())
    assert Closing.closed == 2
    assert not list(request_.output.glob(".*"))
    summary, _ = run_small(tree, again(request_))
    assert summary.counts == {"done": 3, "skipped": 1, "refused": 0, "failed": 0}


def test_what_was_done_just_before_a_kill_is_taken_up(tree: Path, request_: BatchRequest) -> None:
    """The output was there, and the manifest did not know yet."""
    run_small(tree, request_)
    with contextlib.closing(sqlite3.connect(request_.manifest)) as database, database:
        database.execute("UPDATE scans SET state = 'waiting', record = NULL")
    (request_.output / ".a.nii.lock").touch()
    (request_.output / ".a-01234567.partial.nii").touch()
    (request_.output / "p1" / "c.nii").unlink()  # killed between the record and the image
    summary, _ = run_small(tree, again(request_))
    assert summary.counts == {"done": 1, "skipped": 3, "refused": 0, "failed": 0}
    assert not [name for name in below(request_.output) if "/." in f"/{name}"]


def test_parts_are_taken_over_by_the_whole(
    tree: Path, request_: BatchRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counts = []
    for number in (1, 2, 3):
        part = again(request_, part=Part(number=number, count=3), resume=False)
        summary, _ = run_small(tree, part)
        counts.append(summary.counts["done"])
        assert summary.found == 4
        assert part.manifest.name == f"manifest-{number}-of-3.sqlite"
    assert sum(counts) == 4
    with pytest.raises(InputError, match=r"manifest-1-of-3.sqlite: the folder holds a batch"):
        run_small(tree, request_)
    with no_network(monkeypatch):
        summary, listening = run_small(tree, again(request_))
    assert summary.counts == {"done": 0, "skipped": 4, "refused": 0, "failed": 0}
    assert listening.outcomes == {}
    with Manifest(request_.manifest) as manifest:
        outcomes = [entry.outcome for entry in manifest.entries()]
    assert [outcome.state for outcome in outcomes if outcome and outcome.record] == ["done"] * 4
    whole = again(request_, output=tmp_path / "whole", resume=False)
    run_small(tree, whole)
    images = {name: data for name, data in below(whole.output).items() if ".json" not in name}
    assert images.items() <= below(request_.output).items()


def test_a_part_that_still_runs_is_not_taken_over(tree: Path, request_: BatchRequest) -> None:
    part = again(request_, part=Part(number=1, count=1))
    run_small(tree, part)
    with claimed(part.manifest), pytest.raises(InputError, match="another process is writing it"):
        run_small(tree, again(request_))


def test_a_part_of_other_settings_is_not_taken_over(
    tree: Path, request_: BatchRequest, tiny_weights: Path
) -> None:
    other = settings(tiny_weights, keep_nan=True)
    run_small(tree, again(request_, part=Part(number=1, count=1), settings=other))
    with pytest.raises(InputError, match=r"1-of-1.sqlite: the batch was begun with keep_nan=True"):
        run_small(tree, again(request_))


@pytest.mark.parametrize(("number", "count"), [(0, 3), (4, 3), (-1, 1), (1, 0)])
def test_a_part_that_does_not_exist_is_refused(number: int, count: int) -> None:
    with pytest.raises(ConfigError, match="does not exist; give K/N with K from 1 to N"):
        Part(number=number, count=count)


def test_a_tree_that_has_grown_keeps_its_outputs(tree: Path, request_: BatchRequest) -> None:
    """A new scan may take the name that an old one had."""
    scan(tree / "x.nii.gz", 5)
    run_small(tree, request_)
    before = below(request_.output)
    scan(tree / "x.nii", 6)  # comes first, and has the same record
    summary, listening = run_small(tree, again(request_))
    assert set(listening.outcomes) == {"x.nii"}
    assert "x.restoration.json" in listening.outcomes["x.nii"].reason
    assert summary.counts["skipped"] == 5
    assert before.items() <= below(request_.output).items()


def test_no_output_comes_into_an_earlier_series(tiny_network: RestoreRWKV, tmp_path: Path) -> None:
    weights = tmp_path / "ct.safetensors"
    scaling = {"ct-denoise": TASKS["ct-denoise"].scaling}
    save_weights(weights, tiny_network, scaling=scaling, training={})
    one = WorkerSettings(
        task="ct-denoise",
        weights=str(weights),
        device="cpu",
        options=RestoreOptions(force=True),
    )
    request = BatchRequest(output=tmp_path / "out", settings=one)
    save_ct(tmp_path / "in" / "s", blob(3, 40, 40), SeriesNumber=3, StudyInstanceUID="1.2")
    summary, listening = run_small(tmp_path / "in", request)
    assert summary.counts["done"] == 1, listening.outcomes
    before = below(request.output)
    save_ct(tmp_path / "in" / "s", blob(3, 40, 40, seed=2), names="b{}", SeriesNumber=4)
    summary, listening = run_small(tmp_path / "in", again(request))
    assert summary.counts == {"done": 0, "skipped": 1, "refused": 1, "failed": 0}
    assert "as the tree has grown" in listening.outcomes["s: series 4"].reason
    assert below(request.output) == before


def test_a_fault_after_a_scan_is_one_of_that_scan(tree: Path, request_: BatchRequest) -> None:
    def after(job: Job, outcome: Outcome) -> None:
        if job.name == "a.nii":
            raise OSError(errno.ENOSPC, "No space left on device", "a.json")
        if job.name == "p1/c.nii":
            raise KeyError("missing")

    summary, listening = run_small(tree, again(request_, after=after))
    assert summary.counts == {"done": 2, "skipped": 0, "refused": 0, "failed": 2}
    assert listening.outcomes["a.nii"].reason.startswith("a.json: No space left on device; check")
    assert listening.outcomes["p1/c.nii"].kind == "bug"
    seen = []
    summary, _ = run_small(tree, again(request_, after=lambda job, _: seen.append(job.name)))
    assert summary.counts == {"done": 0, "skipped": 4, "refused": 0, "failed": 0}
    assert sorted(seen) == ["a.nii", "p1/c.nii"]


def test_a_manifest_that_cannot_be_written_ends_the_batch_which_goes_on_later(
    tree: Path, request_: BatchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = 0
    whole = Manifest.keep

    def keep(self: Manifest, outcome: Outcome) -> None:
        nonlocal kept
        kept += 1
        if kept == 3:
            raise OSError(errno.ENOSPC, "database or disk is full", str(self.path))
        whole(self, outcome)

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "keep", keep)
        with pytest.raises(OSError, match="disk is full"):
            run_small(tree, request_)
    summary, _ = run_small(tree, again(request_))
    assert summary.faults == 0
    assert set(states(request_.manifest).values()) <= {"done", "skipped"}


def test_a_search_that_fails_leaves_the_manifest_as_it_was(
    tree: Path, request_: BatchRequest
) -> None:
    run_small(tree, request_)

    def failing() -> Iterator[FoundJob]:
        yield next(find_jobs([tree], request_.output))
        raise OSError(errno.EIO, "Input/output error", str(tree))

    with pytest.raises(OSError, match="Input/output"):
        run_batch(again(request_), failing, lambda: OneByOne(request_.settings), Listening())
    assert len(states(request_.manifest)) == 4


@pytest.mark.parametrize("fault", ["tree", "weights", "engine"])
def test_a_command_that_is_corrected_needs_no_resume(
    fault: str, tree: Path, request_: BatchRequest
) -> None:
    wrong, engine = request_, OneByOne(request_.settings)
    if fault == "weights":
        wrong = again(
            request_,
            settings=dataclasses.replace(request_.settings, weights="nothing"),
            resume=False,
        )

    def start() -> OneByOne:
        return engine if fault == "tree" else pytest.fail("started")

    def refuse() -> OneByOne:
        raise ConfigError("cluster: no node has 1 CPU; start one")

    where = tree / "nowhere" if fault == "tree" else tree
    with pytest.raises(RestoreError):
        run_batch(
            *(wrong, lambda: find_jobs([where], wrong.output)),
            *(refuse if fault == "engine" else start, Listening()),
        )
    assert not request_.output.exists()
    assert run_small(tree, request_)[0].counts["done"] == 4


def test_an_empty_tree_is_an_empty_batch(tmp_path: Path, request_: BatchRequest) -> None:
    (tmp_path / "empty").mkdir()
    summary, _ = run_small(tmp_path / "empty", request_)
    assert (summary.found, sum(summary.counts.values())) == (0, 0)
