"""Ending a run between two iterations when the system or the user asks for it."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Notes the first SIGINT (Ctrl-C) or SIGTERM while its block runs; a second one acts at once.

    In threads other than the main one, where Python handles no signals, it notes nothing.

    Attributes:
        signal: number of the signal that has come, or 0.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


def end_process(number: int) -> None:
    """End as a signal without a handler would: KeyboardInterrupt for SIGINT, else exit 128 + n."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def ignore_interrupts(_worker: int) -> None:
    """In a data-loading process: leave signals to the training process, which ends it."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
