"""Runs of the comparison and the ablations: they resume, are scored once, and tables are right."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import ablations, compare, compare_filters, compare_tables
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
    words = ablations._order(rows, {row: seeds(*found) for row, found in gains.items()})
    assert "Of 3 pairs of rows, 2 are in the order of the paper" in words
    assert "clear in 3 of all pairs, of which 2 are in its order" in words


def seeds(*gains: float) -> list[dict[str, Any]]:
    """Scores of runs with seeds from 0."""
    return [{"gain": {"test": x}, "recipe": {"seed": seed}} for seed, x in enumerate(gains)]


def test_rows_are_compared_over_the_seeds_that_both_have() -> None:
    rows = [("a", "a", 30.0), ("b", "b", 31.0)]
    # The seed, not the row, makes the difference between the means.
    one_seed_less = ablations._order(rows, {"a": seeds(0.1, 0.9), "b": seeds(0.2)})
    assert "Of 1 pairs of rows, 1 are in the order" in one_seed_less
    assert "clear in 0 of all pairs" in one_seed_less
    same = ablations._order(rows, {"a": seeds(0.0, 0.2, 0.4), "b": seeds(0.1, 0.31, 0.5)})
    assert "clear in 1 of all pairs, of which 1" in same
    mixed = ablations._order(rows, {"a": seeds(0.0, 0.2, 0.4), "b": seeds(0.1, 0.1, 0.9)})
    assert "clear in 0 of all pairs" in mixed


def test_runs_on_other_slices_are_not_put_into_one_table() -> None:
    runs = [{"gain": {}, "slices": {"test": count}, "data": []} for count in (8, 24)]
    with pytest.raises(SystemExit, match=r"on other slices .*8.*24.*remove the scores\.json"):
        ablations.table({"re-wkv-omni-shift": runs})
    found = results()
    found["filters"]["mri-sr"]["cubic"]["slices"] = 24
    with pytest.raises(SystemExit, match="cubic: was scored on 24 slices, the networks on 8; run"):
        compare_tables.filter_table(found, "mri-sr")


def results() -> dict[str, Any]:
    def row(*gains: float) -> dict[str, Any]:
        slices = {"slices": {"validation": 4, "test": 8}, "data": []}
        runs = [{"gain": {"test": gain, "validation": gain}, **slices} for gain in gains]
        return {"iterations": 300, "runs": runs}

    costs = {"parameters": 10, "gmacs": 1.0, "seconds": 0.5, "peak_mib": 3.0}
    return {
        "costs": {"light": costs, "unet": costs},
        "mri-sr": {
            "unet": {
                "sweep": {"adam": 0.1, "muon": 0.2},
                "choice": "muon",
                "step_seconds": 0.05,
                "iterations": row(0.1, 0.3),
                "seconds": row(0.4, 0.4) | {"iterations": 600},
            },
            "light": {
                "sweep": {"adam": 0.3, "muon": 0.1},
                "choice": "adam",
                "step_seconds": 0.1,
                "iterations": row(0.5, 0.7),
                "seconds": row(0.5, 0.7),
            },
            "edsr": {
                "sweep": {"adam": 0.3, "muon": 0.1},
                "choice": "adam",
                "step_seconds": 0.3,
                "iterations": row(0.9),
            },
        },
        "filters": {
            "mri-sr": {"cubic": {"gain": -0.1, "ssim": 0.8, "seconds_per_slice": 0.01, "slices": 8}}
        },
    }


def test_the_table_has_both_budgets_and_ours_is_the_same_run_in_both(tmp_path: Path) -> None:
    lines = compare_tables.table(results(), "mri-sr")
    assert lines[2].startswith("| light |")  # the best in equal seconds comes first
    assert lines[2].count("+0.60 ± 0.14 (2)") == 2
    assert "+0.20 ± 0.14 (2) | +0.40 ± 0.00 (2) | 600" in lines[3]
    assert lines[4].endswith("| +0.90 (1) | - | - |")  # not trained for as many seconds yet
    filters = compare_tables.filter_table(results(), "mri-sr")
    assert filters[2] == "| cubic | -0.10 | 0.8000 | 0.01 | none |"
    assert "**+0.20**" in compare_tables.sweep_table(results(), "mri-sr")[2]
    compare_tables.draw(results(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_filter_is_not_held_back_by_the_end_of_the_list_of_factors() -> None:
    for best, expected in ((4.0, 4.0), (50.0, 48.0), (1e9, 12.0 * 2**6)):
        found = compare_filters.best_factor(lambda factor, best=best: -abs(factor - best))
        assert found == expected


def test_equal_seconds_are_iterations_by_the_measured_steps() -> None:
    steps = {name: 0.1 for name in compare.NETWORKS} | {"unet": 0.05, "dncnn": 0.4}
    times = {name: {"adam": step / 2, "muon": step} for name, step in steps.items()}
    # Each network counts with the optimiser that it is trained with.
    choices = dict.fromkeys(steps, "muon-1e-2") | {"nafnet": "adam-5e-4"}
    budgets = {name: compare.budget_runs("ct-denoise", name, choices, times) for name in steps}
    count = compare.ITERATIONS["ct-denoise"]
    found = {
        name: {
            budget: [entry.recipe.training.iterations for entry in entries]
            for budget, entries in budgets[name].items()
        }
        for name in ("light", "unet", "dncnn", "nafnet")
    }
    assert found == {
        "light": {"iterations": [count] * 3, "seconds": [count] * 3},
        "unet": {"iterations": [count] * 3, "seconds": [2 * count] * 3},
        "dncnn": {"iterations": [count], "seconds": [round(count / 4)] * 3},
        "nafnet": {"iterations": [count] * 3, "seconds": [2 * count] * 3},
    }
    assert budgets["light"]["seconds"] == budgets["light"]["iterations"]
    every = [x.recipe for of in budgets.values() for runs in of.values() for x in runs]
    assert len({json.dumps(recipe.to_dict()["data"]) for recipe in every}) == 1


@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("ablations.md", lambda: ablations.table(_read("ablations.json")).splitlines()),
        *(
            ("comparison.md", partial(made, _read("compare.json"), task))
            for task in compare_tables.TASKS
            if task in _read("compare.json")
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
