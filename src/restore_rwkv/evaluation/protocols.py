"""PSNR, SSIM and RMSE under named protocols."""

from __future__ import annotations

from restore_rwkv.evaluation.measures import Measure, NoScoreError, Setting, Values
from restore_rwkv.evaluation.metrics import SliceScore, paper_score

_SOURCE = "section V-B of the paper, and its published code"


def _score(restored: Values, truth: Values, setting: Setting) -> SliceScore:
    found = paper_score(restored, truth, setting.task.metric_range)
    if found.ssim is None:
        raise NoScoreError("the truth is constant")
    if found.psnr is None:
        raise NoScoreError("the image equals the truth")
    return found


def _psnr(restored: Values, truth: Values, setting: Setting) -> float:
    return _score(restored, truth, setting).psnr or 0.0


def _ssim(restored: Values, truth: Values, setting: Setting) -> float:
    return _score(restored, truth, setting).ssim or 0.0


def _rmse(restored: Values, truth: Values, setting: Setting) -> float:
    return _score(restored, truth, setting).rmse


PROTOCOL_MEASURES: tuple[Measure, ...] = (
    Measure(
        name="psnr",
        title="PSNR",
        unit="dB",
        better="higher",
        bounds=(-float("inf"), float("inf")),
        of="slice",
        equation="10 log10(L^2 / MSE), both truncated to the task's range, L = max - min of truth",
        source=_SOURCE,
        blind_to="It does not see where or of what kind the errors are.",
        compute=_psnr,
    ),
    Measure(
        name="ssim",
        title="SSIM",
        unit="1",
        better="higher",
        bounds=(-1.0, 1.0),
        of="slice",
        equation="mean SSIM, Gaussian window of 11 x 11, sigma 1.5, zero padding, L as for PSNR",
        source=_SOURCE,
        blind_to="It hardly sees a shift of the values, and small lesions.",
        compute=_ssim,
    ),
    Measure(
        name="rmse",
        title="RMSE",
        unit="image",
        better="lower",
        bounds=(0.0, float("inf")),
        of="slice",
        equation="sqrt(MSE), both truncated to the task's range",
        source=_SOURCE,
        blind_to="It does not see where or of what kind the errors are.",
        compute=_rmse,
    ),
)

PROTOCOLS: dict[str, tuple[str, ...]] = {"paper": ("psnr", "ssim", "rmse")}
"""Names of the measures of each protocol."""
