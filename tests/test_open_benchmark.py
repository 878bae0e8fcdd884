"""The open benchmark: tables and digests, and submissions, sound and hostile."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import open_benchmark, open_definition
from benchmarks.open_benchmark import main
from benchmarks.open_definition import Definition, code_of, code_sha256
from benchmarks.open_seconds import seconds_of
from benchmarks.open_statements import STATEMENT
from benchmarks.open_tables import markdown
from restore_rwkv.data import PreparedSet, SetWriter
from restore_rwkv.evaluation import Study, StudyRequest, evaluate_study
from restore_rwkv.io import claimed, read_volume
from restore_rwkv.model import RestoreRWKV, read_info, save_weights, shipped_weights
from restore_rwkv.tasks import ScalingRule
from tests.helpers import ROOT
from tests.helpers.evaluations import ct_set

TASKS = ("mri-sr", "ct-denoise")
linked = pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiny sets, their definition, and no shipped weights."""
    monkeypatch.setattr(open_benchmark, "shipped_weights", dict)
    ct_set(tmp_path / "data" / "ct-denoise")
    generator = np.random.default_rng(0)
    with SetWriter(tmp_path / "data" / "mri-sr", "noise", "mri-sr") as writer:
        for patient, split in (("m", "test"), ("t", "train")):
            images = generator.uniform(0, 900, (3, 24, 16)).astype(np.float32)
            writer.add(patient, patient, split, images, spacing=(3.0, 1.0, 2.0))
    define(tmp_path)
    return tmp_path


def define(bench: Path, name: str = "benchmark.toml", more: str = "") -> Path:
    shipped = (ROOT / "benchmarks" / "open_benchmark.toml").read_text(encoding="utf-8")
    lines = [shipped[: shipped.index("[data]")], more, "[data]"]
    for task in TASKS:
        manifest = (bench / "data" / task / "manifest.json").read_bytes()
        lines.append(f'{task} = "{hashlib.sha256(manifest).hexdigest()}"')
    (bench / name).write_text("\n".join(lines), encoding="utf-8")
    return bench / name


def weights_of(bench: Path, network: RestoreRWKV, name: str = "tiny", task: str = "ct") -> Path:
    rules = {
        "ct": {"ct-denoise": ScalingRule("fixed", 0.0, 40.0)},
        "both": {
            "ct-denoise": ScalingRule("fixed", 0.0, 40.0),
            "mri-sr": ScalingRule("robust"),
        },
    }
    path = bench / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_weights(path, network, scaling=rules[task], training={})
    return path


def run(bench: Path, *words: object, definition: str = "benchmark.toml") -> int:
    base = ["--data", bench / "data", "--definition", bench / definition]
    return main([str(word) for word in (*words, *base)])


def filled(folder: Path, name: str = "median", **changes: str) -> None:
    """Fill in the statement of a folder of inputs; `changes` replace what it says."""
    path = folder / STATEMENT
    text = path.read_text(encoding="utf-8")
    words = {
        'name = ""': f'name = "{name}"',
        'authors = [""]': 'authors = ["A | B"]',
        'reference = ""': 'reference = "unpublished"',
        'licence = ""': 'licence = "CC0-1.0"',
        'other_data = ""': 'other_data = "none"',
        "# parameters = 1000000": "parameters = 12345",
    }
    for old, new in (words | changes).items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def submission(bench: Path, name: str = "sub", **changes: str) -> Path:
    """A submission without a fault: the inputs, a little brighter."""
    folder = bench / name
    assert run(bench, "inputs", "-o", folder) == 0
    filled(folder, **changes)
    for path in folder.rglob("*.npy"):
        np.save(path, np.load(path) + np.float32(0.5))
    return folder


