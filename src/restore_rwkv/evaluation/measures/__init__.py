"""Measures of image quality against the truth: what each is, and all of them by name."""

from restore_rwkv.evaluation.measures.measure import Measure, NoScoreError, Setting, Values

__all__ = ["Measure", "NoScoreError", "Setting", "Values"]
