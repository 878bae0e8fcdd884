"""Exit codes of the command line, by kind of error. docs/command-line.md lists them."""

from __future__ import annotations

from typing import NamedTuple

from restore_rwkv.errors import kind_of_error


class Kind(NamedTuple):
    """A kind of ending: its name in JSON, and the exit code."""

    name: str
    code: int


REFUSED = Kind("refused", 1)
USAGE = Kind("usage", 2)
INPUT = Kind("input", 3)
UNFIT = Kind("unfit", 4)
WEIGHTS = Kind("weights", 5)
SYSTEM = Kind("system", 6)
TRAINING = Kind("training", 7)
BUG = Kind("bug", 70)

INTERRUPTED = 130  # 128 and the number of the signal, as shells count
CLOSED_PIPE = 141

_KINDS = {kind.name: kind for kind in (USAGE, INPUT, UNFIT, WEIGHTS, SYSTEM, TRAINING, BUG)}


def kind_of(error: BaseException) -> Kind:
    """Kind of an error that ended a command; `BUG` if it was raised by mistake."""
    if hasattr(error, "format_message"):  # of click, which typer brings under changing names
        return USAGE
    return _KINDS[kind_of_error(error)]
