"""A disk that is full, or a kill, at the n-th change of the files below a folder."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = ("link", "mkdir", "rename", "replace", "symlink", "unlink", "rmdir")
_FILLING = ("link", "mkdir", "symlink", "fsync")
"""Calls that fail on a full disk; removing and renaming work there."""


class Fault:
    """Counts what changes files below a folder, and strikes at one of these times.

    Args:
        kind: "full" raises what a full disk does, at that time and ever after; "kill" ends the
            process as kill -9 does, just before that change.
        at: which change strikes, counted from 1.
        below: the folder.
    """

    def __init__(self, kind: str, at: int, below: str) -> None:
        self.kind, self.at, self.below, self.count = kind, at, os.path.abspath(below), 0

    def concerns(self, path: object) -> bool:
        """Whether a path lies below the folder."""
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self.below + os.sep)

    def change(self) -> None:
        """Count a change, and strike if it is time."""
        self.count += 1
        if self.count < self.at:
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def install(kind: str, at: int, below: str) -> None:
    """Let a fault strike in this process from now on; arguments as for `Fault`."""
    fault = Fault(kind, at, below)
    names = _CHANGES if kind == "kill" else _FILLING
    for name in names:
        setattr(os, name, _counted(fault, name, getattr(os, name)))
    if kind == "kill":
        os.fsync = _counted(fault, "fsync", os.fsync)
    opened = _opened(fault, io.open)
    io.open = builtins.open = opened  # type: ignore[assignment]
    os.open = _low_opened(fault, os.open)


def _counted(fault: Fault, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if name == "fsync":
            where: object = os.readlink(f"/proc/self/fd/{arguments[0]}")
        else:
            where = arguments[min(1, len(arguments) - 1)] if name != "symlink" else arguments[1]
        if fault.concerns(where):
            fault.change()
        return original(*arguments, **options)

    return call


def _low_opened(fault: Fault, original: Callable[..., int]) -> Callable[..., int]:
    def call(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_CREAT and fault.concerns(path) and not os.path.lexists(path):
            fault.change()
        return original(path, flags, *arguments, **options)

    return call


def _opened(fault: Fault, original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace `open` so that each write into a file below the folder is counted."""

    class Counted(io.FileIO):
        def write(self, data: Any) -> int:
            fault.change()
            return super().write(data)

    def call(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **options: Any) -> Any:
        writes = any(letter in mode for letter in "wax+")
        if not writes or not fault.concerns(file):
            return original(file, mode, buffering, *more, **options)
        if not Path(file).exists():
            fault.change()
        raw = Counted(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return binary
        names = dict(zip(("encoding", "errors", "newline"), more, strict=False))
        return io.TextIOWrapper(binary, **names, **options)

    return call
