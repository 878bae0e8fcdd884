"""Training runs side by side: tables, seeds, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore_rwkv.data import SetWriter
from restore_rwkv.errors import InputError
from restore_rwkv.model import RestoreRWKV
from restore_rwkv.training import Recipe, compare_runs, draw_runs, read_runs, train
from tests.conftest import TINY
from tests.helpers.runs import NETWORK, write_run


def test_a_run_has_its_best_and_its_last_validation(tmp_path: Path) -> None:
    (run,) = read_runs([write_run(tmp_path / "one", (0.5, 1.5, 1.0))])
    values = run.values()
    values.pop("written")
    assert values == {
        "run": "one",
        "network": "light, dim=4, num_blocks=[1, 1, 1, 1], hidden_rate=2",
        "parameters": sum(x.numel() for x in RestoreRWKV(TINY).merged().parameters()),
        "seed": 0,
        "state": "done",
        "iterations": 300,
        "of_iterations": 300,
        "cpu_hours": 0.75,
        "best_gain_db": 1.5,
        "best_iteration": 200,
        "last_gain_db": 1.0,
    }


def test_the_gain_is_the_mean_over_the_tasks_that_all_have_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "all", (1.0, 2.0), task="all-in-one")
    log = folder / "log.csv"
    lines = log.read_text().splitlines()
    columns = lines[0].split(",")
    cells = lines[1].split(",")
    cells[columns.index("pet-synth.gain")] = "4.0"
    other = lines[2].split(",")
    other[columns.index("ct-denoise.gain")] = ""
    log.write_text("\n".join([lines[0], ",".join(cells), ",".join(other)]) + "\n")
    (run,) = read_runs([folder])
    assert [point.gain for point in run.points] == [2.0, None]
    assert run.best == run.points[0]
    assert run.values()["last_gain_db"] is None


def test_a_folder_of_runs_stands_for_the_runs_in_it_and_none_counts_twice(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_run(tmp_path / "runs" / name)
    (tmp_path / "runs" / "notes").mkdir()
    runs = read_runs([tmp_path / "runs", tmp_path / "runs" / "a"])
    assert [run.name for run in runs] == ["a", "b"]


def test_runs_of_the_same_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / place / "run") for place in ("here", "there")]
    assert [run.name for run in read_runs(paths)] == [str(path) for path in paths]


def test_runs_that_differ_in_the_seed_only_have_a_mean_and_a_sample_deviation(
    tmp_path: Path,
) -> None:
    ends = (1.0, 1.4, 1.5)
    paths = [write_run(tmp_path / f"seed{i}", (2.0 + i, end), seed=i) for i, end in enumerate(ends)]
    paths.append(write_run(tmp_path / "other", (3.0, 3.0), learning_rate=1e-3))
    (comparison,) = compare_runs(read_runs(paths))
    (seeds,) = comparison.seeds
    values = seeds.values()
    assert values["runs"] == ["seed0", "seed1", "seed2"]
    assert values["seeds"] == [0, 1, 2]
    assert values["best_gain_mean_db"] == pytest.approx(3.0)
    assert values["best_gain_sd_db"] == pytest.approx(1.0)
    assert values["last_gain_mean_db"] == pytest.approx(np.mean(ends))
    assert values["last_gain_sd_db"] == pytest.approx(np.std(ends, ddof=1))
    assert json.loads(json.dumps(comparison.to_dict()))["seeds"] == [values]


def test_one_run_copied_is_not_two_seeds(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / name, seed=3) for name in ("run", "copy")]
    (comparison,) = compare_runs(read_runs(paths))
    assert comparison.seeds == ()


def test_runs_of_another_task_or_data_come_apart(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / "mri"),
        write_run(tmp_path / "ct", task="ct-denoise"),
        write_run(tmp_path / "again"),
        write_run(tmp_path / "cubes", dataset="cubes"),
    ]
    found = compare_runs(read_runs(paths))
    assert [[run.name for run in one.runs] for one in found] == [
        ["mri", "again"],
        ["ct"],
        ["cubes"],
    ]
    assert found[0].title == "mri-sr of balls (aaaaaaaa); all validation slices"
    assert len({one.title for one in found}) == 3


def test_a_run_in_training_says_how_far_it_is(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / "now", (0.5,)), write_run(tmp_path / "begun", ())]
    now, begun = read_runs(paths)
    assert (now.state, now.iterations, now.cpu_hours) == ("unfinished", 100, 0.25)
    assert (begun.state, begun.iterations, begun.cpu_hours) == ("not validated yet", 0, None)
    assert begun.values()["best_gain_db"] is None
    draw_runs(compare_runs([now, begun]), tmp_path / "curves.png")
    with pytest.raises(InputError, match="no run has been validated yet; leave output out, or wai"):
        draw_runs(compare_runs([begun]), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_hours_that_begin_anew_are_not_reported(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    log = folder / "log.csv"
    assert read_runs([folder])[0].cpu_hours == 0.75
    log.write_text(log.read_text().replace("200,0.5,0.5,", "200,0.5,0.01,"))
    assert read_runs([folder])[0].cpu_hours is None
    log.write_text("iteration,loss,mri-sr.gain\n100,1,0.5\n")  # of an early version
    assert read_runs([folder])[0].cpu_hours is None


def test_runs_are_drawn_one_row_for_each_comparison(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / "mri"), write_run(tmp_path / "seed", seed=1)]
    draw_runs(compare_runs(read_runs(paths)), tmp_path / "one.png")
    paths.append(write_run(tmp_path / "ct", task="ct-denoise"))
    draw_runs(compare_runs(read_runs(paths)), tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert one.width == two.width
        assert two.height == pytest.approx(2 * one.height, abs=1)
        colours = one.convert("RGB").getcolors(maxcolors=2**24) or []
    # Both seeds have the first colour of Matplotlib, and there is no second.
    assert (31, 119, 180) in [colour for _, colour in colours]
    assert (255, 127, 14) not in [colour for _, colour in colours]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("run.json", "", "run.json: is damaged .*; leave this run out, or train it again$"),
        ("run.json", "[]", "run.json: is damaged"),
        ("run.json", '{"recipe": 3, "data": []}', "run.json: is damaged"),
        ("run.json", '{"data": []}', "run.json: is damaged .no 'recipe'."),
        ("run.json", '{"recipe": {"task": "x"}, "data": []}', "run.json: task 'x' is unknown"),
        ("run.json", b"\xff\xfe", "run.json: is damaged"),
        ("log.csv", "", "log.csv: is empty"),
        ("log.csv", "iteration,loss,mri-sr.gain\n", "log.csv: is empty"),
        ("log.csv", "iteration,loss\n100,1\n", "log.csv: line 2 is damaged .no 'mri-sr.gain'."),
        ("log.csv", "iteration,loss,mri-sr.gain\n100,1,1\n200,", "line 3 is damaged"),
        ("log.csv", "iteration,loss,mri-sr.gain\n100,nan,1\n", "line 2 is damaged .loss is nan"),
        ("log.csv", "iteration,loss,mri-sr.gain\n100,1,x\n", "line 2 is damaged .could not conv"),
        ("log.csv", "iteration,loss,mri-sr.gain\n,1,1\n", "line 2 is damaged"),
        ("log.csv", b"\xff\xfe\x00", "log.csv: cannot be read"),
        ("log.csv", 'iteration,loss\n"100', "log.csv: cannot be read"),
    ],
)
def test_a_damaged_run_is_refused_by_its_file(
    name: str, content: str | bytes, match: str, tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=match) as refusal:
        read_runs([folder])
    assert "\n" not in str(refusal.value)


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name in ("empty", "file", "missing"):
        with pytest.raises(InputError, match=f"{name}: is not a training run.*of train$"):
            read_runs([tmp_path / name])


@pytest.mark.slow
def test_what_train_writes_is_read(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    values = np.random.default_rng(0).uniform(30, 90, (3, 40, 40)).astype(np.float32)
    with SetWriter(tmp_path / "set", "squares", "ct-denoise") as writer:
        for split in ("train", "validation"):
            writer.add(split, split, split, values, values + np.float32(4))  # type: ignore[arg-type]
    settings = {"iterations": 2, "batch_size": 1, "validate_every": 1, "start_at_identity": True}
    plan = Recipe.from_dict(
        {"task": "ct-denoise", "network": NETWORK, "data": {"crop": 16}, "training": settings}
    )
    train(plan, [tmp_path / "set"], tmp_path / "run")
    (run,) = read_runs([tmp_path / "run"])
    assert (run.state, [point.iteration for point in run.points]) == ("done", [1, 2])
    assert run.recipe == plan
    assert run.cpu_hours is not None
    assert run.data[0][:2] == ("squares", "ct-denoise")
