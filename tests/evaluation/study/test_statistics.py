from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from restore_rwkv.evaluation.measures.protocols import PROTOCOL_MEASURES
from restore_rwkv.evaluation.study.results import PairedTest, Scored, Summary
from restore_rwkv.evaluation.study.statistics import (
    bootstrap_interval,
    caution,
    holm,
    patient_means,
    signed_rank,
    summarise,
)

RMSE = [measure for measure in PROTOCOL_MEASURES if measure.name == "rmse"]


def scored(patient: str, method: str, value: float | None, index: int = 0) -> Scored:
    return Scored(
        task="mri-sr",
        patient=patient,
        scan=f"{patient}-scan",
        slice=index,
        method=method,
        values={"rmse": value},
        reasons={} if value is not None else {"rmse": "the truth is constant"},
    )


def test_holm_equals_an_example_worked_by_hand() -> None:
    """Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 and 0.04, none below the one before it."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_signed_rank_test_is_that_of_scipy_and_exact_where_small() -> None:
    differences = [1.1, 2.3, 0.4, 3.0, 0.9, 1.7]
    assert signed_rank(differences) == 2 / 2**6  # of all signs only two are as extreme
    mixed = [*differences, -0.2, -5.0]
    assert signed_rank(mixed) == stats.wilcoxon(mixed, method="exact").pvalue
    many = np.random.default_rng(0).normal(0.1, 1, 200).tolist()
    assert signed_rank(many) == stats.wilcoxon(many, method="asymptotic").pvalue


def test_ties_and_zeros_have_a_p_value_and_equal_methods_have_none() -> None:
    assert signed_rank([1.0, 1.0, -1.0, 2.0, 2.0, 0.0]) is not None
    assert signed_rank([0.0] * 8) is None
    assert signed_rank([1.0] * 5) is None  # too few


def test_an_interval_needs_two_values_and_equals_that_of_the_same_seed() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 3.0]
    assert bootstrap_interval([1.0]) is None
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    low, high = bootstrap_interval(values, seed=3) or (math.nan, math.nan)
    assert min(values) < low < np.mean(values) < high < max(values)
    assert bootstrap_interval(values, seed=3) == (low, high)
    assert bootstrap_interval(values, seed=4) != (low, high)
    assert bootstrap_interval([1.0, 3.0]) == (1.0, 3.0)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "least"), [(10, 0.86), (30, 0.91)])
def test_intervals_hold_the_mean_about_as_often_as_they_say(count: int, least: float) -> None:
    """Measured over 400 skewed samples: 0.89 for 10 values, 0.93 for 30; 0.95 is meant."""
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        low, high = bootstrap_interval(generator.gamma(4, 1, count).tolist()) or (0.0, 0.0)
        held += low <= 4 <= high
    assert least < held / 400 < 0.98


def test_patients_weigh_alike_whatever_their_numbers_of_slices() -> None:
    scores = [scored("a", "input", 1.0, index) for index in range(9)] + [scored("b", "input", 3.0)]
    (summary,), tests = summarise(scores, RMSE)
    assert not tests
    assert (summary.mean, summary.slice_mean) == (2.0, 1.2)
    assert (summary.patients, summary.slices, summary.resampled) == (2, 10, "patients")
    assert (summary.low, summary.high) == (1.0, 3.0)
    assert [mean.mean for mean in patient_means(scores)] == [1.0, 3.0]


def test_slices_without_a_value_are_counted_and_in_no_mean() -> None:
    scores = [scored("a", "input", value, i) for i, value in enumerate((None, 2.0, 4.0))]
    scores += [scored("b", "input", None)]
    (summary,), _ = summarise(scores, RMSE)
    assert summary.mean == 3.0
    assert (summary.patients, summary.slices, summary.without) == (1, 2, 2)
    assert summary.resampled == "slices"
    nothing, _ = summarise([scored("a", "input", None)], RMSE)
    empty = Summary(
        task="mri-sr",
        method="input",
        measure="rmse",
        mean=None,
        low=None,
        high=None,
        resampled="",
        slice_mean=None,
        patients=0,
        slices=0,
        without=1,
    )
    assert nothing == (empty,)


def three_methods(patients: int) -> tuple[PairedTest, ...]:
    generator = np.random.default_rng(0)
    scores = []
    for number in range(patients):
        for index in range(3):
            base = generator.normal(10, 2)
            for method, gain in (("input", 0.0), ("a", 2.0), ("b", 2.1)):
                value = base + gain + generator.normal(0, 0.3)
                scores.append(scored(f"p{number}", method, value, index))
    return summarise(scores, RMSE)[1]


def test_methods_are_compared_over_patients_with_holms_correction() -> None:
    tests = three_methods(8)
    assert [(t.first, t.second) for t in tests] == [("a", "input"), ("b", "input"), ("b", "a")]
    assert {(t.of, t.pairs) for t in tests} == {("patients", 8)}
    assert tests[0].p == 2 / 2**8
    assert [t.p_holm for t in tests] == holm([t.p or 0.0 for t in tests])
    assert tests[0].low < tests[0].difference < tests[0].high  # type: ignore[operator]
    assert tests[0].difference == pytest.approx(2, abs=0.3)


def test_fewer_than_six_patients_are_not_tested_however_many_their_slices() -> None:
    """Of 1 to 5 patients, tests over slices find 60 to 68 % of differences that are chance."""
    for patients in (1, 2, 5):
        tests = three_methods(patients)
        assert {(t.p, t.p_holm) for t in tests} == {(None, None)}
        wanted = ("patients", patients) if patients > 1 else ("slices", 3)
        assert {(t.of, t.pairs) for t in tests} == {wanted}
    assert all(t.p is not None for t in three_methods(6))


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "most"), [(1, 0.0), (3, 0.0), (6, 0.08), (8, 0.08)])
def test_methods_that_differ_by_chance_are_seldom_told_apart(
    monkeypatch: pytest.MonkeyPatch, patients: int, most: float
) -> None:
    """Of 200 studies without an effect, with 5 to 30 slices a patient; 0.05 is meant."""
    monkeypatch.setattr("restore_rwkv.evaluation.study.statistics.RESAMPLES", 20)  # unused here
    generator = np.random.default_rng(3)
    found = 0
    for _ in range(200):
        scores = []
        for number in range(patients):
            chance = {"input": 0.0, "a": float(generator.normal(0, 0.5))}
            for index in range(int(generator.integers(5, 30))):
                base = generator.normal(10, 2)
                for method, of_patient in chance.items():
                    value = base + of_patient + generator.normal(0, 0.3)
                    scores.append(scored(f"p{number}", method, float(value), index))
        p = summarise(scores, RMSE)[1][0].p
        found += p is not None and p < 0.05
    assert found / 200 <= most


@pytest.mark.parametrize(
    ("patients", "words"),
    [(1, "nothing about others"), (2, "50 %"), (5, "too few for a test"), (9, "90 %"), (10, "")],
)
def test_few_patients_are_a_caution(patients: int, words: str) -> None:
    assert words in caution(patients)
    assert bool(caution(patients)) == (patients < 10)


def test_only_images_that_both_methods_have_a_value_of_are_compared() -> None:
    scores = [scored("a", "input", v, i) for i, v in enumerate((1.0, 2.0, None))]
    scores += [scored("a", "x", v, i) for i, v in enumerate((2.0, None, 5.0))]
    (test,) = summarise(scores, RMSE)[1]
    assert (test.first, test.second, test.difference, test.pairs) == ("x", "input", 1.0, 1)
    assert (test.p, test.p_holm, test.low) == (None, None, None)
