from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from restore_rwkv.apps.node.names import short_hash
from restore_rwkv.apps.node.queueing.database import STATES, Database
from restore_rwkv.apps.node.queueing.deliveries import Deliveries
from restore_rwkv.apps.node.queueing.entries import Entry
from restore_rwkv.apps.node.queueing.listing import listed
from restore_rwkv.apps.node.queueing.queue import Queue
from restore_rwkv.apps.node.queueing.upkeep import Upkeep
from restore_rwkv.apps.node.retrying import LONGEST, waiting_time
from restore_rwkv.errors import InputError
from tests.helpers.node_parts import Clock, make_instance

QUIET = 60.0


class Node:
    """The durable part of a node, which can be opened again as after a kill."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.open()

    def open(self) -> None:
        self.database = Database(self.folder)
        self.queue = Queue(self.database, QUIET, self.clock)
        self.upkeep = Upkeep(self.database, QUIET, self.clock)
        self.deliveries = Deliveries(self.database, self.clock)

    def restart(self) -> None:
        self.database.close()
        self.open()
        self.upkeep.recover(30.0)

    def add(self, series: int, number: int, announced: int | None = None) -> bool:
        return self.queue.add(make_instance(self.folder, series, number, announced=announced))

    def claim(self) -> Entry:
        entry = self.queue.claim_ready()
        assert entry is not None
        return entry

    def claimed(self, series: int = 1, number: int = 2) -> Entry:
        for instance in range(number):
            self.add(series, instance, number)
        return self.claim()

    def states(self) -> dict[str, int]:
        return {state: number for state, number in self.queue.counts().items() if number}

    def rows(self) -> list[tuple[str, int, str, str]]:
        found = self.database.rows("SELECT * FROM series ORDER BY id")
        return [(r["series_uid"], r["revision"], r["state"], r["reason"]) for r in found]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "node")
    yield made
    made.database.close()


def test_a_series_is_complete_when_nothing_has_come_for_a_while(node: Node) -> None:
    node.add(1, 1)
    node.clock.now += QUIET - 1
    node.add(1, 2)
    node.clock.now += QUIET - 1
    assert node.queue.complete() == []
    assert node.queue.claim_ready() is None
    node.clock.now += 2
    (entry,) = node.queue.complete()
    assert (entry.series_uid, entry.instances, entry.bytes) == ("1.2.1", 2, 200)
    assert node.claim().id == entry.id
    assert node.states() == {"restoring": 1}


def test_a_series_is_complete_at_once_when_all_that_were_announced_have_come(node: Node) -> None:
    node.add(1, 1, 2)
    assert node.queue.claim_ready() is None
    node.add(1, 2)
    assert node.claim().instances == 2


def test_the_files_of_a_series_are_those_that_came(node: Node) -> None:
    entry = node.claimed()
    assert [path.name for path in node.queue.files(entry)] == ["i0.dcm", "i1.dcm"]
    assert all(path.is_file() for path in node.queue.files(entry))


def test_a_moved_folder_keeps_its_files(tmp_path: Path) -> None:
    node = Node(tmp_path / "before")
    node.add(1, 1, 1)
    node.database.close()
    (tmp_path / "before").rename(tmp_path / "after")
    node.folder = tmp_path / "after"
    node.open()
    assert node.queue.files(node.claim()) == [tmp_path / "after" / "spool" / "s1" / "i1.dcm"]
    node.database.close()


def test_duplicates_change_nothing(node: Node) -> None:
    entry = node.claimed()
    assert node.add(1, 0) is False
    assert node.queue.finished(entry, 1.0, {"pacs": []})
    assert node.add(1, 1) is False
    assert len(node.rows()) == 1


def test_an_instance_with_other_content_is_refused(node: Node) -> None:
    node.add(1, 1)
    with pytest.raises(InputError, match="has come before with other content"):
        node.queue.add(make_instance(node.folder, 1, 1, content="other"))


def test_an_instance_without_a_file_is_not_registered(node: Node) -> None:
    instance = make_instance(node.folder, 1, 1)
    instance.path.unlink()
    with pytest.raises(OSError, match="send it again"):
        node.queue.add(instance)
    assert node.states() == {}


def test_a_late_instance_makes_the_whole_series_a_new_revision(node: Node) -> None:
    entry = node.claimed()
    out = node.folder / "derived" / "a.dcm"
    assert node.queue.finished(entry, 1.0, {"pacs": [out]})
    delivery = node.deliveries.next("pacs")
    assert delivery is not None
    assert node.deliveries.mark_sent(delivery, [out]) == "done"
    node.add(1, 2)
    node.clock.now += QUIET + 1
    node.queue.complete()
    again = node.claim()
    assert (again.revision, again.instances, again.bytes) == (2, 3, 300)
    assert again.key != entry.key
    assert len(node.queue.files(again)) == 3
    assert len(node.queue.files(entry)) == 2


def test_what_comes_while_a_series_is_restored_has_it_restored_again_and_not_sent(
    node: Node,
) -> None:
    entry = node.claimed()
    node.add(1, 2)
    assert not node.queue.finished(entry, 1.0, {"pacs": [node.folder / "a"]})
    assert node.deliveries.next("pacs") is None
    assert [(row[1], row[2]) for row in node.rows()] == [(1, "refused"), (2, "receiving")]
    assert node.rows()[0][3].startswith("superseded")


@pytest.mark.parametrize("end", ["retry", "fail"])
def test_a_failure_of_a_superseded_revision_ends_it(node: Node, end: str) -> None:
    entry = node.claimed()
    node.add(1, 2)
    if end == "retry":
        node.queue.retry(entry, "no memory", 10)
    else:
        node.queue.fail(entry, "no memory")
    assert node.states() == {"refused": 1, "receiving": 1}


def test_what_comes_while_a_series_waits_for_another_try_supersedes_it(node: Node) -> None:
    entry = node.claimed()
    node.queue.retry(entry, "no memory", 10)
    node.add(1, 2)
    assert [(row[1], row[2]) for row in node.rows()] == [(1, "refused"), (2, "receiving")]


def test_what_comes_before_a_ready_series_is_claimed_joins_it(node: Node) -> None:
    node.add(1, 1, 1)
    assert node.states() == {"ready": 1}
    node.add(1, 2)
    assert node.states() == {"receiving": 1}
    node.clock.now += QUIET + 1
    node.queue.complete()
    assert (node.claim().instances, len(node.rows())) == (2, 1)


def test_a_failed_series_waits_and_counts_its_attempts(node: Node) -> None:
    entry = node.claimed()
    node.queue.retry(entry, "disk full", 100, counts=False)
    assert node.queue.claim_ready() is None
    node.clock.now += 101
    entry = node.claim()
    assert entry.attempts == 0
    node.queue.retry(entry, "no memory", 100)
    node.clock.now += 101
    entry = node.claim()
    assert entry.attempts == 1
    node.queue.fail(entry, "no memory")
    assert node.rows()[0][2:] == ("failed", "no memory")


def test_a_refused_series_has_its_reason(node: Node) -> None:
    node.queue.refuse(node.claimed(), "no rule matches")
    assert node.rows()[0][2:] == ("refused", "no rule matches")


def test_series_are_claimed_in_the_order_in_which_they_became_complete(node: Node) -> None:
    for series in (2, 1, 3):
        node.clock.now += 1
        node.add(series, 1, 1)
    assert [node.claim().series_uid for _ in range(3)] == ["1.2.2", "1.2.1", "1.2.3"]


def test_each_destination_gets_every_file_and_then_the_series_is_done(node: Node) -> None:
    entry = node.claimed()
    files = [node.folder / "derived" / name for name in ("a", "b")]
    node.queue.finished(entry, 1.0, {"pacs": files, "web": files})
    assert node.states() == {"restored": 1}
    first = node.deliveries.next("pacs")
    assert first is not None
    assert first.files == tuple(files)
    assert node.states() == {"sending": 1}
    assert node.deliveries.mark_sent(first, files[:1]) == "sending"
    again = node.deliveries.next("pacs")
    assert again is not None
    assert again.files == tuple(files[1:])
    assert node.deliveries.mark_sent(again, files[1:]) == "sending"
    assert node.deliveries.next("pacs") is None
    assert node.deliveries.waiting() == {"web": 1}
    other = node.deliveries.next("web")
    assert other is not None
    assert node.deliveries.mark_sent(other, other.files) == "done"
    assert node.states() == {"done": 1}


def test_a_delivery_that_waits_holds_up_no_other_destination(node: Node) -> None:
    node.queue.finished(node.claimed(), 1.0, {"pacs": [node.folder / "a"], "web": []})
    delivery = node.deliveries.next("pacs")
    assert delivery is not None
    node.deliveries.retry(delivery, "unreachable", 100)
    assert node.deliveries.next("pacs") is None
    other = node.deliveries.next("web")
    assert other is not None
    assert node.deliveries.mark_sent(other, []) == "sending"
    node.clock.now += 101
    again = node.deliveries.next("pacs")
    assert again is not None
    assert (again.attempts, again.age) == (1, 101.0)


def test_a_series_that_one_destination_does_not_take_is_failed_when_the_others_have_it(
    node: Node,
) -> None:
    node.queue.finished(node.claimed(), 1.0, {"pacs": [node.folder / "a"], "web": []})
    delivery, other = node.deliveries.next("pacs"), node.deliveries.next("web")
    assert delivery is not None
    assert other is not None
    assert node.deliveries.fail(delivery, "class not supported") == "sending"
    assert node.deliveries.mark_sent(other, []) == "failed"
    assert node.rows()[0][3] == "pacs: class not supported"


def test_what_is_for_a_destination_that_is_not_configured_any_more_is_given_up(node: Node) -> None:
    node.queue.finished(node.claimed(), 1.0, {"old": [node.folder / "a"]})
    assert node.deliveries.drop_unknown(["pacs"]) == 1
    assert node.rows()[0][2:] == ("failed", "old: not in the configuration any more")
    assert node.deliveries.drop_unknown(["pacs"]) == 0


def test_what_was_given_up_can_be_put_back(node: Node) -> None:
    node.queue.fail(node.claimed(1), "no memory")
    node.queue.finished(node.claimed(2), 1.0, {"pacs": [node.folder / "a"]})
    delivery = node.deliveries.next("pacs")
    assert delivery is not None
    node.deliveries.fail(delivery, "class not supported")
    node.queue.refuse(node.claimed(3), "unfit")
    assert node.upkeep.revive() == 2
    assert node.states() == {"ready": 1, "restored": 1, "refused": 1}
    assert node.claim().series_uid == "1.2.1"
    assert node.deliveries.next("pacs") is not None


def test_what_was_refused_can_be_put_back_as_after_a_change_of_rules(node: Node) -> None:
    node.queue.refuse(node.claimed(1), "no rule matches")
    node.queue.fail(node.claimed(2), "no memory")
    assert not node.add(1, 0)  # a sender that repeats it changes nothing
    assert node.states() == {"refused": 1, "failed": 1}
    assert node.upkeep.revive("refused") == 1
    assert node.states() == {"ready": 1, "failed": 1}
    assert len(node.queue.files(node.claim())) == 2


def test_a_listing_has_what_is_open_refused_or_given_up_with_reasons(node: Node) -> None:
    with pytest.raises(InputError, match="no queue"):
        listed(node.folder / "elsewhere", node.clock.now)
    node.queue.refuse(node.claimed(1), "no rule matches")
    node.clock.now += 100
    node.queue.retry(node.claimed(2), "no memory", 30)
    node.queue.finished(node.claimed(3), 1.0, {"pacs": [node.folder / "a"]})
    delivery = node.deliveries.next("pacs")
    assert delivery is not None
    node.deliveries.retry(delivery, "pacs: cannot be reached", 60)
    node.queue.fail(node.claimed(4), "no memory")
    node.queue.finished(node.claimed(5), 1.0, {})
    node.add(6, 1)
    node.clock.now += 10
    counts, found = listed(node.folder, node.clock.now)
    assert counts == node.queue.counts()
    assert [
        (row.state, row.series_uid, row.seconds, row.attempts, row.wait, row.reason)
        for row in found
        if row.series_uid != "1.2.5"
    ] == [
        ("receiving", "1.2.6", 10, 0, QUIET - 10, ""),
        ("ready", "1.2.2", 10, 1, 20, "no memory"),
        ("restored", "1.2.3", 10, 1, 50, "pacs: cannot be reached"),
        ("refused", "1.2.1", 110, 0, 0, "no rule matches"),
        ("failed", "1.2.4", 10, 0, 0, "no memory"),
    ]
    assert {row.origin for row in found} == {"dimse:CT1"}


def test_a_restart_puts_back_what_was_unfinished(node: Node) -> None:
    node.claimed(1)
    node.queue.finished(node.claimed(2), 1.0, {"pacs": [node.folder / "a"]})
    node.deliveries.next("pacs")
    node.add(3, 1)
    assert node.states() == {"restoring": 1, "sending": 1, "receiving": 1}
    node.clock.now += 10 * QUIET
    node.restart()
    assert node.states() == {"ready": 1, "restored": 1, "receiving": 1}
    assert node.queue.complete() == []  # nothing could come while no process ran
    assert node.claim().series_uid == "1.2.1"
    assert node.deliveries.next("pacs") is not None


def test_a_restart_restores_only_the_last_revision(node: Node) -> None:
    node.claimed(1)
    node.add(1, 5)
    node.clock.now += QUIET + 1
    node.queue.complete()
    assert node.claim().revision == 2
    node.restart()
    assert [row[2] for row in node.rows()] == ["refused", "ready"]


def test_a_series_that_always_ends_the_process_lets_the_others_pass(node: Node) -> None:
    node.claimed(1)
    node.add(2, 1, 1)
    for _ in range(3):
        node.restart()
        assert node.claim().series_uid == "1.2.1"
    node.restart()
    assert node.claim().series_uid == "1.2.2"
    node.clock.now += LONGEST
    assert node.claim().series_uid == "1.2.1"


def test_a_clock_that_is_set_back_holds_up_nothing_for_long(node: Node) -> None:
    node.add(1, 1)
    node.clock.now -= 1e6
    node.queue.complete()
    node.clock.now += QUIET + 2
    assert len(node.queue.complete()) == 1
    node.queue.retry(node.claim(), "no memory", 30)
    node.clock.now -= 1e6
    node.restart()
    assert node.claim().series_uid == "1.2.1"


@pytest.mark.parametrize("step", [-86400.0, 86400.0])
def test_a_clock_that_is_set_by_a_day_changes_no_wait_and_no_age(node: Node, step: float) -> None:
    node.queue.refuse(node.claimed(1), "no rule matches")
    node.queue.retry(node.claimed(2), "no memory", 30)
    node.queue.finished(node.claimed(3), 1.0, {"pacs": [node.folder / "a"]})
    node.add(4, 1)
    node.clock.now += 10
    age = node.queue.oldest()
    node.clock.now += step
    node.upkeep.follow_clock(step)
    assert node.queue.oldest() == age
    assert node.queue.claim_ready() is None
    assert node.queue.complete() == []
    delivery = node.deliveries.next("pacs")
    assert delivery is not None
    assert delivery.age == 10
    assert node.upkeep.purge(11, lambda _: None) == 0
    assert node.upkeep.purge(10, lambda _: None) == 1
    node.clock.now += QUIET - 10
    assert node.claim().series_uid == "1.2.2"
    assert [entry.series_uid for entry in node.queue.complete()] == ["1.2.4"]


def test_ended_series_are_deleted_with_their_files_after_their_time(node: Node) -> None:
    removed: list[str] = []
    node.queue.refuse(node.claimed(1), "no rule matches")
    node.add(2, 1)
    node.clock.now += 100
    assert node.upkeep.purge(200, removed.append) == 0
    node.clock.now += 101
    assert node.upkeep.purge(200, removed.append) == 1
    assert removed == ["1.2.1"]
    assert [row[0] for row in node.rows()] == ["1.2.2"]
    assert node.states() == {"receiving": 1}
    (left,) = node.database.rows("SELECT count(*) FROM instances")
    assert left[0] == 1


def test_a_series_with_an_open_revision_is_not_deleted(node: Node) -> None:
    node.queue.refuse(node.claimed(1), "no rule matches")
    node.add(1, 5)
    node.clock.now += 1000
    assert node.upkeep.purge(200, lambda uid: pytest.fail(uid)) == 0


def test_a_deletion_that_was_cut_off_is_finished_but_not_for_a_series_that_came_again(
    node: Node,
) -> None:
    def cut_off(uid: str) -> None:
        raise OSError("cut off")

    for series in (1, 2):
        node.queue.refuse(node.claimed(series), "no rule matches")
    node.clock.now += 1000
    with pytest.raises(OSError, match="cut off"):
        node.upkeep.purge(200, cut_off)
    node.restart()
    node.add(1, 1)
    removed: list[str] = []
    node.upkeep.purge(200, removed.append)
    assert removed == ["1.2.2"]


def test_a_second_process_is_refused(node: Node) -> None:
    with pytest.raises(InputError, match="another node uses this folder"):
        Database(node.folder)
    code = f"from pathlib import Path\nfrom restore_rwkv.apps.node.queueing.database import Database\nDatabase(Path({str(node.folder)!r}))"  # noqa: E501
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another node uses this folder" in ended.stderr


def test_a_damaged_or_newer_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "queue.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match="cannot be used as a queue"):
        Database(tmp_path / "a")
    Database(tmp_path / "b").close()
    connection = sqlite3.connect(tmp_path / "b" / "queue.sqlite")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(InputError, match="has version 99 of the queue"):
        Database(tmp_path / "b")


def test_a_full_disk_changes_nothing_and_is_told_as_one(node: Node) -> None:
    node.add(1, 1)
    (pages,) = node.database.rows("PRAGMA page_count")
    node.database.rows(f"PRAGMA max_page_count={pages[0]}")
    with pytest.raises(OSError, match="disk of the queue is full"):
        _ = [node.add(1, number) for number in range(2, 1000)]
    node.database.rows("PRAGMA max_page_count=1000000")
    node.add(1, 2000)
    (found,) = node.database.rows("SELECT instances FROM series")
    (rows,) = node.database.rows("SELECT count(*) FROM instances")
    assert found[0] == rows[0]


def test_a_program_that_writes_to_the_queue_is_told_as_a_fault_that_passes(node: Node) -> None:
    other = sqlite3.connect(node.folder / "queue.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    node.database._connection.execute("PRAGMA busy_timeout=10")
    with pytest.raises(OSError, match="another program"):
        node.add(1, 1)
    other.execute("ROLLBACK")
    other.close()
    assert node.add(1, 1)


def test_the_database_holds_of_the_header_what_rules_look_at_only(node: Node) -> None:
    header = {"PatientName": "DOE^JANE", "SeriesDescription": "Head 1.0"}
    node.queue.add(make_instance(node.folder, 1, 1, header=header))
    node.database.close()
    content = b"".join(path.read_bytes() for path in node.folder.glob("queue.sqlite*"))
    assert b"Head 1.0" in content
    assert b"DOE" not in content
    node.open()


def test_counts_are_those_of_the_rows(node: Node) -> None:
    assert set(node.queue.counts()) == set(STATES)
    node.claimed(1)
    node.add(2, 1)
    rows = node.database.rows("SELECT state, count(*) FROM series GROUP BY state")
    assert node.states() == {row[0]: row[1] for row in rows}
    node.clock.now += 5
    assert node.queue.oldest() == 5.0


def test_every_query_of_a_turn_uses_an_index(node: Node) -> None:
    queries = (
        "SELECT * FROM series WHERE state = 'ready' AND due <= 5 ORDER BY due, id LIMIT 1",
        "SELECT * FROM series WHERE state = 'receiving' AND due <= 5",
        "SELECT * FROM series WHERE series_uid = '1' ORDER BY revision DESC LIMIT 1",
        "SELECT min(first_at) FROM series WHERE ended_at IS NULL",
        "SELECT series_uid FROM series WHERE ended_at <= 5 ORDER BY ended_at",
        "SELECT * FROM deliveries WHERE destination = 'a' AND state = 'open' AND due <= 5 "
        "ORDER BY due, id LIMIT 1",
        "SELECT path FROM instances WHERE series_uid = '1' AND revision <= 1",
    )
    for query in queries:
        plan = " ".join(row["detail"] for row in node.database.rows(f"EXPLAIN QUERY PLAN {query}"))
        assert "USING" in plan, query
        assert "TEMP B-TREE" not in plan, query


def test_waits_double_up_to_an_hour_and_differ() -> None:
    for attempt in range(1, 200):
        longest = min(LONGEST, 30 * 2.0 ** (attempt - 1))
        assert longest / 2 <= waiting_time(attempt, 30) <= longest
    assert len({waiting_time(3, 30) for _ in range(10)}) > 1


def test_keys_hold_no_uid(node: Node) -> None:
    entry = node.claimed()
    assert entry.key == f"{short_hash('1.2.1')}-r1"
    assert "1.2" not in entry.key
