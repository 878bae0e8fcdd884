"""How slices are laid out to be looked at."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from restore_rwkv.io import Volume
from restore_rwkv.io.views import view_of

SIGNS = list(itertools.product((1.0, -1.0), repeat=3))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_pixel_is_found_where_it_is_displayed(order: tuple[int, ...], axis: int) -> None:
    data = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    for signs in SIGNS:
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[list(order)] * signs
        view = view_of(Volume(data, affine), axis)
        image = np.moveaxis(data, axis, 0)[1]
        shown = view.laid_out(image)
        for row, column in np.ndindex(*image.shape):
            assert shown[view.place(row, column, image.shape)] == image[row, column]


def test_without_geometry_a_pixel_is_displayed_where_it_lies_in_the_file() -> None:
    view = view_of(Volume(np.zeros((3, 4, 5), np.float32)), 2)
    assert view.place(2, 1, (3, 4)) == (2, 1)
