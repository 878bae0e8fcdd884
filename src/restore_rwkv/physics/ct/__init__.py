"""CT: the noise of a reduced dose, and a scanner model fitted to the noise of a scan."""

from restore_rwkv.physics.ct.calibration import calibrated, noise_level
from restore_rwkv.physics.ct.dose import dose_noise, reduce_dose, scan_noise
from restore_rwkv.physics.ct.scanner import CTScanner
from restore_rwkv.physics.ct.tissue import tissue_shift

__all__ = [
    "CTScanner",
    "calibrated",
    "dose_noise",
    "noise_level",
    "reduce_dose",
    "scan_noise",
    "tissue_shift",
]
