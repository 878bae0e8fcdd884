"""The largest score of noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from restore_rwkv.evaluation.fidelity.extremes import exceeded_in_field, exceeded_rarely


def test_few_slices_say_what_many_have() -> None:
    rng = np.random.default_rng(0)
    few = rng.standard_normal((40, 2000)).max(axis=1)
    many = rng.standard_normal((1000, 20 * 2000)).max(axis=1)
    limit = exceeded_rarely(few, 20)
    assert limit is not None
    # The fit's shape is approximate for normal values: 0.02 to 0.05 measured.
    assert 0.01 < np.mean(many > limit) < 0.08


def test_no_threshold_from_too_few_or_equal_maxima() -> None:
    assert exceeded_rarely([3.0, 4.0, 5.0], 10) is None
    assert exceeded_rarely([3.0] * 20, 10) is None


def test_noise_under_a_gaussian_exceeds_its_threshold_rarely() -> None:
    rng = np.random.default_rng(0)
    limit = exceeded_in_field(48.0**3, 2.0)
    beyond = 0
    for _ in range(200):
        field = gaussian_filter(rng.standard_normal((48, 48, 48), np.float32), 2.0, mode="wrap")
        beyond += np.abs(field).max() / field.std() > limit
    assert beyond / 200 == pytest.approx(0.05, abs=0.04)
