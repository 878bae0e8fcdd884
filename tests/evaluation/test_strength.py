"""The calibration of the strength: no pair that it has seen loses PSNR."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from restore_rwkv import RestoreOptions, Restorer, RestoreRWKV, Volume
from restore_rwkv.errors import InputError
from restore_rwkv.evaluation import (
    BlendGains,
    NoisyPair,
    blend_gains,
    calibrate,
    evaluate,
    mean_score,
)
from restore_rwkv.evaluation.scores import slice_scores
from restore_rwkv.evaluation.strength import BLENDS, found_gain, told_gain
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
    noise = math.hypot(own, added)
    return BlendGains(subject, added, 1 + (added / own) ** 2, 30.0, gains, noise, own)


MEASURED = [
    law(name, own, added) for name, own in (("a", 9), ("b", 5)) for added in range(2, 41, 3)
]


def test_the_curve_rises_and_nobody_loses() -> None:
    strength = calibrate(MEASURED, TASK)
    assert strength.reference == 9
    ratios, values = np.array(strength.points).T
    assert (np.diff(ratios) > 0).all()
    assert (np.diff(values) >= 0).all()
    assert (values.min(), ratios.min()) == (0, 0)
    assert values.max() <= 1
    for gains in MEASURED:
        for at, gain in (told_gain(gains, strength), found_gain(gains, strength, TASK)):
            assert 0 <= at <= gains.best
            assert gain >= 0
    assert min(gains.gains[-1] for gains in MEASURED) < -10


def test_the_curve_is_the_square_of_the_fraction_for_a_network_that_removes_all_noise() -> None:
    """Told, strengths are within one blend of 1 / 40 of the best ones."""
    strength = calibrate(MEASURED, TASK)
    for gains in MEASURED:
        ratio = AddedNoise.told(gains.factor).ratio
        assert gains.best == pytest.approx(ratio**2, abs=1 / 80 + 1e-9)
        assert told_gain(gains, strength)[0] == pytest.approx(ratio**2, abs=1 / 20)


def test_a_gain_beyond_a_loss_is_not_reached_for() -> None:
    gains = tuple(-1.0 if 0.5 < a < 0.7 else a for a in BLENDS)
    measured = BlendGains("a", 5.0, 2.0, 30.0, gains, 12.0, 9.0)
    assert measured.best == 0.5
    assert calibrate([measured], TASK).at(1.0) == 0.5


def test_noise_that_cannot_be_measured() -> None:
    unknown = BlendGains("a", 5.0, 4.0, 30.0, BLENDS, None, None)
    with pytest.raises(InputError, match="the noise of none of the scans of full quality"):
        calibrate([unknown], TASK)
    strength = calibrate([unknown, law("b", 9, 12)], TASK)
    assert found_gain(unknown, strength, TASK) == told_gain(unknown, strength)


def disc(own: float) -> Volume:
    x = np.arange(64) - 31.5
    inside = np.hypot(x[:, None], x) < 28
    noise = np.random.default_rng(0).standard_normal((64, 64, 2))
    data = np.where(inside[..., None], 40 + own * noise, -1000)
    return Volume(data.astype(np.float32), np.eye(4), unit="HU", modality="CT")


def pairs(high: Volume, own: float) -> Iterator[NoisyPair]:
    noise = np.random.default_rng(1).standard_normal(high.data.shape).astype(np.float32)
    for level in (3.0, 10.0, 30.0):
        low = high.with_data(high.data + level * noise * (high.data > -500))
        yield NoisyPair("disc", level, 1 + (level / own) ** 2, low, high)


def test_a_network_that_destroys_makes_nothing_worse(
    tiny_network: RestoreRWKV, tmp_path: Path
) -> None:
    """Untrained; it loses 10 dB and more on its own. The same holds on noise of other draws."""
    path = tmp_path / "w.safetensors"
    save_weights(path, tiny_network, scaling=RULES, training={})
    restorer, high = Restorer(TASK.name, path, "cpu"), disc(9)
    measured = [blend_gains(pair, restorer, TASK) for pair in pairs(high, 9)]
    assert max(gains.gains[-1] for gains in measured) < -3
    assert all(gains.gains[0] == 0 for gains in measured)
    strength = {TASK.name: calibrate(measured, TASK)}
    network, info = load_weights(path)
    save_weights(path, network, scaling=info.scaling, training={}, strength=strength)
    restorer = Restorer(TASK.name, path, "cpu")
    for pair in pairs(high, 9):
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
