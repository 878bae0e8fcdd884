"""Interrupt `restore-rwkv restore` in every way, and print what was left.

    python -m benchmarks.interruptions [--seed N] [--only NAME]

Kills at random moments and at every change of a file, a full disk at every write, signals, folders
without permission, and two runs into one output. The exit code is 1 if a row is not as it should
be.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import restore_rwkv
from tests.helpers.odd_files.images import mri, save_nifti
from tests.helpers.odd_files.running import Runner, save_identity, snapshot

OUTPUTS = ("out.nii.gz", "out.restoration.json")
_STOPPED = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
_MOMENTS = (0.15, 0.3, 0.5, 0.7, 0.9)  # of the whole duration; the first ones import PyTorch
_WITHOUT_CAPABILITIES = "-dac_override,-dac_read_search"


@dataclass(frozen=True)
class Row:
    """One interruption: what was done and when, what happened, and what is wrong about it."""

    what: str
    when: str
    happened: str
    faults: tuple[str, ...] = ()


class Place:
    """A folder with a scan and weights, in which outputs are made and looked at.

    Args:
        folder: an empty folder.
        slices: number of slices of the scan, which decides how long a run takes.
    """

    def __init__(self, folder: Path, slices: int = 60) -> None:
        self.weights = save_identity(folder / "weights.safetensors")
        self.folder = folder / "runs"
        self.folder.mkdir()
        save_nifti(self.folder / "scan.nii.gz", mri((64, 64, slices)).astype(np.int16))
        self._scan = snapshot(self.folder)["scan.nii.gz"]

    def words(self, output: str = OUTPUTS[0], scan: str = "scan.nii.gz") -> list[str]:
        """The words of a command line that restores the scan."""
        line = f"restore {scan} -o {output} -t mri-sr --consistency 30"
        return [*line.split(), "--weights", str(self.weights)]

    def start(self, *before: str, output: str = OUTPUTS[0], scan: str = "scan.nii.gz") -> Process:
        """Start the program."""
        paths = [str(Path(restore_rwkv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        command = [*before, sys.executable, "-m", "restore_rwkv", *self.words(output, scan)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    def clear(self) -> None:
        """Remove everything but the scan."""
        for path in self.folder.iterdir():
            if path.name != "scan.nii.gz":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def present(self) -> list[str]:
        """Names in the folder beside the scan."""
        return sorted(p.name for p in self.folder.iterdir() if p.name != "scan.nii.gz")

    def scan_changed(self) -> list[str]:
        """A fault if the scan is not what it was."""
        same = snapshot(self.folder)["scan.nii.gz"] == self._scan
        return [] if same else ["the input was changed"]


Process = subprocess.Popen[str]


def duration(place: Place) -> float:
    """Seconds of one whole run, the second of two."""
    for _ in range(2):
        place.clear()
        start = time.monotonic()
        process = place.start()
        process.communicate()
        if process.returncode:
            raise RuntimeError("the scan cannot be restored; see restore-rwkv restore")
    return time.monotonic() - start


def after_a_kill(place: Place, again: Callable[[], tuple[int, str]]) -> tuple[str, list[str]]:
    """Describe what a kill left, try again, and say what is wrong.

    A kill between the two renames leaves the record without its image, as `atomic_files` says.

    Args:
        place: where.
        again: runs the same command line again, and returns its exit code and its stderr.
    """
    left = [name for name in OUTPUTS if name in place.present()]
    faults = place.scan_changed()
    if left == [OUTPUTS[0]]:
        faults.append("the image without its record")
    code, said = again()
    if code != (3 if left else 0):
        faults.append(f"the next run ended with {code}: {said.strip()[-200:]}")
    if code == 0 and place.present() != sorted(OUTPUTS):
        faults.append(f"after the next run there are {place.present()}")
    return ("no outputs", "the record only", "outputs whole")[len(left)], faults


def _ended(process: Process) -> tuple[int, str]:
    err = process.communicate(timeout=120)[1]
    return process.returncode, err


def _run(place: Place, runner: Runner) -> tuple[int, str]:
    ended = runner.command(place.folder, place.words())
    return ended.code, ended.stderr


def kills(place: Place, seconds: float, count: int = 20, seed: int = 0) -> Iterator[Row]:
    """Kill runs at random moments between their start and their end."""
    moments = random.Random(seed)
    for _ in range(count):
        place.clear()
        moment = moments.uniform(0, seconds)
        process = place.start()
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        happened, faults = after_a_kill(place, lambda: _ended(place.start()))
        yield Row("kill -9", f"after {moment:.2f} s", happened, tuple(faults))


def at_every_change(place: Place, runner: Runner, kind: str, most: int = 200) -> Iterator[Row]:
    """Strike at the first, the second ... change of a file, until a run succeeds.

    Args:
        place: where.
        runner: runs the program.
        kind: "full" or "kill", as for `tests.helpers.odd_files.faults.Fault`.
        most: changes after which to give up.
    """
    what = {"full": "disk full", "kill": "kill -9"}[kind]
    for at in range(1, most + 1):
        place.clear()
        fault = {"kind": kind, "at": at, "below": str(place.folder)}
        ended = runner.command(place.folder, place.words(), fault)
        when = f"at change {at} of files"
        if ended.code == 0:
            yield Row(what, when, "never came", () if at > 3 else ("no change was counted",))
            return
        if kind == "kill":
            happened, faults = after_a_kill(place, lambda: _run(place, runner))
            yield Row(what, when, happened, tuple(faults))
            continue
        faults = place.scan_changed() + [f"left {name}" for name in place.present()]
        errors = [line for line in ended.stderr.splitlines() if line.strip()]
        if ended.code != 6 or len(errors) != 1 or "space" not in errors[0]:
            faults.append(f"exit code {ended.code}: {ended.stderr.strip()[-300:]}")
        yield Row(what, when, f"refused, {ended.code}: {ended.message}", tuple(faults))
    yield Row(what, f"{most} changes", "went on", ("too many changes of files",))


def full_disks(place: Place) -> Iterator[Row]:
    """Write to small disks in memory, where this machine allows to make them."""
    for size in ("4k", "16k", "256k", "1m", "8m"):
        place.clear()
        (place.folder / "disk").mkdir()
        mount = f"mount -t tmpfs -o size={size} tmpfs disk || exit 99"
        script = f'{mount}; "$@"; e=$?; ls -A disk; exit $e'
        process = place.start(
            *("unshare", "-m", "sh", "-c", script, "sh"), output="disk/out.nii.gz"
        )
        try:
            out, err = process.communicate(timeout=120)
        except FileNotFoundError:
            return
        if process.returncode == 99:
            yield Row("small disk", size, "left out: no permission to mount")
            return
        faults = place.scan_changed()
        left = [word for word in out.split() if word.startswith(("out.", ".out"))]
        if process.returncode == 0:
            faults += [] if set(OUTPUTS) <= set(left) else [f"left {left}"]
        elif process.returncode not in (3, 6) or len(err.strip().splitlines()) != 1 or left:
            faults.append(f"exit code {process.returncode}, left {left}: {err.strip()[-200:]}")
        happened = f"exit code {process.returncode}: {err.strip()}"
        yield Row("small disk", size, happened, tuple(faults))


def signals(
    place: Place, seconds: float, names: tuple[str, ...] = tuple(_STOPPED)
) -> Iterator[Row]:
    """Send signals at some moments."""
    for name in names:
        for moment in _MOMENTS:
            place.clear()
            process = place.start("env", "--default-signal=INT,HUP,TERM")
            time.sleep(moment * seconds)
            process.send_signal(getattr(signal, name))
            _, err = process.communicate(timeout=60)
            faults = place.scan_changed()
            lines = [line for line in err.splitlines() if line.strip()]
            if process.returncode in (0, 128 - _STOPPED[name]):  # after the end, or as Python ends
                faults += [] if place.present() == sorted(OUTPUTS) else ["outputs not whole"]
            else:
                faults += [f"left {left}" for left in place.present()]
                if process.returncode != _STOPPED[name] or len(lines) != 1:
                    faults.append(f"exit code {process.returncode}: {err.strip()[-300:]}")
            said = lines[-1] if lines else ""
            when = f"after {moment * seconds:.2f} s"
            yield Row(name, when, f"exit code {process.returncode}: {said}", tuple(faults))


def without_permission(place: Place) -> Iterator[Row]:
    """Write into a folder, and read a scan, without permission."""
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            yield Row("no permission", "", "left out: root may do everything, setpriv is absent")
            return
        before = (
            "setpriv",
            f"--bounding-set={_WITHOUT_CAPABILITIES}",
            f"--inh-caps={_WITHOUT_CAPABILITIES}",
        )
    place.clear()
    locked = place.folder / "locked"
    locked.mkdir(mode=0o555)
    yield _refused(place, "read-only folder", place.start(*before, output="locked/out.nii.gz"))
    secret = place.folder / "secret.nii.gz"
    shutil.copy(place.folder / "scan.nii.gz", secret)
    secret.chmod(0)
    yield _refused(place, "secret scan", place.start(*before, scan="secret.nii.gz"))


def _refused(place: Place, what: str, process: Process) -> Row:
    err = process.communicate(timeout=60)[1].strip()
    faults = place.scan_changed()
    left = [str(p.name) for p in place.folder.rglob("*out*")]
    if process.returncode not in (2, 3, 6) or len(err.splitlines()) != 1 or left:
        faults.append(f"exit code {process.returncode}, left {left}: {err[-300:]}")
    return Row(what, "", f"exit code {process.returncode}: {err}", tuple(faults))


def two_at_once(place: Place, tries: int = 3) -> Iterator[Row]:
    """Start two runs into one output; exactly one may succeed."""
    for number in range(1, tries + 1):
        place.clear()
        shutil.copy(place.folder / "scan.nii.gz", place.folder / "other.nii.gz")
        both = [place.start(scan=name) for name in ("scan.nii.gz", "other.nii.gz")]
        said = [process.communicate(timeout=120)[1].strip() for process in both]
        codes = [process.returncode for process in both]
        faults = place.scan_changed()
        if sorted(codes) != [0, 6]:
            faults.append(f"exit codes {codes}: {said}")
        if place.present() != sorted([*OUTPUTS, "other.nii.gz"]):
            faults.append(f"there are {place.present()}")
        elif 0 in codes:
            winner = ("scan.nii.gz", "other.nii.gz")[codes.index(0)]
            record = (place.folder / OUTPUTS[1]).read_text()
            if f'"source": "{winner}"' not in record:
                faults.append("the record is of the other run")
        yield Row("two runs", f"try {number}", f"exit codes {codes}", tuple(faults))


def all_rows(folder: Path, seed: int, only: str) -> Iterator[Row]:
    """Every row of the table."""
    place = Place(folder)
    seconds = duration(place)
    (folder / "server").mkdir()
    runner = Runner(folder / "server")
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "kills": lambda: kills(place, seconds, seed=seed),
        "kill-changes": lambda: at_every_change(place, runner, "kill"),
        "full": lambda: at_every_change(place, runner, "full"),
        "disks": lambda: full_disks(place),
        "signals": lambda: signals(place, seconds),
        "permission": lambda: without_permission(place),
        "two": lambda: two_at_once(place),
    }
    try:
        for name, part in parts.items():
            if only in ("", name):
                yield from part()
    finally:
        runner.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument(
        "--only",
        default="",
        choices=("kills", "kill-changes", "full", "disks", "signals", "permission", "two"),
    )
    options = parser.parse_args()
    wrong = count = 0
    print("| interruption | when | what happened | as it should be |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="interrupted-") as folder:
        for row in all_rows(Path(folder), options.seed, options.only):
            count, wrong = count + 1, wrong + bool(row.faults)
            verdict = "; ".join(row.faults).replace("\n", " / ") or "yes"
            print(f"| {row.what} | {row.when} | {row.happened[:160]} | {verdict} |", flush=True)
    print(f"\n{count} interruptions, {wrong} not as they should be")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
