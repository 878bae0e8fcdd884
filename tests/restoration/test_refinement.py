"""Data consistency and the ensemble of turns, from the options to the record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import restore_rwkv
from restore_rwkv import RestoreOptions, Restorer, RestoreRWKV, Volume
from restore_rwkv.errors import ConfigError
from restore_rwkv.model import save_weights
from restore_rwkv.physics.mri import keep_measured, kspace_crop
from restore_rwkv.restoration import restore_slices
from restore_rwkv.restoration.tiles import bytes_per_pixel
from restore_rwkv.tasks import TASKS, TURNS, PlaneChoice

PAPER = TASKS["mri-sr"].paper_scaling
CPU = torch.device("cpu")
AFFINE = np.eye(4)[[0, 2, 1, 3]]  # the second axis runs to the head, the third to the front
AXES = {"axial": 1, "coronal": 2, "sagittal": 0}


@pytest.fixture
def restorer(tiny_network: RestoreRWKV, tmp_path: Path) -> Restorer:
    scaling = {name: PAPER for name in ("mri-sr", "ct-denoise")}
    save_weights(tmp_path / "w.safetensors", tiny_network, scaling=scaling, training={})
    return Restorer("mri-sr", tmp_path / "w.safetensors", "cpu")


@pytest.fixture
def nothing(tiny_network: RestoreRWKV, tmp_path: Path) -> Restorer:
    """A network that returns its input."""
    for parameter in tiny_network.parameters():
        parameter.data.zero_()
    save_weights(tmp_path / "0.safetensors", tiny_network, scaling={"mri-sr": PAPER}, training={})
    return Restorer("mri-sr", tmp_path / "0.safetensors", "cpu")


def noise(*shape: int, low: float = 0.0) -> Volume:
    """Values that the paper's scaling, a product with 4095, gives back exactly up to rounding."""
    return Volume(np.random.default_rng(0).uniform(low, 4000, shape), AFFINE)


def slices(data: np.ndarray, axis: int) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(data, axis, 0).copy())


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("lowest", [0.0, -900.0])
def test_whole_slices_are_held_to_the_scan_in_their_plane(
    restorer: Restorer, plane: PlaneChoice, lowest: float
) -> None:
    """Odd and even sides; values below 0 stand for a signed image."""
    volume, axis = noise(17, 26, 32, low=lowest), AXES[plane]
    plain = restorer.run(volume, RestoreOptions(plane=plane, consistency=0)).volume.data
    image, low = slices(plain, axis), slices(volume.data, axis)
    for steps in (1, 4):
        options = RestoreOptions(plane=plane, consistency=steps)
        found = slices(restorer.run(volume, options).volume.data, axis)
        if lowest < 0:  # otherwise `plain` was clipped before these steps
            expected = keep_measured(image, low, 4, steps, magnitude=False)
            torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
        else:
            assert found.min() >= 0
            before, after = ((kspace_crop(x) - low).norm() for x in (image, found))
            assert after < before


def test_tiles_are_blended_before_the_scan_is_kept(
    tiny_network: RestoreRWKV, restorer: Restorer
) -> None:
    volume = noise(270, 250, 1)
    memory = 192 * 192 * bytes_per_pixel(tiny_network.config, CPU)
    options = [RestoreOptions(memory=memory, consistency=steps) for steps in (0, 3)]
    plain, found = (restorer.run(volume, option) for option in options)
    assert plain.record.tile == found.record.tile == (192, 192)
    assert found.record.kept == (67, 62)
    low = slices(volume.data, 2)
    before, after = ((kspace_crop(slices(x.volume.data, 2)) - low).norm() for x in (plain, found))
    assert after < 0.8 * before


def test_a_good_image_is_kept(nothing: Restorer) -> None:
    """Where the low-resolution image is all there is, the steps change nothing."""
    rows, columns = (np.linspace(0, 2 * np.pi, n, endpoint=False) for n in (40, 36))
    smooth = 900 + 300 * np.cos(rows)[:, None] * np.sin(2 * columns)
    volume = Volume(smooth, AFFINE)
    restored = nothing.run(volume, RestoreOptions(consistency=15)).volume.data
    np.testing.assert_allclose(restored, volume.data, rtol=1e-5)


