"""What a measure of image quality is: its equation, unit and source, and what it is blind to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.tasks import Task

Values = NDArray[np.float64]


class NoScoreError(Exception):
    """Raised where an image has no value of a measure; the message is the reason.

    It is a clause, such as "the truth is constant", which tables print after the name of the slice.
    """


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What measures know of a scan beside its values.

    Attributes:
        task: task of the scan; it has the modality, the unit of the values, the range that the
            paper's protocol truncates to, and the range that network values are normalised from.
        pixel_mm: distance of pixels along the rows and columns of a slice, in mm; None if unknown.
        peak: largest value of the truth in all scored slices of the scan, in its unit.
    """

    task: Task
    pixel_mm: tuple[float, float] | None
    peak: float


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure of image quality.

    Attributes:
        name: key in options, tables and files, such as "psnr", "skimage.ssim" or "haarpsi": lower
            case, words joined by "-"; before a dot the name of a protocol. Names
            without a dot that protocols define are those of the paper.
        title: name in prose and over columns, such as "SSIM, scikit-image".
        unit: "dB", "HU", "%", "1" for a pure number, or "image" for the unit of the images.
        better: which values are better: higher ones, lower ones, or those nearer to zero.
        bounds: smallest and largest possible value.
        of: whether it is computed for each slice (H, W), or once for all slices (N, H, W).
        modalities: those that it is for, "MR", "CT" or "PT"; empty for all.
        equation: how it is computed, in one line of text.
        source: publication, with its equation or section, and the library that computes it, if any.
        blind_to: what it does not see, as a sentence.
        compute: takes restored and true values in float64, in physical units, and the setting;
            returns a finite number or raises `NoScoreError`. Both arrays are finite, and equal in
            shape; it must not change them.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower", "zero"]
    bounds: tuple[float, float]
    of: Literal["slice", "volume"]
    equation: str
    source: str
    blind_to: str
    compute: Callable[[Values, Values, Setting], float]
    modalities: tuple[str, ...] = ()

    def suits(self, task: Task) -> bool:
        """Whether the measure is for images of a task."""
        return not self.modalities or task.modality in self.modalities
