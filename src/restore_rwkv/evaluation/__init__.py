"""Image quality against a known truth: metrics, scores of scans and prepared sets, figures.

Imports restoration and data; training uses it for validation, and the apps print its results.
"""

from restore_rwkv.evaluation.coverage import (
    Coverage,
    SpreadSlices,
    alternating_halves,
    measure_coverage,
)
from restore_rwkv.evaluation.diagnosis import attention_spread, diagnose
from restore_rwkv.evaluation.intervals import calibrate_intervals
from restore_rwkv.evaluation.metrics import (
    PAPER_PROTOCOL,
    MeanScore,
    SliceScore,
    mean_score,
    paper_psnr,
    paper_score,
)
from restore_rwkv.evaluation.receptive_field import (
    effective_receptive_field,
    high_contribution_area,
)
from restore_rwkv.evaluation.scores import Evaluation, evaluate, evaluate_set
from restore_rwkv.evaluation.strength import (
    BlendGains,
    NoisyPair,
    blend_gains,
    calibrate,
    full_noise,
)
from restore_rwkv.evaluation.study.files import StudyFiles
from restore_rwkv.evaluation.study.request import StudyRequest
from restore_rwkv.evaluation.study.results import (
    PairedTest,
    Panel,
    Scored,
    Spectrum,
    Study,
    Summary,
)
from restore_rwkv.evaluation.study.run import evaluate_study

__all__ = [
    "PAPER_PROTOCOL",
    "BlendGains",
    "Coverage",
    "Evaluation",
    "MeanScore",
    "NoisyPair",
    "PairedTest",
    "Panel",
    "Scored",
    "SliceScore",
    "Spectrum",
    "SpreadSlices",
    "Study",
    "StudyFiles",
    "StudyRequest",
    "Summary",
    "alternating_halves",
    "attention_spread",
    "blend_gains",
    "calibrate",
    "calibrate_intervals",
    "diagnose",
    "effective_receptive_field",
    "evaluate",
    "evaluate_set",
    "evaluate_study",
    "full_noise",
    "high_contribution_area",
    "mean_score",
    "measure_coverage",
    "paper_psnr",
    "paper_score",
]
