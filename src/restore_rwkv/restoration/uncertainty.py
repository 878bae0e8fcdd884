"""How far the values of a restored scan may lie from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restore_rwkv.io import Volume
    from restore_rwkv.tasks.report_calibration import SpreadMethod


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """The spread of restored values, which is not an interval before it is calibrated.

    Attributes:
        method: how it was found.
        volume: root mean squared deviation from the restored value, 0 or more, in its unit, on the
            grid of the restored scan.
        samples: number of restorations that it is from.
        scale: of the scaling of the scan, in its unit.
    """

    method: SpreadMethod
    volume: Volume
    samples: int
    scale: float
