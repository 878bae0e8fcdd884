"""CT: the noise of a reduced dose, and a scanner model fitted to the noise of a scan."""

from restore_rwkv.physics.ct.calibration import calibrated, noise_level
from restore_rwkv.physics.ct.dose import dose_noise, reduce_dose, scan_noise
from restore_rwkv.physics.ct.own_noise import OwnNoise
from restore_rwkv.physics.ct.scanner import CTScanner
from restore_rwkv.physics.ct.texture import NoiseTexture, noise_texture
from restore_rwkv.physics.ct.tissue import tissue_shift

__all__ = [
    "CTScanner",
    "NoiseTexture",
    "OwnNoise",
    "calibrated",
    "dose_noise",
    "noise_level",
    "noise_texture",
    "reduce_dose",
    "scan_noise",
    "tissue_shift",
]
