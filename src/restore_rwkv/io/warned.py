"""Warnings of this package, kept for the record of an output."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGE = logging.getLogger("restore_rwkv")


@contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """Collect the warnings that this thread logs within the block, each once, in their order.

    Yields:
        A list that grows as warnings are logged.

    Example:
        >>> with recorded_warnings() as said:
        ...     volume = read_volume("scan.nii.gz")  # doctest: +SKIP
        >>> said
        []
    """
    handler = _Collector()
    _PACKAGE.addHandler(handler)
    try:
        yield handler.messages
    finally:
        _PACKAGE.removeHandler(handler)


class _Collector(logging.Handler):
    """Keeps the warnings of the thread that made it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        message = record.getMessage()
        if record.thread == self._thread and message not in self.messages:
            self.messages.append(message)