@pytest.mark.parametrize("shape", [(32, 40, 3), (28, 33, 3)])  # even blocks: four turns; eight
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "auto"])
def test_the_ensemble_of_a_network_that_adds_nothing_gives_the_image_back(
    nothing: Restorer, shape: tuple[int, int, int], plane: PlaneChoice
) -> None:
    order = {"axial": (0, 2, 1), "coronal": (0, 1, 2), "sagittal": (2, 0, 1), "auto": (0, 1, 2)}
    volume = Volume(noise(*shape).data.transpose(order[plane]), AFFINE if plane != "auto" else None)
    once, mean = (
        nothing.run(volume, RestoreOptions(plane=plane, consistency=0, ensemble=ensemble))
        for ensemble in (False, True)
    )
    assert np.array_equal(mean.volume.data, once.volume.data)
    np.testing.assert_allclose(mean.volume.data, volume.data, rtol=1e-6)


@pytest.mark.parametrize(("shape", "count"), [((32, 40), 4), ((28, 33), 8)])
def test_the_ensemble_is_the_mean_over_turns(
    tiny_network: RestoreRWKV, restorer: Restorer, shape: tuple[int, int], count: int
) -> None:
    volume, task = noise(*shape, 2, low=-500), TASKS["mri-sr"]
    found = restorer.run(volume, RestoreOptions(plane="coronal", consistency=0, ensemble=True))
    scaling = PAPER.scaling_of(volume.data)
    results = []
    for turn in TURNS if count == 8 else [turn for turn in TURNS if turn.rows == turn.columns]:
        turned = turn.apply(slices(volume.data, 2)).numpy()
        restored = restore_slices(tiny_network, turned, task, scaling, turned.shape[1:])
        results.append(turn.undo(torch.from_numpy(restored)).numpy())
    assert len(results) == count
    np.testing.assert_allclose(found.volume.slices(2), np.mean(results, 0), atol=0.01)
    assert np.abs(results[0] - np.mean(results, 0)).max() > 1
    plan = restorer.plan(volume, RestoreOptions(plane="coronal", ensemble=True))
    assert f"ensemble: mean over {count} turns and mirrors, so {count} passes" in plan.lines()


def test_the_ensemble_in_tiles_is_seamless(tiny_network: RestoreRWKV, nothing: Restorer) -> None:
    volume = noise(270, 250, 1)
    memory = 192 * 192 * bytes_per_pixel(tiny_network.config, CPU)
    options = RestoreOptions(memory=memory, consistency=0, ensemble=True)
    restored = nothing.run(volume, options)
    assert restored.record.tile == (192, 192)
    np.testing.assert_allclose(restored.volume.data, volume.data, rtol=1e-5)


def test_the_number_of_steps_is_that_of_the_task_unless_given(restorer: Restorer) -> None:
    volume = noise(16, 20, 2)
    default = restorer.plan(volume)
    assert default.refinement.steps == TASKS["mri-sr"].consistency == 5
    assert default.refinement.factor == 4
    assert default.kept == (4, 5)
    assert default.lines()[-1] == (
        "consistency: 5 steps keep the measured 4 x 5 samples of k-space"
    )
    other = restorer.plan(volume, RestoreOptions(consistency=2, factor=2))
    assert (other.refinement.steps, other.kept) == (2, (8, 10))
    off = restorer.plan(volume, RestoreOptions(consistency=0))
    assert (off.refinement.steps, off.kept) == (0, None)
    assert not any(line.startswith(("consistency", "ensemble")) for line in off.lines())


def test_a_finer_grid_keeps_all_of_the_coarse_one_if_asked(restorer: Restorer) -> None:
    """The highest frequency of an even side is left out: it is known by half."""
    volume = noise(16, 21, 2)
    assert restorer.plan(volume, RestoreOptions(scale=2.5)).kept is None
    plan = restorer.plan(volume, RestoreOptions(scale=2.5, consistency=1, ensemble=True))
    assert plan.volume.data.shape == (40, 52, 2)
    assert plan.kept == (15, 21)
    assert len(plan.refinement.turns) == 8


