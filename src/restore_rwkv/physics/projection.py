"""Line integrals of images, their exact adjoint, and filtered back-projection.

The centre of the image is the origin, x grows with the column and y against the row. Every ray is
a line `x cos c + y sin c = t`: in the view at angle b, parallel rays have c = b, and the ray of a
fan at angle g from its central one has c = b + g and t = R sin g, the source being at
`R (-sin b, cos b)`.

A ray is summed with Joseph's method: it meets each row (each column, where it runs flatter than
45 degrees) once and takes the linear interpolation of the two pixels there. Projection, adjoint and
back-projection are all sums of such interpolations, and one primitive computes them: a weighted
`embedding_bag`, whose bags are rays (or pixels) and whose table holds a row per pixel (or detector)
with the batch side by side. So a batch costs little more than one image, sums have a fixed order,
and nothing is kept between calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.errors import OperatorError

Views = slice | Tensor | None
WINDOWS = ("ram-lak", "shepp-logan", "cosine", "hann")


@dataclass(frozen=True)
class Kernel:
    """Ramp filter of filtered back-projection, and the window that it is multiplied with.

    With f the frequency as a fraction of `cutoff` times the Nyquist frequency of the detector, the
    windows are 1 (ram-lak), sinc(f / 2) (shepp-logan), cos(pi f / 2) (cosine) and
    (1 + cos(pi f)) / 2 (hann); all are 0 above f = 1.

    Attributes:
        window: one of `WINDOWS`.
        cutoff: above 0; above 1 the window is cut at the Nyquist frequency before it reaches 0.
    """

    window: str = "hann"
    cutoff: float = 1.0

    def __post_init__(self) -> None:
        if self.window not in WINDOWS:
            raise OperatorError(
                f"reconstruction window is {self.window!r}; give one of {', '.join(WINDOWS)}"
            )
        _positive("kernel cutoff", self.cutoff)

    def response(self, frequency: Tensor) -> Tensor:
        """Window at frequencies given as fractions of the Nyquist frequency (any shape, >= 0)."""
        f = frequency / self.cutoff
        inside = f <= 1
        if self.window == "ram-lak":
            return inside.to(f)
        if self.window == "shepp-logan":
            return torch.sinc(f / 2) * inside
        if self.window == "cosine":
            return torch.cos(torch.pi / 2 * f) * inside
        return (0.5 + 0.5 * torch.cos(torch.pi * f)) * inside


@dataclass(frozen=True)
class ParallelBeam:
    """Parallel rays over equally spaced angles `arc * v / views`, centred detector.

    Attributes:
        size: rows and columns of the square image.
        pixel: side of a pixel in mm.
        views: number of angles.
        detectors: number of rays per view; None for as many as see the diagonal of the image.
        pitch: distance of rays in mm; None for `pixel`.
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
            # With the parity of the image, rays of the first view meet the centres of its pixels.
            object.__setattr__(self, "detectors", seen + (seen - self.size) % 2)

    @property
    def step(self) -> float:
        """Distance of neighbouring rays in mm."""
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
        return _centred(self.shape[1]) * self.step

    def seen_from(self, x: Tensor, y: Tensor, angles: Tensor) -> tuple[Tensor, None]:
        """Detector coordinate in steps from the centre of points (P, 1) in views (V,): (P, V)."""
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
    """Fan of equal angles between rays from a source on a circle, centred detector on an arc.

    Attributes:
        size: rows and columns of the square image.
        pixel: side of a pixel in mm.
        views: number of source positions `arc * v / views`.
        detectors: number of rays per view.
        pitch: detector pitch along the arc about the source, in mm.
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
        _positive("source_to_detector", self.source_to_detector)
        corner = self.size * self.pixel / math.sqrt(2)
        if not self.source_to_centre > corner:
            raise OperatorError(
                f"source_to_centre is {self.source_to_centre:g} mm, inside the image, whose corners"
                f" are {corner:g} mm from the centre; move the source out or crop the image"
            )
        if not self.detectors * self.step < math.pi:
            raise OperatorError(
                f"{self.detectors} detectors span a fan of {self.detectors * self.step:.2f} rad; "
                "give fewer or a smaller pitch, below pi"
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
        return _centred(self.detectors) * self.step

    def ray_distances(self) -> Tensor:
        """Signed distance of each ray of a view from the centre in mm, (D,), float64."""
        return self.source_to_centre * self.ray_angles().sin()

    def seen_from(self, x: Tensor, y: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Detector coordinate as in `ParallelBeam`, and the inverse squared source distance."""
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


