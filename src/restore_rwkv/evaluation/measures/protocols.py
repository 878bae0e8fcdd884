"""PSNR, SSIM and RMSE under named protocols, which give other numbers for the same images.

- paper: both slices truncated to the task's metric range; L is the range of the true slice.
- fixed-range: both slices normalised from the task's value range to [0, 1] and clipped there, so
  that L = 1; the window of SSIM is that of the paper.
- skimage: scikit-image with its defaults and nothing truncated; L is the range of the true slice.
- per-volume: the evaluation of fastMRI, where L is the largest value of the true volume.
"""

from __future__ import annotations

import math

import numpy as np

from restore_rwkv.evaluation.measures.measure import Measure, NoScoreError, Setting, Values
from restore_rwkv.evaluation.measures.score_checks import (
    pair_of,
    psnr_of,
    require_range,
    require_sides,
)
from restore_rwkv.evaluation.measures.ssim import PAPER_WINDOW, SKIMAGE_WINDOW, mean_ssim
from restore_rwkv.evaluation.metrics import paper_psnr, paper_score


def _paper_psnr(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth)
    _require_range_within(truth, setting.task.metric_range)
    psnr = paper_psnr(restored, truth, setting.task.metric_range)
    if psnr is None:
        raise NoScoreError("the images are identical within the range, so PSNR is infinite")
    return psnr


def _paper_ssim(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth)
    _require_range_within(truth, setting.task.metric_range)
    ssim = paper_score(restored, truth, setting.task.metric_range).ssim
    assert ssim is not None  # the truth is not constant
    return ssim


def _paper_rmse(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth)
    low, high = setting.task.metric_range
    return math.sqrt(_mean_square(np.clip(restored, low, high), np.clip(truth, low, high)))


def _require_range_within(truth: Values, limits: tuple[float, float]) -> None:
    if np.ptp(np.clip(truth, *limits)) == 0:
        raise NoScoreError(f"the truth is constant within {limits[0]:g} to {limits[1]:g}")


def _fixed_psnr(restored: Values, truth: Values, setting: Setting) -> float:
    return psnr_of(1.0, _mean_square(*_normalised(restored, truth, setting)))


def _fixed_ssim(restored: Values, truth: Values, setting: Setting) -> float:
    return mean_ssim(*_normalised(restored, truth, setting), 1.0, PAPER_WINDOW)


def _fixed_rmse(restored: Values, truth: Values, setting: Setting) -> float:
    low, high = setting.task.value_range
    return (high - low) * math.sqrt(_mean_square(*_normalised(restored, truth, setting)))


def _normalised(restored: Values, truth: Values, setting: Setting) -> tuple[Values, Values]:
    restored, truth = pair_of(restored, truth)
    low, high = setting.task.value_range
    x, y = (np.clip((image - low) / (high - low), 0, 1) for image in (restored, truth))
    return x, y


def _skimage_psnr(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth)
    return psnr_of(require_range(truth), _mean_square(restored, truth))


def _skimage_ssim(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth)
    require_sides(truth, SKIMAGE_WINDOW.side, "this SSIM")
    return mean_ssim(restored, truth, require_range(truth), SKIMAGE_WINDOW)


def _skimage_rmse(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth)
    return math.sqrt(_mean_square(restored, truth))


def _volume_psnr(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth, axes=3)
    return psnr_of(_peak(truth), _mean_square(restored, truth))


def _volume_ssim(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth, axes=3)
    peak = _peak(truth)
    require_sides(truth, SKIMAGE_WINDOW.side, "this SSIM")
    pairs = zip(restored, truth, strict=True)
    return math.fsum(mean_ssim(x, y, peak, SKIMAGE_WINDOW) for x, y in pairs) / len(truth)


def _volume_nmse(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth, axes=3)
    square = float(np.sum(truth**2))
    if square == 0:
        raise NoScoreError("the truth is zero everywhere")
    return float(np.sum((restored - truth) ** 2)) / square