def test_what_is_not_in_a_file_cannot_be_kept(restorer: Restorer) -> None:
    volume = Volume(noise(16, 20, 2).data - 1000)
    ct = Restorer("ct-denoise", restorer.weights, "cpu")
    assert ct.plan(volume).refinement.steps == 0
    assert ct.plan(volume, RestoreOptions(consistency=0)).refinement.steps == 0
    match = "consistency: what was measured for CT is not in the file of an image, so ct-denoise"
    with pytest.raises(ConfigError, match=match):
        ct.plan(volume, RestoreOptions(consistency=1))
    assert len(ct.plan(volume, RestoreOptions(ensemble=True)).refinement.turns) == 8
    with pytest.raises(
        ConfigError, match=r"factor 17 leaves no sample .* 16 x 20; give at most 16"
    ):
        restorer.plan(volume, RestoreOptions(factor=17))
    with pytest.raises(ConfigError, match="consistency is -1; give a whole number from 0"):
        RestoreOptions(consistency=-1)
    with pytest.raises(ConfigError, match="factor is 1; give a number above 1"):
        RestoreOptions(factor=1)
    with pytest.raises(ConfigError, match="factor and scale are both given; leave factor out"):
        RestoreOptions(factor=4, scale=4)
    with pytest.raises(TypeError, match="CT: images do not hold what was measured"):
        TASKS["ct-denoise"].rules.keep_measured(volume.data, volume.data, 4, 1, False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (RestoreOptions(), (5, [10, 8], 1, 4)),
        (RestoreOptions(consistency=0), (0, None, 1, None)),
        (RestoreOptions(consistency=0, ensemble=True, factor=2), (0, None, 4, 2)),
        (RestoreOptions(consistency=2, factor=8), (2, [5, 4], 1, 8)),
    ],
)
def test_the_record_says_what_was_done(
    scan: Path, tiny_weights: Path, tmp_path: Path, options: RestoreOptions, expected: tuple
) -> None:
    output = tmp_path / "out.nii.gz"
    restore_rwkv.restore(scan, output, task="mri-sr", weights=tiny_weights, options=options)
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    keys = ("consistency", "kept", "turns", "factor")
    assert tuple(record[key] for key in keys) == expected
    assert record["ensemble"] == (record["turns"] > 1)
    assert record["format"] == "restore-rwkv record 1"


def test_a_few_values_below_0_do_not_make_a_scan_signed(restorer: Restorer) -> None:
    """Such as those of interpolation; the rest of the scan is restored as if they were 0."""
    magnitude = noise(17, 26, 32)
    data = magnitude.data.copy()
    data[3, 4, 5] = 0
    clipped = restorer.run(magnitude.with_data(data))
    data[3, 4, 5] = -1
    few = restorer.run(magnitude.with_data(data))
    assert not few.record.signed
    np.testing.assert_allclose(few.volume.data, clipped.volume.data, atol=1)
    assert restorer.run(noise(17, 26, 32, low=-900)).record.signed


def test_nothing_is_put_back_in_a_plane_that_was_not_measured(
    restorer: Restorer, caplog: pytest.LogCaptureFixture
) -> None:
    """The scan has slices of 3 mm across its last axis, the coronal plane."""
    volume = Volume(noise(24, 26, 16).data, AFFINE @ np.diag([1, 1, 3, 1]))
    assert restorer.plan(volume).refinement.steps == 5
    assert restorer.plan(volume, RestoreOptions(plane="coronal")).refinement.steps == 5
    assert caplog.text == ""
    other = restorer.plan(volume, RestoreOptions(plane="axial"))
    assert other.refinement.steps == 0
    assert "know slices in the plane that they were measured in; leave plane out" in caplog.text
    given = restorer.plan(volume, RestoreOptions(plane="axial", consistency=3))
    assert given.refinement.steps == 3


def test_a_factor_that_changes_nothing_is_refused(restorer: Restorer) -> None:
    with pytest.raises(ConfigError, match="factor: without consistency or ensemble it changes"):
        restorer.plan(noise(17, 26, 32), RestoreOptions(factor=8, consistency=0))
