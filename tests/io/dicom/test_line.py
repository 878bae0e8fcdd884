"""Which positions are one regular stack: rounded ones are, irregular ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from restore_rwkv.io.dicom.line import Line, fit_line
from tests.helpers.synthetic_series import NORMAL, ORIGIN

AXIAL = np.array([0.0, 0.0, 1.0])
# Nearly axial, in a frame where no component is zero, and the one of the synthetic series.
DIRECTIONS = {
    "axial": AXIAL,
    "oblique": NORMAL,
    "slightly oblique": np.array([0.02, -0.1, 1.0]) / np.linalg.norm([0.02, -0.1, 1.0]),
}
TILT = np.tan(np.radians(17.5)) * np.array([0.0, 1.0, 0.0])


def positions(
    step: float, count: int, normal: np.ndarray = AXIAL, shear: np.ndarray | float = 0.0
) -> np.ndarray:
    return np.asarray(ORIGIN + np.arange(count)[:, None] * step * (normal + shear))


def regular(places: np.ndarray, normal: np.ndarray = AXIAL) -> bool:
    return fit_line(places, normal).is_regular()


@pytest.mark.parametrize("count", [2, 3, 24, 500])
@pytest.mark.parametrize(
    ("step", "direction"),
    [
        *((step, "axial") for step in (0.1, 0.3, 0.34)),
        *((s, d) for s in (0.625, 0.75, 1.0, 1.25, 2.5, 3.27, 7.0) for d in DIRECTIONS),
    ],
)
def test_positions_rounded_to_a_tenth_are_regular(direction: str, step: float, count: int) -> None:
    normal = DIRECTIONS[direction]
    rng = np.random.default_rng(0)
    for _ in range(5):
        places = (positions(step, count, normal) + rng.uniform(-1, 1, 3)).round(1)
        line = fit_line(rng.permutation(places), normal)
        assert line.is_regular()
        assert line.tilt() == 0.0
        # What the docstring of Line says of its error.
        assert (np.abs(line.step - step * normal) <= 0.1 / (count - 1) + 1e-9).all()
        assert (np.abs(line.departures) <= 0.1 + 1e-9).all()


def test_a_tilted_stack_rounded_to_a_tenth_is_regular() -> None:
    line = fit_line(positions(1.25, 60, shear=TILT).round(1), AXIAL)
    assert line.is_regular()
    assert line.tilt() == pytest.approx(17.5, abs=0.1)


@pytest.mark.parametrize(
    ("step", "decimals"),
    [(0.1, 2), (0.25, 2), (0.3, 9), (0.5, 1), (0.625, 1), (0.625, 3), (1.25, 1), (3.27, 1), (5, 1)],
)
@pytest.mark.parametrize("count", [3, 4, 5, 24, 500])
@pytest.mark.parametrize("direction", list(DIRECTIONS))
def test_a_missing_slice_is_not_regular(
    direction: str, step: float, count: int, decimals: int
) -> None:
    normal = DIRECTIONS[direction]
    places = positions(step, count + 1, normal).round(decimals)
    for missing in {1, count // 2, count - 1}:
        assert not regular(np.delete(places, missing, axis=0), normal)


@pytest.mark.parametrize("decimals", [1, 9])
@pytest.mark.parametrize("step", [0.625, 1.25, 5.0, 10.0])
@pytest.mark.parametrize("direction", list(DIRECTIONS))
def test_one_slice_off_by_seven_tenths_is_not_regular(
    direction: str, step: float, decimals: int
) -> None:
    normal = DIRECTIONS[direction]
    sideways = np.cross(normal, [1.0, 0.0, 0.0]) / np.linalg.norm(np.cross(normal, [1, 0, 0]))
    for shift in (0.7 * normal, -0.7 * normal, 0.7 * sideways):
        places = positions(step, 30, normal)
        places[11] += shift
        assert not regular(places.round(decimals), normal)


@pytest.mark.parametrize("decimals", [1, 9])
def test_drifting_steps_are_not_regular(decimals: int) -> None:
    # Each step within 2 % of the mean, but the middle of the stack is off by millimetres.
    steps = np.linspace(2.45, 2.55, 499)
    places = np.zeros((500, 3))
    places[1:, 2] = np.cumsum(steps)
    assert np.abs(steps / steps.mean() - 1).max() < 0.021
    assert not regular(places.round(decimals))


def test_small_irregularity_is_kept_within_two_percent_only() -> None:
    for off, expected in ((0.019, True), (0.022, False)):
        places = positions(2.53711, 20)
        places[7, 2] += off * 2.53711
        assert regular(places) is expected


def test_only_rounded_positions_get_an_allowance_for_rounding() -> None:
    places = positions(0.625, 60)
    assert regular(places.round(1))
    offsets = places.round(1) - places
    offsets[:, 2] -= offsets[0, 2]  # the same irregularity in positions of many decimals
    assert not regular(places + offsets * np.array([0, 0, 1]) + 1e-3 * np.sqrt(2))


@pytest.mark.parametrize("direction", list(DIRECTIONS))
def test_a_tilt_that_varies_is_not_regular(direction: str) -> None:
    normal = DIRECTIONS[direction]
    places = positions(2.5, 20, normal, TILT)
    places[10:] += 0.5 * np.arange(1, 11)[:, None] * np.cross(normal, TILT)
    assert not regular(places, normal)


def test_two_images_at_one_position_are_not_regular() -> None:
    assert not regular(np.repeat(positions(2.5, 4), 2, axis=0))
    assert not regular(positions(0.0, 2))


def test_a_tilt_is_exact_and_a_small_one_is_none() -> None:
    def tilt(degrees: float) -> float:
        shear = np.tan(np.radians(degrees)) * np.array([0.0, -1.0, 0.0])
        line: Line = fit_line(positions(2.53711, 20, shear=shear), AXIAL)
        return line.tilt()

    assert tilt(17.5) == pytest.approx(17.5, abs=1e-6)
    assert tilt(-3.0) == pytest.approx(3.0, abs=1e-6)
    assert tilt(2.5) == 0.0


def test_one_slice_is_regular() -> None:
    line = fit_line(positions(1.0, 1), AXIAL)
    assert line.is_regular()
    assert line.tilt() == 0.0
