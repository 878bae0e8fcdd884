"""The DICOM node between a sender and a real archive, as processes of this machine.

For `benchmarks.node_faults`: `Node` is the program, `Scanner` sends series as scanners do, and
`faults_of` compares what the archive holds with what was sent.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from restore_rwkv.restoration import RestoreOptions, Restorer
from tests.helpers import namespace
from tests.helpers.derivable_series import write_source
from tests.helpers.orthanc import Orthanc, free_port

_TIMEOUT = 1800.0
_COMMON = """
folder = "{folder}"
ae_title = "NODE"
port = {port}
quiet_seconds = {quiet}
retry_seconds = 0.5
metrics_port = {metrics}
quota = "{quota}"
[[peers]]
name = "scanner"
ae_title = "SCANNER"
address = "127.0.0.1"
[[rules]]
name = "all"
fit = "any"
send_to = ["pacs"]
"""
RECEIVING = f"""{_COMMON}
[[destinations]]
name = "pacs"
kind = "dimse"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {{archive}}
"""
WATCHING = f"""{_COMMON}
[[archives]]
name = "pacs"
url = "{{web}}"
every_seconds = 1
days = 36500
[[destinations]]
name = "pacs"
kind = "web"
url = "{{web}}"
"""


@dataclass
class Node:
    """The node as a process, which is started again whenever it ends."""

    folder: Path
    archive: Orthanc
    quiet: float = 2.0
    quota: str = "2GB"
    state: Path | None = None
    settings: str = RECEIVING
    process: subprocess.Popen[bytes] | None = None
    port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "node.toml"
        config.write_text(
            self.settings.format(
                folder=self.state or self.folder / "state",
                port=self.port,
                quiet=self.quiet,
                metrics=self.metrics_port,
                quota=self.quota,
                archive=self.archive.dicom_port,
                web=self.archive.web_url,
            )
        )
        words = [sys.executable, "-m", "restore_rwkv", "node", str(config)]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        raise RuntimeError(f"the node does not start: {self.log()[-2000:]}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def log(self) -> str:
        """Return all that it has written."""
        return (self.folder / "log.txt").read_text()

    def metrics(self) -> dict[str, float]:
        """Return its metrics."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
        }

    def open_series(self) -> float:
        """Return the number of series that have not ended."""
        ended = ("done", "refused", "failed")
        return sum(
            value
            for name, value in self.metrics().items()
            if name.startswith("restore_rwkv_node_series{")
            and not any(f'"{state}"' in name for state in ended)
        )

    def processes(self) -> list[psutil.Process]:
        """Return its processes, workers too."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]


@contextlib.contextmanager
def running(node: Node) -> Iterator[Node]:
    """Start a node, and end it with the block."""
    node.start()
    try:
        yield node
    finally:
        if node.process is not None and node.process.poll() is None:
            node.end(signal.SIGKILL)


class Scanner:
    """Sends series, each until the node has taken all of it.

    Args:
        folder: for the series.
        node: to send to.
        title: its AE title.
    """

    def __init__(self, folder: Path, node: Node, title: str = "SCANNER") -> None:
        self.folder, self.node, self.title = folder, node, title
        self.series: dict[str, list[Path]] = {}
        self.attempts = 0

    def make(self, number: int) -> Path:
        """Write a CT series with values of its own, and return its folder."""
        series, study, frame = generate_uid(), generate_uid(), generate_uid()

        def change(image: Dataset) -> None:
            image.SeriesInstanceUID, image.StudyInstanceUID = series, study
            image.FrameOfReferenceUID = frame
            image.SOPInstanceUID = generate_uid()
            image.SeriesNumber = number + 1
            image.PatientID = f"P{number}"
            image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            image.ImagePositionPatient = [0, 0, 2.5 * image.InstanceNumber]
            pixels = np.frombuffer(image.PixelData, np.int16) + np.int16(number % 100)
            image.PixelData = pixels.tobytes()

        self.folder.mkdir(parents=True, exist_ok=True)
        place = write_source(self.folder / f"{number:04}", "CT", change)
        self.series[str(series)] = sorted(place.iterdir())
        return place

    def send(self, place: Path, patience: float = 120.0) -> bool:
        """Send a series until it is taken; False if it is not within `patience` seconds."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            self.attempts += 1
            words = ["storescu", "-aet", self.title, "-aec", "NODE", "+sd", "-to", "5", "-td", "30"]
            words += ["127.0.0.1", str(self.node.port), str(place)]
            ended = subprocess.run(words, capture_output=True, text=True)
            if ended.returncode == 0 and "Failed" not in ended.stderr:
                return True
            time.sleep(0.3)
        return False


