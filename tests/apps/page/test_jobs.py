"""Jobs: what they write, how far they are, and how they end."""

from __future__ import annotations

import gzip
import io
import json
import threading
import zipfile
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest

from restore_rwkv.apps.page import Page
from restore_rwkv.apps.page.jobs import Jobs
from restore_rwkv.apps.page.state import StateFolder
from restore_rwkv.apps.progress import CancelledError, JobProgress
from restore_rwkv.errors import NoMemoryError
from restore_rwkv.io import read_volume
from tests.apps.page.conftest import SHAPE, ct_values, write_ct
from tests.helpers.local_page import FakeNetwork, Visitor, served


def voxels(answer: httpx.Response) -> np.ndarray:
    """Values of an image as the viewer gets it."""
    assert answer.status_code == 200, answer.text
    assert "content-encoding" not in answer.headers
    image = nib.Nifti1Image.from_bytes(gzip.decompress(answer.content))
    assert image.get_data_dtype() == np.float32
    return np.asarray(image.dataobj)


def test_the_viewer_gets_the_values_of_the_file_and_of_the_result(
    visitor: Visitor, folder: Path
) -> None:
    (scan,) = visitor.scans()
    assert (scan["state"], scan["task"], scan["unit"]) == ("ready", "ct-denoise", "HU")
    job = visitor.job(visitor.start(scan["id"])["id"])
    outputs = job["outputs"]
    before, after, difference = (
        voxels(visitor.get(outputs[name])) for name in ("before", "after", "difference")
    )
    np.testing.assert_array_equal(before, ct_values())
    np.testing.assert_array_equal(after, before + 1)
    np.testing.assert_array_equal(difference, np.ones(SHAPE))
    image = nib.Nifti1Image.from_bytes(gzip.decompress(visitor.get(outputs["after"]).content))
    np.testing.assert_allclose(image.affine, nib.load(folder / "ct.nii.gz").affine, atol=1e-6)


def test_the_download_is_the_result_with_its_record(visitor: Visitor, tmp_path: Path) -> None:
    (scan,) = visitor.scans()
    job = visitor.job(visitor.start(scan["id"])["id"])
    answer = visitor.get(job["outputs"]["downloads"]["nifti"])
    assert 'filename="ct-restored-nifti.zip"' in answer.headers["content-disposition"]
    zipfile.ZipFile(io.BytesIO(answer.content)).extractall(tmp_path / "got")
    names = sorted(path.name for path in (tmp_path / "got").iterdir())
    assert names == ["ct-restored.nii.gz", "ct-restored.restoration.json"]
    np.testing.assert_array_equal(
        read_volume(tmp_path / "got" / "ct-restored.nii.gz").data, ct_values() + 1
    )
    record = visitor.get(job["outputs"]["record"]).json()
    assert record == json.loads((tmp_path / "got" / names[1]).read_text())
    assert record["source"] == "ct.nii.gz"
    assert record["task"] == "ct-denoise"


def test_a_job_that_runs_is_cancelled_within_a_slice(
    visitor: Visitor, network: FakeNetwork, page: Page, tmp_path: Path
) -> None:
    shape = (288, 288, 8)
    scan = write_ct(tmp_path / "large.nii.gz", shape)
    visitor.drop(scan, tmp_path / "large.json")
    key = next(scan["id"] for scan in visitor.scans(2) if scan["source"] == "upload")
    network.go.clear()
    number = visitor.start(key)["id"]
    assert network.begun.wait(30)
    assert visitor.delete(f"/api/jobs/{number}").status_code == 200
    network.go.set()
    assert visitor.job(number)["state"] == "cancelled"
    assert 0 < network.slices < shape[2]  # those that ran together
    assert not (page.state.results / str(number)).exists()


def test_a_job_that_waits_is_cancelled_and_forgotten(
    visitor: Visitor, network: FakeNetwork
) -> None:
    (scan,) = visitor.scans()
    network.go.clear()
    first, second = (visitor.start(scan["id"])["id"] for _ in range(2))
    assert network.begun.wait(30)
    assert visitor.delete(f"/api/jobs/{second}").json()["state"] == "cancelled"
    assert visitor.delete(f"/api/jobs/{second}").status_code == 204
    assert visitor.get(f"/api/jobs/{second}").status_code == 404
    network.go.set()
    assert visitor.job(first)["state"] == "done"


def test_forgetting_a_job_removes_its_files(visitor: Visitor, page: Page) -> None:
    (scan,) = visitor.scans()
    number = visitor.job(visitor.start(scan["id"])["id"])["id"]
    assert (page.state.results / str(number)).exists()
    assert visitor.delete(f"/api/jobs/{number}").status_code == 204
    assert not (page.state.results / str(number)).exists()
    assert visitor.start(scan["id"])["id"] > number  # no address ever means another job


