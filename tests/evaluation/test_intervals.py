"""Split-conformal intervals, where the spread and the coverage are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from restore_rwkv import Volume
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.coverage import (
    Coverage,
    SpreadSlices,
    alternating_halves,
    measure_coverage,
)
from restore_rwkv.evaluation.intervals import calibrate_intervals, conformal_quantile
from restore_rwkv.restoration.uncertainty import Spread
from restore_rwkv.tasks import TASKS, Intervals

NAMES = ("dark", "bright")


def scans(
    seed: int, count: int = 12, subjects: tuple[str, ...] = ("a",), bias: float = 0.0
) -> list[SpreadSlices]:
    """Normal errors with a spread that differs from pixel to pixel, three times in bright tissue.

    The spread that is found is half the true one.
    """
    generator = np.random.default_rng(seed)
    found = []
    for subject in subjects:
        shape = (count, 32, 32)
        kinds = np.zeros(shape, np.int8)
        kinds[:, :, 16:] = 1
        spread = generator.uniform(1, 4, shape) * np.where(kinds == 1, 3, 1)
        error = np.abs(generator.normal(bias, spread))
        arrays = (error.astype(np.float32), (spread / 2).astype(np.float32), kinds)
        found.append(SpreadSlices(subject, *arrays, NAMES, 10.0))
    return found


def by_group(found: tuple[Coverage, ...]) -> dict[str, Coverage]:
    return {each.group: each for each in found}


def given(**factors: float) -> Intervals:
    return Intervals(
        method="turns", level=0.9, factors=factors, floor=0.0, subjects=1, pixels=1, coverage=0.9
    )


def weighted(scores: list[float], weights: list[float], level: float) -> float:
    return conformal_quantile(np.array(scores, np.float32), np.array(weights), level)


@pytest.mark.parametrize("count", [9, 10, 19, 20, 50, 99, 100, 101, 1000])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_the_quantile_is_that_of_split_conformal_prediction(count: int, level: float) -> None:
    """The ceil((n + 1) level)-th smallest of n scores."""
    scores = np.random.default_rng(count).permutation(count).astype(np.float32)
    expected = math.ceil(round((count + 1) * level, 9)) - 1  # the scores are 0, 1, ...
    assert conformal_quantile(scores, np.full(count, 0.3), level) == expected


def test_a_weight_counts_as_often_as_its_score_does() -> None:
    assert weighted([1, 2, 3] * 7, [1, 1, 1] * 7, 0.6) == 2
    assert weighted([1, 2, 3] * 7, [1, 1, 8] * 7, 0.6) == 3
    assert weighted([1, 2, 3] * 7, [8, 1, 1] * 7, 0.6) == 1


def test_too_few_scores_are_refused() -> None:
    with pytest.raises(InputError, match="8 pixels are too few for intervals of 90 %"):
        weighted([1.0] * 8, [1.0] * 8, 0.9)
    with pytest.raises(InputError, match="0 pixels are too few"):
        weighted([], [], 0.9)


def test_new_scores_of_the_same_kind_are_held_as_often_as_the_level_says() -> None:
    """Over 2000 calibrations with 19 scores the mean is (n + 1) level / (n + 1) = 0.9."""
    generator = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        calibration, new = generator.exponential(size=19), generator.exponential(size=50)
        held.append(np.mean(new <= weighted(list(calibration), [1.0] * 19, 0.9)))
    # Standard error 0.0016, measured.
    assert np.mean(held) == pytest.approx(0.9, abs=0.005)


def test_the_factors_are_those_of_the_normal_distribution() -> None:
    """Half the spread needs twice 1.645 of it; other scans of this kind are held alike."""
    intervals = calibrate_intervals(scans(0), scans(1), "turns")
    assert intervals.floor <= 0.01
    for name in NAMES:  # the floor makes up for a little of it
        assert 0.94 * 2 * 1.645 < intervals.factors[name] < 1.01 * 2 * 1.645
    assert intervals.coverage == pytest.approx(0.9, abs=0.01)
    assert (intervals.subjects, intervals.pixels) == (1, 12 * 32 * 32)
    for group, found in by_group(measure_coverage(scans(2), intervals)).items():
        if "errors" not in group:
            assert found.share == pytest.approx(0.9, abs=0.015), group
            assert found.low is not None
            assert found.high is not None
            assert 0.88 < found.low < found.share < found.high < 0.92


def test_large_errors_are_held_less_by_construction() -> None:
    found = by_group(measure_coverage(scans(2), calibrate_intervals(scans(0), scans(1), "turns")))
    shares = [found[f"{name} third of the errors"].share for name in ("smallest", "largest")]
    assert shares[0] > 0.99
    assert shares[1] == pytest.approx(0.7, abs=0.02)


def test_a_spread_that_says_nothing_gets_a_large_floor() -> None:
    """The intervals are then alike everywhere, and hold evenly."""
    generator = np.random.default_rng(0)
    shape = (12, 32, 32)
    arrays = (
        np.abs(generator.normal(0, 5, shape)).astype(np.float32),
        generator.uniform(0, 1, shape).astype(np.float32),
        generator.integers(0, 2, shape).astype(np.int8),
    )
    both = alternating_halves(SpreadSlices("a", *arrays, NAMES, 10.0))
    intervals = calibrate_intervals([both[0]], [both[1]], "turns")
    assert intervals.floor * 10 > 2
    assert intervals.coverage == pytest.approx(0.9, abs=0.02)


def test_a_bias_that_all_samples_share_is_not_seen() -> None:
    """Where restoration takes a lesion of 20 away, the spread is as before and the map as narrow.

    The intervals are right in the mean over pixels all the same, and hold nothing of the lesion.
    """
    intervals = calibrate_intervals(scans(0), scans(1), "bootstrap")
    (scan,) = scans(2)
    lesion = np.zeros(scan.error.shape, bool)
    lesion[:, 4:8, 4:8] = True
    error = np.where(lesion, 20.0, scan.error).astype(np.float32)
    hidden = SpreadSlices(scan.subject, error, scan.spread, scan.kinds, NAMES, 10.0)
    assert np.array_equal(hidden.half_widths(intervals), scan.half_widths(intervals))
    assert (error <= hidden.half_widths(intervals))[lesion].mean() < 0.01
    assert measure_coverage([hidden], intervals)[0].share > 0.87


def test_other_scans_with_a_bias_are_held_less_often_and_that_is_measured() -> None:
    intervals = calibrate_intervals(scans(0), scans(1, bias=6.0), "turns")
    assert intervals.coverage < 0.7


def test_subjects_and_slices_weigh_alike() -> None:
    """A subject of 20 slices does not outvote one of 2, nor do slices with more of a tissue."""

    def subject(name: str, count: int, error: float) -> SpreadSlices:
        shape = (count, 4, 4)
        ones = np.ones(shape, np.float32)
        return SpreadSlices(name, error * ones, ones, np.zeros(shape, np.int8), ("dark",), 1.0)

    both = [subject("a", 20, 1.0), subject("b", 2, 3.0)]
    assert measure_coverage(both, given(dark=2.0))[0].share == pytest.approx(0.5)
    found = calibrate_intervals(both, both, "turns", level=0.4)
    assert found.factors["dark"] * (1 + found.floor) == pytest.approx(1.0)
    found = calibrate_intervals(both, both, "turns", level=0.6)
    assert found.factors["dark"] * (1 + found.floor) == pytest.approx(3.0)
    assert found.subjects == 2


def test_the_interval_of_a_coverage_is_by_slices_not_by_pixels() -> None:
    """Half the slices are held and half are not: many pixels do not make that sure."""
    error = np.repeat(np.array([0.0, 9.0] * 5, np.float32), 64 * 64).reshape(10, 64, 64)
    kinds = np.zeros(error.shape, np.int8)
    scan = SpreadSlices("a", error, np.ones_like(error), kinds, ("dark",), 1.0)
    found = measure_coverage([scan], given(dark=2.0))[0]
    assert (found.share, found.slices, found.pixels) == (0.5, 10, 10 * 64 * 64)
    assert found.low == pytest.approx(0.2, abs=0.11)
    assert found.high == pytest.approx(0.8, abs=0.11)
    alone = measure_coverage([scan.part(np.array([0]))], given(dark=2.0))[0]
    assert alone.low is alone.high is None


@pytest.mark.parametrize(("count", "first"), [(2, [0]), (5, [0, 2, 4]), (32, None)])
def test_halves_alternate_in_blocks(count: int, first: list[int] | None) -> None:
    error = np.repeat(np.arange(count, dtype=np.float32), 4).reshape(count, 2, 2)
    scan = SpreadSlices("a", error, error, np.zeros(error.shape, np.int8), ("dark",), 1.0)
    taken = [[int(value) for value in part.error[:, 0, 0]] for part in alternating_halves(scan)]
    assert sorted(taken[0] + taken[1]) == list(range(count))
    if first is None:
        first = [*range(4), *range(8, 12), *range(16, 20), *range(24, 28)]
    assert taken[0] == first


def test_one_slice_has_no_halves() -> None:
    one = np.zeros((1, 2, 2), np.float32)
    scan = SpreadSlices("a", one, one, one.astype(np.int8), ("dark",), 1.0)
    with pytest.raises(InputError, match="a: has one slice"):
        alternating_halves(scan)


def volume(values: NDArray[np.float64]) -> Volume:
    return Volume(values, unit="HU", modality="CT")


def test_slices_are_compared_across_their_axis() -> None:
    generator = np.random.default_rng(0)
    truth, restored = (generator.uniform(-1000, 1000, (3, 4, 5)) for _ in range(2))
    spread = Spread(method="turns", volume=volume(np.ones((3, 4, 5))), samples=7, scale=40.0)
    task = TASKS["ct-denoise"]
    found = SpreadSlices.of("a", volume(truth), volume(restored), spread, task, 1)
    assert found.error.shape == (4, 3, 5)
    np.testing.assert_allclose(
        found.error, np.moveaxis(np.abs(truth - restored), 1, 0), rtol=1e-4, atol=1e-3
    )
    assert found.names == ("air", "lung", "soft-tissue", "bone")
    with pytest.raises(InputError, match="give them on one grid"):
        SpreadSlices.of("a", volume(np.ones((3, 4, 6))), volume(restored), spread, task, 1)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="level is 1; give a share between 0 and 1"):
        calibrate_intervals(scans(0), scans(1), "turns", level=1.0)
    with pytest.raises(InputError, match="no scan to calibrate"):
        calibrate_intervals([], scans(1), "turns")
    with pytest.raises(InputError, match="no scan to measure"):
        measure_coverage([], given(dark=1.0, bright=1.0))
    (scan,) = scans(0, count=1)
    dark = SpreadSlices("a", scan.error, scan.spread, 0 * scan.kinds, NAMES, 10.0)
    with pytest.raises(InputError, match="bright: intervals: 0 pixels are too few"):
        calibrate_intervals([dark], [dark], "turns")
