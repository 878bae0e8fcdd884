"""Slices of a CT scan, projected: reconstruction of the noise of their rays.

Pixels that are not square are interpolated to square ones, and the noise back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.physics.ct.scanner import CTScanner
from restore_rwkv.physics.rays.projection import Projector
from restore_rwkv.physics.slices import cropped, padded

FINE_PIXEL = 0.8  # mm; pixels this small keep the noise through cubic interpolation

Draw = Callable[[Tensor, CTScanner], Tensor]


class ProjectedSlices:
    """Line integrals of slices, from which noise can be reconstructed any number of times."""

    def __init__(self, hu: Tensor, spacing: tuple[float, float], scanner: CTScanner):
        """Project slices.

        Args:
            hu: (N, H, W), HU; checked by the caller.
            spacing: distance between rows and between columns in mm.
            scanner: determines the rays and the attenuation of water.
        """
        mu = _to_square(scanner.mu_water * (1 + hu / 1000).clamp(min=0), spacing)
        self._shape, self._spacing, self._mu_water = hu.shape[-2:], spacing, scanner.mu_water
        self._geometry = scanner.geometry(mu.shape[-1], _pixel(spacing))
        self._projector = Projector(self._geometry)
        self._transmission = torch.exp(-self._projector.A(mu))

    def noise(self, scanners: Sequence[CTScanner], draw: Draw) -> Tensor:
        """Reconstruct, in HU, noise that is drawn for each ray.

        Args:
            scanners: scanners with the rays and the attenuation of the one that projected.
            draw: returns the noise of the logarithm (N, V, D) for the counts expected at full dose,
                of the same shape, and the scanner; called for each scanner in order.

        Returns:
            (S, N, H, W), noise of each scanner.
        """
        filtered = []
        for scanner in scanners:
            sent = scanner.photons_sent(self._geometry).to(self._transmission)
            drawn = draw(sent * self._transmission, scanner)
            filtered.append(self._projector.filtered(drawn, scanner.kernel))
        images = self._projector.back_projected(torch.cat(filtered)) * (1000 / self._mu_water)
        images = _from_square(images, self._spacing, self._shape)
        return images.view(len(scanners), -1, *self._shape)


def _is_square(spacing: tuple[float, float]) -> bool:
    """Return whether pixels are square, up to the rounding of an affine."""
    return math.isclose(*spacing, rel_tol=1e-4)


def _pixel(spacing: tuple[float, float]) -> float:
    """Side of the square pixels used for the simulation, in mm."""
    smaller = min(spacing)
    return smaller if _is_square(spacing) else smaller / math.ceil(smaller / FINE_PIXEL)


def _matrix(shape: torch.Size, spacing: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of the scan on the pixels of `_pixel`."""
    if _is_square(spacing):
        return shape[0], shape[1]
    pixel = _pixel(spacing)
    return round(shape[0] * spacing[0] / pixel), round(shape[1] * spacing[1] / pixel)


def _to_square(image: Tensor, spacing: tuple[float, float]) -> Tensor:
    """Interpolate (N, H, W) to square pixels and pad with 0 to a square grid."""
    height, width = _matrix(image.shape[-2:], spacing)
    if not _is_square(spacing):
        image = _resampled(image, (height, width), "bilinear")
    return padded(image, max(height, width))


def _from_square(image: Tensor, spacing: tuple[float, float], shape: torch.Size) -> Tensor:
    """Undo `_to_square`: return (N, H, W) on the grid of the scan."""
    height, width = _matrix(shape, spacing)
    image = cropped(image, height, width)
    return image if _is_square(spacing) else _resampled(image, tuple(shape), "bicubic")


def _resampled(image: Tensor, shape: tuple[int, ...], mode: str) -> Tensor:
    """Interpolate to another matrix over the same field of view."""
    return F.interpolate(image[:, None], shape, mode=mode, align_corners=False)[:, 0]
