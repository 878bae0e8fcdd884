"""Scaling of physical values to network values and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.options import Expected, from_mapping, validated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    FloatArray = TypeVar("FloatArray", NDArray[np.float32], NDArray[np.float64], Tensor)

FOREGROUND_LEVEL = 10.0
_CLIP_FRACTION = 0.999
_MAX_STEPS = 50
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Scaling:
    """The map `(physical - offset) / scale` onto the network's values, and its inverse.

    Attributes:
        offset: physical value that becomes 0.
        scale: physical units per 1 of the network's values, above 0.

    Raises:
        ConfigError: a value is not finite, or the scale is not above 0.
    """

    offset: float
    scale: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.offset) and math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(
                f"scaling has offset {self.offset:g} and scale {self.scale:g}; "
                "give finite numbers and a scale above 0"
            )

    def apply(self, array: FloatArray) -> FloatArray:
        """Convert an array or tensor of any shape from physical to network values, same type."""
        return (array - self.offset) / self.scale

    def invert(self, array: FloatArray) -> FloatArray:
        """Convert an array or tensor from network to physical values; the inverse of `apply`."""
        return array * self.scale + self.offset

    def to_dict(self) -> dict[str, float]:
        """Return offset and scale as plain numbers; `Scaling(**values)` reverses this."""
        return asdict(self)


@validated("scaling rule")
@dataclass(frozen=True)
class ScalingRule:
    """Rule that gives the scaling of a volume; weight files record the one of their training.

    Attributes:
        kind: "robust", from the volume's own foreground, see `robust_scaling`; or "fixed".
        offset: of the fixed scaling, in physical units.
        scale: of the fixed scaling, physical units per 1 of the network's values, above 0.

    Raises:
        ConfigError: the kind is unknown, or the numbers are not a valid scaling.
    """

    kind: Annotated[Literal["robust", "fixed"], Expected(name="scaling rule")]
    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        Scaling(self.offset, self.scale)

    def scaling_of(self, data: NDArray[Any]) -> Scaling:
        """Return the scaling of a volume in physical units, of any shape.

        Raises:
            InputError: the rule is robust, and the image is empty or not finite.
        """
        if self.kind == "robust":
            return robust_scaling(data)
        return Scaling(self.offset, self.scale)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` reverses this."""
        return {"kind": "robust"} if self.kind == "robust" else asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScalingRule:
        """Build a rule from what `to_dict` returned.

        Raises:
            ConfigError: a key is unknown or missing, or a value is not a number.
        """
        return from_mapping(cls, values)


def onto_unit_range(low: float, high: float) -> ScalingRule:
    """Return the rule that maps [low, high] to [0, 1], such as (0, 4095) for the paper's MRI.

    Raises:
        ConfigError: the range is empty or not finite.
    """
    return ScalingRule("fixed", float(low), float(high) - float(low))


def robust_scaling(data: NDArray[Any]) -> Scaling:
    """Return the scaling that gives the foreground of an image the mean 10.

    It is meant for images without a fixed unit, such as MRI.

    The foreground mean m is the fixed point of "mean of the voxels above m / 2" with the 0.1 %
    highest voxels clipped, so that neither air around the head nor a few hot voxels matter.
    Blurring changes it little: over ten stacks of slices from four training scans, m of the
    k-space-cropped slices was 0.960 to 0.981 of m of the sharp ones, while their 99.9 % quantile
    was 0.90 to 0.985. The offset is 0, and an image times a positive number has that number times
    the scale.

    The mean is 10 because LayerNorm brings the network's features to the order of 1: a residual of
    that order is learned faster than one of a hundredth of it (docs/training.md).

    Args:
        data: image of any shape, any real type, in any unit; the whole volume, not one slice of it.

    Returns:
        A scaling with offset 0. An image without positive foreground (all zero) has scale 1.

    Raises:
        InputError: the image is empty or has voxels that are not finite.

    Example:
        >>> import numpy as np
        >>> from restore_rwkv.tasks.scaling import robust_scaling
        >>> robust_scaling(np.array([[0.0, 0.0], [100.0, 100.0]])).apply(np.array([100.0]))
        array([10.])
    """
    import numpy as np

    values = np.asarray(data).ravel()
    if values.size == 0:
        raise InputError("image: it has no voxels to find a scale from; give a non-empty image")
    if not np.isfinite(values).all():
        raise InputError("image: it has voxels that are not finite; replace or mask them first")
    rank = math.floor(_CLIP_FRACTION * (values.size - 1))
    clipped = np.minimum(values, np.partition(values, rank)[rank])
    mean = float(clipped.mean(dtype=np.float64))
    threshold = mean
    for _ in range(_MAX_STEPS):
        foreground = clipped[clipped > threshold]
        if foreground.size == 0:
            break
        mean = float(foreground.mean(dtype=np.float64))
        if abs(threshold - mean / 2) <= _TOLERANCE * mean:
            break
        threshold = mean / 2
    return Scaling(offset=0.0, scale=mean / FOREGROUND_LEVEL if mean > 0 else 1.0)
