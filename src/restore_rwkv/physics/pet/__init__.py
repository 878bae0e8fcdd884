"""PET: counts, reconstruction, and the head anatomy from which activity is simulated."""

from restore_rwkv.physics.pet.activity import (
    Uptake,
    activity_map,
    attenuation_map,
    sample_uptake,
)
from restore_rwkv.physics.pet.dose import reduce_dose, reduce_dose_with_added, simulate_pair
from restore_rwkv.physics.pet.head import Head, segment_head
from restore_rwkv.physics.pet.noise import noise_level
from restore_rwkv.physics.pet.osem import osem, reconstruct
from restore_rwkv.physics.pet.scanner import PETScanner, PETSystem, acquire

__all__ = [
    "Head",
    "PETScanner",
    "PETSystem",
    "Uptake",
    "acquire",
    "activity_map",
    "attenuation_map",
    "noise_level",
    "osem",
    "reconstruct",
    "reduce_dose",
    "reduce_dose_with_added",
    "sample_uptake",
    "segment_head",
    "simulate_pair",
]
