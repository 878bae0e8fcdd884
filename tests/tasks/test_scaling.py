"""Scalings: exact inverses, equivariance, and robustness against outliers and air."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.physics.mri import kspace_crop
from restore_rwkv.tasks import Scaling, onto_unit_range, robust_scaling


def head(size: int = 48) -> np.ndarray:
    """Air with a little noise around a textured ball."""
    generator = np.random.default_rng(0)
    grid = np.linspace(-1, 1, size)
    radius = np.sqrt(grid[:, None, None] ** 2 + grid[:, None] ** 2 + grid**2)
    ball = np.where(radius < 0.7, 300 + 80 * np.cos(12 * radius), 0)
    return (ball + np.abs(generator.normal(0, 10, ball.shape))).astype(np.float32)


def test_fixed_range_of_the_paper() -> None:
    scaling = onto_unit_range(-1024, 3072).scaling_of(head())
    np.testing.assert_array_equal(scaling.apply(np.array([-1024.0, 0.0, 3072.0])), [0, 0.25, 1])


@pytest.mark.parametrize("scaling", [Scaling(0.0, 932.7), Scaling(-1024, 4096)])
def test_inverse_and_type(scaling: Scaling) -> None:
    values = np.random.default_rng(1).uniform(-1000, 3000, 999).astype(np.float32)
    back = scaling.invert(scaling.apply(values))
    assert back.dtype == scaling.apply(values).dtype == np.float32
    np.testing.assert_allclose(back, values, rtol=0, atol=5e-4)  # float32 at 3000
    tensor = torch.from_numpy(values)
    np.testing.assert_array_equal(scaling.apply(tensor).numpy(), scaling.apply(values))
    precise = values.astype(np.float64)
    np.testing.assert_allclose(scaling.invert(scaling.apply(precise)), precise, atol=1e-12)


def test_record_gives_the_scaling_back() -> None:
    scaling = robust_scaling(head())
    assert Scaling(**scaling.to_dict()) == scaling


@pytest.mark.parametrize("factor", [1000.0, 1e-3, 3.7e5])
def test_robust_is_equivariant(factor: float) -> None:
    volume = head()
    expected = factor * robust_scaling(volume).scale
    assert robust_scaling(np.float32(factor) * volume).scale == pytest.approx(expected, rel=1e-5)


def test_robust_foreground_has_mean_0_4() -> None:
    volume = head()
    scaled = robust_scaling(volume).apply(volume)
    assert scaled[scaled > 5].mean() == pytest.approx(10, abs=0.08)


def test_hot_voxels_do_not_move_it() -> None:
    volume = head()
    hot = volume.copy()
    hot.ravel()[::2000] = 1e7
    scale = robust_scaling(volume).scale
    assert robust_scaling(hot).scale == pytest.approx(scale, rel=0.003)


def test_air_does_not_move_it() -> None:
    volume = head()
    padded = np.pad(volume, 20)
    assert robust_scaling(padded).scale == pytest.approx(robust_scaling(volume).scale, rel=0.003)


def test_low_resolution_hardly_moves_it() -> None:
    volume = head(64)
    low = kspace_crop(torch.from_numpy(volume)).numpy()
    ratio = robust_scaling(low).scale / robust_scaling(volume).scale
    assert ratio == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_any_real_type(dtype: type) -> None:
    volume = np.clip(head(), 0, 250).astype(dtype)
    expected = robust_scaling(volume.astype(np.float32)).scale
    assert robust_scaling(volume).scale == pytest.approx(expected, rel=1e-6)


def test_images_without_contrast() -> None:
    assert robust_scaling(np.zeros((3, 4))) == Scaling(0.0, 1.0)
    assert robust_scaling(np.full((3, 4), -2.0)) == Scaling(0.0, 1.0)
    assert robust_scaling(np.full((3, 4), 0.1, np.float32)).scale == pytest.approx(0.01)
    assert robust_scaling(np.array([7.0])).scale == pytest.approx(0.7)


def test_input_is_not_changed() -> None:
    volume = head()
    copy = volume.copy()
    robust_scaling(volume)
    np.testing.assert_array_equal(volume, copy)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((0, 3)), "no voxels"),
        (np.array([1.0, np.nan, 3.0]), "not finite"),
        (np.array([1.0, np.inf]), "not finite"),
    ],
)
def test_bad_images(data: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        robust_scaling(data)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_bad_range(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match="scaling has"):
        onto_unit_range(low, high)
