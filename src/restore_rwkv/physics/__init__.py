"""How low-quality images come about: forward models of the scanners on tensors, by modality.

Import from `physics.mri`, `physics.ct`, `physics.pet`, and `physics.rays` for their projections.
May use io (volumes of the head that PET is simulated from); tasks and all above use it.
"""

__all__ = ["ct", "mri", "pet", "rays"]
