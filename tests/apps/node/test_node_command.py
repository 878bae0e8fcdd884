from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from restore_rwkv.apps.cli.app import app
from restore_rwkv.apps.cli.terminal import screen
from restore_rwkv.apps.node.service import Service

CONFIG = """
folder = "state"
[[peers]]
name = "ct1"
ae_title = "CT1"
[[rules]]
name = "scouts"
description = "*scout*"
action = "ignore"
[[rules]]
name = "ct"
modality = "CT"
send_to = ["pacs"]
[[destinations]]
name = "pacs"
kind = "dimse"
ae_title = "PACS"
host = "pacs.example"
port = 4242
[[archives]]
name = "web"
url = "https://pacs.example/dicom-web"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(CONFIG)
    return path


def test_check_says_what_the_node_would_do_and_starts_nothing(config: Path) -> None:
    screen.reset(as_json=False)
    result = CliRunner().invoke(app, ["node", str(config), "--check"])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        f"folder: {config.parent / 'state'}",
        "listens: RESTORE-RWKV at 127.0.0.1 port 11112, without TLS",
        "peer ct1: CT1 from any address",
        "archive web: https://pacs.example/dicom-web, every 60 s",
        "rule scouts: description *scout*: ignored",
        "rule ct: modality CT: restored (auto, its own weights) if fit or doubtful, sent to pacs",
        "destination pacs: PACS at pacs.example port 4242, without TLS",
        "metrics: http://127.0.0.1:9104/metrics and /health",
    ]
    assert not (config.parent / "state").exists()


def test_check_prints_json_for_machines(config: Path) -> None:
    result = CliRunner().invoke(app, ["node", str(config), "--check", "--json"])
    screen.reset(as_json=False)
    assert "peer ct1: CT1 from any address" in json.loads(result.output)["node"]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")
def test_not_everyone_may_read_what_the_node_writes(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(service: Service) -> None:
        with service._ends:
            service._spool.begin(bytes(200)).discard()

    monkeypatch.setattr(Service, "run", run)
    config.write_text(CONFIG.partition("[[archives]]")[0])
    before = os.umask(0o022)
    try:
        result = CliRunner().invoke(app, ["node", str(config)])
    finally:
        os.umask(before)
    assert result.exit_code == 0, result.output
    found = [config.parent / "state", *(config.parent / "state").rglob("*")]
    assert {path.name for path in found} >= {"state", "spool", "incoming", "queue.sqlite"}
    assert not [path for path in found if path.stat().st_mode & 0o007]
