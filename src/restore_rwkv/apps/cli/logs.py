"""Warnings of the library and of the packages it uses, one line each, above any progress bar."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from restore_rwkv.apps.cli.messages import with_flags
from restore_rwkv.apps.cli.terminal import say_aside, screen

_OWN = "restore_rwkv"
_PRINTS_ITSELF = "nibabel.global"  # has a handler of its own, beside that of every program


class Lines(logging.Handler):
    """Prints `warning: ...` for warnings, each once, and with --verbose what the library does.

    A warning of another package is printed once for the place in its code that it comes from: a
    series of 300 files may give 300 that differ in a value only.
    """

    def __init__(self, flags: Callable[[], Mapping[str, str]]) -> None:
        super().__init__()
        self._flags = flags
        self._printed: set[object] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record."""
        package = record.name.partition(".")[0]
        text = " ".join(record.getMessage().split())
        if record.levelno < logging.WARNING:
            if screen.verbose and not screen.quiet:
                say_aside(with_flags(text, self._flags()))
        elif package == _OWN:
            self._warn(text, with_flags(text, self._flags()))
        else:
            self._warn((package, record.msg), f"{package}: {text}")

    def divert(self, record: logging.LogRecord) -> bool:
        """Print a record, as the filter of a logger that must not print it itself."""
        self.handle(record)
        return False

    def python_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Print a warning of Python's module `warnings`, in place of its `showwarning`."""
        text = " ".join(str(message).split())
        self._warn((category, filename, lineno), f"{_package_of(filename)}{text}")

    def _warn(self, key: object, text: str) -> None:
        if key in self._printed:
            return
        self._printed.add(key)
        screen.warnings.append(text)
        if not screen.quiet:
            say_aside(f"warning: {text}")


@contextmanager
def printed_warnings(flags: Callable[[], Mapping[str, str]]) -> Iterator[None]:
    """Print log records and Python's warnings by `Lines` while the block runs.

    Args:
        flags: returns the flag of each option, by the name of its argument.
    """
    lines, shown = Lines(flags), warnings.showwarning
    root, own, other = map(logging.getLogger, (None, _OWN, _PRINTS_ITSELF))
    levels = [(logger, logger.level) for logger in (root, own)]
    root.addHandler(lines)
    other.addFilter(lines.divert)
    root.setLevel(logging.WARNING)
    own.setLevel(logging.INFO)  # of which `Lines` prints what is wanted
    warnings.showwarning = lines.python_warning
    try:
        yield
    finally:
        warnings.showwarning = shown
        other.removeFilter(lines.divert)
        root.removeHandler(lines)
        for logger, level in levels:
            logger.setLevel(level)


def _package_of(filename: str) -> str:
    """Name of the package that a file of code belongs to, as the start of a line."""
    _, found, below = filename.replace("\\", "/").rpartition("site-packages/")
    return f"{below.partition('/')[0]}: " if found else ""
