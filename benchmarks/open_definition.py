"""What the open benchmark is: its data, protocols and measures, and digests of data and code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_rwkv.data import PreparedSet
from restore_rwkv.data.open_scans import prepare_open
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.measures.catalogue import all_measures
from restore_rwkv.evaluation.study.faults import FaultList
from restore_rwkv.evaluation.study.request import measures_for
from restore_rwkv.io.record import program_version
from restore_rwkv.options import Seed, from_mapping, validated
from restore_rwkv.tasks import TASKS, Task

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_name("open_benchmark.toml")
FORMAT = "restore-rwkv open benchmark 1"
SPLIT = "test"

# What a digest of code is over, inside the package.
_CODE: Mapping[str, tuple[str, ...]] = {
    "scoring": ("data", "evaluation", "io", "physics", "tasks"),
    "restoring": ("model", "ops", "peers", "restoration"),
}


@validated(FILE.name, table="")
@dataclass(frozen=True, kw_only=True)
class Definition:
    """What the open benchmark is.

    Attributes:
        format: of this file.
        version: of the benchmark; figures of two versions cannot be compared.
        protocols: whose measures are computed.
        measures: further ones, where they suit the task.
        data: SHA-256 of the manifest of the prepared set of each task.
        seed: of the bootstrap.

    Raises:
        ConfigError: a value is of another type, or a task, protocol or measure is unknown.
    """

    format: str
    version: str
    protocols: tuple[str, ...]
    measures: tuple[str, ...]
    data: dict[str, str]
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ConfigError(
                f"{FILE.name}: format is {self.format!r}, this program reads {FORMAT!r}"
            )
        for task in self.data:
            if task not in TASKS:
                raise ConfigError(
                    f"{FILE.name}: task {task!r} is unknown; choose from {', '.join(TASKS)}"
                )
        measures_for(self.protocols, self.measures, list(TASKS.values()))

    @classmethod
    def read(cls, path: Path = FILE) -> Definition:
        """Read a definition.

        Raises:
            ConfigError: it is not TOML, or as the class says.
        """
        try:
            return from_mapping(cls, tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is not TOML ({error}); correct it") from error

    @property
    def sha256(self) -> str:
        """SHA-256 of all values, whatever comments and order the file has."""
        values = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(values.encode()).hexdigest()

    def measures_of(self, task: Task) -> tuple[str, ...]:
        """Return the further measures that suit a task."""
        every = all_measures()
        return tuple(name for name in self.measures if every[name].suits(task))


def checked_sets(
    definition: Definition, data: Path, tasks: Sequence[str]
) -> dict[str, PreparedSet]:
    """Return the prepared sets of tasks, made from the packages if they are missing.

    Args:
        definition: has the digests that the sets must have.
        data: folder of the sets, each named after its task.
        tasks: names.

    Raises:
        InputError: sets are other ones, or damaged; the message has a line for each.
    """
    missing = [task for task in definition.data if not (data / task).exists()]
    if len(missing) == len(definition.data):
        print(f"preparing the open scans in {data}", file=sys.stderr, flush=True)
        prepare_open(data)
    faults = FaultList()
    sets: dict[str, PreparedSet] = {}
    for task in tasks:
        with faults.collected():
            if not (data / task).exists():
                raise InputError(f"{data}: has no {task}; {_remedy(data)}")
            found = PreparedSet.read(data / task)
            _require_digest(found, task, definition.data[task], data)
            found.verify()
            sets[task] = found
    faults.refuse()
    return sets


def _require_digest(found: PreparedSet, task: str, wanted: str, data: Path) -> None:
    if found.task_name != task:
        raise InputError(f"{found.folder}: is a set for {found.task_name}; {_remedy(data)}")
    if found.sha256 != wanted:
        raise InputError(
            f"{found.folder}: is not the set of the benchmark (SHA-256 of its manifest is "
            f"{found.sha256[:12]}..., not {wanted[:12]}...); {_remedy(data)}"
        )
    if not found.split(SPLIT):
        raise InputError(f"{found.folder}: has no {SPLIT} slices; {_remedy(data)}")


def _remedy(data: Path) -> str:
    return (
        "give another --data FOLDER, where the sets are made anew with the packages of "
        f"constraints.txt (from {data}/scans too: restore-rwkv data prepare open --scans)"
    )


def digest_of(files: Mapping[str, bytes]) -> str:
    """SHA-256 of files by name, hex; another name is another digest."""
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def code_sha256(package: Path, rooms: Iterable[str]) -> str:
    """SHA-256 of the sources of some rooms of the package; ends of lines do not matter."""
    kinds = (".py", ".c", ".h")
    files = {
        path.relative_to(package).as_posix(): path.read_bytes().replace(b"\r\n", b"\n")
        for room in rooms
        for path in (package / room).rglob("*")
        if path.suffix in kinds
    }
    return digest_of(files)


def code_of(root: Path = ROOT) -> dict[str, Any]:
    """Return version, digests and, in a checkout, the commit of the code that computes figures."""
    package = root / "src" / "restore_rwkv"
    digests = {name: code_sha256(package, rooms) for name, rooms in _CODE.items()}
    return {"software": program_version(), **digests, "commit": _commit(root)}


def _commit(root: Path) -> str:
    """Hash of the commit; "" without one, and with a remark where files differ from it."""
    if not (root / ".git").exists():
        return ""
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", "src", "benchmarks")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}{' with changes' if changed else ''}"


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
