"""Noise, sharpness, contrast and detectability, in physical units.

`PHYSICAL_MEASURES` are for any scan with a truth. The functions are for phantoms: of the noise
power spectrum, the task transfer function of an insert, the contrast-to-noise ratio, the
channelised Hotelling observer, and the recovery coefficients of PET.
"""

from __future__ import annotations

from restore_rwkv.evaluation.measures.measure import Measure
from restore_rwkv.evaluation.physical.contrast import contrast_to_noise
from restore_rwkv.evaluation.physical.ct import CT_MEASURES, TISSUE_RANGES, tissue_mean_shift
from restore_rwkv.evaluation.physical.noise import (
    NOISE_MEASURES,
    NoiseSpectrum,
    noise_power_spectrum,
    noise_spectrum_distance,
)
from restore_rwkv.evaluation.physical.observer import (
    Detectability,
    difference_of_gaussian_channels,
    hotelling_observer,
    laguerre_gauss_channels,
)
from restore_rwkv.evaluation.physical.pet import (
    PET_MEASURES,
    Recovery,
    Sphere,
    recovery_coefficients,
)
from restore_rwkv.evaluation.physical.resolution import TransferFunction, task_transfer_function
from restore_rwkv.evaluation.physical.ring_correlation import (
    ScannedCorrelation,
    fourier_ring_correlation,
    scan_ring_correlation,
)

PHYSICAL_MEASURES: tuple[Measure, ...] = (*NOISE_MEASURES, *CT_MEASURES, *PET_MEASURES)
"""Measures of noise texture, CT numbers and uptake."""

__all__ = [
    "PHYSICAL_MEASURES",
    "TISSUE_RANGES",
    "Detectability",
    "NoiseSpectrum",
    "Recovery",
    "ScannedCorrelation",
    "Sphere",
    "TransferFunction",
    "contrast_to_noise",
    "difference_of_gaussian_channels",
    "fourier_ring_correlation",
    "hotelling_observer",
    "laguerre_gauss_channels",
    "noise_power_spectrum",
    "noise_spectrum_distance",
    "recovery_coefficients",
    "scan_ring_correlation",
    "task_transfer_function",
    "tissue_mean_shift",
]
