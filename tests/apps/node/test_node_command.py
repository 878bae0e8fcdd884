from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from restore_rwkv.apps.cli.app import app
from restore_rwkv.apps.cli.terminal import screen
from restore_rwkv.apps.node.queueing.database import Database
from restore_rwkv.apps.node.queueing.queue import Queue
from restore_rwkv.apps.node.service import Service
from tests.helpers.certificates import make_certificates
from tests.helpers.node_parts import make_instance

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


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the command does to its process."""
    names = ("restore_rwkv.apps.node", "pydicom", "pynetdicom", "highdicom")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    monkeypatch.setenv("PYTHONWARNINGS", os.environ.get("PYTHONWARNINGS", ""))
    mask = os.umask(0o022)
    with warnings.catch_warnings():
        yield
    os.umask(mask)
    screen.reset(as_json=False)
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


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
    result = CliRunner().invoke(app, ["node", str(config)])
    assert result.exit_code == 0, result.output
    found = [config.parent / "state", *(config.parent / "state").rglob("*")]
    assert {path.name for path in found} >= {"state", "spool", "incoming", "queue.sqlite"}
    assert not [path for path in found if path.stat().st_mode & 0o007]


def test_a_bug_that_ends_the_node_quotes_nothing(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(service: Service) -> None:
        with service._ends:
            raise KeyError("DOE^JANE")

    monkeypatch.setattr(Service, "run", run)
    config.write_text(CONFIG.partition("[[archives]]")[0])
    result = CliRunner().invoke(app, ["node", str(config)])
    assert result.exit_code == 70
    assert "KeyError at test_node_command.py" in result.output
    assert "DOE" not in result.output
    config.write_text("log_patient_data = true\n" + config.read_text())
    assert isinstance(CliRunner().invoke(app, ["node", str(config)]).exception, KeyError)


def test_the_queue_is_listed_with_reasons_while_the_node_runs(config: Path) -> None:
    def invoke(*words: str) -> str:
        result = CliRunner().invoke(app, ["node", str(config), "--queue", *words])
        screen.reset(as_json=False)
        assert result.exit_code == 0, result.output
        return str(result.output)

    folder = config.parent / "state"
    database = Database(folder)  # which is what a running node has
    queue = Queue(database, 60.0)
    queue.add(make_instance(folder, 1, 1, announced=1))
    entry = queue.claim_ready()
    assert entry is not None
    queue.refuse(entry, "no rule matches")
    queue.add(make_instance(folder, 2, 1))
    try:
        lines = invoke()
        values = json.loads(invoke("--json"))
        config.write_text("log_patient_data = true\n" + CONFIG)
        open_lines = invoke()
    finally:
        database.close()
    assert entry.key in lines
    assert "no rule matches" in lines
    assert lines.splitlines()[-1] == (
        "1 receiving, 0 ready, 0 restoring, 0 restored, 0 sending, 0 done, 1 refused, 0 failed"
    )
    assert "1.2.1" not in lines
    assert "1.2.1" in open_lines
    assert values["series"]["refused"] == 1
    assert values["listed"][1]["reason"] == "no rule matches"
    assert "series_uid" not in values["listed"][1]


def test_check_refuses_certificates_that_do_not_belong_together(
    config: Path, tmp_path: Path
) -> None:
    made = make_certificates(tmp_path)
    made.key.chmod(0o600)
    table = "[tls]\ncertificate = {!r}\nkey = {!r}\nauthorities = {!r}\n"
    for certificate, code in ((made.certificate, 0), (made.authorities, 2)):
        names = (str(certificate), str(made.key), str(made.authorities))
        config.write_text(CONFIG + table.format(*names))
        result = CliRunner().invoke(app, ["node", str(config), "--check"])
        assert (result.exit_code == 0) == (code == 0), result.output
    assert "belong together" in str(result.exception)
