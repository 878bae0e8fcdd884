"""Fixtures of the file tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from tests.helpers.synthetic_series import SLICES, SeriesWriter, make_slice, save


@pytest.fixture
def write_series(tmp_path: Path) -> SeriesWriter:
    """Return a function that writes a series, after ``change(k, slice)`` where it is given."""

    def write(
        change: Callable[[int, Dataset], None] = lambda k, dataset: None,
        slices: tuple[int, ...] = tuple(range(SLICES)),
    ) -> Path:
        folder = tmp_path / "series"
        folder.mkdir(exist_ok=True)
        for k in slices:
            dataset = make_slice(k)
            change(k, dataset)
            # Names in an order that is not that of the slices.
            save(dataset, folder / f"IM{(k * 3 + 2) % 5}_{k}.dcm")
        return folder

    return write