def _peak(truth: Values) -> float:
    peak = float(truth.max())
    if peak <= 0:
        raise NoScoreError("the largest value of the truth is not above zero")
    return peak


def _mean_square(x: Values, y: Values) -> float:
    return float(np.mean((x - y) ** 2))


_PAPER = "Restore-RWKV, section V-B and its published code (truncation, range of each true slice)"
_FIXED = "the normalisation range as L, as usual for networks that are scored on their own values"
_SKIMAGE = "scikit-image 0.26, skimage.metrics"
_FASTMRI = "Zbontar et al., arXiv 1811.08839, and fastmri/evaluate.py less its central crop"
_WANG = "Wang et al., IEEE TIP 13:600 (2004), eq. 13 and 17"
_PSNR_BLIND = (
    "Where the error lies and what it looks like: a removed lesion of a few pixels hardly changes "
    "it, and noise, blur and a shift in grey level of equal energy score alike"
)
_SSIM_BLIND = (
    "The size of a structure beside the whole image, over which it is a mean: large areas of air, "
    "where it is near 1, hide losses in tissue"
)
_RMSE_BLIND = "Where the error lies, and whether it is noise, blur or a wrong grey level"
_ANY = (-math.inf, math.inf)

PROTOCOL_MEASURES: tuple[Measure, ...] = (
    Measure(
        name="psnr",
        title="PSNR",
        unit="dB",
        better="higher",
        bounds=_ANY,
        of="slice",
        equation="10 log10(L^2 / mean((x - y)^2)), x and y truncated to the metric range, "
        "L = max(y) - min(y)",
        source=_PAPER,
        blind_to=f"{_PSNR_BLIND}; L differs between slices, so that slices do not compare; errors "
        "outside the metric range (in CT bone and lung) do not count.",
        compute=_paper_psnr,
    ),
    Measure(
        name="ssim",
        title="SSIM",
        unit="1",
        better="higher",
        bounds=(-1.0, 1.0),
        of="slice",
        equation="mean of (2 mx my + C1) (2 sxy + C2) / ((mx^2 + my^2 + C1) (sxx + syy + C2)), x, "
        "y and L as for psnr, C1 = (0.01 L)^2, C2 = (0.03 L)^2, Gaussian of 11 x 11 pixels and "
        "sigma 1.5, zeros beyond the border",
        source=f"{_PAPER}; {_WANG}",
        blind_to=f"{_SSIM_BLIND}; errors outside the metric range do not count, and the zero "
        "padding makes borders count as structure.",
        compute=_paper_ssim,
    ),
    Measure(
        name="rmse",
        title="RMSE",
        unit="image",
        better="lower",
        bounds=(0.0, math.inf),
        of="slice",
        equation="sqrt(mean((x - y)^2)), x and y truncated to the metric range",
        source=_PAPER,
        blind_to=f"{_RMSE_BLIND}; errors outside the metric range do not count, and in MRI the "
        "unit is arbitrary, so that scans do not compare.",
        compute=_paper_rmse,
    ),
    Measure(
        name="fixed-range.psnr",
        title="PSNR, fixed range",
        unit="dB",
        better="higher",
        bounds=(0.0, math.inf),
        of="slice",
        equation="10 log10(1 / mean((u - v)^2)), u and v normalised from the value range to [0, 1] "
        "and clipped",
        source=_FIXED,
        blind_to=f"{_PSNR_BLIND}; the contrast of the scan does not count, so that dim scans score "
        "high however poor they are.",
        compute=_fixed_psnr,
    ),
    Measure(
        name="fixed-range.ssim",
        title="SSIM, fixed range",
        unit="1",
        better="higher",
        bounds=(-1.0, 1.0),
        of="slice",
        equation="as ssim, of u and v normalised from the value range to [0, 1] and clipped, L = 1",
        source=f"{_FIXED}; {_WANG}",
        blind_to=f"{_SSIM_BLIND}; contrast that is small beside 3 % of the value range (123 HU in "
        "CT, so most of what soft tissue shows) hardly counts.",
        compute=_fixed_ssim,
    ),
    Measure(
        name="fixed-range.rmse",
        title="RMSE, fixed range",
        unit="image",
        better="lower",
        bounds=(0.0, math.inf),
        of="slice",
        equation="sqrt(mean((x - y)^2)), x and y clipped to the value range",
        source=_FIXED,
        blind_to=f"{_RMSE_BLIND}; in CT it is ruled by bone, air and lung, not by soft tissue.",
        compute=_fixed_rmse,
    ),
    Measure(
        name="skimage.psnr",
        title="PSNR, scikit-image",
        unit="dB",
        better="higher",
        bounds=_ANY,
        of="slice",
        equation="10 log10(L^2 / mean((x - y)^2)), nothing truncated, L = max(y) - min(y)",
        source=f"{_SKIMAGE}.peak_signal_noise_ratio with data_range=L",
        blind_to=f"{_PSNR_BLIND}; one bright pixel of the truth, such as metal, raises L and with "
        "it the score.",
        compute=_skimage_psnr,
    ),
    Measure(
        name="skimage.ssim",
        title="SSIM, scikit-image",
        unit="1",
        better="higher",
        bounds=(-1.0, 1.0),
        of="slice",
        equation="as ssim, nothing truncated, L = max(y) - min(y), mean of 7 x 7 pixels with "
        "sample covariance, only windows inside the image (its default; Wang's Gaussian is not)",
        source=f"{_SKIMAGE}.structural_similarity with data_range=L; {_WANG}",
        blind_to=f"{_SSIM_BLIND}; the three outermost rows and columns are the centre of no window "
        "and count less.",
        compute=_skimage_ssim,
    ),
    Measure(
        name="skimage.rmse",
        title="RMSE, scikit-image",
        unit="image",
        better="lower",
        bounds=(0.0, math.inf),
        of="slice",
        equation="sqrt(mean((x - y)^2)), nothing truncated",
        source=f"root of {_SKIMAGE}.mean_squared_error",
        blind_to=f"{_RMSE_BLIND}; a few very bright pixels can decide it.",
        compute=_skimage_rmse,
    ),
    Measure(
        name="per-volume.psnr",
        title="PSNR, volume",
        unit="dB",
        better="higher",
        bounds=_ANY,
        of="volume",
        equation="10 log10(max(y)^2 / mean((x - y)^2)) over all voxels, nothing truncated",
        source=_FASTMRI,
        blind_to=f"{_PSNR_BLIND}; a few bad slices of a volume do not show, and in CT max(y) "
        "depends on where the scale of HU has its zero.",
        compute=_volume_psnr,
    ),
    Measure(
        name="per-volume.ssim",
        title="SSIM, volume",
        unit="1",
        better="higher",
        bounds=(-1.0, 1.0),
        of="volume",
        equation="mean over slices of skimage.ssim with L = max(y) of the whole volume",
        source=f"{_FASTMRI}; {_WANG}",
        blind_to=f"{_SSIM_BLIND}; slices that are dim beside the brightest voxel score high.",
        compute=_volume_ssim,
    ),
    Measure(
        name="per-volume.nmse",
        title="NMSE, volume",
        unit="1",
        better="lower",
        bounds=(0.0, math.inf),
        of="volume",
        equation="sum((x - y)^2) / sum(y^2) over all voxels, nothing truncated",
        source=_FASTMRI,
        blind_to="Where the error lies, also in which slice; bright voxels decide it, and in CT it "
        "depends on where the scale of HU has its zero.",
        compute=_volume_nmse,
    ),
)
"""Measures of all protocols, those of the paper first."""

PROTOCOLS: dict[str, tuple[str, ...]] = {
    "paper": ("psnr", "ssim", "rmse"),
    "fixed-range": ("fixed-range.psnr", "fixed-range.ssim", "fixed-range.rmse"),
    "skimage": ("skimage.psnr", "skimage.ssim", "skimage.rmse"),
    "per-volume": ("per-volume.psnr", "per-volume.ssim", "per-volume.nmse"),
}
"""Names of the measures of each protocol."""
