"""One case of the corpus: how its files are made, how it is used, and what is right."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Make = Callable[[Path], object]
Check = Callable[[Path], None]

OUTPUT = "out.nii.gz"
FOLDER = ("out/*",)
"""Outputs where a series is written into the folder `out`."""


@dataclass(frozen=True)
class Restored:
    """The command succeeds, with all its outputs.

    Attributes:
        check: looks at the outputs in the folder of the case; raises AssertionError.
        says: regular expression that stderr has to match, for what must not pass without a word.
    """

    check: Check | None = None
    says: str = ""


@dataclass(frozen=True)
class Refused:
    """The command ends with one line, and writes nothing.

    Attributes:
        codes: exit codes that are right: 2 wrong use or setting, 3 unusable input, 4 an image that
            does not fit the weights, 5 weights, 6 the system.
        says: regular expression that the line has to match; what is wrong must be named.
    """

    codes: tuple[int, ...]
    says: str


Right = Restored | Refused


@dataclass(frozen=True)
class Case:
    """A bad or odd input and its use.

    Attributes:
        family: kind of files.
        name: what is odd, unique in its family.
        make: makes the inputs in an empty folder, which is then the working directory.
        words: command lines, without the name of the program; all but the last only prepare, and
            have to succeed. "{weights}" stands for a tiny weight file whose network returns its
            input.
        right: outcomes that are right; any of them will do.
        outputs: names of the files that a successful run leaves, and no others; or `FOLDER`.
        needs: programs and Python modules without which the case is left out, such as "dcmcjpeg"
            and "module tifffile".
    """

    family: str
    name: str
    make: Make
    words: tuple[str, ...]
    right: tuple[Right, ...]
    outputs: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.family}: {self.name}"

    def missing(self) -> str | None:
        """Return what the case needs and this machine lacks, None if nothing."""
        for need in self.needs:
            kind, _, module = need.partition("module ")
            found = importlib.util.find_spec(module) if module else shutil.which(kind)
            if found is None:
                return f"{module or kind} is absent"
        return None


class Family:
    """Cases of one kind of files.

    Args:
        name: of the family.
        use: command line of most cases; "{source}" stands for the input.
    """

    def __init__(self, name: str, use: str = f"restore {{source}} -o {OUTPUT} -t mri-sr") -> None:
        self.name = name
        self.use = use
        self.cases: list[Case] = []

    def add(
        self,
        name: str,
        make: Make,
        *right: Right,
        source: str = "scan.nii.gz",
        words: str | tuple[str, ...] | None = None,
        outputs: tuple[str, ...] | None = None,
        needs: tuple[str, ...] = (),
    ) -> None:
        """Add a case; `words` replaces the usual command line. See `Case` for the others."""
        given = self.use.replace("{source}", source) if words is None else words
        lines = (given,) if isinstance(given, str) else given
        if outputs is None:
            outputs = (OUTPUT, record_name(OUTPUT))
        weighted = tuple(_with_weights(line) for line in lines)
        self.cases.append(Case(self.name, name, make, weighted, right, outputs, needs))

    def case(self, *right: Right, **options: object) -> Callable[[Make], Make]:
        """Decorator that adds a case made by a function, and named as it is."""

        def register(make: Make) -> Make:
            name = make.__name__.replace("_", " ").strip()  # type: ignore[attr-defined]
            self.add(name, make, *right, **options)  # type: ignore[arg-type]
            return make

        return register


def record_name(output: str) -> str:
    """Return the name of the record beside an output."""
    stem = output.removesuffix(".gz")
    return stem[: stem.rindex(".")] + ".restoration.json"


def _with_weights(line: str) -> str:
    """Add the tiny weights to a command that restores and names none."""
    if line.split(" ")[0] not in ("restore", "evaluate"):
        return line
    if "mri-sr" in line and "--consistency" not in line:
        line += " --consistency 0"  # so that the tiny network's result is its input
    return line if "--weights" in line else f"{line} --weights {{weights}}"
