"""The module of 3D Slicer beside fakes of Slicer; the program that it starts is the real one."""

from __future__ import annotations

import json
import stat
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from restore_rwkv.io import Volume
from restore_rwkv.restoration import Restorer
from restore_rwkv.tasks import NOTICE, TASKS
from tests.helpers import ROOT
from tests.helpers.fake_slicer import Node, slicer_module

# Left, head, front; 0.8, 0.9 and 3 mm; a little oblique, so that nothing is its own transpose.
_TILT = np.array([[0.995, 0, 0.0998334], [0, 1, 0], [-0.0998334, 0, 0.995004]])
_AXES = np.array([[-0.8, 0, 0], [0, 0, 3.0], [0, 0.9, 0]])
MATRIX = np.eye(4)
MATRIX[:3, :3] = _TILT @ _AXES
MATRIX[:3, 3] = (31.5, -12.25, 40.125)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    return slicer_module(monkeypatch)


@pytest.fixture
def node() -> Node:
    """A smooth volume of 40 x 36 x 5 voxels (I, J, K)."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in (5, 36, 40)), indexing="ij")
    values = 900 * np.exp(-3 * (i**2 + j**2 + k**2)) + 60 * (i > 0.3) + 20 * (j > 0.1)
    return Node("t1", values.astype(np.float32), MATRIX)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The command, of the sources that are tested."""
    path = tmp_path / "restore-rwkv"
    words = f'#!/bin/sh\nPYTHONPATH={ROOT / "src"} exec {sys.executable} -m restore_rwkv "$@"\n'
    path.write_text(words, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


posix = pytest.mark.skipif(sys.platform == "win32", reason="a script of sh")


@posix
@pytest.mark.slow
def test_the_result_has_the_voxels_and_the_place_of_the_scan(
    module: Any, node: Node, program: Path, tiny_weights: Path
) -> None:
    node.transform = "vtkMRMLTransformNode1"
    node.display = SimpleNamespace(GetWindow=lambda: 900.0, GetLevel=lambda: 450.0)
    node.storage = "storage of the scan"
    choice = module.Choice(str(program), "mri-sr", str(tiny_weights))
    result = module.RestoreRWKVLogic().restore(node, choice)
    assert result.name == "t1 restored"
    assert np.array_equal(result.matrix, MATRIX)
    assert result.transform == node.transform
    # Only what names the file that is removed goes.
    module.slicer.mrmlScene.RemoveNode.assert_called_once_with(result.storage)
    assert node.storage == "storage of the scan"
    result.display.SetWindowLevel.assert_called_once_with(900.0, 450.0)
    # The same voxels, given to the library in its own order and convention.
    volume = Volume(node.values.T, MATRIX, modality="MR")
    expected = Restorer("mri-sr", tiny_weights).run(volume).volume
    assert np.allclose(result.values, expected.data.T, atol=0.05)
    assert not np.allclose(result.values, node.values, atol=5)
    record = json.loads(result.attributes["restore-rwkv.record"])
    assert (record["task"], record["source"]) == ("mri-sr", "scan.nii.gz")
    assert result.attributes["restore-rwkv.notice"] == NOTICE


@posix
@pytest.mark.slow
def test_an_error_of_the_program_is_one_line_and_leaves_no_files(
    module: Any, node: Node, program: Path
) -> None:
    choice = module.Choice(str(program), "mri-sr", "no-such-weights")
    run = module.Run(node, choice)
    run.process.wait()
    with pytest.raises(RuntimeError, match="no-such-weights: no such file or shipped weights"):
        run.result()
    run.close()
    assert not run.folder.exists()


@posix
def test_a_result_without_its_record_leaves_no_node(
    module: Any, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = tmp_path / "quick"
    quick.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    quick.chmod(0o700)
    loaded = MagicMock()
    monkeypatch.setattr(module.slicer.util, "loadVolume", loaded)
    run = module.Run(node, module.Choice(str(quick), "mri-sr"))
    run.process.wait()
    with pytest.raises(RuntimeError, match=r"quick: wrote no record .*; give the path of"):
        run.result()
    run.close()
    loaded.assert_not_called()


def test_a_program_that_is_absent_is_named_with_its_remedy(module: Any, node: Node) -> None:
    with pytest.raises(RuntimeError, match=r"/none/there: not found; install it with pip"):
        module.Run(node, module.Choice("/none/there", "mri-sr"))


@posix
def test_a_cancel_ends_the_program_and_removes_its_files(
    module: Any, node: Node, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    slow.chmod(0o700)
    run = module.Run(node, module.Choice(str(slow), "mri-sr"))
    assert not run.ended()
    start = time.monotonic()
    run.close()
    assert time.monotonic() - start < 20
    assert run.ended()
    assert not run.folder.exists()


@pytest.mark.parametrize("change", ["shifted", "mirrored", "cropped"])
def test_a_result_on_another_grid_is_refused(module: Any, node: Node, change: str) -> None:
    values, matrix = node.values, node.matrix.copy()
    if change == "shifted":
        matrix[0, 3] += 0.1
    elif change == "mirrored":
        matrix[:3, 0] *= -1
    else:
        values = values[1:]
    with pytest.raises(RuntimeError, match="t1: came back on another grid"):
        module.place_like(Node("t1 restored", values, matrix), node)


def test_the_arguments_are_those_of_the_command(module: Any) -> None:
    choice = module.Choice("restore-rwkv", "pet-synth", "w.safetensors", 0.5, suv=True)
    assert module.arguments(choice, Path("in.nii.gz"), Path("out.nii.gz")) == [
        *("restore", "in.nii.gz", "-o", "out.nii.gz", "--task", "pet-synth", "--quiet"),
        *("--weights", "w.safetensors", "--strength", "0.5", "--unit", "SUV"),
    ]
    assert tuple(TASKS) == module.TASKS
    assert module.NOTICE == NOTICE


def test_the_panel_starts_shows_and_ends_a_run(
    module: Any, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = module.RestoreRWKVWidget()
    panel.setup()
    panel.scan = SimpleNamespace(currentNode=lambda: None)
    panel.start()
    assert panel.line.text.startswith("error: no scan is chosen")
    panel.scan = SimpleNamespace(currentNode=lambda: node)
    panel.strength.text = "half"
    panel.start()
    assert panel.line.text == "error: strength 'half': give a number from 0 to 1"
    panel.strength.text, panel.weights.text, panel.program.text = "", "", "restore-rwkv"
    result = Node("t1 restored", node.values, node.matrix)
    run = MagicMock(ended=lambda: True, result=lambda: result)
    monkeypatch.setattr(module, "Run", lambda *_: run)
    panel.start()
    assert (panel.apply.enabled, panel.stop.enabled) == (False, True)
    panel.look()
    assert panel.line.text == f"t1 restored is there. {NOTICE}"
    run.close.assert_called_once_with()
    assert (panel.apply.enabled, panel.stop.enabled, panel.run) == (True, False, None)
