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
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.node_rig import (
    WATCHING,
    Node,
    Scanner,
    faults_of,
    resident,
    run_inside,
    running,
    wait_until_quiet,
)
from tests.helpers import namespace
from tests.helpers.orthanc import Orthanc, orthanc

_DISK = 640 << 20  # bytes; of which the node keeps 512 MiB free


@dataclass
class Row:
    """A row of the table."""

    fault: str
    survived: bool
    result: str
    seconds: float


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
        node = Node(folder / "node", archive, settings=WATCHING)
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
            own, *workers = [resident(process) for process in node.processes()]
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


if __name__ == "__main__":
    sys.exit(main())
