"""A page that serves on a free port, and a browser that knows its token."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from restore_rwkv.apps.page import Page, PageSettings

SECONDS = 60.0


class Visitor(httpx.Client):
    """A browser that has opened a page."""

    def __init__(self, page: Page, **options: Any) -> None:
        self.page = page
        base = f"http://127.0.0.1:{page.port}"
        super().__init__(base_url=base, timeout=SECONDS, trust_env=False, **options)

    def __enter__(self) -> Visitor:
        super().__enter__()
        assert self.get("/", params={"token": self.page.access.token}).status_code == 303
        return self

    def drop(self, *files: Path | tuple[str, bytes]) -> str:
        """Upload files as one group, have it looked at, and return its id."""
        key: dict[str, str] = {}
        for file in files:
            name, data = (file.name, file.read_bytes()) if isinstance(file, Path) else file
            answer = self.put(f"/api/uploads/{name}", content=data, headers=key)
            assert answer.status_code == 201, answer.text
            key = {"X-Upload": answer.json()["id"]}
        assert self.post(f"/api/uploads/{key['X-Upload']}/done").status_code == 202
        return key["X-Upload"]

    def scans(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait until so many scans have been looked at, and return all."""

        def looked() -> list[dict[str, Any]] | None:
            found: list[dict[str, Any]] = self.get("/api/scans").json()
            done = len(found) >= count and all(scan["state"] != "looking" for scan in found)
            return found if done else None

        return awaited(looked)

    def start(self, scan: str, **options: Any) -> dict[str, Any]:
        """Queue a job."""
        answer = self.post("/api/jobs", json={"scan": scan, **options})
        assert answer.status_code == 201, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def job(self, number: int, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of these states, by default until it has ended."""
        wanted = states or ("done", "failed", "cancelled")

        def reached() -> dict[str, Any] | None:
            job: dict[str, Any] = self.get(f"/api/jobs/{number}").json()
            return job if job["state"] in wanted else None

        return awaited(reached)

    @contextmanager
    def events(self) -> Iterator[Iterator[tuple[str, Any]]]:
        """Open the events: name and data of each."""
        with self.stream("GET", "/api/events") as answer:
            assert answer.status_code == 200
            yield _events(answer)


def _events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def awaited(find: Any, seconds: float = SECONDS) -> Any:
    """Wait until a function returns something, and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = find()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("nothing came")


class FakeNetwork:
    """In place of the network: adds 1 to each slice, and waits where it is told to.

    Attributes:
        go: while it is not set, every slice waits.
        begun: set as soon as a slice has begun.
        slices: how many were restored.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.go.set()
        self.slices = 0
        self.error: Exception | None = None
        monkeypatch.setattr("restore_rwkv.restoration.restorer.restore_slices", self._restore)
        monkeypatch.setattr("restore_rwkv.restoration.check.run", lambda _, image, *rest: image)

    def _restore(self, _: object, slices: np.ndarray, *rest: object) -> np.ndarray:
        self.begun.set()
        assert self.go.wait(SECONDS)
        if self.error is not None:
            raise self.error
        self.slices += len(slices)
        restored: np.ndarray = slices + np.float32(1)
        return restored


@contextmanager
def served(**settings: Any) -> Iterator[Page]:
    """Serve a page within the block."""
    with Page(PageSettings(**{"demo": False, **settings})) as page:
        yield page
