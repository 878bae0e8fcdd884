"""Scaling of values in any unit, and warnings about values impossible for a task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from restore_rwkv import Volume
from restore_rwkv.io import DicomSource
from restore_rwkv.tasks import TASKS, Scaling, ScalingRule, Task, robust_scaling

MRI, CT, PET = TASKS.values()
FIXED = ScalingRule("fixed", offset=1.0, scale=0.5)
UPTAKE = np.random.default_rng(0).gamma(2, 2, (9, 8, 4)).astype(np.float32)


def test_suv_is_scaled_as_the_weights_were() -> None:
    scaling, record = PET.rules.find_scaling(Volume(UPTAKE, unit="SUV", modality="PT"), FIXED)
    assert scaling == Scaling(1.0, 0.5)
    assert record == {"scaling_rule": "fixed", "suv_per_unit": 1.0}


def test_the_network_sees_the_same_of_suv_and_of_activity() -> None:
    factor = 2.5e-4
    activity = Volume(UPTAKE / factor, unit="Bq/ml", modality="PT", suv_per_unit=factor)
    scaling, record = PET.rules.find_scaling(activity, FIXED)
    np.testing.assert_allclose(
        scaling.apply(activity.data), (UPTAKE - 1) / 0.5, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(scaling.invert((UPTAKE - 1) / 0.5), activity.data, rtol=1e-5)
    assert record == {"scaling_rule": "fixed", "suv_per_unit": factor}


@pytest.mark.parametrize(
    ("unit", "reason", "why"),
    [
        ("Bq/ml", None, "PET in Bq/ml without SUV (the file gives neither dose nor weight)"),
        ("Bq/ml", "PatientWeight missing", "PET without SUV (PatientWeight missing)"),
        ("a.u.", "Units is CNTS", "PET without SUV (Units is CNTS)"),
        (None, None, "PET of unknown unit"),
    ],
)
def test_other_pet_is_scaled_by_its_foreground_and_says_why(
    unit: str | None, reason: str | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = DicomSource(Path("series"), UPTAKE.shape, None, (), reason) if reason else None
    volume = Volume(UPTAKE * 900, unit=unit, modality="PT", source=source)
    scaling, record = PET.rules.find_scaling(volume, FIXED)
    assert scaling == robust_scaling(volume.data)
    assert record == {"scaling_rule": "robust", "no_suv": why}
    assert f"{volume.name}: {why}, so it is scaled by its own foreground" in caplog.text
    assert caplog.text.count("\n") == 1


def test_what_the_user_says_of_the_unit_counts_where_the_file_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    volume = Volume(UPTAKE)
    scaling, _ = PET.rules.find_scaling(volume, FIXED, in_task_unit=True)
    assert scaling == Scaling(1.0, 0.5)
    assert caplog.text == ""
    activity = Volume(UPTAKE, unit="Bq/ml", modality="PT")
    assert PET.rules.find_scaling(activity, FIXED, in_task_unit=True)[1]["scaling_rule"] == "robust"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_robust_rule_serves_any_unit(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    for unit in (None, "Bq/ml", "a.u."):
        volume = Volume(UPTAKE, unit=unit)
        scaling, record = task.rules.find_scaling(volume, ScalingRule("robust"))
        assert scaling == robust_scaling(UPTAKE)
        assert record == {"scaling_rule": "robust"}
    assert caplog.text == ""


def hounsfield() -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 20, (20, 20, 5))
    noise[:8] -= 1000
    noise[10] += 1200
    return noise


@pytest.mark.parametrize(
    ("task", "volume", "warning"),
    [
        (MRI, Volume(hounsfield()), "40 % of the values are far below 0, impossible for MRI"),
        (PET, Volume(hounsfield()), "impossible for PET; is it CT (task='ct-denoise')?"),
        (MRI, Volume(UPTAKE), None),
        (MRI, Volume(UPTAKE - 0.01), None),  # ringing of an interpolation
        (MRI, Volume(hounsfield(), modality="MR"), None),  # its file says so
        (CT, Volume(hounsfield()), None),
        (CT, Volume(hounsfield() + 1024), "array: hardly a value is below -50, so"),
        (CT, Volume(UPTAKE), "give HU, or another task"),
        (CT, Volume(UPTAKE, unit="a.u.", modality="CT"), "not Hounsfield units"),
        (CT, Volume(UPTAKE, unit="HU", modality="CT"), None),
        (PET, Volume(np.zeros((9, 9))), None),
    ],
)
def test_values_that_cannot_be_of_the_task(
    task: Task, volume: Volume, warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    task.rules.warn_of_strange_values(volume)
    assert warning in caplog.text if warning else caplog.text == ""
