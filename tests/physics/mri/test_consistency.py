"""Data consistency with the magnitude image of a measured block of k-space."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri import CartesianMRI, keep_measured, kspace_crop
from tests.helpers.kspace_images import SHAPES, generator, image_of

FACTORS = [4, 2.5, (1.0, 4.0), (3.0, 2.0)]
Factor = float | tuple[float, float]


def head(*shape: int) -> Tensor:
    """A smooth object with an edge, far above 0 as its low-resolution image is too."""
    rows, columns = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape)
    radius = rows[:, None] ** 2 + 0.7 * columns**2
    return 500 + 300 * torch.exp(-3 * radius) + 90 * (radius < 0.4)


def distance(image: Tensor, low: Tensor, factor: Factor) -> float:
    """Disagreement of an image with the measured magnitude, relative."""
    return float((kspace_crop(image, factor) - low).norm() / low.norm())


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_truth_stays_as_it_is(shape: tuple[int, int], factor: Factor) -> None:
    """Noise has low-resolution images with many changes of sign."""
    for truth in (image_of(*shape), head(*shape)):
        again = keep_measured(truth, kspace_crop(truth, factor), factor, 15)
        torch.testing.assert_close(again, truth, rtol=0, atol=1e-12 * float(truth.max()))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_step_agrees_better_with_the_measured_data(
    shape: tuple[int, int], factor: Factor
) -> None:
    low = kspace_crop(image_of(*shape), factor)
    image = torch.rand(shape, dtype=torch.float64, generator=generator(1))
    found = [distance(image, low, factor)]
    for _ in range(15):
        image = keep_measured(image, low, factor)
        found.append(distance(image, low, factor))
    assert all(after <= before + 1e-14 for before, after in itertools.pairwise(found))
    assert found[-1] < 0.05 * found[0]  # measured: at most 0.019


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_step_takes_an_image_further_from_the_truth(
    shape: tuple[int, int], factor: Factor
) -> None:
    truth = head(*shape)
    low = kspace_crop(truth, factor)
    noise = torch.randn(shape, dtype=torch.float64, generator=generator(2))
    image = truth + 30 * noise
    error = [float((image - truth).norm())]
    for _ in range(10):
        image = keep_measured(image, low, factor)
        error.append(float((image - truth).norm()))
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(error))
    assert error[-1] < error[0]


@pytest.mark.parametrize("shape", [(28, 36), (31, 45)])  # 7 x 9 and 7 x 11 samples
def test_a_step_gives_an_odd_block_the_measured_samples(shape: tuple[int, int]) -> None:
    truth, system = head(*shape), CartesianMRI(shape, 4)
    assert system.symmetric == (True, True)
    image = truth + 20 * torch.randn(shape, dtype=torch.float64, generator=generator(3))
    kept = keep_measured(image, kspace_crop(truth, 4), 4)
    torch.testing.assert_close(system.A(kept), system.A(truth), rtol=0, atol=1e-11)
    twice = keep_measured(kept, kspace_crop(truth, 4), 4)
    torch.testing.assert_close(twice, kept, rtol=0, atol=1e-11)


def test_at_the_edge_of_an_even_block_a_quarter_of_the_difference_goes_each_time() -> None:
    truth, system = head(32, 32), CartesianMRI((32, 32), 4)
    assert system.symmetric == (False, False)
    place = torch.arange(32, dtype=torch.float64) / 32
    edge, inner = (torch.cos(2 * torch.pi * k * place)[:, None] for k in (4, 3))
    low, image = kspace_crop(truth, 4), truth + 8 * edge + 8 * inner
    for step in range(1, 6):
        image = keep_measured(image, low, 4)
        expected = (8 * 0.75**step * edge).expand(32, 32)
        torch.testing.assert_close(image - truth, expected, rtol=0, atol=0.1)  # 0.04


def test_a_signed_image_keeps_its_signs() -> None:
    truth = head(31, 45) - 600
    system = CartesianMRI((31, 45), 4)
    low = kspace_crop(head(31, 45)) - 600  # of an odd block: the signed image of the truth's block
    image = truth + 20 * torch.randn((31, 45), dtype=torch.float64, generator=generator(3))
    kept = keep_measured(image, low, 4, magnitude=False)
    assert kept.min() < 0
    torch.testing.assert_close(system.A(kept), system.A(truth), rtol=0, atol=1e-11)


def test_no_steps_change_nothing_and_batches_are_slice_by_slice() -> None:
    image, low = image_of(3, 24, 37, dtype=torch.float32), image_of(3, 24, 37, dtype=torch.float32)
    assert keep_measured(image, low, 4, 0) is image
    low = kspace_crop(low.flip(0), 4)
    one_by_one = [keep_measured(x, y, 4, 3) for x, y in zip(image, low, strict=True)]
    together = keep_measured(image, low, 4, 3)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, torch.stack(one_by_one))


def test_what_does_not_fit_is_refused() -> None:
    image = torch.ones(8, 8)
    with pytest.raises(OperatorError, match="low has shape"):
        keep_measured(image, torch.ones(8, 9))
    with pytest.raises(OperatorError, match=r"type torch\.float64"):
        keep_measured(image, image.double())
    with pytest.raises(OperatorError, match="steps is -1; give a whole number from 0"):
        keep_measured(image, image, 4, -1)
    with pytest.raises(OperatorError, match="leaves no sample"):
        keep_measured(image, image, 9)


@pytest.mark.parametrize(
    ("shape", "factor", "symmetric"),
    [((16, 20), 4, (False, True)), ((12, 8), (4, 1), (True, True)), ((17, 16), 2, (False, False))],
)
def test_which_blocks_are_their_own_mirror_image(
    shape: tuple[int, int], factor: Factor, symmetric: tuple[bool, bool]
) -> None:
    system = CartesianMRI(shape, factor)
    assert system.symmetric == symmetric
    truth = image_of(*shape)
    for axis, same in enumerate(symmetric):
        mirrored = kspace_crop(truth, factor).flip(axis)
        close = torch.allclose(kspace_crop(truth.flip(axis), factor), mirrored, atol=1e-12)
        assert close == (same or all(symmetric[1 - axis : 2 - axis]))