class Projector:
    """Projector of one geometry, on whatever device and in whatever type its argument has.

    Example:
        >>> import torch
        >>> from restore_rwkv.physics.projection import Kernel, ParallelBeam, Projector
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
        """Line integrals of an image, by Joseph's method (IEEE TMI 1982, 1:192).

        Args:
            image: (..., size, size), float32 or float64, in any unit, row downwards.
            views: which views, as a slice or a 1-D tensor of indices; None for all, in order.

        Returns:
            (..., V, D) in units of the image times mm; differentiable.

        Raises:
            OperatorError: wrong shape or type, no view, or a view that does not exist.
        """
        size = self.geometry.size
        _check("image", image, (size, size))
        angles = self._angles(views)
        return _unfold(_linear(_fold(image), *self._ray_sums(angles)), image, len(angles))

    def A_adjoint(self, sinogram: Tensor, views: Views = None) -> Tensor:  # noqa: N802
        """Exact adjoint of `A`: `<A x, y> = <x, A_adjoint y>` but for rounding.

        Args:
            sinogram: (..., V, D), float32 or float64.
            views: the views of the sinogram, as in `A`.

        Returns:
            (..., size, size) in units of the sinogram times mm; differentiable.

        Raises:
            OperatorError: wrong shape or type, no view, or a view that does not exist.
        """
        angles = self._angles(views)
        _check("sinogram", sinogram, (len(angles), self.geometry.shape[1]))
        forward, adjoint = self._ray_sums(angles)
        image = _linear(_fold(sinogram), adjoint, forward)
        return _unfold(image, sinogram, self.geometry.size)

    def fbp(self, sinogram: Tensor, kernel: Kernel | None = None) -> Tensor:
        """Filtered back-projection; Kak and Slaney, Principles of CT Imaging (1988), chapter 3.

        Args:
            sinogram: (..., V, D) of all views, float32 or float64, image unit x mm.
            kernel: window of the ramp filter; None for `Kernel()`.

        Returns:
            (..., size, size) in the unit of the image; differentiable.

        Raises:
            OperatorError: wrong shape or type, or an arc that measures lines unequally often.
        """
        _check("sinogram", sinogram, self.geometry.shape)
        detectors = self.geometry.shape[1]
        angles = self._angles(None)
        weighted = sinogram * self.geometry.ray_weights().to(sinogram)
        length = 1 << (2 * detectors - 1).bit_length()
        ramp = torch.fft.rfft(self.geometry.ramp(length)).real
        window = (kernel or Kernel()).response(torch.linspace(0, 1, len(ramp), dtype=ramp.dtype))
        response = (ramp * window * self.geometry.view_weight()).to(sinogram)
        filtered = torch.fft.irfft(torch.fft.rfft(weighted, length) * response, length)
        image = _linear(_fold(filtered[..., :detectors]), *self._pixel_sums(angles))
        return _unfold(image, sinogram, self.geometry.size)

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
                    f"views do not name views of this geometry; give indices 0 to {count - 1} in a "
                    "1-D integer tensor, or a slice"
                )
            chosen = chosen[views.cpu()]
        if len(chosen) == 0:
            raise OperatorError(f"views name none of the {count} views; give at least one")
        return chosen.double() * (self.geometry.arc / count)

    def _crossings(self, angles: Tensor, like: Tensor) -> Iterator[tuple[bool, Tensor, _Taps]]:
        """Blocks of rays: whether they step from column to column, which rays, and their taps.

        Taps point into the image (transposed for rays that step along columns) with each line
        padded to size + 3.
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
                taps = _Taps.at(u, size, (line * (size + 3)).int())
                yield is_flat, part, taps.scaled(length[part, None])

    def _ray_sums(self, angles: Tensor) -> tuple[_Map, _Map]:
        """Sums along rays, (size^2, B) -> (V D, B), and their adjoint."""
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

    def _places(self, angles: Tensor, like: Tensor) -> Iterator[tuple[slice, slice, _Taps]]:
        """Blocks of (pixels, views) and where the pixels are seen on those views' detectors."""
        size, detectors = self.geometry.size, self.geometry.shape[1]
        angles = angles.to(like)
        axis = _centred(size).to(like) * self.geometry.pixel
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
                taps = _Taps.at(u, detectors, base[: u.shape[1]])
                yield pixels, views, taps if weight is None else taps.scaled(weight)

    def _pixel_sums(self, angles: Tensor) -> tuple[_Map, _Map]:
        """Sums over views at each pixel, (V D, B) -> (size^2, B), and their adjoint."""
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


_Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Taps:
    """Two neighbouring cells of a table for each sample of each bag, and their weights."""

    lower: Tensor  # (bags, samples), int32
    below: Tensor  # (bags, samples), weight of cell `lower`
    above: Tensor  # (bags, samples), weight of cell `lower + 1`

    @classmethod
    def at(cls, u: Tensor, count: int, base: Tensor) -> _Taps:
        """Taps at places u, overwritten, on lines of `count` cells between one pad and two."""
        u.clamp_(0, count + 1)
        lower = u.int()
        u -= lower
        return cls(lower.add_(base), 1 - u, u)

    def scaled(self, weight: Tensor) -> _Taps:
        return _Taps(self.lower, self.below * weight, self.above * weight)

    def gather(self, table: Tensor) -> Tensor:
        """Weighted sum of cells per bag: (cells, B) -> (bags, B)."""
        below = F.embedding_bag(self.lower, table, mode="sum", per_sample_weights=self.below)
        above = F.embedding_bag(self.lower + 1, table, mode="sum", per_sample_weights=self.above)
        sums: Tensor = below + above
        return sums

    def spread(self, values: Tensor, table: Tensor) -> None:
        """Adds the adjoint of `gather`, (bags, B), to a table (cells, B), in a fixed order."""
        if values.shape[1] < 4 and values.device.type == "cpu":  # sorting would take longer
            for column, value in zip(table.unbind(1), values.unbind(1), strict=True):
                for cells, weight in ((self.lower, self.below), (self.lower + 1, self.above)):
                    column.index_add_(0, cells.flatten(), (weight * value[:, None]).flatten())
            return
        cells, order = self.lower.flatten().sort()
        bags = (order // self.lower.shape[1]).int()
        ends = torch.bincount(cells, minlength=len(table)).cumsum(0).int()
        offsets = F.pad(ends[:-1], (1, 0))
        below, above = (
            F.embedding_bag(
                bags, values, offsets, mode="sum", per_sample_weights=weight.flatten()[order]
            )
            for weight in (self.below, self.above)
        )
        table += below
        table[1:] += above[:-1]


class _Linear(torch.autograd.Function):
    """A linear map whose gradient is its adjoint, and the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: _Map, adjoint: _Map) -> Tensor:
        ctx.maps = forward, adjoint
        return forward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        forward, adjoint = ctx.maps
        return _linear(gradient.contiguous(), adjoint, forward), None, None


def _linear(x: Tensor, forward: _Map, adjoint: _Map) -> Tensor:
    result: Tensor = _Linear.apply(x, forward, adjoint)  # type: ignore[no-untyped-call]
    return result


def _fold(x: Tensor) -> Tensor:
    """(..., a, b) -> (a b, B), contiguous: the batch lies side by side."""
    return x.reshape(-1, x.shape[-2] * x.shape[-1]).t().contiguous()


def _unfold(x: Tensor, like: Tensor, rows: int) -> Tensor:
    """(a b, B) -> (..., a, b)."""
    return x.t().reshape(*like.shape[:-2], rows, -1)


def _block(like: Tensor) -> int:
    """Samples worked on at a time: what stays in the cache of a CPU core, or fills a GPU."""
    return 1 << (18 if like.device.type == "cpu" else 24)


def _centred(count: int) -> Tensor:
    """Places of `count` neighbours about their middle, float64."""
    places: Tensor = torch.arange(count, dtype=torch.float64) - (count - 1) / 2
    return places


def _cyclic(length: int) -> Tensor:
    """Indices 0, 1, ..., -2, -1 of a filter of that length, float64."""
    indices: Tensor = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64)
    return indices


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise OperatorError(f"{name} is {value:g}; give a finite number above 0")


def _check_geometry(geometry: ParallelBeam | FanBeam) -> None:
    for name in ("size", "views", "detectors"):
        count = getattr(geometry, name)
        if count is not None and (not isinstance(count, Integral) or count < 1):
            raise OperatorError(f"{name} is {count!r}; give a whole number of at least 1")
    for name in ("pixel", "pitch", "arc"):
        _positive(name, getattr(geometry, name))


def _check(name: str, x: Tensor, shape: tuple[int, int]) -> None:
    if x.dtype not in (torch.float32, torch.float64):
        type_ = str(x.dtype).removeprefix("torch.")
        raise OperatorError(f"{name} has type {type_}; convert it to float32 or float64")
    if x.ndim < 2 or tuple(x.shape[-2:]) != shape or 0 in x.shape:
        raise OperatorError(
            f"{name} has shape {tuple(x.shape)}; this geometry needs (..., {shape[0]}, {shape[1]})"
        )
