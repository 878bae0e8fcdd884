"""The command as a process of its own, between a sender and an archive on this machine."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt

from tests.helpers.synthetic_series import make_slice

SLICES = 4
SECONDS = 120.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals"),
]

CONFIG = """
folder = "state"
port = {port}
quiet_seconds = 0.5
retry_seconds = 0.5
metrics_port = 0
[[peers]]
name = "scanner"
ae_title = "SCANNER"
[[rules]]
name = "all"
fit = "any"
send_to = ["pacs"]
[[destinations]]
name = "pacs"
kind = "dimse"
ae_title = "PACS"
host = "127.0.0.1"
port = {archive}
"""


class Archive:
    """A storage SCP that keeps what it is sent."""

    def __init__(self) -> None:
        self.received: list[Dataset] = []
        entity = AE("PACS")
        entity.supported_contexts = AllStoragePresentationContexts
        self.server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self.port = int(self.server.socket.getsockname()[1])

    def _store(self, event: evt.Event) -> int:
        self.received.append(event.dataset)
        return 0x0000

    def sources(self) -> dict[str, set[str]]:
        """UIDs of the derived series, by UID of the series that they were made from."""
        found: dict[str, set[str]] = {}
        for dataset in self.received:
            image = dataset.SourceImageSequence[0].ReferencedSOPInstanceUID
            found.setdefault(image.rpartition(".")[0], set()).add(dataset.SeriesInstanceUID)
        return found

    def instances(self) -> set[str]:
        return {dataset.SOPInstanceUID for dataset in self.received}


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive()
    yield made
    made.server.shutdown()


@pytest.fixture
def program(tmp_path: Path, archive: Archive) -> Iterator[Program]:
    made = Program(tmp_path, archive)
    made.start()
    yield made
    if made.process.poll() is None:
        made.end(signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """The program with its configuration; started and ended by the test."""

    def __init__(self, folder: Path, archive: Archive) -> None:
        self.port, self.folder = free_port(), folder
        self.config = folder / "node.toml"
        self.config.write_text(CONFIG.format(port=self.port, archive=archive.port))
        self.log = folder / "log"

    def start(self) -> None:
        words = [sys.executable, "-m", "restore_rwkv", "node", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, stderr=log, stdout=log)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def send(self, series: str) -> None:
        """Send a series until all of it was taken."""
        left = [make_instance(series, k) for k in range(SLICES)]
        end = time.monotonic() + SECONDS
        while left:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            left = self._try(left)

    def _try(self, left: list[Dataset]) -> list[Dataset]:
        with socket.socket() as probe:  # as pynetdicom leaves those open that are refused
            if probe.connect_ex(("127.0.0.1", self.port)):
                time.sleep(0.2)
                return left
        entity = AE("SCANNER")
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", self.port, ae_title="RESTORE-RWKV")
        if not association.is_established:
            time.sleep(0.3)
            return left
        refused = []
        for dataset in left:
            try:
                status = association.send_c_store(dataset).get("Status")
            except RuntimeError:  # the association has ended
                status = None
            if status != 0:
                refused.append(dataset)
        association.release()
        return refused


def make_instance(series: str, k: int) -> Dataset:
    dataset = make_slice(k)
    dataset.SeriesInstanceUID = series
    dataset.SOPInstanceUID = f"{series}.{k + 1}"
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, 2.5 * k]
    dataset.Rows = dataset.Columns = 16
    dataset.PatientName, dataset.PatientID = "DOE^JANE", "4711"
    random_pixels = np.random.default_rng(k).integers(0, 2000, (16, 16))
    dataset.PixelData = random_pixels.astype("<i2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def wait_until_all_came(program: Program, archive: Archive, series: list[str]) -> None:
    end = time.monotonic() + SECONDS
    while len(archive.instances()) < SLICES * len(series):
        assert program.process.poll() is None, program.log.read_text()
        assert time.monotonic() < end, program.log.read_text()
        time.sleep(0.1)


def test_series_go_through_and_sigterm_ends_it_in_good_order(
    program: Program, archive: Archive
) -> None:
    series = ["1.2.3.4.1", "1.2.3.4.2"]
    for uid in series:
        program.send(uid)
    wait_until_all_came(program, archive, series)
    assert program.end(signal.SIGTERM) == 0
    assert {uid: len(found) for uid, found in archive.sources().items()} == dict.fromkeys(series, 1)
    log = program.log.read_text()
    assert log.count(" done\n") == 2
    for secret in ("DOE", "4711", "1.2.3.4", "Traceback", "oblique"):
        assert secret not in log


def test_a_node_that_is_killed_again_and_again_sends_every_series_once(
    program: Program, archive: Archive
) -> None:
    chance = random.Random(0)
    series = [f"1.2.3.5.{number}" for number in range(1, 7)]
    for uid in series:
        program.send(uid)
        time.sleep(chance.uniform(0, 4))
        program.end(signal.SIGKILL)
        program.start()
    wait_until_all_came(program, archive, series)
    time.sleep(1)
    assert program.end(signal.SIGTERM) == 0
    assert {uid: len(found) for uid, found in archive.sources().items()} == dict.fromkeys(series, 1)
    assert len(archive.instances()) == SLICES * len(series)


def test_a_second_node_on_the_same_folder_and_wrong_settings_end_with_one_line(
    program: Program,
) -> None:
    program.send("1.2.3.4.1")
    words = [sys.executable, "-m", "restore_rwkv", "node", str(program.config)]
    second = subprocess.run(words, capture_output=True, text=True)
    assert second.returncode == 3
    assert "another node uses this folder" in second.stderr.splitlines()[-1]
    assert program.end(signal.SIGINT) == 0
    program.config.write_text(program.config.read_text().replace('"any"', '"maybe"'))
    wrong = subprocess.run(words, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "rules 1: rules.fit is 'maybe'" in wrong.stderr
