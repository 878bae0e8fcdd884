"""The regular line through the positions of slices, and how far they lie off it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from restore_rwkv.io.stored import Float64Array

# How far a slice may lie off the line, as a part of the distance between slices, beyond what the
# rounding of the positions explains.
SPACING_TOLERANCE = 0.02
# How much the distance of two neighbours may differ from the mean, as a part of it, rounding
# included: a missing slice makes one at least a third larger. Rounding to 0.1 mm can hide it among
# a few slices less than 0.4 mm apart; a regular axial stack of 0.34 mm and more always passes.
_MOST_UNEVEN = 0.3
# Units to which positions are rounded, most often 0.1 mm. The line runs from the first to the last
# position, so it is off by up to half a unit, and so is each slice: along each axis one unit.
_UNITS = (0.1, 0.01, 0.001)  # mm
# 1 - cosine of the angle between the stack and the slice normal: 2.6 degrees. A smaller shear is
# kept exactly too, but is not called a tilt.
TILT_TOLERANCE = 1e-3
SAME_POSITION = 1e-3  # mm


@dataclass(frozen=True, eq=False)
class Line:
    """Positions sorted along the normal, and the straight, regular line through them.

    The line runs from the first to the last position, so that both are exact. If each coordinate
    is off by up to e (0.05 mm when rounded to 0.1 mm), the step between N slices is off by at most
    2e / (N - 1) along each axis, and the line's places by at most e.

    Attributes:
        order: (N,) indices of the positions as given.
        positions: (N, 3) in mm, sorted.
        normal: (3,) unit vector.
        step: (3,) from one slice to the next; zeros for one slice.
        unit: (3,) to what the positions are rounded along each axis in mm; 0 where they are not.
    """

    order: npt.NDArray[np.intp]
    positions: Float64Array
    normal: Float64Array
    step: Float64Array
    unit: Float64Array

    @property
    def gaps(self) -> Float64Array:
        """(N - 1,): distances of the planes of neighbouring slices in mm."""
        return np.diff(self.positions @ self.normal)

    @property
    def departures(self) -> Float64Array:
        """(N, 3): each position less its place on the line, in mm."""
        places = self.positions[0] + np.arange(len(self.positions))[:, None] * self.step
        result: Float64Array = self.positions - places
        return result

    def is_regular(self) -> bool:
        """Whether each slice lies on the line, as far as rounding and the tolerance allow."""
        if self.gaps.min(initial=np.inf) < SAME_POSITION:
            return False
        step = float(self.step @ self.normal)
        off = self.departures
        beyond = np.linalg.norm(np.maximum(np.abs(off) - self.unit, 0), axis=1)
        uneven = np.abs(self.gaps - step).max(initial=0.0)
        return bool(beyond.max() <= SPACING_TOLERANCE * step and uneven <= _MOST_UNEVEN * step)

    def tilt(self) -> float:
        """Angle between stack and normal in degrees; 0.0 below the tolerance, or by rounding."""
        span = self.positions[-1] - self.positions[0]
        along = float(span @ self.normal)
        if along < SAME_POSITION:
            return 0.0
        sideways = span - along * self.normal
        certain = np.linalg.norm(np.maximum(np.abs(sideways) - self.unit, 0))
        if 1 - along / np.hypot(along, certain) < TILT_TOLERANCE:
            return 0.0
        return float(np.degrees(np.arctan2(np.linalg.norm(sideways), along)))


def fit_line(positions: Float64Array, normal: Float64Array) -> Line:
    """Return the line through positions in any order.

    Args:
        positions: (N, 3) in mm.
        normal: (3,) direction of the stack, perpendicular to the slices.
    """
    normal = normal / np.linalg.norm(normal)
    order = np.argsort(positions @ normal, kind="stable")
    in_order = positions[order]
    step = (in_order[-1] - in_order[0]) / max(len(positions) - 1, 1)
    return Line(order, in_order, normal, step, _rounding(positions))


def _rounding(positions: Float64Array) -> Float64Array:
    """(3,): the largest unit of which all coordinates along an axis are multiples, or 0."""
    unit = np.zeros(3)
    for size in _UNITS:
        multiples = positions / size
        rounded = (np.abs(multiples - np.rint(multiples)) < 1e-4).all(axis=0)
        unit[rounded & (unit == 0)] = size
    return unit
