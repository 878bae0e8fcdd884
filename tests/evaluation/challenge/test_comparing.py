from __future__ import annotations

import pytest

from restore_rwkv.evaluation.challenge.comparing import comparisons_of
from restore_rwkv.evaluation.challenge.results import LesionRow


def rows(method: str, retained: list[float]) -> list[LesionRow]:
    """Lesions of one kind, in two scans that have the same voxels."""
    return [
        LesionRow(
            scan="ab"[number % 2],
            method=method,
            contrast=10.0 if number % 3 else -10.0,
            radius=5.0,
            index=(number // 2, 0, 0),
            retained=value,
        )
        for number, value in enumerate(retained)
    ]


def test_a_small_difference_at_every_lesion_shows_although_the_means_overlap() -> None:
    uneven = [0.2, 0.9, 0.6, 1.1, 0.4, 0.8, 1.3, 0.7, 0.3, 1.0]
    less = [value - (0.05 if number % 2 else 0.04) for number, value in enumerate(uneven)]
    # The order of rows does not matter.
    (found,) = comparisons_of(["a", "b"], [*reversed(rows("b", uneven)), *rows("a", less)])
    assert (found.method, found.other, found.lesions, found.scans) == ("a", "b", 10, 2)
    assert found.retained == pytest.approx(-0.045)
    assert found.interval is not None
    assert -0.05 < found.interval[0] < found.retained < found.interval[1] < -0.04
    assert (found.lost, found.lost_by_other, found.p) == (0, 0, None)


def test_lesions_that_only_one_method_loses_are_tested() -> None:
    (found,) = comparisons_of(
        ["a", "b"], [*rows("a", [0.4] * 6 + [0.6]), *rows("b", [0.6] * 6 + [0.4])]
    )
    assert (found.lost, found.lost_by_other) == (6, 1)
    assert found.p == pytest.approx(2 * (1 + 7) / 2**7)


def test_one_lesion_has_no_interval_and_one_method_no_comparison() -> None:
    one = [*rows("a", [0.4]), *rows("b", [0.6])]
    (found,) = comparisons_of(["a", "b"], one)
    assert found.interval is None
    assert found.p == 1
    assert comparisons_of(["a"], rows("a", [0.4])) == ()
