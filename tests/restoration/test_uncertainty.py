"""The spread of restored values by turns and by a bootstrap, and the map of their intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from restore_rwkv import RestoreOptions, Restorer, RestoreRWKV, Volume
from restore_rwkv.errors import ConfigError, InputError, WeightsError
from restore_rwkv.model import save_weights
from restore_rwkv.physics.ct import noise_level
from restore_rwkv.physics.mri import kspace_crop
from restore_rwkv.restoration import restore_slices
from restore_rwkv.restoration.tiles import bytes_per_pixel
from restore_rwkv.restoration.uncertainty import Spread, find_spread, interval_map
from restore_rwkv.tasks import TASKS, TURNS, Intervals, ScalingRule, SpreadMethod
from tests.helpers.ct_phantoms import QUICK, poisson_disc

SCALING = {
    "mri-sr": TASKS["mri-sr"].paper_scaling,
    "ct-denoise": ScalingRule("fixed", offset=0.0, scale=40.0),
    "pet-synth": ScalingRule("fixed", offset=0.0, scale=0.5),
}
BONE, WATER = 700.0, 20.0


@pytest.fixture
def weights(tiny_network: RestoreRWKV, tmp_path: Path) -> Path:
    save_weights(tmp_path / "w.safetensors", tiny_network, scaling=SCALING, training={})
    return tmp_path / "w.safetensors"


@pytest.fixture
def nothing(tiny_network: RestoreRWKV, tmp_path: Path) -> Path:
    """Weights of a network that returns its input."""
    for parameter in tiny_network.parameters():
        parameter.data.zero_()
    save_weights(tmp_path / "0.safetensors", tiny_network, scaling=SCALING, training={})
    return tmp_path / "0.safetensors"


def mri(*shape: int) -> Volume:
    """Slices across the last axis of a smooth magnitude with random detail."""
    values = np.random.default_rng(0).uniform(0, 4000, (shape[2], *shape[:2])).astype(np.float32)
    low = kspace_crop(torch.from_numpy(values), 4).numpy()
    return Volume(np.moveaxis(low, 0, 2), np.diag([1.0, 1.0, 2.0, 1.0]), modality="MR")


def ct(pixel: float = 3.0) -> Volume:
    """Slices of a water disc with noise."""
    slices = poisson_disc(pixel, views=180).numpy()
    affine = np.diag([pixel, pixel, 2.0, 1.0])
    return Volume(np.moveaxis(slices, 0, 2), affine, unit="HU", modality="CT")


def spread_of(
    weights: Path,
    volume: Volume,
    method: SpreadMethod,
    options: RestoreOptions | None = None,
    seed: int = 0,
) -> tuple[Spread, Volume]:
    restorer = Restorer(weights=weights, device="cpu")
    plan = restorer.plan(volume, options or RestoreOptions(force=True))
    restored = restorer.run_plan(plan)
    return find_spread(restorer, plan, restored, method, seed=seed), restored.volume


@pytest.mark.parametrize(("shape", "count"), [((32, 40, 2), 3), ((28, 33, 2), 7)])
def test_the_spread_by_turns_is_the_deviation_of_turned_restorations(
    tiny_network: RestoreRWKV, weights: Path, shape: tuple[int, int, int], count: int
) -> None:
    """An even block of k-space allows four turns, the slice as it is among them."""
    volume, task = mri(*shape), TASKS["mri-sr"]
    found, restored = spread_of(weights, volume, "turns", RestoreOptions(consistency=0))
    scaling = SCALING["mri-sr"].scaling_of(volume.data)
    slices = torch.from_numpy(np.moveaxis(volume.data, 2, 0).copy())
    squares = []
    for turn in TURNS[1:] if count == 7 else [t for t in TURNS[1:] if t.rows == t.columns]:
        turned = turn.apply(slices).numpy()
        again = restore_slices(tiny_network, turned, task, scaling, turned.shape[1:])
        again = turn.undo(torch.from_numpy(again)).numpy()
        squares.append((again - np.moveaxis(restored.data, 2, 0)) ** 2)
    expected = np.sqrt(np.mean(squares, axis=0))
    assert found.samples == len(squares) == count
    assert found.scale == scaling.scale
    assert expected.max() > 1
    np.testing.assert_allclose(np.moveaxis(found.volume.data, 2, 0), expected, atol=0.02)


def test_a_network_that_adds_nothing_has_no_spread_in_turns(nothing: Path) -> None:
    """A bias that all turns share is not seen: here, all that the network failed to restore."""
    for volume in (mri(32, 40, 2), ct()):
        found, _ = spread_of(nothing, volume, "turns", RestoreOptions(consistency=0, force=True))
        assert found.volume.data.max() < 1e-3


def test_the_spread_of_an_ensemble_is_that_of_its_members(weights: Path) -> None:
    spreads = [
        spread_of(weights, mri(28, 33, 2), "turns", RestoreOptions(ensemble=ensemble))[0]
        for ensemble in (False, True)
    ]
    np.testing.assert_allclose(*(spread.volume.data for spread in spreads), atol=0.02)


def test_half_the_correction_has_half_the_spread(weights: Path) -> None:
    whole, half = (
        spread_of(weights, ct(), "turns", RestoreOptions(strength=strength, force=True))[0]
        for strength in (1.0, 0.5)
    )
    inside = whole.volume.data > 0.1
    assert whole.samples == 7
    np.testing.assert_allclose(half.volume.data[inside], whole.volume.data[inside] / 2, rtol=0.02)


def test_tiles_are_turned_with_the_slices(tiny_network: RestoreRWKV, weights: Path) -> None:
    memory = 192 * 256 * bytes_per_pixel(tiny_network.config, torch.device("cpu"))
    volume = mri(196, 300, 1)
    options = RestoreOptions(memory=memory, consistency=1)
    restorer = Restorer(weights=weights, device="cpu")
    plan = restorer.plan(volume, options)
    assert plan.tiling.tile[0] != plan.tiling.tile[1]
    found, restored = spread_of(weights, volume, "turns", options)
    assert found.volume.data.shape == restored.data.shape
    assert found.volume.data.max() > 1


@pytest.mark.slow
def test_a_network_that_adds_nothing_has_the_noise_of_the_scan_in_the_bootstrap(
    nothing: Path,
) -> None:
    """The noise is that of the scan at its own dose, in HU, within the error of five samples."""
    volume = ct()
    found, _ = spread_of(nothing, volume, "bootstrap")
    assert found.samples == 5
    middle = np.moveaxis(found.volume.data, 2, 0)[:, 35:-35, 35:-35]
    noise = noise_level(torch.from_numpy(np.moveaxis(volume.data, 2, 0).copy()))
    # `noise_level` counts fine noise only: 0.8 to 0.95 of all noise.
    assert 0.9 * noise < np.sqrt(np.mean(middle**2)) < 1.5 * noise


def test_a_bootstrap_follows_its_seed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore_rwkv.physics.ct.calibrated", lambda *_: QUICK)
    first, same, other = (
        spread_of(weights, ct(5.0), "bootstrap", seed=seed)[0].volume.data for seed in (3, 3, 4)
    )
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert first.min() >= 0


def test_the_bootstrap_of_mri_takes_all_turns(weights: Path) -> None:
    """Mirrored along one axis, an even block measures other frequencies."""
    first, other = (spread_of(weights, mri(32, 40, 2), "bootstrap", seed=s)[0] for s in (3, 4))
    assert first.samples == 7
    assert first.volume.data.max() > 1
    np.testing.assert_allclose(first.volume.data, other.volume.data, atol=1.0)  # in another order


def test_progress_counts_the_slices_of_all_passes(weights: Path) -> None:
    restorer = Restorer(weights=weights, device="cpu")
    plan = restorer.plan(mri(32, 40, 3))
    restored = restorer.run_plan(plan)
    seen: list[tuple[int, int]] = []
    for method, passes in (("turns", 3), ("bootstrap", 7)):
        seen.clear()
        find_spread(restorer, plan, restored, method, progress=lambda *done: seen.append(done))
        assert seen[-1] == (3 * passes, 3 * passes)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_what_a_spread_needs_is_said(weights: Path) -> None:
    flat = Volume(ct().data, unit="HU", modality="CT")
    with pytest.raises(InputError, match="has no geometry"):
        spread_of(weights, flat, "bootstrap")
    with pytest.raises(ConfigError, match="method 'dropout' is unknown; give 'turns' or"):
        spread_of(weights, flat, "dropout")  # type: ignore[arg-type]


def intervals(**changes: object) -> Intervals:
    values: dict[str, object] = {
        "method": "turns",
        "level": 0.9,
        "factors": {"air": 1.0, "lung": 2.0, "soft-tissue": 3.0, "bone": 5.0},
        "floor": 0.1,
        "subjects": 1,
        "pixels": 10,
        "coverage": 0.9,
    }
    return Intervals(**(values | changes))  # type: ignore[arg-type]


def test_the_map_has_the_factor_of_the_tissue_and_the_floor() -> None:
    restored = Volume(np.array([[[-1000.0, -800.0, WATER, BONE]]]), unit="HU", modality="CT")
    spread = Spread(
        method="turns", volume=restored.with_data(np.full((1, 1, 4), 2.0)), samples=7, scale=40.0
    )
    task = TASKS["ct-denoise"]
    found = interval_map(restored, spread, intervals(), task)
    np.testing.assert_allclose(found.data[0, 0], np.array([1, 2, 3, 5]) * (2 + 0.1 * 40))
    assert found.unit == "HU"
    with pytest.raises(ConfigError, match="calibrated for bootstrap, and the spread is by turns"):
        interval_map(restored, spread, intervals(method="bootstrap"), task)
    with pytest.raises(WeightsError, match="have no factor for lung of ct-denoise"):
        interval_map(restored, spread, intervals(factors={"air": 1.0, "bone": 1.0}), task)
    with pytest.raises(ConfigError, match="give the spread of this scan"):
        interval_map(Volume(np.zeros((2, 2, 2))), spread, intervals(), task)
