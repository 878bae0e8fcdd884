"""What the DICOM node survives, beside a real archive: a table of faults.

    python -m benchmarks.node_faults [--series 200] [--kills 20] [--soak MINUTES] [--out FILE.json]

A sender (dcmtk's storescu), the node and the archive (Orthanc) run in a network of their own. A
sender repeats a series until it is told that all of it was taken, as scanners do. Then the archive
has to hold exactly one derived series for each that was sent: as many instances, each made from
another source instance of that very series, pixels equal to those of `restore`, without an error of
dciodvfy that the source has not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from restore_rwkv.restoration import RestoreOptions, Restorer
from tests.helpers import namespace
from tests.helpers.derivable_series import write_source
from tests.helpers.orthanc import Orthanc, free_port, orthanc

_TIMEOUT = 1800.0
_DISK = 640 << 20  # bytes; of which the node keeps 512 MiB free
_CONFIG = """
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
[[destinations]]
name = "pacs"
kind = "dimse"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {archive}
"""

_WATCHING = """
folder = "{folder}"
ae_title = "NODE"
port = {port}
quiet_seconds = {quiet}
retry_seconds = 0.5
metrics_port = {metrics}
quota = "{quota}"
[[archives]]
name = "pacs"
url = "{web}"
every_seconds = 1
days = 36500
[[peers]]
name = "scanner"
ae_title = "SCANNER"
[[rules]]
name = "all"
fit = "any"
send_to = ["pacs"]
[[destinations]]
name = "pacs"
kind = "web"
url = "{web}"
"""


@dataclass
class Row:
    """A row of the table."""

    fault: str
    survived: bool
    result: str
    seconds: float


@dataclass
class Node:
    """The node as a process, which is started again whenever it ends."""

    folder: Path
    archive: Orthanc
    quiet: float = 2.0
    quota: str = "2GB"
    state: Path | None = None
    settings: str = _CONFIG
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


def many_series(folder: Path, series: int, kills: int) -> list[Row]:
    """Series in, as many derived out, while the node is killed and the archive restarted."""
    began = time.monotonic()
    with orthanc(folder / "archive") as archive, running(Node(folder / "node", archive)) as node:
        scanner = Scanner(folder / "sent", node)
        places = [scanner.make(number) for number in range(series)]
        done = threading.Event()
        killed = [0]
        killer = threading.Thread(target=_kill, args=(node, kills, killed, done))
        killer.start()
        taken = 0
        for number, place in enumerate(places):
            if number == series // 2:
                archive.restart()
            taken += scanner.send(place)
        while killed[0] < kills and killer.is_alive():
            time.sleep(0.2)
        done.set()
        killer.join()
        ended = wait_until_quiet(node)
        wrong = faults_of(scanner, archive)
        counts = {
            name: int(value)
            for name, value in node.metrics().items()
            if name.startswith("restore_rwkv_node_series{") and value
        }
        if not ended:
            wrong.append(f"not ended: {counts}")
        seconds = time.monotonic() - began
        result = (
            f"{taken} of {series} taken in {scanner.attempts} tries, {len(archive.series())} "
            f"derived series in the archive, {len(wrong)} wrong"
        )
        what = f"node killed with -9 {killed[0]} times, archive restarted, {series} series"
        for text in (*wrong[:5], *(node.log().splitlines()[-40:] if wrong else ())):
            print("  wrong:", text, flush=True)
        return [Row(what, not wrong and taken == series, result, seconds)]


def _kill(node: Node, kills: int, killed: list[int], done: threading.Event) -> None:
    """Kill the node at random moments, also while it starts and restores."""
    chance = random.Random(1)
    while killed[0] < kills and not done.wait(chance.uniform(0.2, 8.0)):
        node.end(signal.SIGKILL)
        killed[0] += 1
        node.start()


def watched(folder: Path, series: int, kills: int) -> list[Row]:
    """Series that come into a DICOMweb archive, and go back into it by STOW-RS."""
    began = time.monotonic()
    with orthanc(folder / "archive") as archive:
        node = Node(folder / "node", archive, settings=_WATCHING)
        scanner = Scanner(folder / "sent", node)
        with running(node):
            done, killed = threading.Event(), [0]
            killer = threading.Thread(target=_kill, args=(node, kills, killed, done))
            killer.start()
            for number in range(series):
                _send_to(archive, scanner.make(number))
            _until(lambda: len(archive.series()) >= 2 * series, 600)
            done.set()
            killer.join()
            time.sleep(10)  # in which a loop would show
            wait_until_quiet(node)
            wrong = faults_of(scanner, archive)
    result = (
        f"{series} series sent to the archive, {len(wrong)} wrong, and no derived "
        "series restored again"
    )
    for text in (*wrong[:5], *(node.log().splitlines()[-40:] if wrong else ())):
        print("  wrong:", text, flush=True)
    what = f"archive watched and sent to by DICOMweb, node killed with -9 {killed[0]} times"
    return [Row(what, not wrong, result, time.monotonic() - began)]


def _send_to(archive: Orthanc, place: Path) -> None:
    words = ["storescu", "-aec", "ORTHANC", "+sd", "127.0.0.1", str(archive.dicom_port), str(place)]
    subprocess.run(words, check=True, capture_output=True)


def _until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.5)


def strangers(folder: Path) -> list[Row]:
    """Peers that are not allowed, and connections that are not DICOM."""
    rows = []
    with orthanc(folder / "archive") as archive, running(Node(folder / "node", archive)) as node:
        began = time.monotonic()
        stranger = Scanner(folder / "stranger", node, "STRANGER")
        refused = not stranger.send(stranger.make(0), patience=2)
        before = node.metrics()
        counter = "restore_rwkv_node_received_instances"
        taken = sum(value for name, value in before.items() if name.startswith(counter))
        rows.append(
            Row(
                "a peer that is not allowed",
                refused and not taken,
                f"{stranger.attempts} associations rejected, {taken:.0f} instances taken",
                time.monotonic() - began,
            )
        )
        began = time.monotonic()
        chance = random.Random(2)
        idle = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(60)]
        for _ in range(200):
            with (
                socket.create_connection(("127.0.0.1", node.port)) as connection,
                contextlib.suppress(OSError),
            ):
                connection.sendall(_malformed(chance))
        scanner = Scanner(folder / "sent", node)
        taken = scanner.send(scanner.make(1))
        for connection in idle:
            connection.close()
        wrong = [] if wait_until_quiet(node, 120) else ["not ended"]
        wrong += faults_of(scanner, archive)
        rows.append(
            Row(
                "200 malformed associations and 60 that say nothing",
                taken and not wrong,
                "a series sent meanwhile is restored and in the archive" if not wrong else wrong[0],
                time.monotonic() - began,
            )
        )
    return rows


def _malformed(chance: random.Random) -> bytes:
    """Bytes that are no association: noise, huge lengths, or the beginning of one."""
    noise = chance.randbytes(chance.randrange(1, 4000))
    start = b"\x01\x00" + (2**31 + chance.randrange(2**30)).to_bytes(4, "big") + b"\x00\x01"
    half = b"\x01\x00\x00\x00\x00\xcd\x00\x01\x00\x00NODE            SCANNER         "
    return chance.choice([noise, start + noise, half + bytes(32), b"\x04\x00\x00\x00\x00\x02ab"])


def full_disk(folder: Path) -> list[Row]:
    """The disk of the node is full: first its quota, then the file system."""
    began = time.monotonic()
    disk = folder / "disk"
    disk.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK >> 20}m", "tmpfs", str(disk)], check=True
    )
    try:
        with orthanc(folder / "archive") as archive:
            ballast = disk / "ballast"
            with running(Node(folder / "node", archive, state=disk / "state")) as node:
                scanner = Scanner(folder / "sent", node)
                first = scanner.send(scanner.make(0))
                with contextlib.suppress(OSError), ballast.open("wb") as file:
                    while True:
                        file.write(bytes(1 << 16))
                place = scanner.make(1)
                refused = not scanner.send(place, patience=5)
                alive = node.process is not None and node.process.poll() is None
                ballast.unlink()
                later = scanner.send(place)
                wrong = [] if wait_until_quiet(node, 180) else ["not ended"]
                wrong += faults_of(scanner, archive)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
    survived = first and refused and alive and later and not wrong
    result = (
        "the sender is told to come again, and is taken once there is room"
        if survived
        else f"first {first}, refused {refused}, alive {alive}, later {later}, {wrong[:2]}"
    )
    return [Row("the disk is full", survived, result, time.monotonic() - began)]


def soak(folder: Path, minutes: float) -> list[Row]:
    """Series after series; the memory of the node must not grow."""
    began = time.monotonic()
    samples: list[tuple[float, float, float]] = []  # seconds, MiB of the node, of its workers
    with orthanc(folder / "archive") as archive, running(Node(folder / "node", archive)) as node:
        scanner = Scanner(folder / "sent", node)
        number = 0
        while time.monotonic() - began < 60 * minutes:
            scanner.send(scanner.make(number))
            number += 1
            own, *workers = [_resident(process) for process in node.processes()]
            samples.append((time.monotonic() - began, own, sum(workers)))
            time.sleep(3)
        wrong = [] if wait_until_quiet(node) else ["not ended"]
        wrong += faults_of(scanner, archive)
    _, *memory = np.array(samples).T
    flat, texts = True, []
    for name, values in zip(("node", "workers"), memory, strict=True):
        quarters = [part.mean() for part in np.array_split(values, 4)]
        flat = flat and quarters[3] - quarters[1] < 0.03 * quarters[1]
        texts.append(f"{name} {', '.join(f'{mean:.1f}' for mean in quarters)}")
    result = (
        f"{number} series, {len(wrong)} wrong; resident MiB in the quarters of the time: "
        f"{'; '.join(texts)}"
    )
    for text in wrong[:5]:
        print("  wrong:", text, flush=True)
    return [Row(f"{minutes:g} minutes of series", flat and not wrong, result, 60 * minutes)]


def _resident(process: psutil.Process) -> float:
    """Resident memory in MiB; 0 for a process that has ended."""
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


def main() -> int:
    """Run every scenario, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--only", choices=["many", "watched", "strangers", "disk", "soak"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not namespace.inside():
        words = [sys.executable, "-m", "benchmarks.node_faults", *sys.argv[1:]]
        return run_inside(words)
    scenarios: dict[str, Callable[[Path], list[Row]]] = {
        "many": lambda folder: many_series(folder, options.series, options.kills),
        "watched": lambda folder: watched(folder, options.series // 4, options.kills // 4),
        "strangers": strangers,
        "disk": full_disk,
    }
    if options.soak:
        scenarios["soak"] = lambda folder: soak(folder, options.soak)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, scenario in scenarios.items():
            if options.only in (None, name):
                rows += scenario(Path(folder, name))
                _show(rows[-1:])
    print("| fault | survived | result | seconds |\n| --- | --- | --- | --- |")
    _show(rows)
    if options.out is not None:
        values: list[dict[str, Any]] = [vars(row) for row in rows]
        options.out.write_text(json.dumps(values, indent=2) + "\n")
    return 0 if all(row.survived for row in rows) else 1


def _show(rows: Sequence[Row]) -> None:
    for row in rows:
        answer = "yes" if row.survived else "NO"
        print(f"| {row.fault} | {answer} | {row.result} | {row.seconds:.0f} |", flush=True)


def run_inside(words: Sequence[str]) -> int:
    """Run a program in a network and a tree of mounts of its own, with its output on this one's."""
    mark = f"{namespace._MARK}=$(stat -Lc %i /proc/self/ns/net)"
    script = f'ip link set lo up && exec env "{mark}" "$@"'
    return subprocess.call(["unshare", "-rnm", "sh", "-c", script, "sh", *words], env=os.environ)


if __name__ == "__main__":
    sys.exit(main())
