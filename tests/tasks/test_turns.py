"""The eight turns and mirrors, and those of which a degraded slice is one again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from restore_rwkv.physics.mri import kspace_crop
from restore_rwkv.tasks import TASKS, TURNS

MRI, CT, PET = TASKS.values()


def test_there_are_eight_and_each_can_be_undone() -> None:
    images = torch.rand(2, 5, 7)
    turned = [turn.apply(images) for turn in TURNS]
    assert TURNS[0].apply(images).equal(images)
    assert len({tuple(image.flatten().tolist()) for image in turned}) == 8
    for turn, image in zip(TURNS, turned, strict=True):
        assert image.shape == ((2, 7, 5) if turn.transposed else (2, 5, 7))
        assert turn.undo(image).equal(images)
        array = turn.turned(images.numpy())
        assert array.flags.c_contiguous
        assert np.array_equal(array, image.numpy())
        assert np.array_equal(turn.turned_back(array), images.numpy())


def test_turned_slices_have_the_factors_of_their_axes() -> None:
    for turn in TURNS:
        assert turn.factor(4.0) == 4.0
        assert turn.factor((2.0, 3.0)) == ((3.0, 2.0) if turn.transposed else (2.0, 3.0))


@pytest.mark.parametrize(
    ("shape", "factor", "count"),
    [
        ((32, 48), 4.0, 4),  # 8 x 12 samples
        ((28, 48), 4.0, 8),  # 7 x 12
        ((48, 30), 4.0, 8),  # 12 x 7
        ((31, 29), 4.0, 8),  # 7 x 7
        ((33, 32), (33 / 7, 32 / 8), 8),
        ((33, 32), (33 / 8, 32 / 6), 4),
    ],
)
def test_mri_is_turned_where_the_degraded_turn_is_the_turned_degraded(
    shape: tuple[int, int], factor: float | tuple[float, float], count: int
) -> None:
    image = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low = kspace_crop(image, factor)
    found = MRI.rules.turns(shape, factor)
    assert found[0] == TURNS[0]
    assert len(found) == count
    for turn in TURNS:
        axes = factor[::-1] if isinstance(factor, tuple) and turn.transposed else factor
        same = torch.allclose(kspace_crop(turn.apply(image), axes), turn.apply(low), atol=1e-12)
        assert same == (turn in found)


def test_ct_and_pet_are_turned_in_all_eight_ways() -> None:
    for task in (CT, PET):
        assert task.rules.turns((32, 32), task.factor) == TURNS