def faults(bench: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert run(bench, "check", "--submission", folder) == 3
    return capsys.readouterr().err


def citation(folder: Path) -> list[str]:
    lines: list[str] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["citation"]
    return lines


def test_the_table_can_be_quoted(
    bench: Path, tiny_network: RestoreRWKV, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = weights_of(bench, tiny_network, task="both")
    folder = submission(bench)
    assert run(bench, "-o", bench / "out", "--weights", weights, "--submission", folder) == 0
    printed = capsys.readouterr().out
    table = (bench / "out" / "table.md").read_text(encoding="utf-8")
    assert table in printed
    assert {path.name for path in (bench / "out").iterdir()} == {*open_benchmark.FILES}
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows].count("| input") == 2
    assert len({row.count("|") for row in rows[:4]}) == 1
    assert "12,345 (stated)" in table
    assert "**median**: A \\| B; unpublished; trained on none of the open scans" in table
    assert "Means over the slices of one patient" in table
    assert "Intervals over 2 patients are too narrow" in table
    results = json.loads((bench / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["methods"]["tiny"]["parameters"] == read_info(weights).parameters
    found = {(s["task"], s["method"]) for s in results["study"]["summaries"]}
    assert found == {(task, name) for task in TASKS for name in ("input", "tiny", "median")}
    (rmse,) = (
        s["mean"]
        for s in results["study"]["summaries"]
        if (s["task"], s["method"], s["measure"]) == ("mri-sr", "median", "rmse")
    )
    assert f"{rmse:.2f} [" in next(row for row in rows if row.startswith("| median"))


def test_the_same_run_gives_the_same_tables_and_scores(
    bench: Path, tiny_network: RestoreRWKV
) -> None:
    weights = weights_of(bench, tiny_network)
    words = ("-o", bench / "out", "--weights", weights, "--tasks", "ct-denoise")
    assert run(bench, *words) == 0
    first = {name: (bench / "out" / name).read_bytes() for name in open_benchmark.FILES}
    assert run(bench, *words) == 0
    assert {name: (bench / "out" / name).read_bytes() for name in open_benchmark.FILES} == first


def test_digests_change_with_weights_submissions_and_definition(
    bench: Path, tiny_network: RestoreRWKV
) -> None:
    weights = weights_of(bench, tiny_network)
    folder = submission(bench)
    words = ("-o", bench / "out", "--weights", weights, "--submission", folder)
    words = (*words, "--tasks", "ct-denoise")
    run(bench, *words)
    before = citation(bench / "out")
    next(iter(tiny_network.parameters())).data.add_(0.01)
    weights_of(bench, tiny_network)
    path = folder / "ct-denoise" / "a" / "a-1.npy"
    np.save(path, np.load(path) + np.float32(1))
    define(bench, "other.toml", 'seed = 1\nversion = "1"').write_text(
        (bench / "benchmark.toml").read_text(encoding="utf-8").replace("seed = 0", "seed = 1"),
        encoding="utf-8",
    )
    run(bench, *words, definition="other.toml")
    after = citation(bench / "out")
    changed = {
        line.partition(":")[0] for line, other in zip(before, after, strict=True) if line != other
    }
    assert changed == {
        "restore-rwkv open benchmark 1, version 1, test split, seed 0",
        "definition",
        "weights tiny",
        "submission median",
    }


def test_digest_of_code_changes_with_any_source_but_not_with_ends_of_lines(tmp_path: Path) -> None:
    for room in ("evaluation", "io"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_bytes(b"x = 1\ny = 2\n")
    before = code_sha256(tmp_path, ("evaluation", "io"))
    (tmp_path / "io" / "a.py").write_bytes(b"x = 1\r\ny = 2\r\n")
    (tmp_path / "io" / "notes.txt").write_bytes(b"x")
    assert code_sha256(tmp_path, ("evaluation", "io")) == before
    (tmp_path / "io" / "a.py").write_bytes(b"x = 1\ny = 3\n")
    changed = code_sha256(tmp_path, ("evaluation", "io"))
    (tmp_path / "io" / "a.py").rename(tmp_path / "io" / "b.py")
    assert len({before, changed, code_sha256(tmp_path, ("evaluation", "io"))}) == 3
    rooms = {path.name for path in (ROOT / "src" / "restore_rwkv").iterdir()}
    assert {room for part in open_definition._CODE.values() for room in part} <= rooms
    assert set(code_of()) == {"software", "scoring", "restoring", "commit"}


@pytest.mark.parametrize("change", ["slices", "manifest", "set"])
def test_other_data_are_refused_with_the_remedy(
    bench: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bench / "data" / "ct-denoise"
    if change == "slices":
        path = folder / "test" / "a-1.low.npy"
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    elif change == "manifest":
        path = folder / "manifest.json"
        path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    else:
        shutil.rmtree(folder)
    assert run(bench, "-o", bench / "out") == 3
    message = capsys.readouterr().err
    wanted = {
        "slices": "test/a-1.low.npy: not what was prepared; prepare it again",
        "manifest": "not the set of the benchmark",
        "set": "has no ct-denoise",
    }
    assert wanted[change] in message
    assert change == "slices" or "--data FOLDER" in message
    assert not (bench / "out").exists()


def test_missing_sets_are_prepared(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def prepare_open(folder: Path) -> None:
        made.append(folder)
        shutil.copytree(bench / "data", folder)

    monkeypatch.setattr(open_definition, "prepare_open", prepare_open)
    definition = Definition.read(bench / "benchmark.toml")
    for _ in range(2):
        open_definition.checked_sets(definition, bench / "new" / "open", TASKS)
    assert made == [bench / "new" / "open"]


def test_inputs_hold_no_truth_and_are_those_that_are_restored(bench: Path) -> None:
    for kind in ("npy", "nifti"):
        assert run(bench, "inputs", "-o", bench / kind, "--format", kind) == 0
    names = {path.relative_to(bench / "npy").as_posix() for path in (bench / "npy").rglob("*.*")}
    images = {"mri-sr/m/m.npy", "ct-denoise/a/a-1.npy", "ct-denoise/b/b-1.npy"}
    assert names == images | {"README.md", STATEMENT}
    low = np.load(bench / "npy" / "ct-denoise" / "a" / "a-1.npy")
    stored = bench / "data" / "ct-denoise" / "test"
    np.testing.assert_array_equal(low, np.load(stored / "a-1.low.npy"))
    high = np.load(bench / "data" / "mri-sr" / "test" / "m.high.npy")
    low = np.load(bench / "npy" / "mri-sr" / "m" / "m.npy")
    assert low.shape == high.shape
    assert not np.allclose(low, high)
    scan = read_volume(bench / "nifti" / "mri-sr" / "m" / "m.nii.gz")
    np.testing.assert_array_equal(scan.data, np.moveaxis(low, 0, 2))
    assert scan.spacing == (1.0, 2.0, 3.0)
    assert "| `mri-sr/m/m.npy` | a.u. | 3 x 24 x 16 | 3 x 1 x 2 |" in (
        bench / "npy" / "README.md"
    ).read_text(encoding="utf-8")


def test_kept_predictions_score_as_the_weights_that_made_them(
    bench: Path, tiny_network: RestoreRWKV
) -> None:
    weights = weights_of(bench, tiny_network, task="both")
    evaluate_study(StudyRequest(truths=(bench / "data",), weights=(weights,), keep=bench / "kept"))
    run(bench, "inputs", "-o", bench / "in")
    filled(bench / "in", name="the same")
    shutil.copy(bench / "in" / STATEMENT, bench / "kept" / "tiny")
    words = ("--weights", weights, "--submission", bench / "kept" / "tiny")
    assert run(bench, "-o", bench / "out", *words) == 0
    results = json.loads((bench / "out" / "results.json").read_text(encoding="utf-8"))
    values = {
        name: [score["values"] for score in results["study"]["scores"] if score["method"] == name]
        for name in ("tiny", "the same")
    }
    assert len(values["tiny"]) == 12  # nine slices, three scans
    assert values["the same"] == values["tiny"]


def test_nifti_scores_as_arrays_do(bench: Path) -> None:
    arrays = submission(bench)
    run(bench, "inputs", "-o", bench / "nii", "--format", "nifti")
    filled(bench / "nii", name="nii")
    import nibabel as nib

    for path in (bench / "nii").rglob("*.nii.gz"):
        image = nib.load(path)
        data = np.asarray(image.dataobj) + np.float32(0.5)
        nib.save(nib.Nifti1Image(data, image.affine), path)
    assert run(bench, "-o", bench / "out", "--submission", arrays, bench / "nii") == 0
    results = json.loads((bench / "out" / "results.json").read_text(encoding="utf-8"))
    values = {
        name: [score["values"] for score in results["study"]["scores"] if score["method"] == name]
        for name in ("median", "nii")
    }
    assert values["median"] == values["nii"]


def test_all_faults_of_a_submission_are_said_at_once(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subjects = {"subjects = []": 'subjects = ["a", "nobody", "t"]'}
    folder = submission(bench, **subjects, **{'version = "1"': 'version = "9"'})
    (folder / "ct-denoise" / "a" / "a-1.npy").unlink()
    np.save(folder / "ct-denoise" / "b" / "b-1.npy", np.zeros((2, 2, 2), np.float32))
    images = np.load(folder / "mri-sr" / "m" / "m.npy")
    images[0, 0, 0] = np.nan
    np.save(folder / "mri-sr" / "m" / "m.npy", images)
    (folder / "notes.txt").write_text("x")
    found = faults(bench, folder, capsys)
    assert "inputs: 7 problems" in found
    for text in (
        "benchmark.version is '9', this is '1'",
        "does not belong there: notes.txt",
        "trained on a, a test subject of ct-denoise; train without it",
        "'nobody', which is not an open scan",
        "m.npy: 1 voxels are not finite",
        "ct-denoise: has no a/a-1.npy; add it, of shape (3, 16, 24)",
        "b-1.npy: has shape (2, 2, 2); give (3, 16, 24)",
    ):
        assert text in found


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (lambda low, high: ((low + 200) / 400).astype(np.float32), "in the unit of the truth\n"),
        (lambda low, high: low.astype(np.float16), "values are float16; write float32"),
        (lambda low, high: low, "equals the input"),
        (lambda low, high: high, "equals the truth"),
        (lambda low, high: np.array([{}, 1], dtype=object), "not a sound array"),
        (lambda low, high: low.astype(np.complex64), "complex"),
    ],
    ids=["unit", "type", "input", "truth", "pickle", "complex"],
)
def test_images_that_are_no_result_are_refused(
    bench: Path, made: object, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = submission(bench)
    stored = bench / "data" / "ct-denoise" / "test"
    low, high = (np.load(stored / f"a-1.{quality}.npy") for quality in ("low", "high"))
    np.save(folder / "ct-denoise" / "a" / "a-1.npy", made(low, high), allow_pickle=True)  # type: ignore[operator]
    assert wanted in faults(bench, folder, capsys)


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ('format = "restore-rwkv submission 1"', "format = 1", "format is not"),
        ('name = "median"', 'name = "../x"', "name '../x' cannot be used"),
        ('name = "median"', 'name = "input"', "name 'input' cannot be used"),
        ('name = "median"', 'name = "a\\u001b[31m"', "name is not a text"),
        ("subjects = []", "subjects = 'mr_t1_a'", "training.subjects is not a list"),
        ("subjects = []", "subjekts = []", "training.subjekts is unknown"),
        ("[training]", "[trained]", "[training] is missing"),
        ("parameters = 12345", "parameters = -1", "network.parameters is not a whole number"),
        ("parameters = 12345", "parameters = true", "network.parameters is not a whole number"),
        (
            "parameters = 12345",
            "seconds_per_slice = { mri-sr = inf, x = 1 }",
            "network.seconds_per_slice.mri-sr is not above 0",
        ),
        ('ct-denoise = "', 'ct-denoise = "0', "not the digest of this benchmark"),
        ('ct-denoise = "', '# "', "benchmark.data has no ct-denoise"),
        ('licence = "CC0-1.0"', f'licence = "{"x" * 301}"', "licence is not a text"),
        ("[network]", "[network", "is not TOML"),
        ("[network]", f"x = {'[' * 20000}", "is not TOML"),
        ("[network]", f"#{'x' * 70000}", "is not TOML (more than"),
    ],
)
def test_statements_that_were_tampered_with_are_refused(
    bench: Path, old: str, new: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = submission(bench)
    text = (folder / STATEMENT).read_text(encoding="utf-8")
    assert old in text
    (folder / STATEMENT).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert wanted in faults(bench, folder, capsys)


@linked
def test_links_and_pipes_are_not_followed(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = submission(bench)
    path = folder / "ct-denoise" / "a" / "a-1.npy"
    path.unlink()
    path.symlink_to("/dev/zero")
    (folder / "more").symlink_to(bench)
    os.mkfifo(folder / "pipe")
    found = faults(bench, folder, capsys)
    assert "a-1.npy is a link" in found
    assert "more is a link" in found
    assert "pipe is a device" in found
    statement = submission(bench, "other") / STATEMENT
    statement.unlink()
    os.mkfifo(statement)
    assert f"has no {STATEMENT}" in faults(bench, statement.parent, capsys)


def test_two_methods_of_one_name_are_refused(
    bench: Path, tiny_network: RestoreRWKV, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = submission(bench)
    weights = weights_of(bench, tiny_network, "Median")
    for words in (
        ("--submission", folder, folder),
        ("--submission", folder, "--weights", weights),
    ):
        assert run(bench, *words, "-o", bench / "out") == 3
        assert "another method is called median too" in capsys.readouterr().err
    assert run(bench, "check", "--submission", folder, f"other={folder}") == 0


def test_weights_are_refused_that_tables_could_not_tell_apart_or_have_no_task(
    bench: Path, tiny_network: RestoreRWKV, capsys: pytest.CaptureFixture[str]
) -> None:
    ct = weights_of(bench, tiny_network, "a/best")
    (bench / "b").mkdir()
    mri = bench / "b" / "best.safetensors"
    save_weights(mri, tiny_network, scaling={"mri-sr": ScalingRule("robust")}, training={})
    assert run(bench, "--weights", ct, mri, "-o", bench / "out") == 2
    assert "rename one of" in capsys.readouterr().err
    assert run(bench, "--weights", ct, "--tasks", "mri-sr", "-o", bench / "out") == 5
    assert "is for ct-denoise, not for mri-sr" in capsys.readouterr().err


def test_outputs_that_cannot_be_written_are_refused_first(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = submission(bench)
    for output in (bench / "data" / "mri-sr" / "x", folder, bench / "benchmark.toml"):
        assert run(bench, "-o", output, "--submission", f"x={folder}") == 3
        assert str(output) in capsys.readouterr().err
    assert run(bench, "inputs", "-o", folder) == 3
    assert run(bench, "--tasks", "mri", "-o", bench / "out") == 2
    assert not (bench / "out").exists()


def test_an_output_that_another_process_writes_is_refused(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with claimed(bench / "out" / "scores.csv"):
        assert run(bench, "-o", bench / "out") == 6
    assert "another process is writing it" in capsys.readouterr().err


def test_a_submission_that_changes_while_it_is_scored_is_refused(
    bench: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = submission(bench)

    def tampering(*words: Any, **named: Any) -> Study:
        path = folder / "mri-sr" / "m" / "m.npy"
        np.save(path, np.load(path) + np.float32(1))
        return evaluate_study(*words, **named)

    monkeypatch.setattr(open_benchmark, "evaluate_study", tampering)
    assert run(bench, "-o", bench / "out", "--submission", folder) == 3
    assert "has changed while it was scored" in capsys.readouterr().err
    assert not (bench / "out").exists()


def test_seconds_are_those_of_a_slice(bench: Path, tiny_network: RestoreRWKV) -> None:
    weights = weights_of(bench, tiny_network)
    prepared = PreparedSet.read(ct_set(bench / "longer", "a", slices=7))
    assert 0 < seconds_of(weights, prepared, "cpu") < 5


def test_definitions_are_checked(bench: Path) -> None:
    definition = Definition.read(bench / "benchmark.toml")
    assert replace(definition, seed=1).sha256 != definition.sha256
    for changes, wanted in (
        ({"measures": ("psnrr",)}, "psnrr"),
        ({"protocols": ("papers",)}, "papers"),
        ({"data": {"mri": "0"}}, "task 'mri' is unknown"),
        ({"format": "2"}, "format is '2'"),
    ):
        with pytest.raises(ValueError, match=wanted):
            replace(definition, **changes)


def test_markup_in_names_is_escaped() -> None:
    assert markdown("a|b <img> `x` [y](z)\n") == r"a\|b \<img\> \`x\` \[y\](z)\\x0a"


def test_the_document_quotes_the_digests_of_the_benchmark_and_of_the_weights() -> None:
    text = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    definition = Definition.read()
    assert f"version {definition.version}, test split, seed {definition.seed}" in text
    assert f"definition: {definition.sha256}" in text
    data = dict(re.findall(r"^data ([\w-]+): ([0-9a-f]{64})$", text, re.MULTILINE))
    assert data == definition.data
    weights = dict(re.findall(r"^weights ([\w-]+): ([0-9a-f]{64})$", text, re.MULTILINE))
    assert weights == {name: read_info(path).sha256 for name, path in shipped_weights().items()}


@pytest.mark.slow
def test_shipped_weights_are_scored_and_timed(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_benchmark, "shipped_weights", shipped_weights)
    assert run(bench, "-o", bench / "out", "--seconds") == 0
    results = json.loads((bench / "out" / "results.json").read_text(encoding="utf-8"))
    named = {name for name in shipped_weights() if "pet" not in name}
    assert set(results["methods"]) == named
    assert results["methods"]["light-mri-sr"]["seconds"]["mri-sr"] > 0
    assert "seconds per slice" in (bench / "out" / "table.md").read_text(encoding="utf-8")
