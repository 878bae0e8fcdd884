"""Ray geometries of scanners: parallel beams, and fans from a source on a circle.

The origin is the centre of the image; x increases with the column, and y decreases with the row.
Every ray is a line `x cos c + y sin c = t`. In the view at angle b, parallel rays have c = b. The
ray of a fan at angle g from the central ray has c = b + g and t = R sin g, with the source at
`R (-sin b, cos b)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.checks import check_positive


@dataclass(frozen=True)
class ParallelBeam:
    """Parallel rays over equally spaced angles `arc * v / views`, centred detector.

    Attributes:
        size: rows and columns of the square image.
        pixel: side of a pixel in mm.
        views: number of angles.
        detectors: number of rays per view; None for enough to cover the diagonal of the image.
        pitch: distance between rays in mm; None for `pixel`.
        arc: angle covered, in radians; `fbp` needs a multiple of pi.
    """

    size: int
    pixel: float
    views: int = 720
    detectors: int | None = None
    pitch: float | None = None
    arc: float = math.pi

    def __post_init__(self) -> None:
        if self.pitch is None:
            object.__setattr__(self, "pitch", self.pixel)
        _check_geometry(self)
        if self.detectors is None:
            seen = math.ceil(self.size * math.sqrt(2) * self.pixel / self.step)
            # With the parity of the image, the rays of the first view hit the centres of pixels.
            object.__setattr__(self, "detectors", seen + (seen - self.size) % 2)

    @property
    def step(self) -> float:
        """Distance between neighbouring rays in mm."""
        return float(self.pitch or self.pixel)

    @property
    def shape(self) -> tuple[int, int]:
        """Views and detectors of a full sinogram."""
        return self.views, int(self.detectors or 0)

    def ray_angles(self) -> Tensor:
        """Angle of each ray of a view to the central one in radians, (D,), float64."""
        return torch.zeros(self.shape[1], dtype=torch.float64)

    def ray_distances(self) -> Tensor:
        """Signed distance of each ray of a view from the centre in mm, (D,), float64."""
        return centred(self.shape[1]) * self.step

    def seen_from(self, x: Tensor, y: Tensor, angles: Tensor) -> tuple[Tensor, None]:
        """Detector coordinates (P, V), in steps from the centre, of points (P, 1) in views (V,)."""
        return (x * angles.cos() + y * angles.sin()) / self.step, None

    def ramp(self, length: int) -> Tensor:
        """Samples of the ramp filter; Kak and Slaney (1988), equation 3.61, times the step."""
        k = _cyclic(length)
        odd = -1 / (torch.pi * k).square() / self.step
        return torch.where(k.abs() % 2 == 1, odd, torch.zeros_like(k)) + (k == 0) / (4 * self.step)

    def ray_weights(self) -> Tensor:
        """Weight of each ray of a view before the filter, (D,), float64."""
        return torch.ones(self.shape[1], dtype=torch.float64)

    def view_weight(self) -> float:
        """Weight of a view in the back-projection; each line is measured arc / pi times."""
        if abs(self.arc / math.pi - round(self.arc / math.pi)) > 1e-9:
            raise OperatorError(
                f"parallel views cover an arc of {self.arc:g} rad; filtered back-projection needs "
                "a multiple of pi"
            )
        return math.pi / self.views


@dataclass(frozen=True)
class FanBeam:
    """Fan with equal angles between rays, a source on a circle, and a centred arc detector.

    Attributes:
        size: rows and columns of the square image.
        pixel: side of a pixel in mm.
        views: number of source positions `arc * v / views`.
        detectors: number of rays per view.
        pitch: detector pitch along the arc around the source, in mm.
        source_to_centre: distance from the source to the centre of rotation in mm.
        source_to_detector: distance from the source to the detector in mm.
        arc: angle covered, in radians; `fbp` needs 2 pi.
    """

    size: int
    pixel: float
    views: int = 1152
    detectors: int = 736
    pitch: float = 1.2858
    source_to_centre: float = 595.0
    source_to_detector: float = 1085.6
    arc: float = 2 * math.pi

    def __post_init__(self) -> None:
        _check_geometry(self)
        check_positive("source_to_detector", self.source_to_detector)
        corner = self.size * self.pixel / math.sqrt(2)
        if not self.source_to_centre > corner:
            raise OperatorError(
                f"source_to_centre is {self.source_to_centre:g} mm, inside the image, whose corners"
                f" are {corner:g} mm from the centre; move the source outwards or crop the image"
            )
        if not self.detectors * self.step < math.pi:
            raise OperatorError(
                f"{self.detectors} detectors span a fan of {self.detectors * self.step:.2f} rad, "
                "not below pi; give fewer detectors or a smaller pitch"
            )

    @property
    def step(self) -> float:
        """Angle between neighbouring rays in radians."""
        return self.pitch / self.source_to_detector

    @property
    def shape(self) -> tuple[int, int]:
        """Views and detectors of a full sinogram."""
        return self.views, self.detectors

    def ray_angles(self) -> Tensor:
        """Angle of each ray of a view to the central one in radians, (D,), float64."""
        return centred(self.detectors) * self.step

    def ray_distances(self) -> Tensor:
        """Signed distance of each ray of a view from the centre in mm, (D,), float64."""
        return self.source_to_centre * self.ray_angles().sin()

    def seen_from(self, x: Tensor, y: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Detector coordinates as for `ParallelBeam`, and inverse squared source distances."""
        cos, sin = angles.cos(), angles.sin()
        across = x * cos + y * sin
        along = x * sin - y * cos + self.source_to_centre
        return torch.atan2(across, along) / self.step, 1 / (across.square() + along.square())

    def ramp(self, length: int) -> Tensor:
        """Samples of the filter of equal angles; Kak and Slaney (1988), section 3.4.1."""
        k = _cyclic(length)
        odd = -self.step / (torch.pi * torch.sin(k * self.step)).square()
        return (
            torch.where(k.abs() % 2 == 1, odd, torch.zeros_like(k)) + (k == 0) / (4 * self.step)
        ) / 2

    def ray_weights(self) -> Tensor:
        """Weight of each ray of a view before the filter, (D,), float64."""
        return self.source_to_centre * self.ray_angles().cos()

    def view_weight(self) -> float:
        """Weight of a view in the back-projection."""
        if abs(self.arc - 2 * math.pi) > 1e-9:
            raise OperatorError(
                f"fan views cover an arc of {self.arc:g} rad; filtered back-projection needs 2 pi"
            )
        return self.arc / self.views


Geometry = ParallelBeam | FanBeam


def centred(count: int) -> Tensor:
    """Coordinates 1 apart of `count` neighbours, relative to their middle, float64."""
    places: Tensor = torch.arange(count, dtype=torch.float64) - (count - 1) / 2
    return places


def _cyclic(length: int) -> Tensor:
    """Indices 0, 1, ..., -2, -1 of a filter of the given length, float64."""
    indices: Tensor = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64)
    return indices


def _check_geometry(geometry: Geometry) -> None:
    for name in ("size", "views", "detectors"):
        count = getattr(geometry, name)
        if count is not None and (not isinstance(count, Integral) or count < 1):
            raise OperatorError(f"{name} is {count!r}; give a whole number of at least 1")
    for name in ("pixel", "pitch", "arc"):
        check_positive(name, getattr(geometry, name))
