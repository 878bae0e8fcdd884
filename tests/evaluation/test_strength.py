"""The calibration of the strength: no pair that it has seen loses PSNR."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from restore_rwkv import RestoreOptions, Restorer, RestoreRWKV, Volume
from restore_rwkv.errors import InputError
from restore_rwkv.evaluation import (
    BlendGains,
    NoisyPair,
    blend_gains,
    calibrate,
    evaluate,
    full_noise,
    mean_score,
)
from restore_rwkv.evaluation.scores import slice_scores
from restore_rwkv.evaluation.strength import BLENDS, best_blend
from restore_rwkv.model import load_weights, save_weights
from restore_rwkv.tasks import TASKS, AddedNoise, DegradeOptions, ScalingRule, Strength

TASK = TASKS["ct-denoise"]
RULES = {TASK.name: ScalingRule("fixed", 0.0, 40.0)}


def law(subject: str, own: float, added: float) -> BlendGains:
    """The gains of a network that removes all noise, of the scan of full quality too.

    What is left at strength a is (1 - a) of the added noise and a of the own noise.
    """
    error = [(1 - a) ** 2 * added**2 + a**2 * own**2 for a in BLENDS]
    gains = tuple(-10 * math.log10(value / error[0]) for value in error)
    told = AddedNoise.told(1 + (added / own) ** 2)
    found = AddedNoise.measured(math.hypot(own, added), 9.0)
    return BlendGains(subject, added, told, found, 30.0, gains, gains)


MEASURED = [
    law(name, own, added) for name, own in (("a", 9), ("b", 5)) for added in range(2, 41, 3)
]


def test_the_curve_rises_and_nobody_loses() -> None:
    strength = calibrate(MEASURED, 9.0)
    assert strength.reference == 9
    ratios, values = np.array(strength.points).T
    assert (np.diff(ratios) > 0).all()
    assert (np.diff(values) >= 0).all()
    assert (values.min(), ratios.min()) == (0, 0)
    assert values.max() <= 1
    for gains in MEASURED:
        for at, gain in (gains.told_gain(strength), gains.found_gain(strength)):
            assert 0 <= at <= best_blend(gains.told_gains)
            assert gain >= 0
    assert min(gains.told_gains[-1] for gains in MEASURED) < -10


def test_the_curve_is_the_square_of_the_fraction_for_a_network_that_removes_all_noise() -> None:
    """Told, strengths are within one blend of 1 / 40 of the best ones."""
    strength = calibrate(MEASURED, 9.0)
    for gains in MEASURED:
        part = gains.told.ratio**2
        assert best_blend(gains.told_gains) == pytest.approx(part, abs=1 / 80 + 1e-9)
        assert gains.told_gain(strength)[0] == pytest.approx(part, abs=1 / 20)


def test_a_gain_beyond_a_loss_is_not_reached_for() -> None:
    gains = tuple(-1.0 if 0.5 < a < 0.7 else a for a in BLENDS)
    assert best_blend(gains) == 0.5
    noise = AddedNoise.told(2.0), AddedNoise.measured(12.0, 9.0)
    assert calibrate([BlendGains("a", 5.0, *noise, 30.0, gains, gains)], 9.0).at(1.0) == 0.5


def test_what_is_found_may_gain_less_than_what_is_told() -> None:
    """A network that is told the level has another output then."""
    told, found = AddedNoise.told(4.0), AddedNoise.measured(10.0, 9.0)
    half = tuple(a if a <= 0.5 else -1.0 for a in BLENDS)
    measured = BlendGains("a", 5.0, told, found, 30.0, BLENDS, half)
    strength = calibrate([measured], 9.0)
    assert measured.told_gain(strength) == (1, 1)
    assert measured.found_gain(strength) == (0.5, 0.5)


def test_noise_of_full_quality_is_that_of_the_noisiest_scan() -> None:
    air = disc(9).with_data(np.full((64, 64, 2), -1000, np.float32))
    assert full_noise([disc(5), air, disc(9)], TASK) == pytest.approx(9, rel=0.05)
    with pytest.raises(InputError, match="the noise of none of the scans of full quality"):
        full_noise([air], TASK)


def disc(own: float) -> Volume:
    x = np.arange(64) - 31.5
    inside = np.hypot(x[:, None], x) < 28
    noise = np.random.default_rng(0).standard_normal((64, 64, 2))
    data = np.where(inside[..., None], 40 + own * noise, -1000)
    return Volume(data.astype(np.float32), np.eye(4), unit="HU", modality="CT")


def pairs(high: Volume, own: float, seed: int = 1) -> Iterator[NoisyPair]:
    noise = np.random.default_rng(seed).standard_normal(high.data.shape).astype(np.float32)
    for level in (3.0, 10.0, 30.0):
        low = high.with_data(high.data + level * noise * (high.data > -500))
        yield NoisyPair("disc", level, 1 + (level / own) ** 2, low, high)


@pytest.mark.parametrize("level_told", [False, True])
def test_a_network_that_destroys_makes_nothing_worse(
    tiny_network: RestoreRWKV, tmp_path: Path, level_told: bool
) -> None:
    """Untrained; it loses 10 dB and more on its own. The same holds on noise of other draws."""
    path, config = tmp_path / "w.safetensors", replace(tiny_network.config, noise_level=level_told)
    torch.manual_seed(0)
    save_weights(path, RestoreRWKV(config), scaling=RULES, training={})
    restorer, high = Restorer(TASK.name, path, "cpu"), disc(9)
    measured = [blend_gains(pair, restorer, TASK, 9.0) for pair in pairs(high, 9)]
    assert max(gains.told_gains[-1] for gains in measured) < -3
    assert all(gains.told_gains[0] == 0 for gains in measured)
    strength = {TASK.name: calibrate(measured, 9.0)}
    network, info = load_weights(path)
    save_weights(path, network, scaling=info.scaling, training={}, strength=strength)
    restorer = Restorer(TASK.name, path, "cpu")
    for pair in pairs(high, 9, seed=2):
        restored = restorer.run(pair.low).volume
        after, before = (
            mean_score(slice_scores(volume, high, 2, TASK.metric_range)).psnr
            for volume in (restored, pair.low)
        )
        assert after is not None
        assert before is not None
        assert after >= before


def test_scores_are_told_the_factor_of_the_degradation(
    tiny_network: RestoreRWKV, tmp_path: Path
) -> None:
    """The strength is the fraction itself here, so that the blend is known."""
    curve = {TASK.name: Strength(9.0, ((0.0, 0.0), (1.0, 1.0)))}
    path = tmp_path / "w.safetensors"
    save_weights(path, tiny_network, scaling=RULES, training={}, strength=curve)
    restorer = Restorer(TASK.name, path, "cpu")
    found = evaluate(disc(9), restorer, physics=DegradeOptions(factor=2, photons=2e5))
    low, restored = found.volumes["input"], found.volumes["restored"]
    alone = restorer.run(low, RestoreOptions(strength=1.0)).volume.data
    blend = low.data + np.float32(math.sqrt(0.5)) * (alone - low.data)
    np.testing.assert_allclose(restored.data, blend, atol=1e-3)
