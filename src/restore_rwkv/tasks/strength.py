"""Noise that a reduced dose added to a scan, and the strength of the correction for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from annotated_types import Gt

from restore_rwkv.errors import ConfigError
from restore_rwkv.options import from_mapping, validated


@dataclass(frozen=True)
class AddedNoise:
    """The part of a scan's noise that a scan of full quality would not have.

    Attributes:
        ratio: standard deviation of the added noise over that of the scan, 0 to 1.
        found: noise that was measured in the scan; None where that is not possible.
        reference: noise of a scan of full quality that `found` was compared with; None where the
            ratio follows from `factor`.
        factor: how many times less dose than a scan of full quality; None where `found` was
            compared.
        assumed: why `factor` is that of the task; None where it was given.
    """

    ratio: float
    found: float | None = None
    reference: float | None = None
    factor: float | None = None
    assumed: str | None = None

    @classmethod
    def told(
        cls, factor: float, found: float | None = None, assumed: str | None = None
    ) -> AddedNoise:
        """Noise added by a dose that is less by a factor, `sqrt(1 - 1 / factor)` of all noise.

        The variance of the noise is inversely proportional to the dose.
        """
        return cls(math.sqrt(1 - 1 / factor), found, factor=factor, assumed=assumed)

    @classmethod
    def measured(cls, found: float, reference: float) -> AddedNoise:
        """Noise beyond that of a full scan, `sqrt(1 - (reference / found)^2)`; 0 for no more."""
        ratio = math.sqrt(1 - (reference / found) ** 2) if found > reference else 0.0
        return cls(ratio, found=found, reference=reference)

    @property
    def sigma(self) -> float | None:
        """Standard deviation of the added noise; None where `found` is None."""
        return None if self.found is None else self.ratio * self.found


@validated("strength")
@dataclass(frozen=True)
class Strength:
    """The strength of a network's correction, as calibrated on validation subjects.

    A scan x becomes `x + a (f(x) - x)`, with f the network and a, the strength, a function of the
    fraction of the noise that was added (`AddedNoise.ratio`).

    Attributes:
        reference: noise of the noisiest scan of full quality, as `Modality.noise_of` measures it.
        points: (ratio, strength), between which the strength is linear. Both are from 0 to 1;
            ratios rise, strengths do not fall, and ratio 0 has strength 0.

    Raises:
        ConfigError: a value is out of range or out of order.
    """

    reference: Annotated[float, Gt(0)]
    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        for values in zip(*self.points, strict=True):
            if not all(0 <= value <= 1 for value in values):
                raise ConfigError(f"strength: points are {self.points}; give numbers from 0 to 1")
        rising = all(
            ratio < next_ratio and value <= next_value
            for (ratio, value), (next_ratio, next_value) in pairwise(self.points)
        )
        if not self.points or self.points[0] != (0, 0) or not rising:
            raise ConfigError(
                f"strength: points are {self.points}; start with (0, 0), and give rising ratios "
                "with strengths that do not fall"
            )
        if not math.isfinite(self.reference):
            raise ConfigError("strength: reference is not finite; give the noise of a scan")

    def at(self, ratio: float) -> float:
        """Return the strength for a ratio; beyond the last point that of the last point."""
        last_ratio, last = self.points[0]
        for next_ratio, value in self.points[1:]:
            if ratio <= next_ratio:
                part = (ratio - last_ratio) / (next_ratio - last_ratio)
                return last + part * (value - last)
            last_ratio, last = next_ratio, value
        return last

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` reverses this."""
        return {"reference": self.reference, "points": [list(point) for point in self.points]}

    @classmethod
    def from_dict(cls, values: Any) -> Strength:
        """Build a strength from what `to_dict` returned.

        Raises:
            ConfigError: a key is unknown or missing, or a value does not fit.
        """
        return from_mapping(cls, values)
