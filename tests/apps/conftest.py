"""The command line, run in the process of the tests."""

from __future__ import annotations

import subprocess
import sys

import pytest

from restore_rwkv.apps.cli import main
from tests.helpers.commands import Call


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process, which has imported PyTorch already."""

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["restore-rwkv", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(words, stop.value.code or 0, printed.out, printed.err)

    return call
