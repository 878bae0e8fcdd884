"""Effective receptive fields of networks whose field is known, and their area."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from restore_rwkv.data import SetWriter
from restore_rwkv.errors import ConfigError, InputError, OperatorError
from restore_rwkv.evaluation import effective_receptive_field, high_contribution_area
from restore_rwkv.evaluation.receptive_field import (
    IMAGES,
    field_images,
    field_numbers,
    noise_images,
    within,
)
from restore_rwkv.model import RestoreRWKV, RestoreRWKVConfig
from restore_rwkv.tasks import ScalingRule
from tests.conftest import TINY

FIXED = ScalingRule("fixed", 5.0, 2.0)


def test_the_field_of_a_convolution_is_its_kernel() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1)
    field = effective_receptive_field(layer, noise_images(12))
    assert np.argwhere(field > 0).tolist() == [[i, j] for i in (5, 6, 7) for j in (5, 6, 7)]
    kernel = layer.weight.detach()[0, 0].abs().numpy()
    assert field[5:8, 5:8] == pytest.approx(kernel)


def test_the_field_is_the_mean_of_the_absolute_gradients_of_the_images() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return -(x**2)

    images = torch.tensor([1.0, -3.0]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    field = effective_receptive_field(Square(), images)
    assert field[2, 2] == pytest.approx((2 * 1 + 2 * 3) / 2)
    assert field.sum() == field[2, 2]


def test_the_added_input_is_taken_off_only_where_a_network_adds_it() -> None:
    class Adds(nn.Module):
        def __init__(self, residual: bool | None) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 1, bias=False)
            self.config = type("Config", (), {} if residual is None else {"residual": residual})()
            nn.init.constant_(self.layer.weight, 0.25)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = x + self.layer(x)
            return y

    images = noise_images(8)
    for residual, adds_input, expected in (
        (None, None, 1.25),
        (True, None, 0.25),
        (False, None, 1.25),
        (None, True, 0.25),
        (True, False, 1.25),
    ):
        field = effective_receptive_field(Adds(residual), images, adds_input=adds_input)
        assert field[4, 4] == pytest.approx(expected)


def test_a_network_that_returns_its_input_has_one_pixel_or_none() -> None:
    field = effective_receptive_field(nn.Identity(), noise_images(8))
    assert high_contribution_area(field, 1.0) == 1 / 64
    torch.manual_seed(0)
    network = RestoreRWKV(TINY)
    nn.init.zeros_(network.output.weight)
    with pytest.raises(OperatorError, match=r"^RestoreRWKV: the output does not depend on"):
        effective_receptive_field(network, noise_images(16))
    with pytest.raises(OperatorError, match="does not depend on the input"):
        effective_receptive_field(nn.Identity(), noise_images(8), adds_input=True)
    with pytest.raises(OperatorError, match="a network that keeps the shape"):
        effective_receptive_field(nn.MaxPool2d(2), noise_images(8))


def test_causal_attention_sees_nothing_far_behind_its_pixel_and_bi_wkv_does() -> None:
    for attention, seen in (("uni-wkv", False), ("bi-wkv", True)):
        changes = {"attention": attention, "scans": ["rows"], "shift": "uni"}
        torch.manual_seed(0)
        network = RestoreRWKV(RestoreRWKVConfig.from_dict({**TINY.to_dict(), **changes}))
        field = effective_receptive_field(network, noise_images(96)[:1])
        # The convolutions of the U alone look so far ahead.
        assert bool(field[90:].any()) is seen
        assert field[:6].any()


def test_the_area_of_a_uniform_field_is_the_share() -> None:
    field = np.ones((100, 100))
    for share in (0.2, 0.5, 0.95):
        # The side is odd, so the square is larger by at most two rows and columns.
        assert share <= high_contribution_area(field, share) <= (np.sqrt(share) + 0.02) ** 2
    assert high_contribution_area(field, 1.0) == 1.0
    assert high_contribution_area(3.7 * field, 0.5) == high_contribution_area(field, 0.5)


def test_the_area_is_that_of_the_smallest_square() -> None:
    field = np.zeros((9, 15))
    field[4, 7], field[4, 9], field[2, 7] = 6, 3, 1
    assert high_contribution_area(field, 0.6) == 1 / 135
    assert high_contribution_area(field, 0.61) == 25 / 135
    assert within(field, 1).sum() == 6
    field[0, 0] = 1e-9
    assert high_contribution_area(field, 1.0) == 1.0  # only the whole holds the corner
    numbers = field_numbers(field)
    assert numbers["area"]["0.5"] == 1 / 135
    assert numbers["within"] == {"8": 1.0, "32": 1.0, "64": 1.0}


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, float("nan")])
def test_a_share_that_is_not_one_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"^share is .*; give a number above 0, at most 1$"):
        high_contribution_area(np.ones((3, 3)), share)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_field_without_a_finite_gradient_has_no_area(value: float) -> None:
    for function in (high_contribution_area, field_numbers):
        with pytest.raises(ConfigError, match=r"field: its sum is .*; give one with a finite"):
            function(np.full((5, 7), value))


def test_noise_depends_on_the_seed_only() -> None:
    assert torch.equal(noise_images(16, 3), noise_images(16, 3))
    assert not torch.equal(noise_images(16, 3), noise_images(16, 4))
    assert noise_images(16).shape == (IMAGES, 1, 16, 16)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Two sets of slices 24 x 20, whose rows count up from 100."""
    values = 100 + np.arange(24 * 20, dtype=np.float32).reshape(1, 24, 20)
    for task in ("ct-denoise", "pet-synth"):
        with SetWriter(tmp_path / task, "ramps", task) as writer:
            for split in ("train", "validation"):
                high = np.repeat(values, 3, axis=0)
                writer.add(split, split, split, high, high + 1)
    return tmp_path


def test_images_are_the_centres_of_validation_slices_in_network_values(sets: Path) -> None:
    images, origin = field_images(sets, 16, {"pet-synth": FIXED})
    assert origin == "3 validation slices of ramps, pet-synth"
    assert images.shape == (3, 1, 16, 16)
    assert images[0, 0, 0].tolist() == pytest.approx(
        [(101 + 4 * 20 + column - 5) / 2 for column in range(2, 18)]
    )
    images, origin = field_images(sets / "ct-denoise", 20, {})  # of a network without a task
    assert origin.endswith("ct-denoise")
    assert images.shape == (3, 1, 20, 20)


def test_images_are_spread_over_the_slices_of_a_scan(scan: Path) -> None:
    images, origin = field_images(scan, 32, {"mri-sr": FIXED})
    assert (images.shape, origin) == ((5, 1, 32, 32), "5 slices of scan.nii.gz")
    middle = nib.load(scan).get_fdata()[4:36, 0:32, 2]
    assert images[2, 0].numpy() == pytest.approx((middle - 5) / 2, abs=1e-4)


def test_images_that_do_not_fit_the_network_are_refused(sets: Path, scan: Path) -> None:
    with pytest.raises(InputError, match=r"slices are 24 x 20 pixels; .* size, at most 20$"):
        field_images(sets, 21, {"pet-synth": FIXED})
    with pytest.raises(InputError, match="is for ct-denoise, pet-synth, the network for mri-sr"):
        field_images(sets, 16, {"mri-sr": FIXED})
    with pytest.raises(InputError, match="nothing says whether it is MR, CT or PT"):
        field_images(scan, 16, {})
    with pytest.raises(InputError, match="missing"):
        field_images(Path("missing"), 16, {})
