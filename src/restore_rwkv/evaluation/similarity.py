"""Measures of similarity beside PSNR and SSIM."""

from __future__ import annotations

from restore_rwkv.evaluation.measures import Measure

SIMILARITY_MEASURES: tuple[Measure, ...] = ()