def faults_of(scanner: Scanner, archive: Orthanc, judged: int = 12) -> list[str]:
    """Compare what the archive holds with what was sent; return all that is wrong."""
    wrong: list[str] = []
    derived: defaultdict[str, list[str]] = defaultdict(list)
    source_of = {
        str(dcmread(file, stop_before_pixels=True).SOPInstanceUID): series
        for series, files in scanner.series.items()
        for file in files
    }
    for uid in set(archive.series()) - set(scanner.series):
        images = [dcmread(io.BytesIO(file)) for file in archive.files(uid).values()]
        named = [str(image.SourceImageSequence[0].ReferencedSOPInstanceUID) for image in images]
        sources = {source_of.get(name, "unknown") for name in named}
        if len(sources) != 1 or "unknown" in sources:
            wrong.append(f"{uid}: made from {len(sources)} series")
            continue
        source = sources.pop()
        derived[source].append(uid)
        if Counter(named) != Counter(
            str(dcmread(file, stop_before_pixels=True).SOPInstanceUID)
            for file in scanner.series[source]
        ):
            wrong.append(f"{uid}: not one instance for each of the source")
    for series in scanner.series:
        if len(derived[series]) != 1:
            wrong.append(f"{series}: {len(derived[series])} derived series")
    if not wrong:
        chosen = random.Random(0).sample(sorted(scanner.series), min(judged, len(scanner.series)))
        for series in chosen:
            wrong += _compared(scanner.series[series], archive.files(derived[series][0]))
    return wrong


def _compared(source: Sequence[Path], stored: dict[str, bytes]) -> list[str]:
    """Compare a derived series with what `restore` makes, and with the judgement of dciodvfy."""
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "series")
        Restorer().file(source[0].parent, target, RestoreOptions(force=True), format="dicom")
        expected = {
            str(image.SourceImageSequence[0].ReferencedSOPInstanceUID): image.pixel_array
            for image in map(dcmread, target.glob("*.dcm"))
        }
        known = _errors(source[0])
        for uid, content in stored.items():
            image = dcmread(io.BytesIO(content))
            name = str(image.SourceImageSequence[0].ReferencedSOPInstanceUID)
            if not np.array_equal(image.pixel_array, expected[name]):
                wrong.append(f"{uid}: other pixels than restore writes")
            file = Path(folder, "derived.dcm")
            file.write_bytes(content)
            if new := _errors(file) - known:
                wrong.append(f"{uid}: {sorted(new)[0]}")
    return wrong


def _errors(file: Path) -> set[str]:
    said = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True)
    lines = (said.stdout + said.stderr).splitlines()
    return {line for line in lines if line.startswith("Error")}


def wait_until_quiet(node: Node, seconds: float = _TIMEOUT) -> bool:
    """Wait until all series that the node has got have ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if node.open_series() == 0:
                return True
        time.sleep(0.5)
    return False


def resident(process: psutil.Process) -> float:
    """Resident memory in MiB; 0 for a process that has ended."""
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


def run_inside(words: Sequence[str]) -> int:
    """Run a program in a network and a tree of mounts of its own, with its output on this one's."""
    mark = f"{namespace.MARK}=$(stat -Lc %i /proc/self/ns/net)"
    script = f'ip link set lo up && exec env "{mark}" "$@"'
    return subprocess.call(["unshare", "-rnm", "sh", "-c", script, "sh", *words], env=os.environ)
