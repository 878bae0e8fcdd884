"""PET: counts, reconstruction, and the head anatomy from which activity is simulated."""

from restore_rwkv.physics.pet.activity import (
    MU_SOFT,
    Uptake,
    activity_map,
    attenuation_map,
    sample_uptake,
)
from restore_rwkv.physics.pet.dose import reduce_dose, reduce_dose_with_added, simulate_pair
from restore_rwkv.physics.pet.head import Head, segment_head
from restore_rwkv.physics.pet.noise import noise_level
from restore_rwkv.physics.pet.osem import osem, reconstruct
from restore_rwkv.physics.pet.own_noise import axial_gain, calibrated, scan_noise
from restore_rwkv.physics.pet.scanner import PETScanner, PETSystem, acquire
from restore_rwkv.physics.pet.stack_noise import OwnNoise, matched_counts

__all__ = [
    "MU_SOFT",
    "Head",
    "OwnNoise",
    "PETScanner",
    "PETSystem",
    "Uptake",
    "acquire",
    "activity_map",
    "attenuation_map",
    "axial_gain",
    "calibrated",
    "matched_counts",
    "noise_level",
    "osem",
    "reconstruct",
    "reduce_dose",
    "reduce_dose_with_added",
    "sample_uptake",
    "scan_noise",
    "segment_head",
    "simulate_pair",
]
