"""What supports a restored image where no truth is known: its scan, and the physics of it."""

from restore_rwkv.evaluation.fidelity.detector import Detector, detector_of
from restore_rwkv.evaluation.fidelity.files import ReportFiles, fidelity_values
from restore_rwkv.evaluation.fidelity.from_files import default_page, fidelity_of_files
from restore_rwkv.evaluation.fidelity.measure import measure_fidelity
from restore_rwkv.evaluation.fidelity.places import find_places
from restore_rwkv.evaluation.fidelity.reading import FidelityOptions
from restore_rwkv.evaluation.fidelity.report import (
    Reported,
    ReportOptions,
    preview_with_report,
    restore_with_report,
)
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
    "FidelityOptions",
    "Figure",
    "Place",
    "ReportFiles",
    "ReportOptions",
    "Reported",
    "RestoredPair",
    "default_page",
    "detector_of",
    "fidelity_of_files",
    "fidelity_values",
    "find_places",
    "measure_fidelity",
    "preview_with_report",
    "restore_with_report",
]
