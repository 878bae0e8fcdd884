"""Forward models of scanners on tensors, by modality; they turn good images into low-quality ones.

Import from `physics.mri`, `physics.ct`, `physics.pet`, and `physics.rays` for their projections.
May import io (volumes of the head that PET is simulated from); tasks and the rooms above import it.
"""

__all__ = ["ct", "mri", "pet", "rays"]
