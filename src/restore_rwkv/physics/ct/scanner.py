"""Parameters of a CT scanner."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.checks import check_positive
from restore_rwkv.physics.rays.geometry import FanBeam, Geometry, ParallelBeam
from restore_rwkv.physics.rays.kernel import Kernel

REFERENCE_VIEWS = 1152  # number of views that `CTScanner.photons` refers to


@dataclass(frozen=True)
class CTScanner:
    """Parameters of a CT scanner that determine the amount and the texture of the noise.

    The default was chosen for patient L506 of the AAPM Low Dose CT Grand Challenge (13.8 HU between
    quarter and full dose on [-160, 240] HU). In a water and fat pelvis of 310 x 220 mm with hips it
    gives 17.7 HU (docs/physics-ct.md). `calibrated` fits photons, bowtie and kernel to a scan.

    Attributes:
        photons: photons per ray sent to the middle of the detector at the scan's own dose, for 1152
            views; with another number of views each ray gets photons * 1152 / views.
        electronic: variance of the detector's electronic noise, in squared photons.
        bowtie_radius: radius in mm of the water cylinder; the bowtie filter compensates half of its
            attenuation. None for no bowtie.
        kernel: reconstruction kernel of the noise; its Nyquist frequency is that of rays 0.70 mm
            apart (0.71 / mm). Hann with a cutoff of 1.0 to 1.1 resembles a soft B30.
        beam: "parallel" (faster) or "fan".
        views: number of views over the parallel half turn or the fan's full turn; None for 720 or
            1152, respectively.
        mu_water: attenuation of water per mm; 0.0192 at about 70 keV.
    """

    photons: float = 4.5e5
    electronic: float = 10.0
    bowtie_radius: float | None = 125.0
    kernel: Kernel = field(default_factory=Kernel)
    beam: Literal["parallel", "fan"] = "parallel"
    views: int | None = None
    mu_water: float = 0.0192

    def __post_init__(self) -> None:
        if self.beam not in ("parallel", "fan"):
            raise OperatorError(f"beam is {self.beam!r}; give 'parallel' or 'fan'")
        for name in ("photons", "mu_water", "bowtie_radius"):
            value = getattr(self, name)
            if value is not None:
                check_positive(name, value)
        if not (math.isfinite(self.electronic) and self.electronic >= 0):
            raise OperatorError(
                f"electronic is {self.electronic:g}; give a finite number of at least 0"
            )
        if self.views is not None and self.views < 1:
            raise OperatorError(f"views is {self.views}; give at least 1, or None for the default")

    def geometry(self, size: int, pixel: float) -> Geometry:
        """Rays through a square image of `size` x `size` pixels of `pixel` mm."""
        if self.beam == "fan":
            return FanBeam(size, pixel, self.views or FanBeam.views)
        pitch = FanBeam.pitch * FanBeam.source_to_centre / FanBeam.source_to_detector
        return ParallelBeam(size, pixel, self.views or ParallelBeam.views, pitch=pitch)

    def photons_sent(self, geometry: Geometry) -> Tensor:
        """Photons sent along each ray of a view behind the bowtie, (D,), float64."""
        sent = self.photons * REFERENCE_VIEWS / geometry.views
        distance = geometry.ray_distances()
        if self.bowtie_radius is None:
            return torch.full_like(distance, sent)
        radius = self.bowtie_radius
        water = 2 * (radius**2 - distance.square()).clamp(min=0).sqrt()
        return sent * torch.exp(-self.mu_water / 2 * (2 * radius - water))
