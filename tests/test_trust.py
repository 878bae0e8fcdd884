"""The tables about reports and lesions, from results that are made up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import places, trust
from benchmarks.places import Scores
from restore_rwkv.evaluation.fidelity import RestoredPair
from restore_rwkv.evaluation.fidelity import places as listed
from restore_rwkv.io import Volume
from restore_rwkv.model import RestoreRWKV, RestoreRWKVConfig, read_info, save_weights
from restore_rwkv.tasks import TASKS, Intervals, PlaceThreshold, ReportCalibration, ScalingRule

RATE = {"hits": 1, "count": 20, "share": 0.05, "low": 0.0013, "high": 0.2487}
NONE = {"hits": 0, "count": 0, "share": None, "low": None, "high": None}


def some_scores() -> Scores:
    """Two lesions that were removed and two that were invented, beside seven peaks of noise."""
    return Scores(
        lesions={("removed", 10.0): [4.0, 0.4], ("invented", 10.0): [1.5, -2.0]},
        none=[0.5, 1.5],
        above={("removed", 10.0): [0, 3], ("invented", 10.0): [5, 7]},
        peaks=[2.5, 2.0, 1.8, 1.7, 1.6, 0.9, 0.8],
        slices=20,
        scans=["a"],
    )


def results() -> dict[str, Any]:
    found = some_scores()
    part = {
        "scans": ["a"],
        "realisations": 2,
        "slices": 20,
        "alarms": 0.1,
        "rows": places.rows(found, 1.8),
    }
    return {
        "ct-denoise": {
            "weights": "mine",
            "sha256": "0",
            "threshold": 1.8,
            "validation": part,
            "test": part,
        }
    }


@pytest.mark.parametrize(
    ("peaks", "slices", "threshold"),
    [
        ([5.0, 4.0, 3.0, 2.0], 20, 3.0),  # two of twenty may exceed it
        ([5.0, 4.0, 3.0, 2.0], 9, 5.0),  # none may
        ([5.0, 0.8, 0.7], 20, 1.0),  # no lower than one standard deviation
        ([], 40, 1.0),
    ],
)
def test_a_tenth_of_the_slices_may_have_a_peak_beyond_the_threshold(
    peaks: list[float], slices: int, threshold: float
) -> None:
    found = places.threshold_of(Scores(peaks=peaks, slices=slices))
    assert found == threshold
    assert sum(peak > found for peak in peaks) <= places.ALARMS * slices


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    assert places.auc([3.0, 4.0], [1.0, 2.0]) == 1
    assert places.auc([1.0], [1.0]) == 0.5
    generator = np.random.default_rng(0)
    lesions, none = generator.integers(0, 9, 50), generator.integers(0, 7, 40)
    above = np.sign(lesions[:, None] - none)
    assert places.auc(lesions.tolist(), none.tolist()) == pytest.approx((above + 1).mean() / 2)


def test_a_lesion_counts_only_if_a_report_would_list_it() -> None:
    removed, invented = places.rows(some_scores(), threshold=1.8)
    assert (removed["kind"], removed["contrast"], removed["lesions"]) == ("removed", 10, 2)
    assert removed["in_five"] == 0.5  # the other has few peaks above it, and is below 0.5
    assert removed["flagged"] == 0.5
    assert (invented["in_five"], invented["flagged"]) == (0, 0)
    assert removed["auc"] == 0.5
    assert listed._LEAST == places._LISTED


def test_a_curve_begins_where_all_false_alarms_are_known() -> None:
    found = dataclasses.replace(some_scores(), complete=1.65)
    curve = places.curve([4.0, 0.4], found)
    assert curve[0] == (0.2, 0.5)
    assert curve[-1] == (0, 0)
    assert curve == sorted(curve, reverse=True)


def test_a_place_has_the_largest_score_of_its_sign_around_it() -> None:
    image = Volume(np.zeros((20, 20, 6)), np.diag([2.0, 2.0, 5.0, 1.0]), unit="HU")
    pair = RestoredPair(before=image, after=image, task=TASKS["ct-denoise"], axis=2, factor=4)
    scores = np.zeros((6, 20, 20), np.float32)
    scores[3, 12, 9] = 3
    scores[2, 10, 10] = -5
    assert places.near(scores, (10, 10, 2), pair) == 3
    assert places.near(-scores, (10, 10, 2), pair) == 5
    assert places.near(scores, (10, 10, 0), pair) == 0  # three slices of 5 mm away


def test_tables_of_places_have_a_row_for_each_kind_and_split() -> None:
    lines = places.table(results())
    assert len(lines) == 2 + 2 * 2
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == (
        "| `ct-denoise`, mine | validation: 1 x 2, 20 | removed | 10 HU | 2 | 50 % | 50 % | 0.500 |"
    )
    assert places.thresholds(results())[2] == "| `ct-denoise` | 1.80 | 0.10 | 0.10 |"


def test_curves_are_drawn(tmp_path: Path) -> None:
    places.draw(results(), tmp_path / "places.png")
    assert (tmp_path / "places.png").read_bytes().startswith(b"\x89PNG")


def weights(folder: Path, report: dict[str, ReportCalibration]) -> Path:
    scaling = {name: ScalingRule("robust") for name in ("ct-denoise", "mri-sr")}
    path = folder / "mine.safetensors"
    network = RestoreRWKV(RestoreRWKVConfig(dim=4, num_blocks=(1, 1, 1, 1)))
    save_weights(path, network, scaling=scaling, training={}, report=report)
    return path


def test_thresholds_go_only_into_the_weights_they_were_measured_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intervals = Intervals(
        method="turns",
        level=0.9,
        factors={"body": 2.0},
        floor=0.1,
        subjects=2,
        pixels=9,
        coverage=0.9,
    )
    path = weights(tmp_path, {"ct-denoise": ReportCalibration(intervals=(intervals,))})
    monkeypatch.setattr(places, "find_weights", lambda name: path)
    found = results()
    with pytest.raises(SystemExit, match="measured with other weights; measure it again"):
        places.store(found)
    found["ct-denoise"]["sha256"] = read_info(path).sha256
    places.store(found)
    places.store(found)  # whose digest is that of the tensors
    known = read_info(path).report["ct-denoise"]
    assert known.intervals == (intervals,)
    assert known.places == PlaceThreshold(threshold=1.8, false_alarms=0.1, slices=20)


def challenged() -> dict[str, Any]:
    """What challenge.json holds, as far as it is read."""
    rows = [
        {
            "method": method,
            "contrast": 10.0,
            "radius": 5.0,
            "lesions": 20,
            "scans": 1,
            "retained": retained,
            "lost": RATE,
            "kept": RATE,
            "invented": NONE,
            "seen": seen,
        }
        for method, retained, seen in (
            ("mine", 0.75, {"d_prime": 2.0, "low": 1.0, "high": 3.0}),
            ("input", 1.0, None),
        )
    ]
    made = {"split": "test", "blur_mm": {"a": 1.3}, "seed": 0, "weights": {}}
    return {
        "task": "ct-denoise",
        "unit": "HU",
        "scans": {"a": {"slices": 6, "lesions": 20, "places": 30}},
        "summaries": rows,
        "comparisons": [
            {
                "method": "mine",
                "other": "input",
                "contrast": 10.0,
                "radius": 5.0,
                "lesions": 20,
                "scans": 1,
                "retained": -0.25,
                "interval": [-0.3, -0.204],
                "lost": 1,
                "lost_by_other": 0,
                "p": 1.0,
            }
        ],
        "overall": [{"method": "mine", "flagged": RATE}],
        "provenance": made,
    }


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with results, weights and their card."""
    monkeypatch.setattr(trust, "WEIGHTS", tmp_path)
    monkeypatch.setattr(trust, "CHALLENGE", tmp_path / "kept.json")
    monkeypatch.setattr(trust, "PLACES", tmp_path / "places.json")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "challenge.json").write_text(json.dumps(challenged()))
    trust.collect([tmp_path / "out"], trust.CHALLENGE)
    (tmp_path / "places.json").write_text(json.dumps(results()))
    intervals = Intervals(
        method="turns",
        level=0.9,
        factors={"body": 2.0},
        floor=0.1,
        subjects=2,
        pixels=9,
        coverage=0.88,
    )
    threshold = PlaceThreshold(threshold=1.8, false_alarms=0.1, slices=20)
    calibration = ReportCalibration(intervals=(intervals,), places=threshold)
    weights(tmp_path, {"ct-denoise": calibration})
    (tmp_path / "mine.md").write_text("# mine\n\nText.\n\n## Not for\n\n- Diagnosis.\n")
    return tmp_path


