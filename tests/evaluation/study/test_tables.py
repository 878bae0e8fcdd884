from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from restore_rwkv.errors import BusyError, ConfigError, InputError
from restore_rwkv.evaluation import Study, StudyRequest, evaluate_study
from restore_rwkv.evaluation.study.files import StudyFiles
from restore_rwkv.evaluation.study.tables import rows_of, study_values, write_csv, write_parquet
from tests.helpers.evaluations import body, write_images


@pytest.fixture
def study(tmp_path: Path) -> Study:
    truth = write_images(tmp_path / "truth", {"a.npy": body(), "b, c.npy": body(1)})
    mine = write_images(tmp_path / "mine", {"a.npy": body() + 3, "b, c.npy": body(1)})
    return evaluate_study(StudyRequest(truths=(truth,), restored={"mine": mine}, task="ct-denoise"))


_IDENTICAL = "the images are identical within the range, so PSNR is infinite"


def test_csv_parquet_and_json_hold_the_same_values(study: Study, tmp_path: Path) -> None:
    write_csv(study, tmp_path / "a.csv")
    write_parquet(study, tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = [row._asdict() for row in rows_of(study)]
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == rows
    assert lines == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
    ]
    values = json.loads(json.dumps(study_values(study), allow_nan=False))
    flat = [
        (score["scan"], score["slice"], name, value, score["reasons"].get(name, ""))
        for score in values["scores"]
        for name, value in score["values"].items()
    ]
    wanted = [
        tuple(row[n] for n in ("scan", "slice", "measure", "value", "reason")) for row in rows
    ]
    assert flat == wanted
    assert {row["unit"] for row in rows} == {"dB", "1", "HU"}
    assert any(row["reason"] == _IDENTICAL for row in rows)


def test_the_same_study_gives_the_same_bytes(study: Study, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_csv(study, tmp_path / f"{name}.csv")
        write_parquet(study, tmp_path / f"{name}.parquet")
    for suffix in (".csv", ".parquet"):
        one, two = (tmp_path / f"{name}{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_outputs_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    there = tmp_path / "there.csv"
    there.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        StudyFiles(csv=there).check()
    StudyFiles(csv=there, overwrite=True).check()
    with pytest.raises(InputError, match="is an input"):
        StudyFiles(csv=there, overwrite=True).check([there])
    with pytest.raises(InputError, match="is both csv and parquet"):
        StudyFiles(csv=tmp_path / "x", parquet=tmp_path / "y" / ".." / "x").check()
    with pytest.raises(InputError, match="is a folder"):
        StudyFiles(report=tmp_path).check()
    assert there.read_text() == "mine"


def test_parquet_without_its_package_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match="pip install 'restore-rwkv\\[evaluate\\]'"):
        StudyFiles(parquet=tmp_path / "a.parquet").check()


def test_files_appear_together_or_not_at_all(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = StudyFiles(csv=tmp_path / "o" / "a.csv", parquet=tmp_path / "o" / "a.parquet")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("restore_rwkv.evaluation.study.files.write_parquet", full)
        with pytest.raises(OSError, match="No space"), files.claimed():
            files.write(study)
    assert not (tmp_path / "o").exists()
    with files.claimed():
        with pytest.raises(BusyError), replace(files, overwrite=True).claimed():
            pass
        files.write(study)
    assert sorted(os.listdir(tmp_path / "o")) == ["a.csv", "a.parquet"]
