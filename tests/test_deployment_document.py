"""What docs/deployment.md says, against the program."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sqlite3
import sys
from pathlib import Path

from restore_rwkv.apps.node.config import Limits, NodeConfig
from restore_rwkv.apps.node.config_file import read_config
from restore_rwkv.apps.node.metrics import _HELP
from restore_rwkv.apps.node.queueing.database import Database
from restore_rwkv.apps.node.rules import Rule
from restore_rwkv.batch import Manifest
from restore_rwkv.options import from_mapping
from tests.helpers import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
SETTINGS = re.findall(r"^```toml\n(.+?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


def queries(place: str) -> list[str]:
    """SQL of the document for a database."""
    pattern = rf'sqlite3 (?:-readonly )?\S*{re.escape(place)} "([^"]+)"'
    return re.findall(pattern, DOCUMENT)


def test_queries_of_the_document_are_answered(tmp_path: Path) -> None:
    with Manifest(tmp_path / "manifest.sqlite"):
        pass
    Database(tmp_path / "node").close()
    for path, place, number in (
        (tmp_path / "manifest.sqlite", "manifest.sqlite", 4),
        (tmp_path / "node" / "queue.sqlite", "queue.sqlite", 2),
    ):
        asked = queries(place)
        assert len(asked) >= number
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        for query in asked:
            connection.execute(query.replace("/backup", str(tmp_path))).fetchall()
        connection.close()
    Database(tmp_path / "node").close()
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "queue.sqlite", tmp_path / "copy")
    Database(tmp_path / "copy").close()  # which refuses what is no queue


def rows_of(heading: str) -> dict[str, str]:
    """Second column of the table under a heading, by the first one."""
    part = DOCUMENT.partition(f"\n{heading}\n")[2].partition("\n#")[0]
    return dict(re.findall(r"^\| (.+?) \| (.*?) ?\|", part, re.MULTILINE))


def shown(value: object) -> str:
    """A default as the table has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= 10**9:
        return f"{value >> 30} GiB" if value % 2**30 == 0 else f"{value // 10**9} GB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_setting_of_the_node_is_in_the_table_with_its_default() -> None:
    rows = {re.sub(r"[`\[\]]", "", key): text for key, text in rows_of("### Settings").items()}
    fields = {field.name: field.default for field in dataclasses.fields(NodeConfig)}
    assert set(rows) - {"key", "---"} == set(fields)
    for name, default in fields.items():
        plain = isinstance(default, (str, int, float))
        assert rows[name].strip("`") == (shown(default) if plain else ""), name


def test_limits_of_a_sender_are_in_the_table_with_their_defaults() -> None:
    for field in dataclasses.fields(Limits):
        assert f"`{field.name}` ({shown(field.default)})" in DOCUMENT


def test_every_metric_of_the_document_exists() -> None:
    rows = rows_of("### Monitoring")
    named = {name for key in rows for name in re.findall(r"`(\w+)`", key)}
    labels = {"archive", "state", "destination", "origin", "reason", "kind", "step", "rule"}
    assert named - labels - {"restore_rwkv_node_"} == set(_HELP)
    used = set(re.findall(r"restore_rwkv_node_(\w+)", DOCUMENT))
    assert used <= set(_HELP)


def test_the_smallest_settings_of_the_document_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(SETTINGS[0], encoding="utf-8")
    config = read_config(path)
    assert [peer.ae_title for peer in config.peers] == ["CT1"]
    assert config.rules[0].send_to == ("pacs",)


def test_the_rule_of_the_document_is_one() -> None:
    _, text = SETTINGS
    (row,) = tomllib.loads(text)["rules"]
    header = {"Modality": "CT", "StationName": "CT2A", "SeriesDescription": "Abdomen 1.0"}
    rule = from_mapping(Rule, row)
    assert rule.matches(header, "dimse:CT2")
    assert not rule.matches({**header, "StationName": "CT3"}, "dimse:CT3")


def test_files_that_the_document_names_exist() -> None:
    for name in set(re.findall(r"deploy/[\w.-]+", DOCUMENT)):
        assert (ROOT / name).exists(), name
    for name in set(re.findall(r"python -m benchmarks\.(\w+)", DOCUMENT)):
        assert (ROOT / "benchmarks" / f"{name}.py").exists(), name
