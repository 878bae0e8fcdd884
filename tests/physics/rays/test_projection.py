"""The projector against ellipses with known line integrals, its adjoint, and back-projection."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.rays.geometry import FanBeam, Geometry, ParallelBeam
from restore_rwkv.physics.rays.kernel import WINDOWS, Kernel
from restore_rwkv.physics.rays.projection import Projector

# Modified Shepp-Logan phantom: density, half axes, centre (halves of the image), angle in degrees.
SHEPP_LOGAN = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0),
)

SMALL = (
    ParallelBeam(24, 1.3, views=10),
    ParallelBeam(25, 0.9, views=7, detectors=30, pitch=1.1, arc=2 * math.pi),
    FanBeam(24, 1.3, views=10, detectors=21, pitch=3.0, source_to_centre=60, source_to_detector=99),
    FanBeam(17, 0.8, views=9, detectors=40, pitch=0.9, source_to_centre=12, source_to_detector=30),
)


@functools.cache
def shepp_logan(size: int, oversampling: int = 4) -> Tensor:
    side = size * oversampling
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) * 2 / side - 1
    x, y = axis[None, :], -axis[:, None]
    image = torch.zeros(side, side, dtype=torch.float64)
    for density, a, b, x0, y0, degrees in SHEPP_LOGAN:
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        u, v = (x - x0) * cos + (y - y0) * sin, (y - y0) * cos - (x - x0) * sin
        image += density * ((u / a) ** 2 + (v / b) ** 2 <= 1)
    return image.view(size, oversampling, size, oversampling).mean((1, 3))


def line_integrals(geometry: Geometry) -> Tensor:
    """Sinogram of the phantom in closed form; each ray is x cos(angle) + y sin(angle) = t."""
    views, detectors = geometry.shape
    angle = torch.arange(views, dtype=torch.float64)[:, None] * geometry.arc / views
    if isinstance(geometry, FanBeam):
        angle = angle + (torch.arange(detectors) - (detectors - 1) / 2) * geometry.step
    half = geometry.size * geometry.pixel / 2
    t = geometry.ray_distances() / half
    total = torch.zeros(views, detectors, dtype=torch.float64)
    for density, a, b, x0, y0, degrees in SHEPP_LOGAN:
        turned = angle - math.radians(degrees)
        square = (a * turned.cos()) ** 2 + (b * turned.sin()) ** 2
        offset = t - x0 * angle.cos() - y0 * angle.sin()
        total += density * 2 * a * b * (square - offset**2).clamp(min=0).sqrt() / square
    return total * half


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "geometry", [ParallelBeam(512, 0.7, views=45), FanBeam(512, 0.7, views=45)]
)
def test_line_integrals_of_shepp_logan(geometry: Geometry) -> None:
    truth = line_integrals(geometry)
    sinogram = Projector(geometry).A(shepp_logan(512).float()).double()
    assert (sinogram - truth).norm() / truth.norm() < 0.008  # 0.0067
    assert abs(sinogram.mean() / truth.mean() - 1) < 2e-4


@pytest.mark.parametrize(
    "geometry", [ParallelBeam(256, 1.4, views=360), FanBeam(256, 1.4, views=360)]
)
def test_back_projection_of_shepp_logan(geometry: Geometry) -> None:
    """Reconstructs the closed-form sinogram, not one from our own projector."""
    phantom = shepp_logan(256)
    image = Projector(geometry).fbp(line_integrals(geometry).float(), Kernel("shepp-logan"))
    axis = (torch.arange(256) - 127.5) / 128
    brain = (axis[None, :] / 0.6) ** 2 + (axis[:, None] / 0.8) ** 2 < 1
    assert abs(image[brain].mean() / phantom[brain].mean() - 1) < 1e-3
    assert (image - phantom)[brain].square().mean().sqrt() < 0.015  # edges of ellipses
    torch.testing.assert_close(image[180:190, 110:120].mean().item(), 0.2, rtol=2e-3, atol=0)


@pytest.mark.parametrize("geometry", SMALL)
@pytest.mark.parametrize("views", [None, slice(1, None, 3), torch.tensor([4, 0, 5, 5])])
@pytest.mark.parametrize("batch", [(), (2, 5)])
def test_adjoint(geometry: Geometry, views: Any, batch: tuple[int, ...]) -> None:
    """Covers both ways of summing the adjoint: for few images, and for many side by side."""
    projector = Projector(geometry)
    x = random(*batch, geometry.size, geometry.size)
    projected = projector.A(x, views)
    y = random(*projected.shape, seed=1)
    adjoint = projector.A_adjoint(y, views)
    left, right = (projected * y).sum(), (x * adjoint).sum()
    assert abs(left - right) < 1e-12 * projected.norm() * y.norm()


def test_adjoint_in_float32() -> None:
    projector = Projector(ParallelBeam(64, 3.0, views=48))
    x = random(20, 64, 64, dtype=torch.float32)
    projected = projector.A(x)
    y = random(*projected.shape, dtype=torch.float32, seed=1)
    left = (projected.double() * y.double()).sum()
    right = (x.double() * projector.A_adjoint(y).double()).sum()
    assert abs(left - right) < 2e-7 * projected.norm() * y.norm()


def test_matrix_of_a_known_view() -> None:
    """View 0 sums columns, a quarter turn sums rows from the bottom up."""
    image = random(6, 6)
    sinogram = Projector(ParallelBeam(6, 2.0, views=2, detectors=6)).A(image)
    torch.testing.assert_close(sinogram[0], 2 * image.sum(0))
    torch.testing.assert_close(sinogram[1], 2 * image.sum(1).flip(0))


@pytest.mark.parametrize("geometry", SMALL)
def test_subset_is_part_of_the_whole(geometry: Geometry) -> None:
    projector, image = Projector(geometry), random(geometry.size, geometry.size)
    whole = projector.A(image)
    chosen = torch.tensor([6, 2, 0])
    torch.testing.assert_close(projector.A(image, chosen), whole[chosen])
    torch.testing.assert_close(projector.A(image, slice(1, 6, 2)), whole[1:6:2])
    parts = [projector.A_adjoint(whole[s::3], slice(s, None, 3)) for s in range(3)]
    torch.testing.assert_close(sum(parts), projector.A_adjoint(whole))


@pytest.mark.parametrize("geometry", SMALL[:1] + SMALL[2:3])
def test_batch_is_the_same_as_a_loop(geometry: Geometry) -> None:
    projector, images = Projector(geometry), random(3, 4, 24, 24)
    sinograms = projector.A(images)
    for operator, given in (
        (projector.A, images),
        (projector.A_adjoint, sinograms),
        (projector.fbp, sinograms),
    ):
        batch = operator(given)
        for i in range(3):
            for j in range(4):
                torch.testing.assert_close(batch[i, j], operator(given[i, j]))


def test_same_result_every_time() -> None:
    projector = Projector(ParallelBeam(40, 1.0, views=30))
    sinograms = random(9, 30, projector.geometry.shape[1], dtype=torch.float32)
    assert torch.equal(projector.A_adjoint(sinograms), projector.A_adjoint(sinograms))


@pytest.mark.parametrize("geometry", [SMALL[0], SMALL[3]])
@pytest.mark.parametrize("name", ["A", "A_adjoint", "fbp"])
def test_gradients(geometry: Geometry, name: str) -> None:
    if name == "fbp":
        geometry = dataclasses.replace(geometry, views=4)
    shape = (geometry.size,) * 2 if name == "A" else geometry.shape
    argument = random(*shape).requires_grad_()
    operator = getattr(Projector(geometry), name)
    assert torch.autograd.gradcheck(operator, (argument,), fast_mode=True)
    assert torch.autograd.gradgradcheck(operator, (argument,), fast_mode=True)


@pytest.mark.parametrize(
    "geometry", [ParallelBeam(96, 2.0, views=180), FanBeam(96, 2.0, views=360)]
)
@pytest.mark.parametrize("window", WINDOWS)
def test_back_projection_of_a_disc(geometry: Geometry, window: str) -> None:
    """A disc off centre is reconstructed with its value, position and size."""
    axis = (torch.arange(96 * 4, dtype=torch.float64) + 0.5) / 2 - 96
    distance = torch.hypot(axis[None, :] - 30, -axis[:, None] - 14).view(96, 4, 96, 4)
    disc = 0.02 * (distance <= 40).double().mean((1, 3))
    projector = Projector(geometry)
    image = projector.fbp(projector.A(disc), Kernel(window))
    inside, outside = distance.amax((1, 3)) < 34, distance.amin((1, 3)) > 46
    assert abs(image[inside].mean() / 0.02 - 1) < 2e-4
    assert abs(image[outside].mean() / 0.02) < 1e-4
    assert (image - disc).square().mean().sqrt() < 0.04 * 0.02  # the edge, blurred by the kernel


def test_kernel_limits_the_frequencies_of_noise() -> None:
    projector = Projector(ParallelBeam(64, 1.0, views=96))
    noise = random(96, projector.geometry.shape[1])
    spread = {w: projector.fbp(noise, Kernel(w)).std().item() for w in WINDOWS}
    assert spread["hann"] < spread["cosine"] < spread["shepp-logan"] < spread["ram-lak"]
    half = projector.fbp(noise, Kernel("ram-lak", 0.5))
    spectrum = torch.fft.fft2(half * torch.hann_window(64).outer(torch.hann_window(64))).abs()
    frequency = torch.fft.fftfreq(64)
    radius = torch.hypot(frequency[:, None], frequency[None, :])
    above, below = (
        spectrum[(radius > 0.3) & (radius < 0.5)],
        spectrum[(radius > 0.1) & (radius < 0.2)],
    )
    assert above.square().mean() < 0.01 * below.square().mean()


@pytest.mark.parametrize("window", WINDOWS)
def test_kernel_passes_the_mean(window: str) -> None:
    response = Kernel(window, 0.8).response(torch.tensor([0.0, 0.4, 0.79, 0.81]))
    at_half = {"ram-lak": 1.0, "shepp-logan": math.sin(math.pi / 4) / (math.pi / 4)}
    at_half |= {"cosine": math.sqrt(0.5), "hann": 0.5}
    torch.testing.assert_close(response[:2], torch.tensor([1.0, at_half[window]]))
    assert (response[2] > 0) & (response[3] == 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParallelBeam(0, 1.0), "size is 0"),
        (lambda: ParallelBeam(8, -1.0), "pixel is -1"),
        (lambda: ParallelBeam(8, 1.0, views=2.5), "views is 2.5"),  # type: ignore[arg-type]
        (lambda: ParallelBeam(8, 1.0, pitch=math.nan), "pitch is nan"),
        (lambda: FanBeam(512, 2.0), "inside the image"),
        (lambda: FanBeam(512, 0.7, detectors=4000), "below pi"),
        (lambda: Kernel("hamming"), "window is 'hamming'; give one of ram-lak"),
        (lambda: Kernel("hann", 0), "cutoff is 0"),
    ],
)
def test_settings_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        make()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.A(torch.zeros(8, 9)), r"\(8, 9\); this geometry needs \(..., 8, 8\)"),
        (lambda p: p.A(torch.zeros(8)), r"shape \(8,\)"),
        (lambda p: p.A(torch.zeros(8, 8, dtype=torch.int16)), "image has type int16"),
        (lambda p: p.A(torch.zeros(8, 8), torch.tensor([0, 4])), "indices 0 to 3"),
        (lambda p: p.A(torch.zeros(8, 8), torch.tensor([True])), "indices 0 to 3"),
        (lambda p: p.A(torch.zeros(8, 8), slice(4, None)), "none of the 4 views"),
        (lambda p: p.A_adjoint(torch.zeros(4, 12), slice(0, 2)), r"needs \(..., 2, 12\)"),
        (lambda p: p.fbp(torch.zeros(3, 12)), r"sinogram has shape \(3, 12\)"),
        (lambda p: p.fbp(torch.zeros(4, 12).half()), "type float16"),
    ],
)
def test_arguments_that_do_not_fit(call: Any, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        call(Projector(ParallelBeam(8, 1.0, views=4)))


@pytest.mark.parametrize(
    "geometry", [ParallelBeam(8, 1.0, views=4, arc=2.0), FanBeam(8, 1.0, views=4, arc=math.pi)]
)
def test_arc_that_back_projection_cannot_use(geometry: Geometry) -> None:
    with pytest.raises(OperatorError, match="filtered back-projection needs"):
        Projector(geometry).fbp(torch.zeros(geometry.shape))
