"""PSNR, SSIM and RMSE under named protocols."""

from __future__ import annotations

from restore_rwkv.evaluation.measures import Measure

PROTOCOL_MEASURES: tuple[Measure, ...] = ()
