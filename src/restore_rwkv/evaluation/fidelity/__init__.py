"""What supports a restored image where no truth is known: its scan, and the physics of it."""

from restore_rwkv.evaluation.fidelity.detector import Detector, detector_of
from restore_rwkv.evaluation.fidelity.measure import measure_fidelity
from restore_rwkv.evaluation.fidelity.places import find_places
from restore_rwkv.evaluation.fidelity.results import (
    Fidelity,
    FidelityMap,
    Figure,
    Place,
    RestoredPair,
)

__all__ = [
    "Detector",
    "Fidelity",
    "FidelityMap",
    "Figure",
    "Place",
    "RestoredPair",
    "detector_of",
    "find_places",
    "measure_fidelity",
]
