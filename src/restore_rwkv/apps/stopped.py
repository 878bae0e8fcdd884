"""The end of a program that serves until it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at SIGTERM and SIGINT within the block; a second signal ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def once(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    try:
        for name in (signal.SIGTERM, signal.SIGINT):
            before[name] = signal.signal(name, once)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
