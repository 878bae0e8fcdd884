"""The service with a receiver, workers and destinations of the test, in one process."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import logging
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from restore_rwkv.apps.node import service
from restore_rwkv.apps.node.config import Destination, NodeConfig, Peer
from restore_rwkv.apps.node.names import file_name, short_hash
from restore_rwkv.apps.node.outgoing import SendError
from restore_rwkv.apps.node.parts import Parts
from restore_rwkv.apps.node.restoring import coordinator
from restore_rwkv.apps.node.rules import Rule
from restore_rwkv.apps.node.service import Service
from restore_rwkv.batch.engine import Ended, Event
from restore_rwkv.batch.job import Job, Outcome
from restore_rwkv.batch.worker import WorkerSettings
from tests.helpers.synthetic_series import SLICES, make_slice, save

pytestmark = pytest.mark.slow  # beside servers and peers, which takes time

SECONDS = 20.0


class Workers:
    """An engine that writes one file for each of a job's, or does what the test says."""

    def __init__(self) -> None:
        self.settings: list[WorkerSettings] = []
        self.jobs: list[Job] = []
        self.answers: list[Outcome] = []  # for the next jobs, in place of success
        self.held = False
        self._waiting: list[Job] = []

    def __call__(self, settings: WorkerSettings, jobs: int) -> Workers:
        self.settings.append(settings)
        return self

    room = 1

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self._waiting.append(job)

    def events(self, timeout: float) -> Iterator[Event]:
        if self.held or not self._waiting:
            time.sleep(min(timeout, 0.02))
            return
        yield Ended(self._run(self._waiting.pop(0)))

    def _run(self, job: Job) -> Outcome:
        if self.answers:
            answer = self.answers.pop(0)
            return dataclasses.replace(answer, key=job.key)
        target = Path(job.target)
        target.mkdir(parents=True, exist_ok=True)
        for name in job.files:
            content = (Path(job.source) / name).read_bytes()
            (target / Path(name).name).write_bytes(b"restored " + content)
        return Outcome(key=job.key, state="done", seconds=0.5)

    def close(self) -> None:
        self._waiting.clear()


class Archive:
    """Destinations that keep what they are sent."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Path]] = []
        self.faults: list[SendError] = []

    def __call__(self, destination: Destination, config: NodeConfig) -> _Sender:
        return _Sender(self, destination.name)

    def files(self, name: str = "pacs") -> list[str]:
        return [path.name for destination, path in self.received if destination == name]


class _Sender:
    def __init__(self, archive: Archive, name: str) -> None:
        self._archive, self._name = archive, name

    def send(self, files: Sequence[Path]) -> Iterator[Path]:
        for path in files:
            if self._archive.faults:
                raise self._archive.faults.pop(0)
            assert path.is_file()
            self._archive.received.append((self._name, path))
            yield path


class Receiver:
    """Stands for the receiver; the test puts instances in by `receive`."""

    alive = True
    started = threading.Event()

    def __init__(self, *_: Any) -> None: ...

    def start(self) -> None:
        self.started.set()

    def stop(self) -> None: ...


def make_config(folder: Path, **changes: Any) -> NodeConfig:
    """Return the settings of a node with one peer, one rule and one destination."""
    settings: dict[str, Any] = {
        "folder": folder,
        "peers": (Peer(name="ct", ae_title="CT1"),),
        "rules": (Rule(name="all", send_to=("pacs",)),),
        "destinations": (
            Destination(name="pacs", kind="dimse", ae_title="P", host="127.0.0.1", port=4242),
        ),
        "quiet_seconds": 0.15,
        "retry_seconds": 0.05,
        "metrics_port": 0,
    }
    return NodeConfig(**(settings | changes))


class Running:
    """A service that runs in a thread."""

    def __init__(self, folder: Path, *, own_workers: bool = False, **changes: Any) -> None:
        self.config = make_config(folder, **changes)
        self.own_workers = own_workers
        self.workers, self.archive = Workers(), Archive()
        self.step = 0.0  # by which the clock is set
        self.start()

    def start(self) -> None:
        parts = Parts(
            receiver_of=Receiver,
            engine_of=None if self.own_workers else self.workers,
            sender_of=self.archive,
            clock=lambda: time.time() + self.step,
        )
        self.service = Service(self.config, parts)
        self._thread = threading.Thread(target=self.service.run, daemon=True)
        Receiver.started.clear()
        self._thread.start()
        assert Receiver.started.wait(SECONDS)

    def receive(
        self,
        slices: Sequence[int] = range(SLICES),
        series: str = "1.2.3.4",
        change: Callable[[Any], None] | None = None,
    ) -> None:
        for k in slices:
            dataset = make_slice(k)
            dataset.SeriesInstanceUID = series
            dataset.SOPInstanceUID = f"{series}.{k + 1}"
            if change is not None:
                change(dataset)
            buffer = io.BytesIO()
            save(dataset, buffer)  # type: ignore[arg-type]
            instance, _ = self.service._spool.add(buffer.getvalue(), "dimse:CT1")
            self.service.accept(instance)

    def wait_for(self, **states: int) -> None:
        """Wait until the series are in these states, and no other."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            found = {name: n for name, n in self.service.queue.counts().items() if n}
            if found == states:
                return
            time.sleep(0.02)
        pytest.fail(f"{found} instead of {states} after {SECONDS} s")

    def reasons(self) -> list[str]:
        rows = self.service.queue._database.rows("SELECT reason FROM series ORDER BY id")
        return [row[0] for row in rows]

    def stop(self) -> None:
        self.service.stop()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_TURN_SECONDS", 0.02)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def start(**changes: Any) -> Running:
        made.append(Running(tmp_path / "node", **changes))
        return made[-1]

    yield start
    for running in made:
        running.stop()


