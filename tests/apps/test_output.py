from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from restore_rwkv import errors
from restore_rwkv.apps.cli.console import training_report
from restore_rwkv.apps.cli.exit_codes import CLOSED_PIPE, INTERRUPTED, kind_of
from restore_rwkv.apps.cli.logs import printed_warnings
from restore_rwkv.apps.cli.scoring import ScoreRow, score_table
from restore_rwkv.apps.cli.terminal import say_aside, screen, show
from restore_rwkv.evaluation.metrics import MeanScore
from restore_rwkv.training import Step
from tests.helpers import ROOT
from tests.helpers.commands import Call


@pytest.fixture
def ct_like(scan: Path, tmp_path: Path) -> Path:
    """A scan whose values MRI cannot have, so that restoring it as MRI warns."""
    image = nib.load(scan)
    air = -1000 + np.arange(5)  # not all the same, as padding would be
    values = np.where(image.get_fdata() > 300, 40.5, air).astype(np.float32)
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


def test_a_warning_is_one_line_with_the_word_and_quiet_hides_it(
    ct_like: Path, tiny_weights: Path, tmp_path: Path, call: Call
) -> None:
    words = ("restore", ct_like, "-o", tmp_path / "out.nii.gz", "-t", "mri-sr", "-f")
    words += ("--weights", tiny_weights)
    told = call(*words)
    assert told.stderr.startswith("warning: ct.nii.gz: ")
    assert "is it CT (--task ct-denoise)?" in told.stderr
    assert told.stderr.count("\n") == 1
    quiet = call(*words, "-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    as_json = json.loads(call(*words, "--json", "-q").stdout)
    assert as_json["warnings"] == [told.stderr.removeprefix("warning: ").strip()]
    assert as_json["output_path"] == str(tmp_path / "out.nii.gz")
    assert as_json["task"] == "mri-sr"
    assert Path(as_json["record_path"]).is_file()


def test_an_unfit_image_has_a_code_of_its_own_and_force_goes_on(
    scan: Path, tiny_weights: Path, tmp_path: Path, call: Call
) -> None:
    image = nib.load(scan)
    phase = np.linspace(-np.pi, np.pi, image.get_fdata().size, dtype=np.float32)
    nib.save(nib.Nifti1Image(phase.reshape(image.shape), image.affine), tmp_path / "phase.nii.gz")
    words = ("restore", tmp_path / "phase.nii.gz", "-o", tmp_path / "out.nii.gz", "-t", "mri-sr")
    words += ("--weights", tiny_weights)
    refused = call(*words, "--json")
    assert refused.returncode == 4
    assert json.loads(refused.stdout)["error"]["kind"] == "unfit"
    assert "or give --force to restore it all the same" in refused.stderr
    assert call(*words, "--force").returncode == 0
    both = call(*words, "--force", "--strict", "-f")
    assert both.stderr == "error: --force and --strict are both given; give one of them\n"


def test_verbose_says_what_is_chosen(
    scan: Path, tiny_weights: Path, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "scan.json").write_text('{"Modality": "MR"}')
    words = ("restore", scan, "-o", tmp_path / "out.nii.gz", "--weights", tiny_weights, "-f")
    assert call(*words).stderr == ""
    assert call(*words, "-v").stderr == "scan.nii.gz: MR, to be restored with mri-sr\n"


def test_warnings_of_other_packages_come_once_for_each_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen.reset(as_json=False)
    with warnings.catch_warnings(), printed_warnings(dict):
        warnings.simplefilter("always")
        for number in range(3):
            warnings.warn(f"value {number}\nis odd", stacklevel=1)
            logging.getLogger("pydicom").warning("tag %d", number)
            logging.getLogger("nibabel.global").warning("pixdim")
        logging.getLogger("restore_rwkv.io").warning("a.nii: odd")
        logging.getLogger("restore_rwkv.io").warning("b.nii: odd")
    assert capsys.readouterr().err.splitlines() == [
        "warning: value 0 is odd",
        "warning: pydicom: tag 0",
        "warning: nibabel: pixdim",
        "warning: a.nii: odd",
        "warning: b.nii: odd",
    ]
    assert len(screen.warnings) == 5


def test_a_warning_during_training_is_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen.reset(as_json=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    report = training_report(10)
    report(Step(1, 0.5, 0.1, 0.0, None))
    say_aside("warning: odd")
    say_aside("warning: more")
    assert capsys.readouterr().err == "\nwarning: odd\nwarning: more\n"


@pytest.mark.parametrize(
    ("error", "name", "code"),
    [
        (errors.ConfigError("x"), "usage", 2),
        (errors.InputError("x"), "input", 3),
        (errors.UnfitError("x"), "unfit", 4),
        (errors.WeightsError("x"), "weights", 5),
        (MemoryError(), "system", 6),
        (PermissionError(13, "Permission denied"), "system", 6),
        (errors.TrainingError("x"), "training", 7),
        (errors.OperatorError("x"), "input", 3),
        (KeyError("x"), "bug", 70),
        (ValueError("x"), "bug", 70),
    ],
)
def test_the_exit_code_says_the_kind_and_is_documented(
    error: Exception, name: str, code: int
) -> None:
    assert kind_of(error) == (name, code)
    assert f"| {code} | `{name}` |" in (ROOT / "docs" / "command-line.md").read_text()


def test_codes_of_signals_and_pipes_are_documented() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    assert all(f"| {code} |" in page for code in (INTERRUPTED, 143, CLOSED_PIPE))


def test_an_error_with_json_is_one_object(tmp_path: Path, call: Call) -> None:
    result = call("restore", tmp_path / "none.nii", "-o", tmp_path / "out.nii", "--json")
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["exit_code"], result.returncode) == ("input", 3, 3)
    assert result.stderr == f"error: {error['message']}\n"
    usage = call("restore", "--json", "--nonsense")
    assert json.loads(usage.stdout)["error"]["kind"] == "usage"


def test_a_bug_says_so_with_its_traceback(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("tile")

    monkeypatch.setattr("restore_rwkv.restoration.Restorer.file", broken)
    result = call("restore", "x.nii", "-o", tmp_path / "out.nii", "-t", "mri-sr")
    assert result.returncode == 70
    assert "Traceback" in result.stderr
    assert "error: this is a bug in restore-rwkv" in result.stderr.splitlines()[-1]


def test_degrade_as_json_has_the_record(scan: Path, tmp_path: Path, call: Call) -> None:
    words = ("-o", tmp_path / "low.nii.gz", "--truth", tmp_path / "high.nii.gz", "-t", "mri-sr")
    values = json.loads(call("degrade", scan, *words, "--json").stdout)
    assert (values["task"], values["factor"]) == ("mri-sr", 4.0)
    assert values["output_path"] == str(tmp_path / "low.nii.gz")
    assert values["truth_path"] == str(tmp_path / "high.nii.gz")


@pytest.mark.parametrize("flag", ["--version", "-h"])
def test_version_and_short_help_answer(flag: str, call: Call) -> None:
    result = call(flag)
    assert result.returncode == 0
    assert ("PyTorch" if flag == "--version" else "Usage: restore-rwkv") in result.stdout


@pytest.mark.parametrize(
    "words", [["restore", "-h"], ["data", "prepare", "ixi", "-h"]], ids=" ".join
)
def test_every_command_has_short_help(words: list[str], call: Call) -> None:
    assert "--help" in call(*words).stdout


@pytest.mark.parametrize("words", [["--version"], ["--show-completion", "bash"]], ids=" ".join)
def test_version_and_completion_import_nothing_heavy(words: list[str]) -> None:
    code = (
        "import atexit, sys; sys.argv = ['restore-rwkv', *sys.argv[1:]]\n"
        "atexit.register(lambda: print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules))))\n"
        "from restore_rwkv.apps.cli import main; main()\n"
    )
    command = [sys.executable, "-c", code, *words]
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_a_closed_pipe_is_quiet() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for words in (["info"], ["info", "--json"], ["--help"]):
        command = [sys.executable, "-m", "restore_rwkv", *words]
        result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60)
        assert (result.returncode, result.stderr) == (CLOSED_PIPE, b"")
    os.close(writing)


def test_the_demo_replaces_nothing_unless_allowed(tmp_path: Path, call: Call) -> None:
    (tmp_path / "restored.nii.gz").write_text("mine")
    result = call("demo", "-o", tmp_path)
    assert result.returncode == 3
    assert "restored.nii.gz: exists already; give another --output DIR or --overwrite" in (
        result.stderr
    )
    assert (tmp_path / "restored.nii.gz").read_text() == "mine"
    file = call("demo", "-o", tmp_path / "restored.nii.gz", "-f")
    assert (file.returncode, "is a file; name a folder" in file.stderr) == (3, True)


def test_evaluate_gives_means_json_and_csv(
    scan: Path, tiny_weights: Path, tmp_path: Path, call: Call
) -> None:
    other = tmp_path / "sub-2" / "scan.nii.gz"
    other.parent.mkdir()
    other.write_bytes(scan.read_bytes())
    words = ("evaluate", scan, other, "-t", "mri-sr", "--weights", tiny_weights)
    table = tmp_path / "scores.csv"
    values = json.loads(call(*words, "--json", "--csv", table).stdout)
    patients = list(dict.fromkeys(mean["patient"] for mean in values["patients"]))
    assert patients == [f"{tmp_path.name}/scan", "sub-2"]
    assert values["methods"] == ["input", "cubic", "tiny"]
    psnr = [row for row in values["summaries"] if row["measure"] == "psnr"]
    assert [(row["method"], row["patients"], row["slices"]) for row in psnr] == [
        (method, 2, 10) for method in values["methods"]
    ]
    lines = table.read_text().splitlines()
    assert lines[0] == "task,patient,scan,slice,method,measure,value,unit,reason"
    assert len(lines) == 1 + 2 * 5 * 3 * 3  # scans, slices, methods, measures
    assert call(*words, "--csv", table).returncode == 3  # exists already
    text = call(*words).stdout
    assert "sub-2" in text
    assert "mean over 2 patients, paper protocol" in text


def test_a_missing_second_scan_is_told_before_the_first_is_restored(
    scan: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore_rwkv.restoration.Restorer.run", None)
    result = call("evaluate", scan, tmp_path / "none.nii.gz", "-t", "mri-sr")
    assert result.returncode == 3
    assert "none.nii.gz: no such file" in result.stderr


def test_long_names_are_whole_on_a_pipe_and_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen.reset(as_json=False)
    names = [f"sub-{'x' * 90}_run-{number}.nii.gz" for number in (1, 2)]
    rows = [ScoreRow(name, "input", MeanScore(37.0, 0.9, 1.0, 4, 0)) for name in names]
    table = score_table(rows, "scan")
    show(table)
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    narrow = Console(width=60, file=io.StringIO())
    narrow.print(table)
    column = "".join(line[:30].strip() for line in narrow.file.getvalue().splitlines())
    assert "_run-1.nii.gz" in column
    assert "_run-2.nii.gz" in column
