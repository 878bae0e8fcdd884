"""What supports a restored image where no truth is known: its scan, and the physics of it."""

from restore_rwkv.evaluation.fidelity.results import (
    Fidelity,
    FidelityMap,
    Figure,
    Place,
    RestoredPair,
)

__all__ = ["Fidelity", "FidelityMap", "Figure", "Place", "RestoredPair"]