def test_results_of_a_task_and_split_replace_those_before(kept: Path) -> None:
    changed = challenged()
    changed["summaries"] = changed["summaries"][:1]
    other = challenged()
    other["provenance"]["split"] = "validation"
    for number, values in enumerate((changed, other)):
        folder = kept / str(number)
        folder.mkdir()
        (folder / "challenge.json").write_text(json.dumps(values))
    trust.collect([kept / "0", kept / "1"], trust.CHALLENGE)
    found = trust.read(trust.CHALLENGE)["ct-denoise"]
    assert len(found["test"]["rows"]) == 1
    assert len(found["validation"]["rows"]) == 2


def test_the_table_of_lesions_has_intervals_and_says_where_there_are_none(kept: Path) -> None:
    lines = list(trust.challenge_table(trust.read(trust.CHALLENGE), "test"))
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == (
        "| `ct-denoise` | mine | 10 HU, 5 mm | 20 in 1 | 0.75 | 5 (0-25) | 5 (0-25) | - "
        "| 2.0 (1.0-3.0) |"
    )
    assert lines[3].endswith("| - | - |")
    compared = list(trust.comparison_table(trust.read(trust.CHALLENGE), "test"))
    assert compared[2] == (
        "| `ct-denoise` | mine, less input | 10 HU, 5 mm | 20 in 1 | -0.25 (-0.30 to -0.20) "
        "| 1, 0 | 1 |"
    )
    assert len(list(trust.challenge_table(trust.read(trust.CHALLENGE), "validation"))) == 2
    assert list(trust.interval_table())[2] == (
        "| mine, `ct-denoise` | turns | 2, 9 | 90 % | 88.0 % |"
    )


