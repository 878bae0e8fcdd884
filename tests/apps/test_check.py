"""The command check, and the dry run beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from restore_rwkv.apps.cli import app


def run(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["restore-rwkv", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        app.run()
    return int(ended.value.code or 0)


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).uniform(10, 900, (48, 48, 2)).astype(np.float32)
    for name in ("a_T1map.nii.gz", "b_bold.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / name)
    return tmp_path


def test_a_table_and_the_faults_below_it(
    maps: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check", maps, "-t", "mri-sr") == 1
    said = capsys.readouterr()
    assert "48 x 48 x 2" in said.out
    assert "refused: a_T1map.nii.gz: T1map in its name" in said.out
    assert "or give --force to restore it all the same" in said.out
    assert "2 scans, 2 would be refused" in said.out
    assert said.err == ""


def test_json_speaks_the_words_of_the_command_line(
    maps: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check", maps, "-t", "mri-sr", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["refused"] == 2
    assert "--force" in found["scans"][0]["refusals"][0]
    assert found["scans"][0]["fit"]["light-mri-sr"] == "unfit"


def test_a_dry_run_ends_with_the_exit_code_of_the_run(
    maps: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("restore", maps / "a_T1map.nii.gz", "-o", maps / "out.nii.gz", "-t", "mri-sr")
    assert run(monkeypatch, *words, "--dry-run") == run(monkeypatch, *words) == 4
    words = (*words, "--force", "--memory", "1KB")
    assert run(monkeypatch, *words, "--dry-run") == run(monkeypatch, *words) == 2
    assert "--memory" in capsys.readouterr().err
