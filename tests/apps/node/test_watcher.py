"""An archive is watched: what is new and complete is fetched once, whatever happens in between."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from pydicom import dcmread

from restore_rwkv.apps.node.config import Archive, Limits, NodeConfig, Rule
from restore_rwkv.apps.node.dicomweb.request import Patience, WebError
from restore_rwkv.apps.node.metrics import Metrics
from restore_rwkv.apps.node.own import says_made_here
from restore_rwkv.apps.node.spooling.spool import Instance, Spool, SpoolFull
from restore_rwkv.apps.node.watching.watcher import Watcher
from tests.helpers.enhanced_headers import of
from tests.helpers.synthetic_series import make_slice, save
from tests.helpers.web_peer import Archive as Peer
from tests.helpers.web_peer import web_server

FIRST, SECOND = "1.2.840.1", "1.2.840.2"


def instance_of(folder: Path, series: str, number: int, **changes: object) -> bytes:
    image = make_slice(number)
    image.SeriesInstanceUID, image.SOPInstanceUID = series, f"{series}.{number}"
    image.StudyInstanceUID = Peer.study
    for keyword, value in changes.items():
        setattr(image, keyword, value)
    save(image, folder / "one.dcm")
    return (folder / "one.dcm").read_bytes()


@dataclass
class Place:
    """A watched archive, with a spool and a list for a queue."""

    folder: Path
    peer: Peer
    url: str
    accepted: list[Instance] = field(default_factory=list)
    accept: Callable[[Instance], None] = lambda instance: None
    config: NodeConfig = field(init=False)

    def __post_init__(self) -> None:
        archive = Archive(name="pacs", url=self.url, every_seconds=0.05, modalities=("CT",))
        self.config = NodeConfig(
            folder=self.folder / "node",
            archives=(archive,),
            rules=(Rule(name="none", action="ignore"),),
            quiet_seconds=0.001,
            retry_seconds=0.001,
            attempts=3,
        )
        self.spool = Spool(self.folder / "spool", 10**9, reserve=0)

    def watcher(self) -> Watcher:
        def accept(instance: Instance) -> None:
            self.accept(instance)
            self.accepted.append(instance)

        patience = Patience(connect=1, silence=1, answer=1)
        metrics = Metrics()
        [archive] = self.config.archives
        return Watcher(archive, self.config, self.spool, accept, metrics, patience)

    def polls(self, watcher: Watcher, count: int = 2) -> int:
        fetched = 0
        for _ in range(count):
            time.sleep(0.005)  # longer than `quiet_seconds`, and the waits of `retry_seconds`
            fetched += watcher.poll()
        return fetched

    def uids(self) -> list[str]:
        return sorted(instance.sop_instance_uid for instance in self.accepted)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    files = [instance_of(tmp_path, FIRST, number) for number in range(3)]
    peer = Peer({FIRST: files})
    with web_server(peer) as url:
        yield Place(tmp_path, peer, url)


def test_a_series_is_fetched_once_and_whole(place: Place) -> None:
    watcher = place.watcher()
    assert place.polls(watcher, 1) == 0  # it may still grow
    assert place.polls(watcher, 1) == 1
    assert place.uids() == [f"{FIRST}.{number}" for number in range(3)]
    for instance in place.accepted:
        assert instance.origin == "web:pacs"
        assert instance.announced == 3
        stored = instance.path.read_bytes()[128:]
        assert stored in [sent[128:] for sent in place.peer.series[FIRST]]
    assert place.polls(watcher, 3) == 0
    watcher.stop()
    again = place.watcher()  # remembered by the disk
    assert place.polls(again, 3) == 0
    again.stop()
    assert len(place.accepted) == 3


def test_a_series_that_grows_is_left_until_it_is_quiet(place: Place) -> None:
    place.config = replace(place.config, quiet_seconds=0.1)
    watcher = place.watcher()
    for number in range(3, 6):
        assert place.polls(watcher, 3) == 0
        place.peer.series[FIRST].append(instance_of(place.folder, FIRST, number))  # type: ignore[attr-defined]
    assert place.polls(watcher, 2) == 0
    time.sleep(0.1)
    assert place.polls(watcher, 1) == 1
    assert len(place.accepted) == 6
    watcher.stop()


def test_more_instances_of_a_series_are_fetched_and_fewer_are_not(place: Place) -> None:
    watcher = place.watcher()
    assert place.polls(watcher) == 1
    last = place.peer.series[FIRST].pop()  # type: ignore[attr-defined]
    assert place.polls(watcher, 3) == 0
    more = instance_of(place.folder, FIRST, 7)
    place.peer.series[FIRST].extend([last, more])  # type: ignore[attr-defined]
    assert place.polls(watcher) == 1
    assert len(set(place.uids())) == 4
    watcher.stop()


@pytest.mark.parametrize("metadata", [True, False])
def test_our_own_series_are_left_alone(place: Place, metadata: bool) -> None:
    equipment = [of(Manufacturer="Scanner Works"), of(Manufacturer="restore-rwkv")]
    own = instance_of(place.folder, SECOND, 0, ContributingEquipmentSequence=equipment)
    place.peer.series[SECOND] = [own] * 2
    image = dcmread(io.BytesIO(own))
    if metadata:
        place.peer.series.pop(FIRST)
        place.peer.metadata = image.to_json_dict()
    watcher = place.watcher()
    assert place.polls(watcher, 4) == (0 if metadata else 1)
    assert SECOND not in {instance.series_uid for instance in place.accepted}
    retrieved = place.peer.asked.count(f"/studies/{Peer.study}/series/{SECOND}")
    assert retrieved == (0 if metadata else 1)
    place.peer.series[SECOND] = [own] * 3  # it is not looked at again
    before = len(place.peer.asked)
    place.polls(watcher, 2)
    assert all(path == "/series" for path in place.peer.asked[before:])
    watcher.stop()


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"00080070": {"vr": "LO"}},
        {"0018A001": {"vr": "SQ", "Value": [None, 3, {"00080070": {"Value": [{}]}}]}},
        {"0018A001": None, "00080070": {"Value": ["Scanner Works"]}},
    ],
)
def test_headers_of_others_are_not_ours(header: dict[str, object]) -> None:
    assert not says_made_here(header)


def test_a_map_that_we_made_is_ours() -> None:
    assert says_made_here({"00080070": {"vr": "LO", "Value": ["restore-rwkv"]}})


def test_a_series_that_the_archive_cannot_give_holds_up_no_other(place: Place) -> None:
    place.peer.series = {
        uid: [instance_of(place.folder, uid, number) for number in range(3)]
        for uid in (FIRST, SECOND)
    }
    place.peer.damaged = {FIRST}
    watcher = place.watcher()
    assert place.polls(watcher, 2) == 1
    assert place.uids() == [f"{SECOND}.{number}" for number in range(3)]
    place.polls(watcher, 2 * place.config.attempts)
    place.peer.damaged = set()  # which is not given up, as the archive may be put right
    assert place.polls(watcher, 100) == 1
    watcher.stop()


def test_an_archive_that_is_down_is_logged_once(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.peer.status = 503
    watcher = place.watcher()
    with caplog.at_level(logging.INFO, "restore_rwkv.apps.node.watching.watcher"):
        watcher.start()
        until(lambda: place.peer.asked.count("/series") >= 3)
        assert "503" in watcher.fault
        assert watcher.alive
        place.peer.status = 200
        until(lambda: len(place.accepted) == 3 and not watcher.fault)
        watcher.stop()
    assert not watcher.alive
    words = [record.getMessage() for record in caplog.records]
    assert len([text for text in words if "503" in text]) == 1
    assert len([text for text in words if "watched again" in text]) == 1
    assert not any(FIRST in text or "Smith" in text for text in words)


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_series_cut_short_is_fetched_again_and_another_one_meanwhile(place: Place) -> None:
    place.peer.series[SECOND] = [instance_of(place.folder, SECOND, 0)]
    place.peer.parts = lambda parts: parts[:-1] if len(parts) == 3 else parts
    watcher = place.watcher()
    assert place.polls(watcher) == 1
    assert place.uids() == [f"{FIRST}.0", f"{FIRST}.1", f"{SECOND}.0"]
    place.peer.parts = lambda parts: parts
    assert place.polls(watcher, 1) == 1
    assert set(place.uids()) == {*(f"{FIRST}.{n}" for n in range(3)), f"{SECOND}.0"}
    watcher.stop()


@pytest.mark.parametrize(
    "parts",
    [
        lambda parts: parts[:2],
        lambda parts: [parts[0], parts[0], parts[1]],
        lambda parts: [*parts[:2], b"not DICOM"],
        lambda parts: [*parts[:2], parts[2].replace(b"1.2.840.1.2", b"1.2.840.1.1")],
        lambda parts: [part.replace(b"1.2.840.1\0", b"1.2.840.9\0") for part in parts],
    ],
)
def test_a_series_that_never_comes_right_is_given_up(
    place: Place,
    parts: Callable[[list[bytes]], list[bytes]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    place.peer.parts = parts
    watcher = place.watcher()
    assert place.polls(watcher, 12) == 0
    assert place.peer.asked.count(f"/studies/{Peer.study}/series/{FIRST}") == 3
    assert len([r for r in caplog.records if "given up" in r.getMessage()]) == 1
    watcher.stop()


@pytest.mark.parametrize("limits", [Limits(series_instances=2), Limits(series_bytes=2000)])
def test_a_series_above_the_limits_is_given_up(place: Place, limits: Limits) -> None:
    place.config = replace(place.config, limits=limits)
    watcher = place.watcher()
    assert place.polls(watcher, 12) == 0
    assert place.peer.asked.count(f"/studies/{Peer.study}/series/{FIRST}") <= 3
    asked = len(place.peer.asked)
    place.polls(watcher, 1)
    assert all(path == "/series" for path in place.peer.asked[asked:])
    watcher.stop()


def test_a_full_spool_is_waited_for(place: Place) -> None:
    place.spool = Spool(place.folder / "spool", 1500, reserve=0)
    watcher = place.watcher()
    place.polls(watcher, 1)
    for _ in range(5):
        time.sleep(0.005)
        with pytest.raises(SpoolFull):
            watcher.poll()
    watcher.stop()
    place.spool = Spool(place.folder / "spool", 10**6, reserve=0)
    assert place.polls(place.watcher()) == 1
    assert len(set(place.uids())) == 3


def test_a_queue_that_cannot_write_loses_nothing(place: Place) -> None:
    def accept(instance: Instance) -> None:
        if len(place.accepted) == 1 and not failed:
            failed.append(instance)
            raise OSError("disk full")

    failed: list[Instance] = []
    place.accept = accept
    watcher = place.watcher()
    place.polls(watcher, 1)
    time.sleep(0.005)
    with pytest.raises(OSError, match="disk full"):
        watcher.poll()
    assert place.polls(watcher, 1) == 1
    assert len(set(place.uids())) == 3
    watcher.stop()


def test_only_the_modalities_and_days_that_are_wanted_are_fetched(place: Place) -> None:
    def rows(found: list[dict[str, object]]) -> list[dict[str, object]]:
        # An archive that ignores both conditions, and one that lets UIDs lead elsewhere.
        other = {"00080060": {"Value": ["SR"]}}
        old = {"00080020": {"Value": ["19990101"]}}
        hostile = {"0020000E": {"Value": ["../../system"]}}
        return [*found, *({**row, **change} for row in found for change in (other, old, hostile))]

    place.peer.series[SECOND] = [instance_of(place.folder, SECOND, 0)]
    place.peer.rows = lambda found: rows(found[1:])
    watcher = place.watcher()
    assert place.polls(watcher, 3) == 1
    assert {instance.series_uid for instance in place.accepted} == {SECOND}
    watcher.stop()


def test_many_series_come_in_pages_and_without_counts(place: Place) -> None:
    for number in range(450):
        place.peer.series[f"1.3.{number}"] = [b"x", b"y"]

    def rows(found: list[dict[str, object]]) -> list[dict[str, object]]:
        return [{k: v for k, v in row.items() if k != "00201209"} for row in found]

    watcher = place.watcher()
    assert len(watcher._web.search("CT")) == 451
    assert len(watcher._web.search("MR")) == 0
    place.peer.series = {FIRST: place.peer.series[FIRST]}
    place.peer.rows = rows
    [found] = watcher._web.search("CT")
    assert found.instances == 3
    watcher.stop()


def test_an_archive_that_ignores_pages_is_read_once(place: Place) -> None:
    place.peer._page = lambda rows, query: Peer._page(  # type: ignore[method-assign]
        place.peer, rows, {"limit": ["9"]}
    )
    watcher = place.watcher()
    assert len(watcher._web.search("CT")) == 1
    assert place.peer.asked == ["/series", "/series"]
    watcher.stop()


def test_a_search_that_is_not_dicom_is_refused(place: Place) -> None:
    watcher = place.watcher()
    for rows in ([3], [[]], ["x"]):
        place.peer.rows = lambda found, rows=rows: rows  # type: ignore[misc]
        with pytest.raises(WebError, match="not DICOM"):
            watcher.poll()
    watcher.stop()


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.apps.node.test_watcher import Place
from tests.helpers.web_peer import Archive

place = Place(Path(sys.argv[1]), Archive({}), sys.argv[2])
def accept(instance):
    if len(place.accepted) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
place.accept = accept
place.polls(place.watcher(), 9)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
@pytest.mark.parametrize("after", [0, 2])
def test_a_kill_in_the_middle_lets_the_series_be_fetched_again(place: Place, after: int) -> None:
    words = [sys.executable, "-c", _KILLED, str(place.folder), place.url, str(after)]
    ended = subprocess.run(words, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert ended.returncode == -signal.SIGKILL
    place.spool = Spool(place.folder / "spool", 10**9, reserve=0)
    watcher = place.watcher()
    assert place.polls(watcher) == 1
    assert place.uids() == [f"{FIRST}.{number}" for number in range(3)]
    assert len(list(place.spool.folder_of(FIRST).iterdir())) == 3
    watcher.stop()
