"""Write the result of each test as soon as it is known: `pytest -p benchmarks.pytest_rows`.

`TEST_ROWS` names the file: one JSON object a line, so that a run that is cut off leaves its rows.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "TEST_ROWS"
_LONGEST = 2000  # characters of a failure's text, its end


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the outcome of a test; with several processes, only in the one that collects them."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    if report.when == "call" or report.outcome != "passed":
        _add(report.nodeid, report.outcome, report.duration, report.longrepr)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note a file whose tests cannot be collected."""
    if "PYTEST_XDIST_WORKER" not in os.environ and report.outcome == "failed":
        _add(report.nodeid, "failed", 0.0, report.longrepr)


def _add(name: str, outcome: str, seconds: float, text: Any) -> None:
    row = {"test": name, "outcome": outcome, "seconds": round(seconds, 3)}
    if outcome == "skipped" and isinstance(text, tuple):
        row["reason"] = str(text[2])
    elif outcome == "failed":
        row["reason"] = str(text)[-_LONGEST:]
    with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
