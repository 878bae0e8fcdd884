"""Programs of the system that tests compare with: validators and peers."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = os.environ.get("RESTORE_RWKV_TOOLS") == "required"
"""Whether a test without its program fails instead of being skipped, as in `.ci/run`."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Mark a test that calls programs of the system; without them it is skipped by their names."""
    absent = [program for program in programs if shutil.which(program) is None]
    reason = f"{', '.join(absent)} is absent"
    return pytest.mark.skipif(bool(absent) and not REQUIRED, reason=reason)
