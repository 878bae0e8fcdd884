"""How good an image is where the truth is known: metrics, scores of scans and sets, pictures.

Uses restoration and data; training scores its validation with it, apps print it.
"""

from restore_rwkv.evaluation.metrics import (
    PAPER_PROTOCOL,
    MeanScore,
    SliceScore,
    mean_score,
    paper_score,
)
from restore_rwkv.evaluation.scores import Evaluation, evaluate, evaluate_paths, evaluate_set

__all__ = [
    "PAPER_PROTOCOL",
    "Evaluation",
    "MeanScore",
    "SliceScore",
    "evaluate",
    "evaluate_paths",
    "evaluate_set",
    "mean_score",
    "paper_score",
]