def test_a_series_is_restored_and_sent_whole(begin: Callable[..., Running]) -> None:
    node = begin()
    node.receive()
    node.wait_for(done=1)
    (job,) = node.workers.jobs
    assert (job.series, len(job.files), job.is_series) == ("1.2.3.4", SLICES, True)
    assert len(node.archive.files()) == SLICES
    key = f"{short_hash('1.2.3.4')}-r1"
    assert {path.parent.name for _, path in node.archive.received} == {key}


def test_late_instances_are_sent_as_another_whole_series(begin: Callable[..., Running]) -> None:
    node = begin()
    node.receive([0, 1])
    node.wait_for(done=1)
    node.receive([0, 1, 2, 3])
    node.wait_for(done=2)
    assert [len(job.files) for job in node.workers.jobs] == [2, 4]
    assert len({path.parent for _, path in node.archive.received}) == 2


def test_what_comes_while_restoring_is_restored_again_and_sent_once(
    begin: Callable[..., Running],
) -> None:
    node = begin()
    node.workers.held = True
    node.receive([0, 1])
    node.wait_for(restoring=1)
    node.receive([2, 3])
    node.wait_for(restoring=2)
    node.workers.held = False
    node.wait_for(refused=1, done=1)
    assert len(node.archive.files()) == 4
    assert node.reasons()[0].startswith("superseded")


@pytest.mark.parametrize("kind", ["input", "unfit", "weights", "usage"])
def test_a_fault_of_the_series_is_refused_with_its_reason(
    kind: str, begin: Callable[..., Running]
) -> None:
    node = begin()
    node.workers.answers = [Outcome(key="", state="refused", kind=kind, reason=f"it is {kind}")]
    node.receive()
    node.wait_for(refused=1)
    assert node.reasons() == [f"it is {kind}"]
    assert node.archive.received == []


def test_equal_reasons_of_several_series_are_equal_text(begin: Callable[..., Running]) -> None:
    node = begin()
    folders = [node.service._spool.folder_of(uid).name for uid in ("1.2.3.4", "1.2.3.5")]
    for folder, series in zip(folders, ("1.2.3.4", "1.2.3.5"), strict=True):
        reason = f"{folder}: a localizer; give the scan itself"
        node.workers.answers = [Outcome(key="", state="refused", kind="unfit", reason=reason)]
        node.receive(series=series)
        node.wait_for(refused=1 + folders.index(folder))
    assert node.reasons() == ["a localizer; give the scan itself"] * 2


