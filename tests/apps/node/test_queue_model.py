"""Random histories of a node that is killed at any moment: nothing is lost, repeated or mixed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from restore_rwkv.apps.node.queueing.database import Database
from restore_rwkv.apps.node.queueing.deliveries import Deliveries
from restore_rwkv.apps.node.queueing.entries import Entry
from restore_rwkv.apps.node.queueing.queue import Queue
from restore_rwkv.apps.node.queueing.upkeep import Upkeep
from tests.helpers.node_parts import Clock, make_instance

DESTINATIONS = ("pacs", "web")
STEPS = 150


class History:
    """Takes random steps, and remembers what was promised to whom."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random, self.clock = folder, random.Random(seed), Clock()
        self.acknowledged: dict[str, set[str]] = {}  # by series: SOPInstanceUIDs
        self.restored: dict[str, frozenset[str]] = {}  # by key: files that it was made from
        self.archives: dict[str, dict[str, set[str]]] = {name: {} for name in DESTINATIONS}
        self.marked: list[tuple[str, str]] = []
        self.claimed: list[Entry] = []
        self.open()

    def open(self) -> None:
        self.database = Database(self.folder)
        self.queue = Queue(self.database, 60.0, self.clock)
        self.upkeep = Upkeep(self.database, 60.0, self.clock)
        self.deliveries = Deliveries(self.database, self.clock)
        self.upkeep.recover(30.0)

    def kill(self) -> None:
        self.database.close()  # without a commit, as all that a step has committed is on the disk
        self.claimed.clear()
        self.open()

    def receive(self) -> None:
        series, number = self.random.randrange(6), self.random.randrange(8)
        instance = make_instance(
            self.folder, series, number, announced=self.random.choice([None, None, 4, 8])
        )
        self.queue.add(instance)
        self.acknowledged.setdefault(instance.series_uid, set()).add(instance.path.name)

    def wait(self) -> None:
        self.clock.now += self.random.choice([1, 10, 61, 200])
        self.queue.complete()

    def claim(self) -> None:
        entry = self.queue.claim_ready()
        if entry is not None:
            assert all(
                entry.revision > other.revision
                for other in self.claimed
                if entry.series_uid == other.series_uid
            )
            self.claimed.append(entry)

    def end(self) -> None:
        """A worker is done with a series; it has read the files of the revision."""
        if not self.claimed:
            return
        entry = self.claimed.pop(self.random.randrange(len(self.claimed)))
        what = self.random.choice(["finish", "finish", "finish", "retry", "refuse", "fail"])
        if what == "retry":
            self.queue.retry(entry, "no memory", 30.0)
        elif what == "refuse":
            self.queue.refuse(entry, "unfit")
        elif what == "fail":
            self.queue.fail(entry, "no memory")
        else:
            names = frozenset(path.name for path in self.queue.files(entry))
            before = self.restored.setdefault(entry.key, names)
            assert before == names, "a revision is always made from the same files"
            target = self.folder / "derived" / entry.key
            outputs = [target / name for name in sorted(names)]
            if self.random.random() < 0.2:
                self.kill()  # between the writing of the files and their registration
            else:
                self.queue.finished(entry, 1.0, dict.fromkeys(DESTINATIONS, outputs))

    def send(self) -> None:
        destination = self.random.choice(DESTINATIONS)
        delivery = self.deliveries.next(destination)
        if delivery is None:
            return
        count = self.random.randrange(len(delivery.files) + 1)
        accepted = delivery.files[:count]
        archive = self.archives[destination].setdefault(delivery.key, set())
        archive.update(path.name for path in accepted)
        if self.random.random() < 0.2:
            self.kill()  # the archive has them, and nobody knows
            return
        for path in accepted:
            mark = (destination, f"{delivery.key}/{path.name}")
            assert mark not in self.marked, "what was noted as sent is never sent again"
            self.marked.append(mark)
        self.deliveries.mark_sent(delivery, accepted)
        if count < len(delivery.files):
            self.deliveries.retry(delivery, "unreachable", 30.0)

    def check(self) -> None:
        rows = self.database.rows("SELECT series_uid, path FROM instances")
        found: dict[str, set[str]] = {}
        for row in rows:
            found.setdefault(row["series_uid"], set()).add(Path(row["path"]).name)
        assert found == self.acknowledged, "what was acknowledged is there"
        counted = self.database.rows("SELECT state, count(*) FROM series GROUP BY state")
        numbers = {state: number for state, number in self.queue.counts().items() if number}
        assert numbers == {row[0]: row[1] for row in counted}

    def finish(self) -> None:
        """Let everything end, and look at what the archives have."""
        for _ in range(2000):
            self.clock.now += 100
            self.queue.complete()
            self.claim()
            self.end()
            for _ in range(4):
                self.send()
            if not self.claimed and self.queue.oldest() == 0:
                break
        rows = self.database.rows("SELECT * FROM series ORDER BY series_uid, revision")
        assert {row["state"] for row in rows} <= {"done", "refused", "failed"}
        last = {row["series_uid"]: row for row in rows}
        assert last.keys() == self.acknowledged.keys()
        for uid, row in last.items():
            assert row["instances"] == len(self.acknowledged[uid]), "the last revision is whole"
        for row in rows:
            assert row["state"] == "done" or row["reason"]
        self.check_archives()

    def check_archives(self) -> None:
        done = self.database.rows("SELECT * FROM series WHERE state = 'done'")
        for row in done:
            entry = Entry(
                id=row["id"],
                series_uid=row["series_uid"],
                revision=row["revision"],
                study_uid="",
                origin="",
                header={},
                instances=row["instances"],
                bytes=row["bytes"],
                attempts=0,
            )
            for archive in self.archives.values():
                assert archive[entry.key] == self.restored[entry.key]
                assert len(archive[entry.key]) == entry.instances
        for archive in self.archives.values():
            for key, names in archive.items():
                assert names <= self.restored[key], "no file of another revision"


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_repeated_or_mixed_however_the_node_is_killed(
    seed: int, tmp_path: Path
) -> None:
    history = History(tmp_path / "node", seed)
    steps = (history.receive, history.wait, history.claim, history.end, history.send)
    for _ in range(STEPS):
        history.random.choices((*steps, history.kill), (6, 4, 3, 3, 4, 1))[0]()
        history.check()
    history.finish()
    assert any(history.archives.values())
    history.database.close()
