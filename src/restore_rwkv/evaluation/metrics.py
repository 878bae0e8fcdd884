"""PSNR, SSIM and RMSE by the paper's protocol: per slice, in physical units.

Other protocols give other numbers for the same images, so printed scores name their protocol.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.measures.ssim import PAPER_WINDOW, mean_ssim

PAPER_PROTOCOL = "paper"
"""Name of the protocol, to print beside scores of `paper_score` and `mean_score`."""


@dataclass(frozen=True)
class SliceScore:
    """Scores of one restored slice by the paper's protocol.

    Attributes:
        psnr: PSNR in dB; None where it is not finite, because the reference is constant or the two
            slices are identical.
        ssim: SSIM, at most 1; None where the reference is constant.
        rmse: root mean square error, in the unit of the images.
    """

    psnr: float | None
    ssim: float | None
    rmse: float


@dataclass(frozen=True)
class MeanScore:
    """Mean of the scores of several slices.

    Attributes:
        psnr: mean PSNR in dB over the slices that have one; None if no slice has a PSNR.
        ssim: mean SSIM over the same slices; None if there are no such slices.
        rmse: mean RMSE over the same slices, in the unit of the images; None if there are no such
            slices.
        slices: number of slices in the means.
        slices_without_score: number of slices without a PSNR, excluded from all three means.
    """

    psnr: float | None
    ssim: float | None
    rmse: float | None
    slices: int
    slices_without_score: int


def paper_score(
    restored: NDArray[np.generic],
    reference: NDArray[np.generic],
    truncate: tuple[float, float],
) -> SliceScore:
    """Score one slice as the published code does (section V-B of the paper).

    Both slices are truncated to a range; with `L = max - min` of the truncated reference,
    `PSNR = 10 log10(L^2 / MSE)` and SSIM is the mean over the whole map with a Gaussian window of
    11 x 11, sigma 1.5, zero padding, `C1 = (0.01 L)^2` and `C2 = (0.03 L)^2`. All in float64.

    Args:
        restored: restored slice (H, W) in physical units.
        reference: true slice (H, W) in physical units.
        truncate: range (low, high) in the same units: (0, 4095) for MRI, (-160, 240) HU for CT,
            (0, 20) for PET.

    Raises:
        InputError: the arrays are not 2-D, differ in shape, are empty, or are not finite.
        ConfigError: the range is empty or not finite.

    Example:
        >>> import numpy as np
        >>> from restore_rwkv.evaluation.metrics import paper_score
        >>> reference = np.linspace(0.0, 100.0, 32 * 32).reshape(32, 32)
        >>> round(paper_score(reference + 1.0, reference, truncate=(0.0, 4095.0)).psnr, 3)
        40.0
    """
    x, y = _truncated(restored, reference, truncate)
    data_range = float(y.max() - y.min())
    rmse = _rmse(x, y)
    if data_range == 0:
        return SliceScore(psnr=None, ssim=None, rmse=rmse)
    ssim = mean_ssim(x, y, data_range, PAPER_WINDOW)
    return SliceScore(psnr=_psnr(data_range, rmse), ssim=ssim, rmse=rmse)


def paper_psnr(
    restored: NDArray[np.generic],
    reference: NDArray[np.generic],
    truncate: tuple[float, float],
) -> float | None:
    """Return the PSNR of `paper_score` in dB, without the time of the other scores.

    Raises:
        InputError: as `paper_score`.
        ConfigError: as `paper_score`.
    """
    x, y = _truncated(restored, reference, truncate)
    data_range = float(y.max() - y.min())
    return _psnr(data_range, _rmse(x, y)) if data_range > 0 else None


def mean_score(scores: Iterable[SliceScore]) -> MeanScore:
    """Average scores over slices; slices without a PSNR are counted but excluded from the means."""
    psnr, ssim, rmse = [], [], []
    left_out = 0
    for score in scores:
        if score.psnr is None or score.ssim is None:
            left_out += 1
            continue
        psnr.append(score.psnr)
        ssim.append(score.ssim)
        rmse.append(score.rmse)
    if not psnr:
        return MeanScore(None, None, None, slices=0, slices_without_score=left_out)
    count = len(psnr)
    return MeanScore(
        psnr=math.fsum(psnr) / count,
        ssim=math.fsum(ssim) / count,
        rmse=math.fsum(rmse) / count,
        slices=count,
        slices_without_score=left_out,
    )


def _truncated(
    restored: NDArray[np.generic], reference: NDArray[np.generic], truncate: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = truncate
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"metric range is ({low:g}, {high:g}); give finite low < high")
    x = np.clip(_slice_of(restored, "restored"), low, high)
    y = np.clip(_slice_of(reference, "reference"), low, high)
    if x.shape != y.shape:
        raise InputError(f"restored is {x.shape} but reference is {y.shape}; give equal shapes")
    return x, y


def _rmse(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return math.sqrt(float(np.mean((x - y) ** 2)))


def _psnr(data_range: float, rmse: float) -> float | None:
    return 20 * math.log10(data_range / rmse) if rmse > 0 else None


def _slice_of(array: NDArray[np.generic], name: str) -> NDArray[np.float64]:
    values = np.asarray(array, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise InputError(f"{name} has shape {values.shape}; give one slice of shape (H, W)")
    if not np.isfinite(values).all():
        raise InputError(f"{name} has voxels that are not finite; replace or mask them first")
    return values
