from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from restore_rwkv.apps.cli.evaluating import named_folders
from restore_rwkv.apps.cli.study_tables import number_text, p_text, study_tables
from restore_rwkv.errors import ConfigError
from restore_rwkv.evaluation import StudyRequest, evaluate_study
from tests.helpers.commands import Call
from tests.helpers.evaluations import body, ct_set, write_images


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Truths of 7 patients, their input, and the images of two methods."""
    names = [f"sub-{number}.npy" for number in range(7)]
    for folder, error in (("truth", 0), ("low", 60), ("mine", 20), ("theirs", 30)):
        images = {
            name: body() + (error + n) * (body(n + error) > -500) for n, name in enumerate(names)
        }
        write_images(tmp_path / folder, images if error else dict.fromkeys(names, body()))
    return tmp_path


def test_folders_of_images_are_compared_with_each_other(folders: Path, call: Call) -> None:
    result = call(
        *("evaluate", folders / "truth", "-t", "ct-denoise", "--input", folders / "low"),
        *("--restored", folders / "mine", "--restored", f"peer={folders / 'theirs'}"),
        *("--csv", folders / "a.csv", "--parquet", folders / "a.parquet"),
    )
    assert result.returncode == 0, result.stderr
    assert "mean over 7 patients, paper protocol" in result.stdout
    assert f"{folders / 'a.csv'}: all values as CSV" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    peer = next(line for line in lines if line[:1] == ["peer"] and "to" in line)
    assert peer[-2:] == ["0.047", "21"]  # the exact test, 2 / 2^7, corrected for three tests
    assert (folders / "a.parquet").stat().st_size > 0


def test_json_holds_the_whole_study(folders: Path, call: Call) -> None:
    result = call(
        *("evaluate", folders / "truth", "-t", "ct-denoise", "--json"),
        *("--restored", folders / "mine", "--seed", "3"),
    )
    values = json.loads(result.stdout)
    assert set(values) == {
        *("format", "methods", "measures", "sets", "summaries", "tests", "patients", "scores"),
        *("spectra", "provenance", "warnings"),
    }
    assert values["format"] == "restore-rwkv study 1"
    assert values["provenance"]["seed"] == 3
    assert values["provenance"]["command"].startswith("restore-rwkv evaluate ")
    assert len(values["patients"]) == 7 * 3
    assert len(values["scores"]) == 7 * 3


def test_all_faults_come_as_json_with_the_code_of_an_input(folders: Path, call: Call) -> None:
    (folders / "mine" / "sub-3.npy").unlink()
    (folders / "theirs" / "sub-5.npy").write_bytes(b"no array")
    result = call(
        *("evaluate", folders / "truth", "-t", "ct-denoise", "--json", "--csv", folders / "a.csv"),
        *("--restored", folders / "mine", "--restored", folders / "theirs"),
    )
    assert result.returncode == 3
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "input"
    assert "mine: has no sub-3" in error["message"]
    assert "sub-5.npy" in error["message"]
    assert not (folders / "a.csv").exists()


def test_existing_outputs_are_refused_before_inputs_are_read(folders: Path, call: Call) -> None:
    for flag in ("--csv", "--parquet", "--report"):
        (folders / "there").write_text("mine")
        result = call("evaluate", folders / "none.nii", flag, folders / "there")
        assert result.returncode == 3
        assert "there: exists already; name another file, or give --overwrite" in result.stderr
    kept = call("evaluate", folders / "none.nii", "--keep", folders / "low")
    assert "low: exists already" in kept.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--protocol", "papre"), "--protocol 'papre' is unknown"),
        (("--measure", "pnsr"), "--measure 'pnsr' is unknown, the nearest is 'psnr'"),
        (("--patient", "("), "--patient '(' is not a pattern"),
        (("--weights", "light-mri-sr"), "--weights: they need low-quality images; give --input"),
        (("--restored", "truth={0}"), "method 'truth': this name cannot be used"),
    ],
)
def test_mistakes_name_the_flags(
    words: tuple[str, ...], message: str, folders: Path, call: Call
) -> None:
    given = [word.format(folders / "mine") for word in words]
    result = call(
        *("evaluate", folders / "truth", "-t", "ct-denoise"),
        *("--restored", folders / "mine", *given),
    )
    assert result.returncode == 2
    assert message in result.stderr


def test_the_name_of_a_method_stands_before_its_folder(tmp_path: Path) -> None:
    for name in ("a", "deep/a", "with=sign"):
        (tmp_path / name).mkdir(parents=True)
    first, second, odd = (str(tmp_path / name) for name in ("a", "deep/a", "with=sign"))
    assert named_folders([f"mine={first}"]) == {"mine": Path(first)}
    found = named_folders([first, second])
    assert list(found) == [f"{tmp_path.name}/a", "deep/a"]
    assert named_folders([odd]) == {"with=sign": Path(odd)}
    with pytest.raises(ConfigError, match="names two folders"):
        named_folders([f"a={second}", first])


def test_a_narrow_terminal_shows_all_of_the_names(folders: Path) -> None:
    name = f"method-{'x' * 50}-end"
    study = evaluate_study(
        StudyRequest(
            truths=(folders / "truth",), restored={name: folders / "mine"}, task="ct-denoise"
        )
    )
    narrow = Console(width=60, file=io.StringIO())
    narrow.print(*study_tables(study))
    lines = narrow.file.getvalue().splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert (p_text(0.0004), p_text(0.0312), p_text(None)) == ("< 0.001", "0.031", "none")
    assert number_text(None) == "none"
    assert (number_text(0.08634), number_text(-67.109, "+")) == ("0.0863", "-67.11")
    words = "".join("".join(line.split()) for line in lines)
    assert "-end" in words


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupted_evaluation_leaves_nothing(tmp_path: Path) -> None:
    folder = ct_set(tmp_path / "set", slices=400)
    out = tmp_path / "out"
    words = ("evaluate", folder, "--keep", out / "kept", "--csv", out / "a.csv")
    process = subprocess.Popen(
        [sys.executable, "-m", "restore_rwkv", *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    began = time.monotonic()
    while not list(out.glob(".kept-*.partial")) and time.monotonic() - began < 60:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (130, "interrupted")
    assert os.listdir(tmp_path) == ["set"]