@pytest.mark.parametrize(
    ("kind", "said", "kept"),
    [
        (
            "input",
            "a.dcm: the header is damaged (could not convert string to float: 'DOE'); copy it",
            "a.dcm: the header is damaged (could not convert string to float: '...'); copy it",
        ),
        (
            "unfit",
            "a: ImageType ORIGINAL\\PRIMARY\\JANE: a localizer; give the scan itself",
            "a: ImageType: a localizer; give the scan itself",
        ),
        ("input", "a: has no series 1.2.3.4.5.6; export it", "a: has no series {hash}; export it"),
        (
            "bug",
            "a bug in restore-rwkv, please report it: ValueError: DOE^JANE is odd",
            "a bug in restore-rwkv, please report it: ValueError at b.py:7",
        ),
    ],
)
@pytest.mark.parametrize("allowed", [False, True])
def test_reasons_quote_nothing_of_a_header_unless_it_is_configured(
    begin: Callable[..., Running], allowed: bool, kind: Any, said: str, kept: str
) -> None:
    node = begin(log_patient_data=allowed)
    details = 'Traceback:\n  File "/opt/a.py", line 3, in one\n  File "/opt/b.py", line 7, in two\n'
    answer = Outcome(key="", state="refused", kind=kind, reason=said, details=details + "DOE")
    node.workers.answers = [answer]
    node.receive()
    node.wait_for(refused=1)
    assert node.reasons() == [said if allowed else kept.format(hash=short_hash("1.2.3.4.5.6"))]


