"""Every example runs as a program of its own on tiny synthetic data, and does what it says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from restore_rwkv.training import Recipe
from tests.helpers import ROOT

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
TINY_RECIPE = """
task = "ct-denoise"
scaling = "own"
network = { dim = 4, num_blocks = [1, 1, 1, 1], num_refinement_blocks = 1, hidden_rate = 2 }
[data]
crop = 32
[training]
iterations = 8
validate_every = 8
start_at_identity = true
optimizer = "muon"
matrix_rate = 0.02
learning_rate = 2e-3
"""


def run(script: str, *arguments: Path | str, status: int = 0) -> str:
    """Run an example with these arguments; returns what it printed."""
    command = [sys.executable, EXAMPLES / script, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def ct_scans(tmp_path: Path) -> Path:
    """Noisy water discs in air, one scan each of three patients."""
    folder = tmp_path / "full-dose"
    folder.mkdir()
    x, y = np.meshgrid(np.arange(48) - 23.5, np.arange(48) - 23.5, indexing="ij")
    disc = np.where(np.hypot(x, y) < 18, 40.0, -1000.0)[..., None]
    for seed, name in enumerate(("anna", "bert", "cleo")):
        noise = np.random.default_rng(seed).normal(0, 10, (48, 48, 3))
        image = nib.Nifti1Image((disc + noise).astype(np.int16), np.diag([4.0, 4, 4, 1]))
        nib.save(image, folder / f"{name}_chest.nii.gz")
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_RECIPE, encoding="utf-8")
    return path


def test_examples_are_short_and_listed() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+\.py)\]", readme, re.MULTILINE)
    assert sorted(listed) == [path.name for path in SCRIPTS]
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") < 60, path.name
        docstring = ast.get_docstring(ast.parse(text))
        assert docstring is not None
        assert f"python examples/{path.name} " in docstring


@pytest.mark.slow
def test_restore_folder(scan: Path, tiny_weights: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "scans", tmp_path / "restored"
    (source / "deeper").mkdir(parents=True)
    (source / "deeper" / "good.nii.gz").write_bytes(scan.read_bytes())
    (source / "bad.nii.gz").write_bytes(b"not a scan")
    common = ("--task", "mri-sr", "--weights", tiny_weights, "--device", "cpu")
    printed = run("restore_folder.py", source, output, *common, status=1)
    assert "error: " in printed
    assert "1 of 2 scans restored" in printed
    restored = nib.load(output / "deeper" / "good.nii.gz")
    assert restored.shape == nib.load(scan).shape
    assert (output / "deeper" / "good.restoration.json").is_file()


@pytest.mark.slow
def test_restore_tree(scan: Path, tiny_weights: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "scans", tmp_path / "restored"
    (source / "deeper").mkdir(parents=True)
    (source / "deeper" / "good.nii.gz").write_bytes(scan.read_bytes())
    (source / "bad.nii.gz").write_bytes(b"not a scan")
    given = (source, output, "--task", "mri-sr", "--weights", tiny_weights)
    printed = run("restore_tree.py", *given, status=1)
    assert "2 to restore, 0 done before" in printed
    assert "done: deeper/good.nii.gz\n" in printed
    assert "refused: bad.nii.gz " in printed
    assert (output / "deeper" / "good.restoration.json").is_file()
    assert "1 to restore, 1 done before" in run("restore_tree.py", *given, status=1)


@pytest.mark.slow
def test_low_dose_pairs_are_trained_on(ct_scans: Path, recipe: Path, tmp_path: Path) -> None:
    pairs, output = tmp_path / "pairs", tmp_path / "output"
    printed = run("make_low_dose_data.py", ct_scans, pairs, "--factor", "10")
    assert printed.count("noise of 1/10 of the dose") == 3
    low, high = (
        np.asarray(nib.load(pairs / quality / "anna_chest.nii.gz").dataobj)[18:30, 18:30]
        for quality in ("LQ", "HQ")
    )
    assert low.std() > 2 * high.std()
    printed = run("train_on_your_pairs.py", pairs, output, "--recipe", recipe)
    assert re.search(r"patient-\d{4}: [\d.]+ dB as it is, [\d.]+ dB restored", printed)
    assert (output / "run" / "best.safetensors").is_file()


@pytest.mark.slow
def test_write_a_recipe(recipe: Path, tmp_path: Path) -> None:
    written = tmp_path / "new.toml"
    sizes = ("--dim", "8", "--iterations", "100", "--crop", "64")
    printed = run("write_a_recipe.py", written, "--extends", recipe, *sizes)
    assert "training: 400 crops of 64 x 64 pixels" in printed
    found = Recipe.read(written)
    assert (found.network.dim, found.network.hidden_rate) == (8, 2)
    assert (found.training.iterations, found.data.crop) == (100, 64)


@pytest.mark.slow
def test_operator_in_your_network() -> None:
    printed = run("operator_in_your_network.py", "--steps", "30", "--size", "16")
    first, last = map(float, re.findall(r"error ([\d.]+);", printed))
    assert last < 0.8 * first
