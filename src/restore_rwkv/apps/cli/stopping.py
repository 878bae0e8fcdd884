"""Ctrl-C and the signals that end a process: one line, and no traceback.

Imports little, as it has to work while everything else is still being imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, ClassVar

_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}
_FRESH_LINE = "\r\x1b[K\x1b[?25h"  # erased, with the cursor, which a progress bar hides


class _Stop(KeyboardInterrupt):
    """A signal has come.

    Not KeyboardInterrupt itself: where that leaves a text run by `exec`, as dataclasses do, Python
    notes it, and at its end kills itself by SIGINT whatever was done about the error.
    """


class Stopping:
    """Lets a signal raise a KeyboardInterrupt in its block, so that partial files are removed.

    Libraries may turn that into an error of their own, above all while they are imported. After a
    signal, therefore, any error that leaves the block becomes one line and the exit code 128 +
    number of the signal. At once, without an error, end a second signal and one that comes while
    PyTorch is imported, whose C++ aborts on errors. Signals that the caller has set to be ignored,
    as `nohup` does, stay ignored.

    Attributes:
        signal: number of the signal that has come, or 0.
        hint: how to go on later, for the end of the line; a command sets it.
    """

    hint: ClassVar[str] = ""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        Stopping.hint = ""
        if threading.current_thread() is threading.main_thread():
            for name in _WORDS:
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        number = self.signal or _signal_of(error)
        while self._before:
            signal.signal(*self._before.popitem())
        if number and error is not None:
            _say_stopped(number)
            raise SystemExit(128 + number) from None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.signal or _imports_torch(frame):
            _say_stopped(number)
            atomic = sys.modules.get("restore_rwkv.io.atomic")
            if atomic is not None:
                atomic.drop_claims()
            os._exit(128 + number)
        self.signal = number
        raise _Stop


def _imports_torch(frame: FrameType | None) -> bool:
    """Whether a module of PyTorch is being executed for its import."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if frame.f_code.co_name == "<module>" and name.partition(".")[0] == "torch":
            return True
        frame = frame.f_back
    return False


def _signal_of(error: BaseException | None) -> int:
    """Signal that an error stands for where a command handled it itself, as training does."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    code = error.code if isinstance(error, SystemExit) else None
    return next((n for n in (signal.SIGINT, signal.SIGTERM) if code == 128 + n), 0)


def _say_stopped(number: int) -> None:
    """Print the word for a signal on a line of its own, where there still is a terminal."""
    stream = sys.__stderr__
    if stream is None:
        return
    start = _FRESH_LINE if stream.isatty() else ""
    end = f"; {Stopping.hint}" if Stopping.hint else ""
    try:
        stream.write(f"{start}{_WORDS.get(signal.Signals(number).name, 'stopped')}{end}\n")
        stream.flush()
    except (OSError, ValueError):
        pass
