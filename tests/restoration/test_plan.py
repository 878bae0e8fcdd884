"""Task, slices and finer grids of a scan before the network sees it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from restore_rwkv import PRESETS, RestoreOptions, Volume
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.model import WeightsInfo
from restore_rwkv.restoration.plan import Plan
from restore_rwkv.restoration.planning import finer, make_plan
from restore_rwkv.tasks import TASKS, ScalingRule, Task, pick_task, slice_axis

MRI, CT, PET = TASKS.values()
LIGHT = PRESETS["light"]
CPU = torch.device("cpu")


def prepare(volume: Volume, task: Task, rule: ScalingRule, options: RestoreOptions) -> Plan:
    info = WeightsInfo(LIGHT, True, {task.name: rule}, {}, "", 1_000_000)
    return make_plan(volume, task, options, info=info, device=CPU)


OBLIQUE = np.array(
    [[-0.78, 0.5, 0.1, 31.7], [0.4, 0.79, -0.9, -12.9], [0.2, 0.3, 5.5, 4.1], [0, 0, 0, 1]]
)


@pytest.mark.parametrize(("modality", "task"), [("MR", MRI), ("CT", CT), ("PT", PET)])
def test_the_modality_picks_the_task(
    modality: str, task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert pick_task(Volume(np.ones((2, 2)), modality=modality)) is task
    assert f"array: {modality}, to be restored with {task.name}" in caplog.text
    for other in TASKS:
        assert pick_task(Volume(np.ones((2, 2)), modality=modality), other).name == other


def test_no_modality_is_told_with_the_mend() -> None:
    mend = r"array: nothing says.*give task=mri-sr\|ct-denoise\|pet-synth$"
    with pytest.raises(InputError, match=mend):
        pick_task(Volume(np.ones((2, 2))))
    other = Volume(np.ones((9, 9)), modality="NM")
    with pytest.raises(InputError, match="array: is NM, which no task restores; give MR, CT or PT"):
        pick_task(other)
    with pytest.raises(InputError, match="array: is NM, and pet-synth restores PT; give another"):
        prepare(other, PET, PET.scaling, RestoreOptions())
    with pytest.raises(ConfigError, match="did you mean 'ct-denoise'"):
        pick_task(Volume(np.ones((2, 2))), "ct-denois")


@pytest.mark.parametrize(
    ("axes", "spacing", "expected"),
    [
        ((0, 1, 2), (1, 1, 5), (2, 2, 1)),  # axial slices
        ((0, 2, 1), (1, 1, 5), (2, 1, 2)),  # coronal
        ((1, 2, 0), (1, 1, 5), (2, 1, 0)),  # sagittal
        ((2, 1, 0), (5, 1, 1), (0, 0, 1)),  # slices across the first axis
        ((0, 1, 2), (2, 2, 2), (2, 2, 1)),
    ],
)
def test_each_task_has_its_plane(
    axes: tuple[int, int, int], spacing: tuple[float, float, float], expected: tuple[int, int, int]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, axes] * spacing
    turn = np.eye(4)
    turn[:2, :2] = [[0.9, -(0.19**0.5)], [0.19**0.5, 0.9]]  # a head held askew
    for oblique in (affine, turn @ affine):
        volume = Volume(np.zeros((9, 9, 9)), oblique)
        assert tuple(slice_axis(volume, task) for task in (MRI, CT, PET)) == expected
        assert [slice_axis(volume, task, "coronal") for task in (MRI, CT, PET)] == [expected[2]] * 3


def test_without_geometry_slices_lie_across_the_last_axis() -> None:
    for task in TASKS.values():
        assert slice_axis(Volume(np.zeros((9, 9, 9))), task) == 2
        for axis in range(3):
            single = Volume(np.zeros(np.insert([9, 9], axis, 1)), np.eye(4)[[0, 2, 1, 3]])
            assert slice_axis(single, task) == axis
        with pytest.raises(ConfigError, match="has no geometry"):
            slice_axis(Volume(np.zeros((9, 9, 9))), task, "axial")


@pytest.mark.parametrize("affine", [np.diag([3.0, 3.0, 6.5, 1.0]), OBLIQUE])
@pytest.mark.parametrize(
    ("shape", "axis", "scale", "size"),
    [
        ((16, 12, 3), 2, 4.0, (64, 48, 3)),
        ((15, 12, 3), 2, 4.0, (60, 48, 3)),
        ((15, 13, 3), 2, 2.5, (38, 32, 3)),  # 37.5 and 32.5 to even numbers
        ((17, 3, 11), 1, 1.3, (22, 3, 14)),
        ((3, 9, 10), 0, 8.0, (3, 72, 80)),
    ],
)
def test_a_finer_grid_has_the_same_values_at_the_same_places(
    affine: np.ndarray, shape: tuple[int, ...], axis: int, scale: float, size: tuple[int, ...]
) -> None:
    """A band-limited function of the place in mm, sampled through either affine."""
    start, waves = np.linalg.inv(affine), np.random.default_rng(0)
    orders = [waves.integers(-((n - 1) // 2), (n + 1) // 2, 6) for n in shape]
    orders[axis][:] = 0
    phases, sizes = waves.uniform(0, 7, 6), waves.uniform(0.1, 0.3, 6)

    def values(grid: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
        index = np.indices(matrix).reshape(3, -1)
        place = grid[:3, :3] @ index + grid[:3, 3:]
        turns = (start[:3, :3] @ place + start[:3, 3:]) / np.array(shape)[:, None]
        angles = 2 * np.pi * np.array(orders).T @ turns + phases[:, None]
        return (2 + sizes @ np.cos(angles)).reshape(matrix)

    result = finer(Volume(values(affine, shape), affine, "a.u.", "MR"), axis, scale)
    assert result.data.shape == size
    assert result.affine is not None
    np.testing.assert_allclose(result.data, values(result.affine, size), rtol=2e-6)
    spacing = np.linalg.norm(affine[:3, :3], axis=0) * shape / size
    np.testing.assert_allclose(result.spacing, spacing)


def test_magnitudes_stay_so_and_signed_values_too() -> None:
    data = np.zeros((16, 16))
    data[8:] = 100
    assert finer(Volume(data), 2, 4).data.min() >= 0
    assert finer(Volume(data - 50), 2, 4).data.min() < -50


def test_scale_is_for_mri_within_limits_and_told_where_the_weights_know_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    volume = Volume(np.random.default_rng(0).uniform(1, 9, (8, 10, 3)), np.eye(4))
    prepared = prepare(volume, MRI, MRI.scaling, RestoreOptions(scale=4))
    assert prepared.volume.data.shape == (32, 40, 3)
    assert prepared.scale == 4
    assert caplog.text == ""
    prepare(volume, MRI, MRI.scaling, RestoreOptions(scale=2))
    assert "array: scale 2, and the weights for mri-sr know images of 4 times" in caplog.text
    for task in (CT, PET):
        with pytest.raises(ConfigError, match=f"scale: {task.name} keeps the grid"):
            prepare(volume, task, task.scaling, RestoreOptions(scale=4))
    for scale in (1.0, 0.5, -2.0, 8.5, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="is out of range; give a factor above 1"):
            RestoreOptions(scale=scale)


def test_small_slices_can_be_large_enough_on_the_finer_grid() -> None:
    volume = Volume(np.ones((4, 5, 3)), np.eye(4))
    with pytest.raises(InputError, match="slices are 4 x 5"):
        prepare(volume, MRI, MRI.scaling, RestoreOptions())
    finer_grid = prepare(volume, MRI, MRI.scaling, RestoreOptions(scale=4, force=True))
    assert finer_grid.volume.data.shape == (16, 20, 3)


@pytest.mark.parametrize(("unit", "rule"), [(None, "fixed"), ("a.u.", "robust")])
def test_data_prepared_as_the_papers_is_of_no_unit_that_is_known(
    unit: str | None, rule: str
) -> None:
    """`scaling="paper"` does not make SUV of counts."""
    volume = Volume(np.random.default_rng(0).uniform(0, 9, (9, 9)), unit=unit)
    prepared = prepare(volume, PET, PET.scaling, RestoreOptions(scaling="paper"))
    assert prepared.scaling_found["scaling_rule"] == rule
    told = prepare(volume, PET, PET.scaling, RestoreOptions(unit="SUV"))
    assert told.scaling.to_dict() == {"offset": 0.0, "scale": 0.5}


def test_a_setting_is_one_of_its_choices() -> None:
    with pytest.raises(ConfigError, match="unit 'HU' is unknown; choose from 'auto', 'SUV'"):
        RestoreOptions(unit="HU")  # type: ignore[arg-type]


def test_a_unit_that_the_user_gives_is_that_of_the_task_and_not_against_the_file() -> None:
    uptake = np.random.default_rng(0).gamma(2, 2, (9, 8, 4)).astype(np.float32)
    prepare(Volume(uptake), PET, PET.scaling, RestoreOptions(unit="SUV"))
    activity = Volume(uptake, unit="Bq/ml", modality="PT")
    with pytest.raises(InputError, match="array: is in Bq/ml, not SUV"):
        prepare(activity, PET, PET.scaling, RestoreOptions(unit="SUV"))
    with pytest.raises(ConfigError, match=r"unit SUV is not that of ct-denoise \(HU\)"):
        prepare(Volume(uptake), CT, CT.scaling, RestoreOptions(unit="SUV"))
