"""How far the k-space of an image reaches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri import kspace_crop, kspace_extent


def head(seed: int = 0, size: tuple[int, int] = (144, 128)) -> Tensor:
    """Slices of a disc with texture whose power falls slowly, as that of a head does."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in size)
    distance = torch.hypot(rows[:, None], columns)
    frequency = torch.hypot(*torch.meshgrid(*(torch.fft.fftfreq(n) for n in size), indexing="ij"))
    noise = torch.randn(4, *size, generator=generator, dtype=torch.float64)
    texture = torch.fft.ifft2(torch.fft.fft2(noise) / (0.02 + frequency)).real
    return (600 + 150 * texture / texture.std()) * (distance < 0.7)


@pytest.mark.parametrize("size", [(144, 128), (135, 150)])
def test_a_zero_filled_slice_has_hardly_any_power_outside_its_block(size: tuple[int, int]) -> None:
    image = head(size=size)
    outside = {f: kspace_extent(kspace_crop(image, f), 4).outside for f in (2, 3, 4, 6)}
    assert outside[4] < 1.5e-3  # 0.0005 to 0.0011 measured
    assert kspace_extent(image, 4).outside > outside[2] > outside[3] > 8 * outside[4]
    assert outside[6] < 1.5e-3


def test_the_rim_is_empty_where_fewer_samples_were_measured() -> None:
    image = head()
    rims = {f: kspace_extent(kspace_crop(image, f), 4).rim for f in (2, 3, 4, 6)}
    assert min(rims[2], rims[3], rims[4]) > 10 * rims[6]


@pytest.mark.parametrize("factor", [2.0, 3.0, 4.0])
def test_the_end_of_k_space_is_found_along_each_axis(factor: float) -> None:
    found = kspace_extent(kspace_crop(head(), (factor, 1.0)), 4).factors
    assert found[0] == pytest.approx(factor, rel=0.1)
    assert found[1] == 1
    assert kspace_extent(head(), 4).factors == (1, 1)


def test_a_slice_that_was_cut_out_does_not_look_sharper() -> None:
    low = kspace_crop(head(), 4)
    cut = low[:, 30:-30, 26:-26].contiguous()
    assert kspace_extent(cut, 4).outside < 2e-3  # 0.001 measured; 0.01 without fading


def test_the_unit_does_not_matter() -> None:
    image = head().float()
    one, other = kspace_extent(image, 4), kspace_extent(1e5 * image, 4)
    assert other.outside == pytest.approx(one.outside, rel=1e-4)
    assert other.factors == one.factors


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (torch.zeros(2, 64, 64), "images are constant"),
        (torch.rand(2, 40, 64), "too small to judge its k-space; give slices .* at least 48"),
        (torch.rand(64, 64), "too small"),
        (torch.ones(2, 64, 64, dtype=torch.int16), "image has type int16"),
    ],
)
def test_what_has_no_k_space_is_refused(images: Tensor, problem: str) -> None:
    with pytest.raises(OperatorError, match=problem):
        kspace_extent(images, 4)
