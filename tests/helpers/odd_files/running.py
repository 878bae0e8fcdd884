"""Running one case of the corpus, and judging what happened."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import restore_rwkv
from restore_rwkv.model import RestoreRWKV, RestoreRWKVConfig, save_weights
from restore_rwkv.tasks import TASKS, ScalingRule
from tests.helpers import ROOT
from tests.helpers.odd_files.case import FOLDER, Case, Refused, Restored, Right

SECONDS = 60.0
BYTES = 2 << 30  # 0.6 GB of these are the libraries

_NAMES = re.compile(r"\bscan\.\w+(\.gz)?")  # the suffix of a name says nothing of a fault
_TRACES = re.compile(r"\.partial\b|\.lock$|PWNED")


@dataclass(frozen=True)
class Ended:
    """What a command line did.

    Attributes:
        code: exit code; negative for a signal.
        killed: "time" or "memory" if it was killed at a limit, else "".
        seconds: duration.
        peak: largest resident memory in bytes, libraries included.
        stdout: what it printed.
        stderr: its warnings and errors.
    """

    code: int
    killed: str
    seconds: float
    peak: int
    stdout: str
    stderr: str

    @property
    def message(self) -> str:
        """Its error, or its last warning, or else the last line it printed."""
        return next(iter([*_lines(self.stderr)[-1:], *_lines(self.stdout)[-1:]]), "")


@dataclass(frozen=True)
class Result:
    """What became of a case: its last command line, and what is wrong about that."""

    ended: Ended
    faults: tuple[str, ...]


def save_identity(path: Path) -> Path:
    """Write a weight file for every task, whose tiny network returns its input."""
    torch.manual_seed(0)
    config = RestoreRWKVConfig(
        dim=4, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, hidden_rate=2
    )
    network = RestoreRWKV(config).merged()
    for parameter in network.output.parameters():
        parameter.data.zero_()
    save_weights(path, network, scaling=dict.fromkeys(TASKS, ScalingRule("robust")), training={})
    return path


class Runner:
    """Runs cases, each in a folder of its own, through one server process.

    Args:
        folder: where the folders of the cases are made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self.weights = save_identity(folder / "weights.safetensors")
        package = Path(restore_rwkv.__file__).parents[1]
        paths = [str(package), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.odd_files.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def command(
        self, folder: Path, words: list[str], fault: dict[str, object] | None = None
    ) -> Ended:
        """Run one command line, given as words, in a folder; ``fault`` is as for `install`."""
        with tempfile.TemporaryDirectory(dir=self.folder) as screen:
            out, err = Path(screen, "out"), Path(screen, "err")
            request: dict[str, Any] = {
                "folder": str(folder),
                "words": words,
                "stdout": str(out),
                "stderr": str(err),
                "seconds": SECONDS,
                "bytes": BYTES,
            }
            if fault is not None:
                request["fault"] = fault
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            print(json.dumps(request), file=self._server.stdin, flush=True)
            answer = json.loads(self._server.stdout.readline())
            said = [p.read_text(errors="replace") if p.exists() else "" for p in (out, err)]
        return Ended(answer["exit"], answer["killed"], answer["seconds"], answer["peak"], *said)

    def run(self, case: Case) -> Result:
        """Make the files of a case, run it, and judge."""
        self._count += 1
        folder = self.folder / f"{self._count:03d}-{re.sub(r'[^a-zA-Z0-9]+', '-', case.title)[:60]}"
        folder.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what makes odd files warns of them
            case.make(folder)
        *first, last = [
            shlex.split(line.replace("{weights}", shlex.quote(str(self.weights))))
            for line in case.words
        ]
        for words in first:
            ended = self.command(folder, words)
            if ended.code:
                return Result(ended, (f"preparing failed: {ended.message}",))
        before = snapshot(folder)
        ended = self.command(folder, last)
        return Result(ended, judge(case, ended, folder, before))


def judge(
    case: Case, ended: Ended, folder: Path, before: dict[str, tuple[object, ...]]
) -> tuple[str, ...]:
    """Return what is wrong about an end: nothing, where all is as it should be.

    Args:
        case: what was run.
        ended: its last command line.
        folder: where it ran.
        before: `snapshot` of the folder before.
    """
    faults = [*_general(ended), *_changes(folder, before), *_strays(folder)]
    new = sorted(set(snapshot(folder)) - set(before))
    complaints = [_compared(case, right, folder, ended, new) for right in case.right]
    if all(complaints):
        faults += complaints[0]
    return tuple(faults)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return type, mode, time and digest of everything below a folder, by its path there."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(folder))
        if path.is_dir() and not path.is_symlink():
            found[name] = (status.st_mode,)
            continue
        content = ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = (status.st_mode, status.st_mtime_ns, status.st_size, content)
    return found


def _general(ended: Ended) -> list[str]:
    """What is wrong whatever the input was."""
    faults = []
    if ended.killed:
        limit = f"{SECONDS:g} s" if ended.killed == "time" else f"{BYTES / 2**30:g} GiB"
        faults.append(f"needed more than {limit}")
    elif ended.code < 0:
        faults.append(f"ended by signal {-ended.code}")
    if "Traceback (most recent call last)" in ended.stdout + ended.stderr:
        faults.append(f"traceback, {ended.message}")
    elif ended.code > 0:
        lines = _lines(ended.stderr)
        errors = [line for line in lines if line.startswith("error: ")]
        if len(errors) != 1 or lines[-1:] != errors:
            faults.append("stderr does not end in one line with 'error: '")
        elif len(errors[0]) > 1000:
            faults.append(f"an error of {len(errors[0])} characters")
    return faults


def _changes(folder: Path, before: dict[str, tuple[object, ...]]) -> list[str]:
    """Inputs that were changed, and traces that were left."""
    after = snapshot(folder)
    faults = [f"{name} was changed" for name in before if after.get(name) != before[name]]
    new = set(after) - set(before)
    return faults + [f"{name} was left" for name in sorted(new) if _TRACES.search(name)]


def _strays(folder: Path) -> list[str]:
    """What a case wrote outside its folder."""
    outside = (folder.parent, folder.parent.parent, Path("/tmp"))
    return [f"{path} was written" for place in outside for path in place.glob("*PWNED*")]


def _compared(case: Case, right: Right, folder: Path, ended: Ended, new: list[str]) -> list[str]:
    """How an end differs from one that would be right."""
    if isinstance(right, Refused):
        wanted = " or ".join(map(str, right.codes))
        if ended.code == 0:
            return [f"not refused, exit code {wanted}"]
        faults = [f"left {name}" for name in new]
        if ended.code not in right.codes:
            faults.append(f"exit code {ended.code}, not {wanted}")
        elif not re.search(right.says, _NAMES.sub("", ended.message), re.IGNORECASE):
            faults.append(f"the line does not say {right.says!r}")
        return faults
    if ended.code:
        return [f"exit code {ended.code}, not 0", *(f"left {name}" for name in new)]
    if case.outputs == FOLDER:
        if "out.restoration.json" not in new or not all(re.match(r"out\b", n) for n in new):
            return [f"wrote {new}, not a series with its record"]
    elif new != sorted(case.outputs):
        return [f"wrote {new}, not {sorted(case.outputs)}"]
    if right.says and not re.search(right.says, ended.stderr, re.IGNORECASE):
        return [f"no warning says {right.says!r}"]
    return [*_records(folder, case.outputs), *_checked(right, folder)]


def _records(folder: Path, outputs: tuple[str, ...]) -> list[str]:
    """Records among the outputs that are not whole."""
    faults = []
    for name in outputs:
        if name.endswith((".restoration.json", ".degradation.json")):
            record = json.loads((folder / name).read_text())
            if not record.get("source"):
                faults.append(f"{name} names no source")
    return faults


def _checked(right: Restored, folder: Path) -> list[str]:
    if right.check is None:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            right.check(folder)
    except AssertionError as error:
        return [str(error).splitlines()[0] if str(error) else "the check failed"]
    except Exception as error:  # of any library, on an output that is not sound
        return [f"the output cannot be read ({type(error).__name__}: {error})"]
    return []


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]
