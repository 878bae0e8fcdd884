"""Runs of the comparison and the ablations: they resume, are scored once, and tables are right."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import ablations, compare, compare_tables
from benchmarks.campaign import SCORES, Run, run, scores_of
from restore_rwkv.data import SetWriter
from restore_rwkv.training.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs"


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / name).read_text(encoding="utf-8"))
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with SetWriter(tmp_path / "data" / "ct-denoise", "squares", "ct-denoise") as writer:
        for split, patient in (("train", "a"), ("validation", "b"), ("test", "c")):
            high = np.random.default_rng(len(split)).uniform(-50, 90, (4, 36, 40))
            writer.add(patient, patient, split, high, high + 4)
    return tmp_path / "data"


def recipe(**training: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "task": "ct-denoise",
            "network": {"name": "srcnn", "width": 4, "residual": True},
            "scaling": "own",
            "data": {"crop": 16, "validation_slices": 1},
            "training": {"iterations": 2, "batch_size": 1, "validate_every": 2} | training,
        }
    )


@pytest.mark.slow
def test_a_run_is_trained_and_scored_once_and_belongs_to_its_recipe(
    data: Path, tmp_path: Path
) -> None:
    entry = Run("row", recipe())
    run([entry], data, tmp_path, {"validation": 0, "test": 2})
    folder = entry.folder(tmp_path)
    assert folder.name == "row-seed0"
    scores = scores_of(folder, entry.recipe)
    assert scores is not None
    assert scores["slices"] == {"validation": 4, "test": 2}
    for split in ("validation", "test"):
        assert np.isfinite(scores["gain"][split])
    (folder / "last.safetensors").unlink()
    run([entry], data, tmp_path, {"test": 2})  # nothing is left to do, nor needed for it
    with pytest.raises(SystemExit, match="is of another recipe; remove that folder"):
        scores_of(folder, recipe(iterations=3))
    assert (folder / SCORES).exists()


def test_every_row_of_the_ablations_differs_from_the_others_in_the_network_only() -> None:
    runs = ablations.runs_of(2)
    assert len({json.dumps(entry.recipe.to_dict()) for entry in runs}) == len(runs) == 30
    rest = {json.dumps({**x.recipe.to_dict(), "network": None, "seed": None}) for x in runs}
    assert len(rest) == 1
    assert [entry.recipe.seed for entry in runs] == [0] * 15 + [1] * 15


def test_the_order_of_the_paper_is_counted_over_pairs() -> None:
    rows = [("a", "a", 30.0), ("b", "b", 31.0), ("c", "c", 32.0)]
    gains = {"a": [0.1, 0.1], "b": [0.3, 0.3], "c": [0.2, 0.2]}
    scores = {row: [{"gain": {"test": x}} for x in found] for row, found in gains.items()}
    assert "Of 3 pairs of rows, 2 are in the order of the paper" in ablations._order(rows, scores)


def test_a_difference_within_its_error_is_not_clear() -> None:
    rows = [("a", "a", 30.0), ("b", "b", 31.0)]
    scores = {
        "a": [{"gain": {"test": x}} for x in (0.0, 0.2)],
        "b": [{"gain": {"test": x}} for x in (0.1, 0.3)],
    }
    assert "in 0 of all pairs the difference is larger" in ablations._order(rows, scores)


def results() -> dict[str, Any]:
    def row(*gains: float) -> dict[str, Any]:
        runs = [{"gain": {"test": gain, "validation": gain}} for gain in gains]
        return {"iterations": 300, "runs": runs}

    costs = {"parameters": 10, "gmacs": 1.0, "seconds": 0.5, "peak_mib": 3.0}
    return {
        "step_seconds": {"light": 0.1, "unet": 0.05},
        "costs": {"light": costs, "unet": costs},
        "mri-sr": {
            "unet": {
                "sweep": {"adam": 0.1, "muon": 0.2},
                "choice": "muon",
                "iterations": row(0.1, 0.3),
                "seconds": row(0.4, 0.4) | {"iterations": 600},
            },
            "light": {
                "sweep": {"adam": 0.3, "muon": 0.1},
                "choice": "adam",
                "iterations": row(0.5, 0.7),
            },
        },
        "filters": {"mri-sr": {"cubic": {"gain": -0.1, "ssim": 0.8, "seconds_per_slice": 0.01}}},
    }


def test_the_table_has_both_budgets_and_ours_is_the_same_run_in_both(tmp_path: Path) -> None:
    lines = compare_tables.table(results(), "mri-sr")
    assert lines[2].startswith("| light |")  # the best in equal seconds comes first
    assert lines[2].count("+0.60 ± 0.14 (2)") == 2
    assert "+0.20 ± 0.14 (2) | +0.40 ± 0.00 (2) | 600" in lines[3]
    filters = compare_tables.filter_table(results(), "mri-sr")
    assert filters[2] == "| cubic | -0.10 | 0.8000 | 0.01 | none |"
    assert "**+0.20**" in compare_tables.sweep_table(results(), "mri-sr")[2]
    compare_tables.draw(results(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_equal_seconds_are_iterations_by_the_measured_steps() -> None:
    times = {name: 0.1 for name in compare.NETWORKS} | {"unet": 0.05, "dncnn": 0.4}
    seconds = {
        name: [x.recipe for x in compare.budget_runs("ct-denoise", name, "muon-1e-2", times)]
        for name in ("light", "unet", "dncnn")
    }
    count = compare.ITERATIONS["ct-denoise"]
    assert [x.training.iterations for x in seconds["light"]] == [count] * 3
    assert [x.training.iterations for x in seconds["unet"]] == [count] * 3 + [2 * count] * 3
    assert [x.training.iterations for x in seconds["dncnn"]] == [count] + [round(count / 4)] * 3
    shared = {json.dumps({**x.to_dict()["data"]}) for found in seconds.values() for x in found}
    assert len(shared) == 1


@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("ablations.md", lambda: ablations.table(_read("ablations.json")).splitlines()),
        *(
            ("comparison.md", partial(made, _read("compare.json"), task))
            for task in compare_tables.TASKS
            for made in (
                compare_tables.table,
                compare_tables.filter_table,
                compare_tables.sweep_table,
            )
        ),
    ],
)
def test_the_tables_of_the_documents_are_those_of_the_results(page: str, made: Any) -> None:
    shown = (DOCS / page).read_text(encoding="utf-8").splitlines()
    assert [line for line in made() if line not in shown] == []
