"""Several methods scored on the same scans: what is read, what is computed, what is written."""

from restore_rwkv.evaluation.study.results import (
    INPUT,
    PairedTest,
    Panel,
    Scored,
    Spectrum,
    Study,
    Summary,
)

__all__ = ["INPUT", "PairedTest", "Panel", "Scored", "Spectrum", "Study", "Summary"]