def test_the_section_of_a_card_is_written_once_and_keeps_what_is_around_it(kept: Path) -> None:
    card = kept / "mine.md"
    trust.write_cards()
    first = card.read_text()
    assert first.startswith("# mine\n\nText.\n\n## Not for\n\n- Diagnosis.\n\n## What its")
    assert "lesions of 10 HU and 5 mm radius keep 0.75 of their contrast" in first
    assert "(in the input 1.00); lost 5 (0-25) %, invented - %, of 20 in 1 scan." in first
    assert "held 88.0 % of the pixels" in first
    assert "the five places of the report show 50 % of 10 HU (test)" in first
    assert "- `mri-sr`: not measured." in first
    trust.write_cards()
    assert card.read_text() == first


def test_a_new_section_replaces_the_old_one_where_it_stands(kept: Path) -> None:
    card = kept / "mine.md"
    after = "## Data\n\nText with ## in it.\n\n## Not for\n\n- Diagnosis.\n"
    card.write_text(f"# mine\n\n{trust.SECTION}\n\nold claims\n\n- more\n\n{after}")
    trust.write_cards()
    text = card.read_text()
    assert "old claims" not in text
    assert "- more" not in text
    assert text.count(trust.SECTION) == 1
    assert text.endswith(f"\n\n{after}")
    trust.write_cards()
    assert card.read_text() == text


def test_a_card_has_no_places_that_other_weights_were_measured_with(kept: Path) -> None:
    found = results()
    found["ct-denoise"]["weights"] = "other"
    (kept / "places.json").write_text(json.dumps(found))
    assert not any("five places" in line for line in trust.card_lines("mine"))
