"""A filter of the log: a fault that comes a thousand times a minute does not fill the disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_MOST = 20  # lines of one kind a minute
_SECONDS = 60.0


class CalmLog(logging.Filter):
    """Lets a number of warnings of each kind pass in a minute, and counts the others.

    What happens to a series is said at other levels, and always. Warnings are of one kind if they
    come from one place of the program. The first one after its minute says how many were left out.

    Args:
        clock: in seconds, which cannot be set.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, int], tuple[float, int]] = {}  # begin of the minute, and lines

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written; handlers call this one line at a time."""
        if record.levelno != logging.WARNING:
            return True
        kind, now = (record.pathname, record.lineno), self._clock()
        began, count = self._kinds.get(kind, (now, 0))
        left_out = 0
        if now - began >= _SECONDS:
            left_out, began, count = max(0, count - _MOST), now, 0
        self._kinds[kind] = (began, count + 1)
        if left_out:
            record.msg = f"{record.getMessage()} (and {left_out} more lines like this before)"
            record.args = ()
        return count < _MOST
