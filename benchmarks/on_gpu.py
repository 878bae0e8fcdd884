"""Everything that waits for a GPU, in one command and a given time.

    python -m benchmarks.pack runs/open runs/slices.zip            # where the data are
    python -m benchmarks.on_gpu --minutes 13 --out results         # on the machine with the GPU

1. runs `tests/ops` and `tests/model` there, with the Triton kernels on the GPU;
2. times the operator beside a copy, and with `--published FOLDER` beside the published kernel;
3. times inference (as it is, captured in a CUDA graph, compiled) and training steps;
4. trains the shipped recipes in the time that is left, with large batches.

Each stage is a process of its own that is ended when its share of the time is over; what one does
not use goes to those after it. `results` is written as soon as there is something to write, and
stays small: `machine.json`, `tests.json`, `operator.json`, `network.json`, `stages.json`, the
output of each stage, `training/NAME/` with float16 weights, log, curve and `result.json`, and
`summary.md`. `--zips FOLDER` keeps the same as a few ZIP files up to date, each minute.

Needed there are PyTorch, Triton and the packages of `pip install -e ".[test]"`, or those of
`NEEDED` in `benchmarks/gpu_machine.py`; what is absent is named at once. Without a network, give
`--wheels FOLDER`, a folder of wheels that were fetched elsewhere::

    pip download -d wheels --only-binary=:all: nibabel pydicom lightning-fabric tensorboardX ...

(with `--python-version` and `--platform` of that machine). This package need not be installed; its
C kernels, which run on CPUs only, and their tests are then left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import gpu_summary
from benchmarks.gpu_machine import ROOT, environment, machine, require

TESTS = ("tests/ops", "tests/model")
RECIPES = {"light-mri-sr": 5, "light-ct-denoise": 2, "light-pet-synth": 1, "light-all-in-one": 2}
"""Shipped recipes and their shares of the time of training."""
SHARES = {"tests": 1.5, "operator": 1.0, "network": 1.0, "training": 9.5}
"""Minutes of each stage in 13; other times are shared alike."""
_GRACE, _GRACE_SHARE = 8.0, 0.15  # most seconds, and share, in which a stage may end cleanly
_COMPILING = 1.5  # minutes more for the operator where the published kernel is compiled
_ZIP_EVERY = 60.0


@dataclass(frozen=True)
class Stage:
    """A stage: its name, the weight of its share of the time, and the arguments of Python."""

    name: str
    weight: float
    command: Sequence[str]


def allowance(left: float, weights: Sequence[float]) -> float:
    """Seconds of the first of some stages, so that all end in the time that is left."""
    return max(0.0, left) * weights[0] / sum(weights)


def stages(words: argparse.Namespace, work: Path) -> list[Stage]:
    """List the stages in order."""
    device = ["--device", words.device]
    several = words.device == "cuda" and importlib.util.find_spec("xdist") is not None
    workers = ["-n", str(min(8, os.cpu_count() or 1)), "--dist", "worksteal"] if several else []
    # A warning of another PyTorch must not fail every test, as it does elsewhere.
    pytest = ["-m", "pytest", "-p", "benchmarks.pytest_rows", "-W", "default", "--maxfail=40"]
    pytest += ["--continue-on-collection-errors", "--tb=short", *workers, *words.tests]
    published = ["--published", str(words.published.absolute())] if words.published else []
    operator = SHARES["operator"] + (_COMPILING if published else 0.0)
    rows = ["-m", "benchmarks.gpu_rows"]
    tables = [[str(words.out / f"{name}.json"), *device] for name in ("operator", "network")]
    found = [
        Stage("tests", SHARES["tests"], pytest),
        Stage("operator", operator, [*rows, "operator", *tables[0], *published]),
        Stage("network", SHARES["network"], [*rows, "network", *tables[1]]),
    ]
    found = [stage for stage in found if stage.name not in words.skip]
    sizes = ["--batch", str(words.batch), "--crop", str(words.crop)]
    sizes += ["--checkpoints"] if words.checkpoints else []
    whole = sum(RECIPES[name] for name in words.recipes)
    for name in words.recipes if "training" not in words.skip else ():
        folders = [work / "open", work / name, words.out / gpu_summary.TRAINING / name]
        command = ["-m", "benchmarks.gpu_training", name, *map(str, folders), *device, *sizes]
        found.append(Stage(name, SHARES["training"] * RECIPES[name] / whole, command))
    return found


class Results:
    """The folders of results, of their ZIP files, and of what is not to be kept."""

    def __init__(self, out: Path, zips: Path | None, work: Path) -> None:
        self.out, self.zips, self.work = out, zips, work
        self.stages: list[dict[str, Any]] = []
        self._zipped = 0.0
        out.mkdir(parents=True, exist_ok=True)

    def update(self, now: bool = True) -> None:
        """Write tests, summary and ZIP files from what is there; only each minute unless `now`."""
        if not now and time.monotonic() - self._zipped < _ZIP_EVERY:
            return
        self._zipped = time.monotonic()
        if (self.out / "tests.jsonl").exists():
            self.write("tests.json", gpu_summary.rows_of_tests(self.out / "tests.jsonl"))
        if self.stages:
            self.write("stages.json", self.stages)
        (self.out / "summary.md").write_text(gpu_summary.summary(self.out), encoding="utf-8")
        if self.zips is not None:
            self.zips.mkdir(parents=True, exist_ok=True)
            networks = [x for x in (self.out / gpu_summary.TRAINING).glob("*") if x.is_dir()]
            files = [path for path in self.out.glob("*") if path.is_file()]
            self._zip("results", files)
            for folder in networks:
                self._zip(folder.name, list(folder.glob("*")))

    def write(self, name: str, content: Any) -> None:
        """Write a JSON file."""
        (self.out / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def _zip(self, name: str, files: list[Path]) -> None:
        assert self.zips is not None
        partial = self.zips / f".{name}.partial"
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                if not path.name.startswith("."):  # files that are being written
                    archive.write(path, path.name)
        partial.replace(self.zips / f"{name}.zip")


def run(stage: Stage, seconds: float, results: Results) -> dict[str, Any]:
    """Run a stage, end it when its time is over, and return its row of `stages.json`."""
    start = time.monotonic()
    grace = min(_GRACE, _GRACE_SHARE * seconds)
    until = time.time() + seconds - grace
    timed = [] if stage.name == "tests" else ["--until", f"{until:.1f}"]
    variables = {**environment(results.work), "TEST_ROWS": str(results.out / "tests.jsonl")}
    print(f"{stage.name}: up to {seconds:.0f} s", flush=True)
    ended = "cut off"
    with (results.out / f"{stage.name}.txt").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, *stage.command, *timed],
            cwd=ROOT,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its own processes end with it
        )
        try:
            while process.poll() is None and time.monotonic() - start < seconds - grace / 2:
                time.sleep(0.2)
                results.update(now=False)
            if process.poll() is not None:
                ended = "by itself" if process.returncode == 0 else f"with {process.returncode}"
        finally:
            _end(process, grace / 2)
    took = time.monotonic() - start
    row = {"stage": stage.name, "allowed": round(seconds, 1), "seconds": round(took, 1)}
    print(f"{stage.name}: ended {ended} after {took:.0f} s", flush=True)
    return {**row, "ended": ended}


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a process, first politely, and then whatever it has started."""
    if process.poll() is None:
        process.terminate()  # not the group: training ends by itself, and its readers with it
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main(arguments: list[str] | None = None) -> None:
    """Run the stages within the time."""
    start = time.monotonic()
    words = options().parse_args(arguments)
    cpu = words.device == "cpu"
    words.batch, words.crop = words.batch or (2 if cpu else 32), words.crop or (64 if cpu else 128)
    words.out = words.out.absolute()
    require(words)
    work = Path(words.work or tempfile.mkdtemp()).absolute() / "on-gpu"
    results = Results(words.out, words.zips, work)
    results.write("machine.json", machine(words.device))
    unpacking = None
    if "training" not in words.skip:
        shutil.rmtree(work / "open", ignore_errors=True)
        command = ["-m", "benchmarks.pack", "--unpack", words.slices.absolute(), work / "open"]
        variables = environment(work)
        unpacking = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=variables)
    todo = stages(words, work)
    for i, stage in enumerate(todo):
        if stage.name in RECIPES and unpacking is not None and unpacking.wait() != 0:
            sys.exit("on_gpu: the slices could not be unpacked, see above; pack them again")
        left = 60 * words.minutes - (time.monotonic() - start)
        seconds = allowance(left, [later.weight for later in todo[i:]])
        results.stages.append(run(stage, seconds, results))
        results.update()
    print((words.out / "summary.md").read_text(encoding="utf-8"))


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=13.0)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--slices", type=Path, default=ROOT / "runs" / "slices.zip")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--wheels", type=Path, help="folder to install what is missing from")
    parser.add_argument("--published", type=Path, help="folder of the published kernel's source")
    parser.add_argument("--zips", type=Path, help="folder of the same results as ZIP files")
    parser.add_argument(
        "--work", help="folder for a folder on-gpu with data and whole runs; by default temporary"
    )
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--tests", nargs="+", default=list(TESTS), help="files or folders")
    parser.add_argument("--skip", nargs="+", choices=SHARES, default=[])
    parser.add_argument("--batch", type=int, help="of training; 32, on a CPU 2")
    parser.add_argument("--crop", type=int, help="of training; 128, on a CPU 64")
    parser.add_argument("--checkpoints", action="store_true", help="copy them too: some 15-45 MB")
    return parser


if __name__ == "__main__":
    main()
