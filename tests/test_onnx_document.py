"""What docs/onnx.md says of exports is what they are."""

from __future__ import annotations

import json
import re

import onnx

from benchmarks import parity
from restore_rwkv.model.export.file import OPERATORS
from restore_rwkv.model.export.parity import PEAK, TOLERANCES
from restore_rwkv.model.export.precision import MEANING, converted
from restore_rwkv.ops.cumulative import LARGEST_BONUS, STEEPEST
from tests.helpers import ROOT
from tests.helpers.exports import EXPORT, golden_model

PAGE = (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())


def test_the_page_names_precisions_and_bounds() -> None:
    for name, meaning in MEANING.items():
        exponent = f"{TOLERANCES[name]:.0e}".replace("e-0", "e-")
        assert f"| `{name}` | {meaning} | {exponent} |" in PAGE
    assert f"with keys {PEAK:g} times as large" in WORDS
    assert f"For |w| up to {STEEPEST:g} and a bonus |u| up to {LARGEST_BONUS:g}" in WORDS


def test_the_page_lists_the_operators_and_inputs() -> None:
    listed = re.search(r"operators of the standard only: (.*?)\. There are no loops", WORDS)
    assert listed is not None
    named = {word.partition(" (")[0] for word in re.split(r", (?=[A-Z])", listed[1])}
    model = golden_model()
    used = {node.op_type for node in model.graph.node}
    assert used <= named <= OPERATORS
    more = {node.op_type for node in converted(model, "int8").graph.node} - named
    assert more == {"DynamicQuantizeLinear", "MatMulInteger"}
    for value in (*model.graph.input, *model.graph.output):
        assert f"\n| `{value.name}` | " in PAGE


def test_the_page_names_what_the_metadata_hold() -> None:
    (entry,) = onnx.load_model(EXPORT).metadata_props
    record = json.loads(entry.value)
    rows = re.findall(r"^\| (`.*`) \| ", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(record) - {"format", "merged"} <= named
    for name in record["export"]:
        assert name == "parameters" or f"`{name}`" in PAGE


def test_the_tables_have_the_columns_of_the_command() -> None:
    for table in (parity.parity_table({}), parity.speed_table({}), parity.runtime_table({})):
        head = next(table).rstrip("| ")
        assert head in PAGE
    for name in parity.names():
        assert f"\n| {name} | " in PAGE
