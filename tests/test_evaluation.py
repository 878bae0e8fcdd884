from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from restore_rwkv import Restorer, Volume
from restore_rwkv.evaluation import cubic, evaluate
from restore_rwkv.physics.mri import low_resolution


def test_slices_are_those_that_the_restorer_takes(tiny_weights: Path) -> None:
    """A two-dimensional image has one slice, however wide its pixels are."""
    image = np.random.default_rng(0).uniform(0, 900, (24, 20))
    result = evaluate(Volume(image, np.diag([2.0, 2, 1, 1])), Restorer(weights=tiny_weights))
    assert result.slice_axis == 2
    assert list(result.scores) == list(result.volumes) == ["zero-filled", "cubic", "restored"]
    assert [score.slices for score in result.scores.values()] == [1, 1, 1]


def test_cubic_interpolation_does_not_shift_a_smooth_image() -> None:
    rows, columns = np.meshgrid(np.arange(64), np.arange(48), indexing="ij")
    image = 2 + np.sin(2 * np.pi * rows / 64) * np.cos(2 * np.pi * columns / 48)
    coarse = low_resolution(torch.from_numpy(image.astype(np.float32)), 4.0)
    inside = (slice(8, -8), slice(8, -8))
    assert np.abs(cubic(coarse, image.shape) - image)[inside].max() < 0.01
