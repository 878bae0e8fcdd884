"""How low-quality images come about: forward models of the scanners, in PyTorch.

The anatomy that PET is simulated from is in `physics.head` and `physics.activity`, which need
SciPy.
"""

from restore_rwkv.physics.ct import CTScanner as CTScanner
from restore_rwkv.physics.ct import dose_noise as dose_noise
from restore_rwkv.physics.ct import reduce_dose as reduce_dose
from restore_rwkv.physics.ct_calibration import calibrated as calibrated
from restore_rwkv.physics.ct_calibration import noise_level as noise_level
from restore_rwkv.physics.geometry import FanBeam as FanBeam
from restore_rwkv.physics.geometry import ParallelBeam as ParallelBeam
from restore_rwkv.physics.kernel import Kernel as Kernel
from restore_rwkv.physics.kspace import kspace_block as kspace_block
from restore_rwkv.physics.kspace import kspace_block_shape as kspace_block_shape
from restore_rwkv.physics.kspace import kspace_noise as kspace_noise
from restore_rwkv.physics.kspace import zero_fill as zero_fill
from restore_rwkv.physics.mri import fourier_interpolate as fourier_interpolate
from restore_rwkv.physics.mri import kspace_crop as kspace_crop
from restore_rwkv.physics.mri import low_resolution as low_resolution
from restore_rwkv.physics.mri import thick_slices as thick_slices
from restore_rwkv.physics.osem import osem as osem
from restore_rwkv.physics.osem import reconstruct as reconstruct
from restore_rwkv.physics.pet import low_dose as low_dose
from restore_rwkv.physics.pet import simulate_pair as simulate_pair
from restore_rwkv.physics.pet_scanner import PETScanner as PETScanner
from restore_rwkv.physics.pet_scanner import PETSystem as PETSystem
from restore_rwkv.physics.pet_scanner import acquire as acquire
from restore_rwkv.physics.projection import Projector as Projector