def test_a_bug_that_one_series_meets_holds_up_no_other(
    begin: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(path: Path) -> bool:
        if path.parent.name == file_name("1.2.3.4"):
            raise KeyError("DOE^JANE")
        return False

    monkeypatch.setattr(coordinator, "is_made_here", odd)
    node = begin(attempts=1)
    node.receive()
    node.receive(series="1.2.3.5")
    node.wait_for(failed=1, done=1)
    assert node.reasons()[0] == "a bug, KeyError"
    assert "DOE" not in caplog.text


def test_a_fault_of_the_machine_is_tried_again(begin: Callable[..., Running]) -> None:
    node = begin(attempts=3)
    fault = Outcome(key="", state="failed", kind="system", reason="ends its worker (signal 9)")
    node.workers.answers = [fault, fault]
    node.receive()
    node.wait_for(done=1)
    assert len(node.workers.jobs) == 3


def test_a_fault_of_the_machine_that_stays_is_given_up(begin: Callable[..., Running]) -> None:
    node = begin(attempts=3)
    node.workers.answers = [Outcome(key="", state="failed", kind="bug", reason="broken")] * 5
    node.receive()
    node.wait_for(failed=1)
    assert node.reasons() == ["broken"]
    assert len(node.workers.jobs) == 3


def test_a_full_disk_is_waited_for_however_long(begin: Callable[..., Running]) -> None:
    node = begin(attempts=2)
    reason = f"x: {os.strerror(errno.ENOSPC)}; free some"
    node.workers.answers = [Outcome(key="", state="failed", kind="system", reason=reason)] * 5
    node.receive()
    node.wait_for(done=1)
    assert len(node.workers.jobs) == 6


def test_without_a_rule_a_series_is_refused(begin: Callable[..., Running]) -> None:
    node = begin(rules=(Rule(name="mr", modality="MR", send_to=("pacs",)),))
    node.receive()
    node.wait_for(refused=1)
    assert node.reasons() == ["no rule matches"]
    assert node.workers.jobs == []


def test_the_first_rule_that_matches_decides(begin: Callable[..., Running]) -> None:
    rules = (
        Rule(name="none", description="*scout*", action="ignore"),
        Rule(name="sure", modality=["CT"], fit="fit", strength=0.5, send_to=("pacs",)),
        Rule(name="rest", fit="any", send_to=("pacs",)),
    )
    node = begin(rules=rules)

    def scout(dataset: Any) -> None:
        dataset.SeriesDescription = "Head Scout"

    node.receive(series="1.2.3.5", change=scout)
    node.wait_for(refused=1)
    assert node.reasons() == ["rule none ignores it"]
    node.receive()
    node.wait_for(refused=1, done=1)
    (settings,) = node.workers.settings
    assert (settings.options.strict, settings.options.force) == (True, False)
    assert settings.options.strength == 0.5


def test_what_this_program_restored_is_never_restored_again(begin: Callable[..., Running]) -> None:
    node = begin(rules=(Rule(name="all", fit="any", send_to=("pacs",)),))

    def derived(dataset: Any) -> None:
        dataset.DerivationDescription = "restore-rwkv 1.0: ct-denoise"

    node.receive(change=derived)
    node.wait_for(refused=1)
    assert node.reasons() == ["already restored"]
    assert node.workers.jobs == []


def test_a_destination_that_is_away_is_tried_again_and_gets_the_rest(
    begin: Callable[..., Running],
) -> None:
    node = begin()
    node.archive.faults = [SendError("pacs: unreachable", transient=True)] * 2
    node.receive()
    node.wait_for(done=1)
    files = node.archive.files()
    assert len(files) == len(set(files)) == SLICES


def test_a_destination_that_refuses_gets_no_more(begin: Callable[..., Running]) -> None:
    node = begin()
    node.archive.faults = [SendError("class not supported", transient=False)]
    node.receive()
    node.wait_for(failed=1)
    assert node.reasons() == ["pacs: class not supported"]


def test_a_destination_that_stays_away_is_given_up_in_the_end(
    begin: Callable[..., Running],
) -> None:
    node = begin(send_days=0)
    node.archive.faults = [SendError("pacs: unreachable", transient=True)] * 9
    node.receive()
    node.wait_for(failed=1)
    assert node.reasons() == ["pacs: unreachable"]


def test_a_stopped_node_goes_on_where_it_was(begin: Callable[..., Running]) -> None:
    node = begin()
    node.workers.held = True
    node.receive()
    node.wait_for(restoring=1)
    node.stop()
    node.workers.held = False
    node.start()
    node.wait_for(done=1)
    assert len(node.archive.files()) == SLICES


def test_what_the_queue_does_not_know_is_noted_when_the_node_starts(
    begin: Callable[..., Running],
) -> None:
    node = begin(rules=(Rule(name="own", peer="CT1", send_to=("pacs",)),))
    node.receive()
    node.wait_for(done=1)
    node.stop()
    for file in node.config.folder.glob("queue.sqlite*"):
        file.unlink()  # lost, or a copy from before was put back
    node.start()
    node.wait_for(done=1)
    assert sorted(set(node.archive.files())) == sorted(node.archive.files()[:SLICES])
    assert len(node.archive.files()) == 2 * SLICES  # with the UIDs that they had


def test_an_output_of_other_settings_is_made_anew(begin: Callable[..., Running]) -> None:
    node = begin()
    node.workers.held = True
    node.receive()
    node.wait_for(restoring=1)
    node.stop()
    target = Path(node.workers.jobs[0].target)
    target.mkdir(parents=True)
    (target / "IMG00001.dcm").write_bytes(b"old")
    target.with_name(f"{target.name}.restoration.json").write_text("{}")
    node.workers.held = False
    node.workers.answers = [Outcome(key="", state="refused", kind="input", reason="exists")]
    node.start()
    node.wait_for(done=1)
    assert "IMG00001.dcm" not in node.archive.files()


def test_ended_series_leave_no_files_after_their_time(begin: Callable[..., Running]) -> None:
    node = begin(keep_days=0)
    node.receive()
    node.wait_for(done=1)
    assert list(node.config.folder.rglob("*.dcm"))
    node.service.purge()
    node.wait_for()
    assert not list(node.config.folder.rglob("*.dcm"))
    assert not list((node.config.folder / "derived").iterdir())


def test_series_that_are_done_make_room_before_the_quota_is_used_up(
    begin: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    node = begin(quota=40_000, attempts=1)
    node.workers.answers = [Outcome(key="", state="failed", kind="system", reason="no memory")]
    for number in range(4):
        node.receive(series=f"1.2.{number}")
        node.wait_for(failed=1, **({"done": number} if number else {}))
    each = node.service._spool.used() / 4
    assert node.service._spool.used() < 0.8 * 40_000  # nothing is deleted before
    node.service.purge()
    node.wait_for(failed=1, done=3)
    while node.service._spool.used() <= 0.8 * 40_000:
        number += 1
        node.receive(series=f"1.2.{number}")
        node.wait_for(failed=1, done=number)
    node.workers.held = True
    node.receive(series="1.3.1")
    node.wait_for(failed=1, done=number, restoring=1)
    with caplog.at_level(logging.INFO, "restore_rwkv.apps.node"):
        node.service.purge()
    node.wait_for(failed=1, restoring=1)  # what was given up, and what is open, stays
    assert node.service._spool.used() == 2 * each
    assert f"deleted {number} series before their time" in caplog.text
    node.workers.held = False
    node.wait_for(failed=1, done=1)


def test_series_that_are_done_make_room_before_the_disk_is_full(
    begin: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = begin()
    node.receive()
    node.wait_for(done=1)
    node.service.purge()
    node.wait_for(done=1)
    monkeypatch.setattr(service, "_LITTLE_ROOM", 1 << 60)
    node.service.purge()
    node.wait_for()
    assert not list(node.config.folder.rglob("*.dcm"))


def test_a_clock_that_is_set_back_while_the_node_runs_holds_nothing_up(
    begin: Callable[..., Running],
) -> None:
    node = begin(quiet_seconds=0.5)
    node.receive()
    node.step = -86400.0
    node.wait_for(done=1)
    node.archive.faults = [SendError("pacs: away", transient=True)]
    node.receive(series="1.2.3.5")
    node.step = 9 * 86400.0  # longer than keep_days and send_days
    node.wait_for(done=2)
    node.service.purge()
    node.wait_for(done=2)


def test_health_and_metrics_are_served_on_this_machine(begin: Callable[..., Running]) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    node = begin(metrics_port=port)
    node.receive()
    node.wait_for(done=1)
    address = f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(f"{address}/health") as answer:
        assert json.load(answer) == {"healthy": True, "faults": {}}
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        text = answer.read().decode()
    assert 'restore_rwkv_node_series{state="done"} 1.0' in text
    assert 'restore_rwkv_node_restored_total{rule="all"} 1.0' in text
    assert 'restore_rwkv_node_sent_instances_total{destination="pacs"} 4.0' in text
    assert "restore_rwkv_node_restoring_seconds_count 1.0" in text
    assert "1.2.3.4" not in text
    Receiver.alive = False
    try:
        with pytest.raises(urllib.error.HTTPError) as unwell:
            urllib.request.urlopen(f"{address}/health")
        assert unwell.value.code == 503
        assert json.load(unwell.value)["faults"] == {"receiver": "does not run"}
        unwell.value.close()
    finally:
        Receiver.alive = True


def test_the_log_has_one_line_for_each_event_and_no_patient_data(
    begin: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    def named(dataset: Any) -> None:
        dataset.PatientName = "DOE^JANE"
        dataset.SeriesDescription = "Jane's head"

    with caplog.at_level(logging.INFO, "restore_rwkv.apps.node"):
        node = begin()
        node.receive(change=named)
        node.wait_for(done=1)
        node.stop()
    key = f"{short_hash('1.2.3.4')}-r1"
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[1].split()[0] for line in lines if line.startswith(key)] == [
        "complete",
        "restored",
        "sent",
        "done",
    ]
    text = "\n".join(lines)
    for secret in ("DOE", "Jane", "1.2.3.4"):
        assert secret not in text


@pytest.mark.parametrize(("given", "bound"), [(None, 800), (300, 300)])
def test_workers_take_no_more_memory_than_is_allowed_or_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int | None, bound: int
) -> None:
    pools: list[tuple[int, int]] = []

    class Pool(Workers):
        def __init__(self, settings: WorkerSettings, jobs: int, memory: int) -> None:
            super().__init__()
            pools.append((jobs, memory))

    monkeypatch.setattr("restore_rwkv.batch.pool.Pool", Pool)
    monkeypatch.setattr("restore_rwkv.restoration.memory.free_memory", lambda device: 1000)
    node = Running(tmp_path / "node", jobs=2, max_memory=given, own_workers=True)
    node.receive()
    node.wait_for(done=1)
    node.stop()
    assert pools == [(2, bound)]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
def test_a_signal_stops_the_service_in_good_order(tmp_path: Path) -> None:
    config = make_config(tmp_path / "node")
    parts = Parts(receiver_of=Receiver, engine_of=Workers(), sender_of=Archive())
    made = Service(config, parts)
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    made.run()
    assert signal.getsignal(signal.SIGTERM) == before
    Service(config, parts)._ends.close()  # the folder is free again
