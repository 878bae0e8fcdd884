"""Events: several tabs, reloads in the middle, and readers that are slow."""

from __future__ import annotations

import asyncio
from pathlib import Path

from restore_rwkv.apps.page import Page
from restore_rwkv.apps.page.events import SCANS, Hub
from tests.apps.page.conftest import write_ct
from tests.helpers.local_page import FakeNetwork, Visitor, awaited


def test_two_tabs_hear_of_a_job_to_its_end(visitor: Visitor, page: Page) -> None:
    (scan,) = visitor.scans()
    with Visitor(page) as other, visitor.events() as first, other.events() as second:
        number = visitor.start(scan["id"])["id"]
        for events in (first, second):
            states = []
            for name, values in events:
                if name == "job":
                    assert values["id"] == number
                    states.append(values["state"])
                if states[-1:] == ["done"]:
                    break
            assert values == visitor.get(f"/api/jobs/{number}").json()


def test_a_tab_that_comes_in_the_middle_has_missed_nothing(
    visitor: Visitor, network: FakeNetwork
) -> None:
    (scan,) = visitor.scans()
    network.go.clear()
    numbers = [visitor.start(scan["id"])["id"] for _ in range(2)]
    assert network.begun.wait(30)
    with visitor.events() as events:
        first = [next(events) for _ in range(3)]
    assert [name for name, _ in first] == ["scans", "job", "job"]
    assert [values["state"] for _, values in first[1:]] == ["running", "waiting"]
    network.go.set()
    with visitor.events() as events:  # after a reload
        ended: set[int] = set()
        for name, values in events:
            if name == "job" and values["state"] == "done":
                ended.add(values["id"])
            if ended == set(numbers):
                break


def test_forgetting_a_job_and_new_scans_are_heard_of(visitor: Visitor, tmp_path: Path) -> None:
    (scan,) = visitor.scans()
    number = visitor.job(visitor.start(scan["id"])["id"])["id"]
    with visitor.events() as events:
        assert [next(events)[0] for _ in range(2)] == ["scans", "job"]
        visitor.delete(f"/api/jobs/{number}")
        assert next(events) == ("job", {"id": number, "state": "forgotten"})
        visitor.drop(write_ct(tmp_path / "new.nii.gz"), tmp_path / "new.json")
        for name, values in events:
            if name == "scans" and values == {"scans": 2, "looking": 0}:
                break


def test_what_waits_for_a_slow_tab_does_not_grow() -> None:
    async def play() -> tuple[list[str], list[str]]:
        hub = Hub()
        hub.start()
        told: list[str] = []
        with hub.opened([SCANS]) as stream:
            texts = stream.texts(lambda topic: ("job", topic))
            told += [await anext(texts) for _ in range(2)]
            for _ in range(10_000):
                hub.changed("1")
                hub.changed("2")
            await asyncio.sleep(0.05)
            waiting = list(stream._waiting)
            told += [await anext(texts) for _ in range(2)]
            hub.close()
            told += [text async for text in texts]
        return waiting, told

    waiting, told = asyncio.run(play())
    assert waiting == ["1", "2"]
    assert [text.partition("data: ")[2].strip() for text in told] == ["", '"scans"', '"1"', '"2"']


def test_a_tab_that_has_gone_is_not_kept(visitor: Visitor, page: Page) -> None:
    with visitor.events() as events:
        next(events)
        assert len(page._hub._streams) == 1
    awaited(lambda: not page._hub._streams)
