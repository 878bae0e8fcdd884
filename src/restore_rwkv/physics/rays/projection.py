"""Line integrals of images, their exact adjoint, and filtered back-projection.

Line integrals use Joseph's method: a ray crosses each row once (each column, if it is flatter than
45 degrees), and the sum takes the linear interpolation between the two pixels there. Projection,
adjoint and back-projection are all sums of such interpolations (see `interpolation`); the rays are
defined in `geometry`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.checks import check_floating
from restore_rwkv.physics.rays.geometry import Geometry, centred
from restore_rwkv.physics.rays.interpolation import LinearMap, Taps, apply_linear, fold, unfold
from restore_rwkv.physics.rays.kernel import Kernel

Views = slice | Tensor | None


class Projector:
    """Projector of one geometry; works on the device and in the type of its argument.

    Example:
        >>> import torch
        >>> from restore_rwkv.physics.rays import Kernel, ParallelBeam, Projector
        >>> projector = Projector(ParallelBeam(size=64, pixel=1.0, views=90))
        >>> sinogram = projector.A(torch.ones(64, 64))
        >>> sinogram.shape, sinogram[0, 46]  # a ray through 64 pixels of 1 mm
        (torch.Size([90, 92]), tensor(64.))
        >>> projector.fbp(sinogram, Kernel("ram-lak")).shape
        torch.Size([64, 64])
    """

    def __init__(self, geometry: Geometry):
        self.geometry = geometry

    def A(self, image: Tensor, views: Views = None) -> Tensor:  # noqa: N802
        """Compute line integrals of an image by Joseph's method (IEEE TMI 1982, 1:192).

        Args:
            image: (..., size, size), float32 or float64, in any unit; rows run downwards.
            views: a slice or a 1-D tensor of indices of the views; None for all, in order.

        Returns:
            (..., V, D) in units of the image times mm; differentiable.

        Raises:
            OperatorError: wrong shape or type, no views, or a view that does not exist.
        """
        size = self.geometry.size
        _check("image", image, (size, size))
        angles = self._angles(views)
        return unfold(apply_linear(fold(image), *self._ray_sums(angles)), image, len(angles))

    def A_adjoint(self, sinogram: Tensor, views: Views = None) -> Tensor:  # noqa: N802
        """Apply the exact adjoint of `A`: `<A x, y> = <x, A_adjoint y>` up to rounding.

        Args:
            sinogram: (..., V, D), float32 or float64.
            views: the views of the sinogram, as in `A`.

        Returns:
            (..., size, size) in units of the sinogram times mm; differentiable.

        Raises:
            OperatorError: wrong shape or type, no views, or a view that does not exist.
        """
        angles = self._angles(views)
        _check("sinogram", sinogram, (len(angles), self.geometry.shape[1]))
        forward, adjoint = self._ray_sums(angles)
        image = apply_linear(fold(sinogram), adjoint, forward)
        return unfold(image, sinogram, self.geometry.size)

    def fbp(self, sinogram: Tensor, kernel: Kernel | None = None) -> Tensor:
        """Filtered back-projection; Kak and Slaney, Principles of CT Imaging (1988), chapter 3.

        Args:
            sinogram: (..., V, D) of all views, float32 or float64, in image units times mm.
            kernel: window of the ramp filter; None for `Kernel()`.

        Returns:
            (..., size, size) in the unit of the image; differentiable.

        Raises:
            OperatorError: wrong shape or type, or an arc that does not measure all lines equally
                often.
        """
        return self.back_projected(self.filtered(sinogram, kernel))

    def filtered(self, sinogram: Tensor, kernel: Kernel | None = None) -> Tensor:
        """First half of `fbp`: weight and filter the rays of each view.

        Arguments and errors are those of `fbp`. Returns (..., V, D).
        """
        _check("sinogram", sinogram, self.geometry.shape)
        detectors = self.geometry.shape[1]
        weighted = sinogram * self.geometry.ray_weights().to(sinogram)
        length = 1 << (2 * detectors - 1).bit_length()
        ramp = torch.fft.rfft(self.geometry.ramp(length)).real
        window = (kernel or Kernel()).response(torch.linspace(0, 1, len(ramp), dtype=ramp.dtype))
        response = (ramp * window * self.geometry.view_weight()).to(sinogram)
        filtered: Tensor = torch.fft.irfft(torch.fft.rfft(weighted, length) * response, length)
        return filtered[..., :detectors]

    def back_projected(self, filtered: Tensor) -> Tensor:
        """Second half of `fbp`: sum over views what `filtered` returned, per pixel.

        A batch may join images of several kernels. Returns (..., size, size).

        Raises:
            OperatorError: wrong shape or type.
        """
        _check("sinogram", filtered, self.geometry.shape)
        image = apply_linear(fold(filtered), *self._pixel_sums(self._angles(None)))
        return unfold(image, filtered, self.geometry.size)

    def _angles(self, views: Views) -> Tensor:
        """Angles of the chosen views, (V,), float64 on the CPU."""
        count = self.geometry.views
        chosen = torch.arange(count)
        if isinstance(views, slice):
            chosen = chosen[views]
        elif views is not None:
            wrong = views.ndim != 1 or views.dtype.is_floating_point or views.dtype == torch.bool
            if wrong or bool(((views < 0) | (views >= count)).any()):
                raise OperatorError(
                    f"views are invalid for this geometry; give indices 0 to {count - 1} in a 1-D "
                    "integer tensor, or a slice"
                )
            chosen = chosen[views.cpu()]
        if len(chosen) == 0:
            raise OperatorError(f"views select none of the {count} views; give at least one")
        return chosen.double() * (self.geometry.arc / count)

    def _crossings(self, angles: Tensor, like: Tensor) -> Iterator[tuple[bool, Tensor, Taps]]:
        """Yield blocks of rays as (step from column to column, indices of the rays, taps).

        Taps refer to the image (transposed for rays that step from column to column), with each
        line padded to size + 3.
        """
        size, pixel = self.geometry.size, self.geometry.pixel
        normal = (angles[:, None] + self.geometry.ray_angles()).flatten()
        distance = self.geometry.ray_distances().repeat(len(angles))
        cos, sin = normal.cos(), normal.sin()
        flat = sin.abs() > cos.abs()
        across = torch.where(flat, -sin, cos)
        slope = torch.where(flat, cos / sin, sin / cos)
        half = (size - 1) / 2
        start = 1 + half + distance / (pixel * across) - half * slope
        start, slope, length = (part.to(like) for part in (start, slope, pixel / across.abs()))
        line = torch.arange(size, dtype=like.dtype, device=like.device)
        for is_flat in (False, True):
            rays = (flat == is_flat).nonzero()[:, 0].to(like.device)
            for part in torch.split(rays, max(1, _block(like) // size)):
                u = torch.addcmul(start[part, None], slope[part, None], line)
                taps = Taps.at(u, size, (line * (size + 3)).int())
                yield is_flat, part, taps.scaled(length[part, None])

    def _ray_sums(self, angles: Tensor) -> tuple[LinearMap, LinearMap]:
        """Maps for sums along rays, (size^2, B) -> (V D, B), and for their adjoint."""
        size = self.geometry.size
        rays = len(angles) * self.geometry.shape[1]

        def forward(pixels: Tensor) -> Tensor:
            image = pixels.view(size, size, -1)
            tables = [F.pad(x, (0, 0, 1, 2)).flatten(0, 1) for x in (image, image.transpose(0, 1))]
            sums = pixels.new_empty(rays, pixels.shape[1])
            for flat, part, taps in self._crossings(angles, pixels):
                sums[part] = taps.gather(tables[flat])
            return sums

        def adjoint(sums: Tensor) -> Tensor:
            tables = sums.new_zeros(2, size * (size + 3), sums.shape[1])
            for flat, part, taps in self._crossings(angles, sums):
                taps.spread(sums[part], tables[int(flat)])
            steep, flat_ = tables.view(2, size, size + 3, -1)[:, :, 1 : size + 1]
            pixels: Tensor = steep + flat_.transpose(0, 1)
            return pixels.reshape(size * size, -1)

        return forward, adjoint

    def _places(self, angles: Tensor, like: Tensor) -> Iterator[tuple[slice, slice, Taps]]:
        """Yield blocks of (pixels, views, taps); the taps are where detectors see the pixels."""
        size, detectors = self.geometry.size, self.geometry.shape[1]
        angles = angles.to(like)
        axis = centred(size).to(like) * self.geometry.pixel
        y, x = torch.meshgrid(-axis, axis, indexing="ij")
        x, y = x.reshape(-1, 1), y.reshape(-1, 1)
        together = min(32, len(angles))
        step = max(1, _block(like) // together)
        base = torch.arange(together, dtype=torch.int32, device=like.device) * (detectors + 3)
        for first in range(0, len(angles), together):
            views = slice(first, min(first + together, len(angles)))
            for pixel in range(0, size * size, step):
                pixels = slice(pixel, min(pixel + step, size * size))
                u, weight = self.geometry.seen_from(x[pixels], y[pixels], angles[views])
                u += (detectors - 1) / 2 + 1
                taps = Taps.at(u, detectors, base[: u.shape[1]])
                yield pixels, views, taps if weight is None else taps.scaled(weight)

    def _pixel_sums(self, angles: Tensor) -> tuple[LinearMap, LinearMap]:
        """Maps for sums over views per pixel, (V D, B) -> (size^2, B), and for their adjoint."""
        pixel_count = self.geometry.size**2
        views, detectors = len(angles), self.geometry.shape[1]

        def forward(rays: Tensor) -> Tensor:
            table = F.pad(rays.view(views, detectors, -1), (0, 0, 1, 2))
            sums = rays.new_zeros(pixel_count, rays.shape[1])
            for pixels, part, taps in self._places(angles, rays):
                sums[pixels] += taps.gather(table[part].flatten(0, 1))
            return sums

        def adjoint(sums: Tensor) -> Tensor:
            table = sums.new_zeros(views, detectors + 3, sums.shape[1])
            for pixels, part, taps in self._places(angles, sums):
                taps.spread(sums[pixels], table[part].flatten(0, 1))
            return table[:, 1 : detectors + 1].reshape(views * detectors, -1)

        return forward, adjoint


def _block(like: Tensor) -> int:
    """Number of samples processed at a time: fits the cache of a CPU core, or fills a GPU."""
    return 1 << (18 if like.device.type == "cpu" else 24)


def _check(name: str, x: Tensor, shape: tuple[int, int]) -> None:
    check_floating(name, x)
    if x.ndim < 2 or tuple(x.shape[-2:]) != shape or 0 in x.shape:
        raise OperatorError(
            f"{name} has shape {tuple(x.shape)}; this geometry needs (..., {shape[0]}, {shape[1]})"
        )
