"""The commands profile, erf and compare."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import ROOT
from tests.helpers.commands import Call
from tests.helpers.runs import write_run


@pytest.mark.slow
def test_profile_prints_a_row_for_each_network_and_names_what_is_counted(call: Call) -> None:
    words = ("--size", "16", "--repeats", "1", "--device", "cpu")
    result = call("profile", "light", "light-mri-sr", *words)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("1,156,961") == 2
    assert "one image of 16 x 16, cpu" in result.stdout
    assert result.stdout.count("refinement") == 2
    for kind in ("convolutions: ", "products: ", "attention: Bi-WKV: 6 per token", "norms: "):
        assert f"\n{kind}" in result.stdout


def test_profile_as_json_says_the_same(call: Call) -> None:
    result = call("profile", "light", "--size", "16", "--repeats", "3", "--json", "--device", "cpu")
    content = json.loads(result.stdout)
    (network,) = content["networks"]
    assert (network["network"], network["parameters"]) == ("light", 1_156_961)
    assert len(network["seconds"]) == 3
    assert sum(level["macs"]["total"] for level in network["levels"]) == network["macs"]["total"]
    assert set(content["counted"]) < set(network["macs"])


def test_erf_draws_networks_at_the_start_and_trained(call: Call, tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "ablations" / "table5-uni-wkv-uni-shift.toml"
    output = tmp_path / "fields.png"
    result = call("erf", "light", "light-mri-sr", "-o", output, "--size", "24", "--seed", "3")
    assert result.returncode == 0, result.stderr
    with Image.open(output) as picture:
        assert picture.width > 500
    assert "white noise, seed 3" in result.stdout
    assert result.stdout.count("trained") == 1
    again = call("erf", recipe, "-o", output, "--size", "24")
    assert (again.returncode, "give --overwrite" in again.stderr) == (3, True)
    both = call("erf", "light", "light", "-o", output, "--size", "24", "-f", "--json")
    first, second = json.loads(both.stdout)["networks"]
    assert first == second
    assert 0 < first["area"]["0.5"] < first["area"]["0.99"] <= 1
    assert (first["weights"], first["size"]) == ("random, seed 0", 24)


def test_erf_takes_a_scan(call: Call, scan: Path, tmp_path: Path, tiny_weights: Path) -> None:
    output = tmp_path / "fields.png"
    result = call("erf", tiny_weights, "-o", output, "--data", scan, "--size", "32", "--json")
    assert json.loads(result.stdout)["networks"][0]["images"] == "5 slices of scan.nii.gz"
    small = call("erf", tiny_weights, "-o", tmp_path / "other.png", "--data", scan)
    assert small.returncode == 3
    assert "slices are 40 x 33 pixels; give a smaller size, at most 33" in small.stderr
    assert not (tmp_path / "other.png").exists()


@pytest.mark.parametrize(
    ("code", "words", "match"),
    [
        (5, ("profile", "lihgt"), "did you mean light?"),
        (2, ("profile", "light", "--size", "0"), "--size"),
        (3, ("profile", "base", "--size", "7", "--device", "cpu"), "H and W at least 8"),
        (3, ("erf", "light", "-o", "fields.jpg"), "give a name that ends with .png"),
        (3, ("erf", "light", "-o", "none/fields.png"), "none: no such folder"),
        (3, ("erf", "light", "-o", "fields.png", "--data", "none"), "none: "),
        (3, ("compare", "."), "is not a training run"),
        (3, ("compare", ".", "-o", "curves.pdf"), "ends with .png"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    code: int,
    words: tuple[str, ...],
    match: str,
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*words)
    assert result.returncode == code
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert match in line
    assert list(tmp_path.iterdir()) == []


def test_compare_writes_table_curves_and_csv(call: Call, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"seed{i}", (0.5, 1.0 + i, 1.0), seed=i) for i in range(2)]
    curves, table = tmp_path / "curves.png", tmp_path / "runs.csv"
    result = call("compare", *runs, "-o", curves, "--csv", table)
    assert result.returncode == 0, result.stderr
    assert "+1.500 (sd 0.707)" in result.stdout
    assert "mean over seeds, with the sample standard deviation (n - 1)" in result.stdout
    with Image.open(curves) as picture:
        assert picture.width > 500
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["best_gain_db"]) for row in rows] == [
        ("seed0", "1.0"),
        ("seed1", "2.0"),
    ]


def test_a_narrow_terminal_shows_all_of_the_words(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "a-run-with-a-long-name", (0.5, 1.0))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as rich knows a terminal
    monkeypatch.setenv("COLUMNS", "60")
    lines = call("compare", run).stdout.splitlines()
    assert "run: a-run-with-a-long-name" in lines
    assert "best gain dB: +1.000" in lines
    assert all(len(line) <= 60 for line in lines)
    monkeypatch.setenv("COLUMNS", "160")
    assert "run: a-run-with-a-long-name" not in call("compare", run).stdout


def test_curves_and_table_do_not_share_a_file(call: Call, tmp_path: Path) -> None:
    run, one = write_run(tmp_path / "run", (0.5,)), tmp_path / "one.png"
    result = call("compare", run, "-o", one, "--csv", tmp_path / "run" / ".." / "one.png")
    assert (result.returncode, one.exists()) == (2, False)
    assert "one.png: is both the picture and the table; give two names" in result.stderr


def test_compare_keeps_runs_of_other_data_apart(call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "mri", (0.5,))
    write_run(tmp_path / "runs" / "ct", task="ct-denoise")
    result = call("compare", tmp_path / "runs")
    assert "2 tables: PSNR on other data, tasks or slices cannot be compared" in result.stdout
    assert "100 of 300" in result.stdout
    assert "unfinished, 20" in result.stdout
    content = json.loads(call("compare", tmp_path / "runs", "--json").stdout)
    assert [one["runs"][0]["run"] for one in content["comparisons"]] == ["ct", "mri"]
