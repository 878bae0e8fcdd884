"""The command as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.apps.page.conftest import write_ct
from tests.helpers.commands import Call
from tests.helpers.local_page import FakeNetwork, Visitor, awaited, served

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
Start = Callable[..., tuple[subprocess.Popen[str], httpx.Client]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts the command, and opens the page that it prints."""
    running: list[subprocess.Popen[str]] = []
    clients: list[httpx.Client] = []

    def start(*words: object) -> tuple[subprocess.Popen[str], httpx.Client]:
        process = subprocess.Popen(
            [sys.executable, "-m", "restore_rwkv", "open", *map(str, words), "--no-browser"],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate()
        client = httpx.Client(
            base_url=f"http://{urlsplit(url).netloc}", timeout=60, trust_env=False
        )
        clients.append(client)
        assert client.get(url).status_code == 303
        return process, client

    yield start
    for client in clients:
        client.close()
    for process in running:
        process.kill()
        process.communicate()


def first_scan(client: httpx.Client) -> dict:
    def looked() -> dict | None:
        scans = client.get("/api/scans").json()
        return scans[0] if scans and scans[0]["state"] != "looking" else None

    scan: dict = awaited(looked, 120)
    return scan


@posix
@pytest.mark.slow
def test_ctrl_c_ends_the_page_and_leaves_nothing(start: Start, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    write_ct(scans / "ct.nii.gz")
    process, client = start(scans)
    assert first_scan(client)["state"] == "ready"
    (state,) = tmp_path.glob("restore-rwkv-page-*")
    assert state.stat().st_mode & 0o077 == 0
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert out.splitlines()[-1] == "stopped"
    assert not state.exists()


@posix
@pytest.mark.slow
def test_a_killed_page_restores_what_it_had_begun(start: Start, tmp_path: Path) -> None:
    scan, state = write_ct(tmp_path / "ct.nii.gz", (128, 128, 16)), tmp_path / "state"
    process, client = start(scan, "--state", state)
    answer = client.post("/api/jobs", json={"scan": first_scan(client)["id"]})
    address = f"/api/jobs/{answer.json()['id']}"
    awaited(lambda: client.get(address).json()["done"], 120)
    process.kill()
    process.wait()
    _, client = start(scan, "--state", state)
    job = awaited(
        lambda: (job := client.get(address).json())["state"] in ("done", "failed") and job, 300
    )
    assert (job["state"], job["error"]) == ("done", None)
    assert client.get(job["outputs"]["after"]).status_code == 200


@pytest.mark.slow
def test_a_ct_of_512_x_512_x_300_keeps_the_page_alive(network: FakeNetwork, tmp_path: Path) -> None:
    shape = (512, 512, 300)
    scan = write_ct(tmp_path / "large.nii.gz", shape)
    longest = 0.0
    with served(path=scan) as page, Visitor(page) as visitor:
        (found,) = visitor.scans()
        assert (found["state"], tuple(found["shape"])) == ("ready", shape)
        number = visitor.start(found["id"])["id"]
        seen: set[tuple[str, int]] = set()

        def ended() -> bool:
            nonlocal longest
            begin = time.monotonic()
            job = visitor.get(f"/api/jobs/{number}").json()
            longest = max(longest, time.monotonic() - begin)
            seen.add((job["stage"], job["done"]))
            return job["state"] in ("done", "failed")

        awaited(ended, 600)
        assert visitor.job(number)["state"] == "done"
        assert len({done for _, done in seen}) > 2  # progress, not a jump
        assert "writing" in {stage for stage, _ in seen}
        for name in ("before", "after", "difference"):
            with visitor.stream("GET", f"/api/jobs/{number}/{name}.nii.gz") as answer:
                assert answer.status_code == 200
    assert longest < 2.0  # seconds: 0.3 measured beside other work


def test_what_is_missing_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    done = call("open", "--no-browser")
    assert done.returncode == 2
    assert done.stderr == "error: the page needs starlette; pip install 'restore-rwkv[page]'\n"


def test_mistakes_are_one_line_with_flags(call: Call, tmp_path: Path) -> None:
    with served(state=tmp_path / "state") as page:
        for words, line in (
            (["--port", page.port], f"--port {page.port}: is in use; give another --port N, or "),
            (["--upload-cap", "much"], "--upload-cap 'much' is not a size"),
            (["--device", "gpu9"], "device 'gpu9' is unknown"),
            (["--state", tmp_path / "state"], "another page uses this folder"),
            ([tmp_path / "missing"], "missing: no such file or folder"),
        ):
            done = call("open", "--no-browser", *words)
            assert done.returncode in (2, 3), done.stderr
            assert line in done.stderr
            assert done.stderr.count("\n") == 1
