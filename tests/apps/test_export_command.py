"""The command export, and restoring with what it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from restore_rwkv.io import read_volume
from restore_rwkv.model import read_info
from restore_rwkv.model.export import export
from tests.helpers.commands import Call
from tests.helpers.exports import EXPORT, WEIGHTS, golden_model, mutate


@pytest.fixture
def _traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the tracing of the network, which takes half a minute."""
    monkeypatch.setattr(export, "build_graph", lambda network: golden_model())


@pytest.mark.usefixtures("_traced")
def test_says_what_it_wrote(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    run = call("export", WEIGHTS, "-o", path)
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert lines[0].startswith(f"{path}: 0.1 MB, 886 nodes, stored and computed in float32")
    assert "difference from PyTorch: " in lines[1]
    run = call("export", WEIGHTS, "-o", path)
    assert run.returncode == 3
    assert "model.onnx: exists already" in run.stderr
    assert "--overwrite" in run.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("_traced")
def test_says_it_to_programs_too(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("old")
    run = call("export", WEIGHTS, "-o", path, "-f", "--precision", "int8", "--json")
    values = json.loads(run.stdout)
    assert (values["precision"], values["path"]) == ("int8", str(path))
    assert values["sha256"] == read_info(WEIGHTS).sha256
    assert values["cost"]["saves_time"] in (True, False)
    assert values["parity"]["largest"] < values["parity"]["tolerance"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("no-such", "-o", "m.onnx"), 5, "no-such: no such file or shipped weights"),
        ((WEIGHTS, "-o", "m.pt"), 3, "m.pt: is not named as ONNX"),
        ((WEIGHTS, "-o", "m.onnx", "--precision", "fp16"), 2, "'fp16'"),
        ((EXPORT, "-o", "m.onnx"), 5, "an exported network only restores"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: tuple[object, ...],
    code: int,
    message: str,
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = call("export", *words)
    assert run.returncode == code
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_computes_something_else_is_not_written(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = golden_model()
    mutate(model, "net.output.weight")
    monkeypatch.setattr(export, "build_graph", lambda network: model)
    run = call("export", WEIGHTS, "-o", tmp_path / "m.onnx")
    assert run.returncode == 5
    assert "ONNX Runtime differs from PyTorch" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_restores_with_an_export(call: Call, scan: Path, tmp_path: Path) -> None:
    outputs = []
    for weights in (WEIGHTS, EXPORT):
        output = tmp_path / f"{weights.suffix[1:]}.nii"
        words = ("restore", scan, "-o", output, "-t", "mri-sr", "--force", "--weights", weights)
        assert call(*words).returncode == 0
        outputs.append(read_volume(output).data)
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-5 * np.ptp(outputs[0])
    record = json.loads((tmp_path / "onnx.restoration.json").read_text(encoding="utf-8"))
    assert record["device"].startswith("onnxruntime ")


def test_checks_with_an_export(call: Call, scan: Path) -> None:
    run = call("check", scan, "--weights", EXPORT, "-t", "mri-sr", "--json")
    assert "export_a" in run.stdout


def test_help_and_messages_import_no_runtime() -> None:
    code = (
        "import sys; sys.argv = ['restore-rwkv', 'export', '--help']\n"
        "from restore_rwkv.apps.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([x for x in ('torch', 'onnx', 'onnxruntime', 'numpy') if x in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_shipped_weights_are_exported(tmp_path: Path) -> None:
    """The whole program, with the tracing."""
    path = tmp_path / "light.onnx"
    command = [sys.executable, "-m", "restore_rwkv", "export", "light-all-in-one", "-o", path]
    run = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=900)
    assert (run.returncode, run.stderr) == (0, "")
    values = json.loads(run.stdout)
    assert values["nodes"] < 1400
    assert values["bytes"] < 5_000_000
    assert max(values["parity"]["largest"], values["peaked"]["largest"]) < 5e-6  # 7e-7 measured
