"""The table of tasks."""

from __future__ import annotations

import numpy as np
import pytest

from restore_rwkv.errors import ConfigError
from restore_rwkv.tasks import ALL_IN_ONE, TASKS, Scaling, get_task, get_tasks, task_of


@pytest.mark.parametrize(
    ("name", "modality", "value_range", "metric_range", "factor"),
    [
        ("mri-sr", "MR", (0, 4095), (0, 4095), 4),
        ("ct-denoise", "CT", (-1024, 3072), (-160, 240), 4),
        ("pet-synth", "PT", (0, 20), (0, 20), 12),
    ],
)
def test_the_paper_s_tasks(
    name: str,
    modality: str,
    value_range: tuple[float, float],
    metric_range: tuple[float, float],
    factor: float,
) -> None:
    task = get_task(name)
    assert (task.name, task.modality, task.factor) == (name, modality, factor)
    assert (task.value_range, task.metric_range) == (value_range, metric_range)
    low, high = value_range
    assert task.paper_scaling.scaling_of(np.zeros(3)) == Scaling(low, high - low)
    assert "not a medical device" in task.not_for
    assert task_of(modality) is task


def test_weights_for_all_tasks_are_no_task() -> None:
    assert get_tasks(ALL_IN_ONE) == tuple(TASKS.values())
    assert get_tasks("mri-sr") == (TASKS["mri-sr"],)
    with pytest.raises(ConfigError, match="the weights light-all-in-one"):
        get_task(ALL_IN_ONE)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'mri_sr' is unknown; did you mean 'mri-sr'\?"):
        get_task("mri_sr")
    with pytest.raises(ConfigError, match="tasks are: mri-sr"):
        get_task("xyzzy")
    with pytest.raises(ConfigError, match="modality 'US'"):
        task_of("US")
