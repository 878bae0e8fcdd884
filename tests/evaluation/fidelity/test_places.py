"""The places to look at first: how many, how far apart, where, and in which words."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from restore_rwkv.evaluation.fidelity import RestoredPair, find_places
from restore_rwkv.evaluation.fidelity.foreground import foreground
from restore_rwkv.io import Volume
from restore_rwkv.tasks import TASKS

SHAPE = (3, 40, 60)  # slices across the second axis of the array
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 4.0, 0, 80], [0, 0, 1.0, -30], [0, 0, 0, 1]])


def pair_of(before: float = 100, after: float = 100, task: str = "mri-sr") -> RestoredPair:
    modality = TASKS[task].modality
    first, second = (
        Volume(np.full((40, 3, 60), a, dtype=np.float32), AFFINE, None, modality)
        for a in (before, after)
    )
    return RestoredPair(before=first, after=second, task=TASKS[task], axis=1)


def test_at_most_five_places_two_radii_apart_the_largest_first() -> None:
    scores = np.random.default_rng(0).normal(0, 2, SHAPE).astype(np.float32)
    found = find_places(scores, pair_of(), 5.0, 4.0)
    assert len(found) == 5
    sizes = [abs(place.score) for place in found]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == np.abs(scores).max()
    for one, other in itertools.combinations(found, 2):
        assert one.world is not None
        assert other.world is not None
        assert np.linalg.norm(np.subtract(one.world, other.world)) > 10
    assert [place.flagged for place in found] == [size > 4 for size in sizes]


def test_a_place_has_its_voxel_its_position_and_its_slice() -> None:
    scores = np.zeros(SHAPE, dtype=np.float32)
    scores[2, 10, 20] = -7
    (place,) = find_places(scores, pair_of(), 5.0, 7.0)
    assert (place.index, place.slice, place.score) == ((10, 2, 20), 2, -7)
    assert place.world == (70, 88, -10)
    assert not place.flagged  # on the threshold, not beyond it
    assert find_places(scores, pair_of(), 5.0, 6.9)[0].flagged
    assert not find_places(scores, pair_of(), 5.0, None)[0].flagged


def test_scores_near_zero_and_outside_the_body_are_no_places() -> None:
    scores = np.full(SHAPE, 0.4, dtype=np.float32)
    assert find_places(scores, pair_of(), 5.0, 0.1) == ()
    pair = pair_of()
    half = pair.before.data.copy()
    half[20:] = 0
    pair = replace(pair, before=pair.before.with_data(half), after=pair.after.with_data(half))
    scores[1, 35, 30] = 9
    assert find_places(scores, pair, 5.0, 1.0) == ()


def test_the_means_are_those_of_the_disc_with_digits_that_tell_them_apart() -> None:
    scores = np.zeros(SHAPE, dtype=np.float32)
    scores[1, 0, 0] = 3  # in a corner
    for before, after, text in (
        (0.324, 0.317, "0.324 a.u. in the scan and 0.317 a.u."),
        (41.0, 48.1, "41.0 a.u. in the scan and 48.1 a.u."),
        (1200.0, 1100.0, "1200 a.u. in the scan and 1100 a.u."),
        (0.0, 5.0, "0.00 a.u. in the scan and 5.00 a.u."),
    ):
        (place,) = find_places(scores, pair_of(before, after), 5.0, None)
        assert (place.before, place.after) == pytest.approx((before, after))
        assert text in place.says


def test_words_do_not_contradict_the_means() -> None:
    scores = np.zeros(SHAPE, dtype=np.float32)
    scores[1, 20, 30] = 3
    (place,) = find_places(scores, pair_of(9, 4, "pet-synth"), 5.0, None)
    assert place.says.startswith("Something was removed that makes the restored image darker here:")
    (place,) = find_places(scores, pair_of(4, 9, "pet-synth"), 5.0, None)
    assert place.says.startswith("Something was removed around here:")
    assert place.says.endswith(", which alone does not show it.")
    (place,) = find_places(-scores, pair_of(4, 9), 5.0, None)
    assert place.says.startswith("The scan is darker here than a scan of the restored image would")
    assert place.says.endswith("in the restored image.")


def test_without_geometry_lengths_are_pixels() -> None:
    pair = pair_of(9, 4)
    pair = replace(
        pair, before=replace(pair.before, affine=None), after=replace(pair.after, affine=None)
    )
    scores = np.zeros(SHAPE, dtype=np.float32)
    scores[1, 20, 30] = 3
    (place,) = find_places(scores, pair, 5.0, None)
    assert place.world is None
    assert "5 pixels radius" in place.says


def test_equal_values_have_no_body_smaller_than_themselves() -> None:
    # The float32 mean of many values of 0.1 may be above 0.1.
    scores = np.full(SHAPE, 3, dtype=np.float32)
    assert find_places(scores, pair_of(0.1, 0.1), 5.0, None)
    assert find_places(scores, pair_of(0, 0), 5.0, None) == ()


def test_the_body_of_a_pair_is_found_once_and_cannot_be_changed() -> None:
    pair = pair_of()
    found = foreground(pair)
    assert foreground(pair) is found
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0, 0] = True
    assert foreground(replace(pair, seed=1)) is not found
