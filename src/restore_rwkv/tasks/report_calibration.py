"""What makes the report of a restored image trustworthy: factors and thresholds of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from restore_rwkv.errors import ConfigError
from restore_rwkv.options import from_mapping, validated

SpreadMethod = Literal["turns", "bootstrap"]


@validated("intervals")
@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Factors of split-conformal prediction that turn a spread into intervals.

    The interval of a pixel of tissue t is its restored value plus and minus
    `factors[t] * (spread + floor * scale)`, with `scale` that of the scaling of its scan.

    Attributes:
        method: how the spread is found.
        level: share of the pixels of calibration scans whose truth lies in its interval, 0 to 1.
        factors: by name of the tissue (`Modality.tissues`).
        floor: in units of the scaling, so that a spread of 0 has an interval.
        subjects: number of validation subjects that the factors are from.
        pixels: number of pixels that they are from.
        coverage: share of pixels in their intervals on the slices of validation subjects that the
            factors are not from.

    Raises:
        ConfigError: a value is out of range.
    """

    method: SpreadMethod
    level: float
    factors: Mapping[str, float]
    floor: Annotated[float, Ge(0)]
    subjects: int
    pixels: int
    coverage: float

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or not 0 <= self.coverage <= 1:
            raise ConfigError(
                f"intervals: level {self.level:g} and coverage {self.coverage:g}; give shares "
                "between 0 and 1"
            )
        if not self.factors or not all(0 < x < math.inf for x in self.factors.values()):
            raise ConfigError("intervals: factors are not finite numbers above 0; calibrate again")


@validated("places")
@dataclass(frozen=True, kw_only=True)
class PlaceThreshold:
    """From which score a place deserves a look.

    Attributes:
        threshold: absolute value of the detector.
        false_alarms: places beyond it in a slice of a faithful image, mean over the validation.
        slices: number of slices that this is from.
    """

    threshold: Annotated[float, Gt(0)]
    false_alarms: Annotated[float, Ge(0)]
    slices: int


@validated("report")
@dataclass(frozen=True, kw_only=True)
class ReportCalibration:
    """Calibration of a report for one task, from validation subjects.

    Attributes:
        intervals: at most one for each method.
        places: threshold of the detector; None where it was not calibrated.
    """

    intervals: tuple[Intervals, ...] = field(default=())
    places: PlaceThreshold | None = None

    def intervals_by(self, method: SpreadMethod) -> Intervals | None:
        """Return the intervals of a method; None where there are none."""
        return next((each for each in self.intervals if each.method == method), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` reverses this."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> ReportCalibration:
        """Build a calibration from what `to_dict` returned.

        Raises:
            ConfigError: a key is unknown or missing, or a value does not fit.
        """
        if isinstance(values, Mapping):
            values = dict(values)
            if isinstance(values.get("intervals"), list | tuple):
                values["intervals"] = tuple(
                    from_mapping(Intervals, each) for each in values["intervals"]
                )
            if values.get("places") is not None:
                values["places"] = from_mapping(PlaceThreshold, values["places"])
        return from_mapping(cls, values)
