"""The table of tasks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from restore_rwkv.errors import ConfigError
from restore_rwkv.scaling import fixed_scaling, robust_scaling
from restore_rwkv.tasks import TASKS, get_task


def test_mri_super_resolution() -> None:
    task = get_task("mri-sr")
    assert task.modality == "MR"
    assert task.value_range == task.metric_range == (0.0, 4095.0)
    assert task.factor == 4
    assert "not a medical device" in task.not_for


@pytest.mark.parametrize("name", TASKS)
def test_names_and_ranges(name: str) -> None:
    task = TASKS[name]
    assert task.name == name
    assert task.value_range[0] <= task.metric_range[0] < task.metric_range[1]
    assert task.metric_range[1] <= task.value_range[1]


def test_scaling_follows_the_rule() -> None:
    volume = np.arange(60.0).reshape(3, 4, 5)
    robust = get_task("mri-sr")
    assert robust.scaling_for(volume) == robust_scaling(volume)
    fixed = dataclasses.replace(robust, scaling="fixed")
    assert fixed.scaling_for(volume) == fixed_scaling(0, 4095)


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'mri_sr' is unknown; did you mean 'mri-sr'\?"):
        get_task("mri_sr")
    with pytest.raises(ConfigError, match="tasks are: mri-sr"):
        get_task("xyzzy")
