"""A command line that tests run in their own process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Call = Callable[..., subprocess.CompletedProcess[str]]
"""Runs the words of a command, as the fixture `call` of `tests/apps` does."""
