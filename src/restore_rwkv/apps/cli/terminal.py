"""What a run prints, and where: results on stdout, all else on stderr.

Options such as --quiet set `screen`; the commands say what there is, and not whether it is shown.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from restore_rwkv.apps.cli.exit_codes import CLOSED_PIPE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDEST = 10_000  # characters of a table on a pipe
_CONTROL = re.compile(r"\n(?!  )|[\x00-\x09\x0b-\x1f\x7f\x80-\x9f]")


@dataclass
class Screen:
    """State of the output of one run.

    Attributes:
        quiet: print errors only, and what --json asks for.
        verbose: print also what the library does.
        as_json: print one JSON object on stdout, and nothing else there.
        as_lines: print one JSON object a line instead.
        bar: console of the progress bar that is shown now; None where there is none.
        open_line: whether the last line on the terminal has no end yet, as that of a training run.
        warnings: texts of the warnings of this run, shown or not.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    as_lines: bool = False
    bar: Console | None = None
    open_line: bool = False
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Print no warnings within the block."""
        before, self.quiet = self.quiet, True
        try:
            yield
        finally:
            self.quiet = before
            self.warnings.clear()

    def reset(self, as_json: bool) -> None:
        """Begin a run."""
        vars(self).update(vars(Screen(as_json=as_json)))


screen = Screen()


def say(text: str) -> None:
    """Print a line for people on stdout."""
    if not (screen.quiet or screen.as_json):
        _to_stdout(lambda stream: print(text, file=stream, flush=True))


def show(*tables: Table) -> None:
    """Print tables for people; on a pipe as wide as they are.

    On a terminal where words would have to be cut, each row is a list of its cells, but for tables
    that say themselves which column is folded.
    """
    if screen.quiet or screen.as_json:
        return
    from rich.console import Console

    def render(stream: TextIO) -> None:
        # A file may be named scan[1].nii.gz.
        console = Console(file=stream, markup=False, emoji=False, highlight=False)
        wide = console.options.update(width=_WIDEST)
        with console.capture() as printed:  # as rich exits by itself where a pipe is closed
            for table in tables:
                needed = console.measure(table, options=wide)
                if not console.is_terminal:
                    console.width = max(needed.maximum, len(str(table.title or "")))
                folds = any(column.overflow == "fold" for column in table.columns)
                if needed.minimum > console.width and not folds:
                    console.print(_rows_as_lists(table))
                else:
                    console.print(table)
        print(printed.get(), end="", file=stream, flush=True)

    _to_stdout(render)


def _rows_as_lists(table: Table) -> str:
    """Return title and rows of a table, each cell on a line after the head of its column."""
    rows = zip(*(column.cells for column in table.columns), strict=True)
    heads = [str(column.header) for column in table.columns]
    lists = ["\n".join(map("{}: {}".format, heads, row)) for row in rows]
    return "\n\n".join([str(table.title or ""), *lists]).strip() + "\n"


def show_json(values: Mapping[str, Any]) -> None:
    """Print the one JSON object of --json, with the warnings of the run."""
    indent = None if screen.as_lines else 2
    text = json.dumps({**values, "warnings": screen.warnings}, indent=indent, default=str)
    _to_stdout(lambda stream: print(text, file=stream, flush=True))


def show_line(values: Mapping[str, Any]) -> None:
    """Print one of many JSON objects, each on a line of its own."""
    text = json.dumps(values, default=str)
    _to_stdout(lambda stream: print(text, file=stream, flush=True))


def escaped(text: str) -> str:
    """Return a text with its control characters as escapes."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def say_aside(text: str) -> None:
    """Print a line on stderr: above the progress bar if there is one.

    Control characters, as names of files may hold, are shown as escapes; lines that go on after
    two blanks stay.
    """
    text = escaped(text)
    if screen.bar is not None:
        screen.bar.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
        return
    start = "\n" if screen.open_line else ""
    screen.open_line = False
    print(f"{start}{text}", file=sys.stderr, flush=True)


def _to_stdout(write: Callable[[TextIO], None]) -> None:
    """Write to stdout; end quietly where its reader has gone, as `head` does.

    On a terminal with a progress bar, what is written comes above it.
    """
    if screen.bar is not None and sys.stdout.isatty():
        text = io.StringIO()
        write(text)
        screen.bar.print(
            text.getvalue(), end="", markup=False, emoji=False, highlight=False, soft_wrap=True
        )
        return
    try:
        write(sys.stdout)
    except BrokenPipeError:
        # Python flushes stdout once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(CLOSED_PIPE) from None
