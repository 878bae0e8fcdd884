"""Where a restored image differs from its scan by more than noise explains."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.evaluation.fidelity.results import FidelityMap, RestoredPair
    from restore_rwkv.io import Progress, Volume


class Detector(abc.ABC):
    """Scores every pixel of a scan by how much was removed or added there, over noise.

    It is prepared for one scan; its scores can then be had for several restored images.

    Attributes:
        radius_mm: radius of the structure that it is matched to.
        simulated_threshold: absolute score that noise on its own exceeds in 5 % of scans; None
            where that cannot be had.
    """

    radius_mm: float
    simulated_threshold: float | None

    @abc.abstractmethod
    def scores(
        self, before: NDArray[np.float32], after: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return scores, above 0 where structure was removed and below 0 where it was added.

        Args:
            before: all slices (N, H, W) of the scan, across `RestoredPair.axis`.
            after: the same of the restored image.
        """

    @abc.abstractmethod
    def map_of(self, values: Volume) -> FidelityMap:
        """Return the map of scores, a volume on the grid of the restored image."""


def detector_of(pair: RestoredPair, progress: Progress | None = None) -> Detector:
    """Prepare the detector of the modality of a pair.

    Raises:
        InputError: there is no physics for the modality.
        NoScoreError: the noise of the scan cannot be simulated; the message says why.
    """
    modality = pair.task.modality
    if modality == "CT":
        from restore_rwkv.evaluation.fidelity.ct import CTDetector

        return CTDetector(pair, progress)
    if modality == "PT":
        from restore_rwkv.evaluation.fidelity.pet import PETDetector

        return PETDetector(pair, progress)
    if modality == "MR":
        from restore_rwkv.evaluation.fidelity.mri import MRIDetector

        return MRIDetector(pair, progress)
    raise InputError(
        f"{pair.after.name}: there is no physics for {modality}, so nothing can be said of it; "
        "give CT, MRI or PET"
    )


def threshold_of(pair: RestoredPair, detector: Detector) -> float | None:
    """Return the absolute score from which a place is flagged: as calibrated, else as simulated."""
    places = None if pair.calibration is None else pair.calibration.places
    return detector.simulated_threshold if places is None else places.threshold