def test_what_goes_wrong_is_one_line_without_paths(
    visitor: Visitor, network: FakeNetwork, page: Page, folder: Path
) -> None:
    (scan,) = visitor.scans()
    network.error = NoMemoryError("memory: the machine has run out of it; free some")
    job = visitor.job(visitor.start(scan["id"])["id"])
    assert (job["state"], job["error"]) == ("failed", str(network.error))
    network.error = MemoryError()
    assert "run out of memory" in visitor.job(visitor.start(scan["id"])["id"])["error"]
    network.error = ValueError(f"{folder}: patient NAME")
    job = visitor.job(visitor.start(scan["id"])["id"])
    assert "a bug in restore-rwkv" in job["error"]
    assert "ValueError" in job["error"]
    assert "NAME" not in job["error"]
    network.error = None
    (folder / "ct.nii.gz").unlink()
    job = visitor.job(visitor.start(scan["id"])["id"])
    assert job["error"] == "ct.nii.gz: no such file or folder; check the path"


def test_a_job_survives_the_end_of_the_program(
    network: FakeNetwork, folder: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    network.go.clear()
    with served(path=folder, state=state) as page, Visitor(page) as visitor:
        (scan,) = visitor.scans()
        numbers = [visitor.start(scan["id"], strength=1.0)["id"] for _ in range(2)]
        assert network.begun.wait(30)
        assert visitor.job(numbers[0], "running")
        threading.Timer(0.3, network.go.set).start()  # the slice ends when the page is stopped
    kept = StateFolder(state)
    assert [job.state for job in Jobs(kept.database).all()] == ["waiting", "waiting"]
    (kept.results / "99").mkdir()  # as a process leaves that is killed
    kept.close()
    with served(path=folder, state=state) as page, Visitor(page) as visitor:
        for number in numbers:
            job = visitor.job(number)
            assert (job["state"], job["options"]["strength"]) == ("done", 1.0)
        assert visitor.get(job["outputs"]["after"]).status_code == 200
        assert {path.name for path in page.state.results.iterdir()} == set(map(str, numbers))


def test_a_job_that_ended_the_program_twice_is_given_up(
    network: FakeNetwork, folder: Path, tmp_path: Path
) -> None:
    network.go.clear()
    with served(path=folder, state=tmp_path / "state") as page, Visitor(page) as visitor:
        (scan,) = visitor.scans()
        first, second = (visitor.start(scan["id"])["id"] for _ in range(2))
        visitor.job(first, "running")
        page.jobs.recover()  # as after a kill
        assert visitor.job(first, "waiting")
        assert page.jobs.claim() is not None
        page.jobs.recover()
        job = visitor.job(first)
        assert job["state"] == "failed"
        assert "ran out of memory" in job["error"]
        assert visitor.job(second, "waiting")
        network.go.set()


def test_what_cannot_be_asked_for_is_refused(visitor: Visitor) -> None:
    (scan,) = visitor.scans()
    key = scan["id"]
    for options, status, words in (
        ({"scan": "none"}, 404, "scan: is not there"),
        ({"scan": key, "weights": "/etc/passwd"}, 400, "weights: are not for ct-denoise; choose"),
        ({"scan": key, "weights": "light-mri-sr"}, 400, "weights: are not for ct-denoise"),
        ({"scan": key, "task": "none"}, 400, "task 'none' is unknown"),
        ({"scan": key, "strength": 2}, 400, "strength is 2; give a number from 0 to 1"),
        ({"scan": key, "plane": "up"}, 400, "plane"),
        ({"scan": key, "device": "gpu9"}, 400, "device 'gpu9' is unknown"),
        ({"scan": key, "uncertainty": "turns"}, 400, "ask for the report as well"),
        ({"scan": key, "surprise": 1}, 400, "unknown key 'surprise'"),
        ({}, 400, "'scan' is missing"),
        ([], 400, "give a table"),
    ):
        answer = visitor.post("/api/jobs", json=options)
        assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    answer = visitor.post("/api/jobs", content=b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert visitor.post("/api/jobs", json={"scan": "x" * 70000}).status_code == 413


def test_progress_says_what_is_left_and_stops_the_work() -> None:
    now = 0.0
    progress = JobProgress(lambda: None, lambda: now)
    progress.stage("restoring", "slices")
    progress(1, 9)
    now = 2.0
    progress(2, 9)
    now = 4.0
    progress(3, 9)
    values = progress.values()
    assert (values["stage"], values["done"], values["all"]) == ("restoring", 3, 9)
    assert values["seconds_left"] == pytest.approx(8.0)
    progress.cancelled.set()
    for call in (lambda: progress(4, 9), lambda: progress.stage("writing"), progress.check):
        with pytest.raises(CancelledError):
            call()
