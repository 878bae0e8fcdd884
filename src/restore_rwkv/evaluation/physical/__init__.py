"""Noise, sharpness, contrast and detectability, in physical units."""

from __future__ import annotations

from restore_rwkv.evaluation.measures import Measure

PHYSICAL_MEASURES: tuple[Measure, ...] = ()
