"""What the node changes in its process is changed back after each file of tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

_SILENCED = ("pydicom", "pynetdicom", "highdicom")


@pytest.fixture(autouse=True, scope="module")  # before those of a module that start a receiver
def _levels_of_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _SILENCED]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)
