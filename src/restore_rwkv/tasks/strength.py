"""Noise that a reduced dose added to a scan, and the strength of the correction for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from annotated_types import Gt

from restore_rwkv.errors import ConfigError
from restore_rwkv.options import from_mapping, validated

_MAX_LEVEL = 4.0  # octaves: 1/257 of the dose


@dataclass(frozen=True)
class AddedNoise:
    """The part of a scan's noise that a scan of full quality would not have.

    Attributes:
        ratio: standard deviation of the added noise over that of the scan, 0 to 1.
        found: noise that was measured in the scan; None where it was not measured.
        reference: noise of a scan of full quality that `found` was compared with; None likewise.
        factor: how many times less dose than a scan of full quality; None where noise was measured.
        assumed: why `factor` is that of the task; None where it was given.
    """

    ratio: float
    found: float | None = None
    reference: float | None = None
    factor: float | None = None
    assumed: str | None = None

    @classmethod
    def told(cls, factor: float, assumed: str | None = None) -> AddedNoise:
        """Noise added by a dose that is less by a factor, `sqrt(1 - 1 / factor)` of all noise.

        The variance of the noise is inversely proportional to the dose.
        """
        return cls(math.sqrt(1 - 1 / factor), factor=factor, assumed=assumed)

    @classmethod
    def measured(cls, found: float, reference: float) -> AddedNoise:
        """Noise beyond that of a full scan, `sqrt(1 - (reference / found)^2)`; 0 for no more."""
        ratio = math.sqrt(1 - (reference / found) ** 2) if found > reference else 0.0
        return cls(ratio, found=found, reference=reference)

    @property
    def level(self) -> float:
        """Level of the added noise, as networks with `noise_level` are told it, -4 to 4.

        The binary logarithm of its standard deviation over that of the noise that a scan of full
        quality has: `log2(factor - 1) / 2` for a dose that is less by a factor.
        """
        full = math.sqrt(1 - self.ratio**2)
        if min(self.ratio, full) == 0:
            return -_MAX_LEVEL if self.ratio == 0 else _MAX_LEVEL
        return min(max(math.log2(self.ratio / full), -_MAX_LEVEL), _MAX_LEVEL)


@validated("strength")
@dataclass(frozen=True)
class Strength:
    """The strength of a network's correction, as calibrated on validation subjects.

    A scan x becomes `x + a (f(x) - x)`, with f the network and a, the strength, a function of the
    fraction of the noise that was added (`AddedNoise.ratio`).

    Attributes:
        reference: noise of the noisiest scan of full quality, as `Modality.noise_of` measures it.
        pixel: side in mm of the pixels that the reference is for; None where it hardly depends on
            them.
        points: (ratio, strength), between which the strength is linear. Both are from 0 to 1;
            ratios rise, strengths do not fall, and ratio 0 has strength 0.

    Raises:
        ConfigError: a value is out of range or out of order.
    """

    reference: Annotated[float, Gt(0)]
    points: tuple[tuple[float, float], ...]
    pixel: Annotated[float, Gt(0)] | None = None

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
        points = [list(point) for point in self.points]
        return {"reference": self.reference, "points": points, "pixel": self.pixel}

    @classmethod
    def from_dict(cls, values: Any) -> Strength:
        """Build a strength from what `to_dict` returned.

        Raises:
            ConfigError: a key is unknown or missing, or a value does not fit.
        """
        return from_mapping(cls, values)
