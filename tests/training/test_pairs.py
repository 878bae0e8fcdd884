"""Training pairs: reproducible by seed, degraded as whole slices, cropped alike, balanced."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from restore_rwkv.data import PreparedSet, SetWriter
from restore_rwkv.data.slice import Slice, slices_of
from restore_rwkv.errors import ConfigError
from restore_rwkv.physics.mri import kspace_crop
from restore_rwkv.training.pairs import Draw, PairSampler, contrast, is_air
from restore_rwkv.training.recipe import Recipe

CROP = 24
SHAPE = (8, 40, 48)


def textured(seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return slices (N, H, W) of a textured ellipse in air, with values of a few hundred."""
    y, x = (np.linspace(-1, 1, length) for length in shape[1:])
    inside = y[:, None] ** 2 + x**2 < 0.6
    return np.rint(inside * np.random.default_rng(seed).uniform(200, 600, shape))


def recipe(task: str = "mri-sr", *, seed: int = 5, batch_size: int = 3, **data: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "task": task,
            "network": "light",
            "scaling": "own",
            "seed": seed,
            "data": {"crop": CROP, **data},
            "training": {"batch_size": batch_size},
        }
    )


@pytest.fixture
def mri(tmp_path: Path) -> PreparedSet:
    with SetWriter(tmp_path / "mri", "balls", "mri-sr", factor=2) as writer:
        writer.add("long", "long", "train", textured(0))
        writer.add("short", "short", "train", textured(1, (2, 40, 48)))
        writer.add("held", "held", "validation", textured(2, (5, 40, 48)))
    return PreparedSet.read(tmp_path / "mri")


@pytest.fixture
def ct(tmp_path: Path) -> PreparedSet:
    with SetWriter(tmp_path / "ct", "balls", "ct-denoise") as writer:
        high = textured(3) - 1000
        writer.add("a", "a", "train", high, high + 7)
    return PreparedSet.read(tmp_path / "ct")


def test_shapes_and_types(mri: PreparedSet) -> None:
    sampler = PairSampler([mri], recipe())
    for images in sampler.batch(sampler.draws(0))[:2]:
        assert images.shape == (3, 1, CROP, CROP)
        assert images.dtype == torch.float32
        assert 2 < images.mean() < 17.5  # the foreground has mean 10


def test_draws_depend_on_seed_and_iteration_alone(mri: PreparedSet) -> None:
    first, second = (PairSampler([mri], recipe(augment=True)) for _ in range(2))
    second.draws(3)
    assert first.draws(7) == second.draws(7)
    assert first.draws(7) != first.draws(8)
    assert first.draws(7) != PairSampler([mri], recipe(augment=True, seed=6)).draws(7)
    for a, b in zip(first.batch(first.draws(7))[:2], second.batch(first.draws(7))[:2], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_mri_is_turned_then_degraded_whole_then_cropped(
    mri: PreparedSet, turns: int, mirrored: bool
) -> None:
    stack = mri.stacks[0]
    draw = Draw(Slice(mri, stack, 4), turns, mirrored, row=5, column=9, gain=0.7)
    low, high, *_ = PairSampler([mri], recipe()).batch([draw])
    whole = torch.from_numpy(textured(0)[4].astype(np.float32)).rot90(turns)
    whole = whole.flip(1) if mirrored else whole
    factor = 0.7 / stack.robust_scale
    window = (slice(5, 5 + CROP), slice(9, 9 + CROP))
    torch.testing.assert_close(high[0, 0], whole[window] * factor)
    torch.testing.assert_close(low[0, 0], kspace_crop(whole, 2)[window] * factor)


def test_contrast_keeps_air_and_foreground_and_is_degraded_afterwards(mri: PreparedSet) -> None:
    stack = mri.stacks[0]
    level = np.float32(10 * stack.robust_scale)
    np.testing.assert_allclose(contrast(np.float32([0, 1, 4]), np.float32(4), 0.5), [0, 2, 4])
    draw = Draw(Slice(mri, stack, 4), gamma=1.5)
    low, high, *_ = PairSampler([mri], recipe()).batch([draw])
    whole = torch.from_numpy(contrast(textured(0)[4].astype(np.float32), level, 1.5))
    expected = kspace_crop(whole, 2)[:CROP, :CROP] / stack.robust_scale
    torch.testing.assert_close(low[0, 0], expected)
    torch.testing.assert_close(high[0, 0], whole[:CROP, :CROP] / stack.robust_scale)


def test_stored_pairs_are_cut_alike_and_scaled_by_the_task(ct: PreparedSet) -> None:
    sampler = PairSampler([ct], recipe("ct-denoise", augment=True, gamma=[0.5, 2.0]))
    draws = sampler.draws(0)
    assert all(draw.gamma == 1 for draw in draws)
    low, high, *_ = sampler.batch(draws)
    torch.testing.assert_close(low - high, torch.full_like(low, 7 / 40), rtol=1e-4, atol=1e-5)
    plain = PairSampler([ct], Recipe.from_dict({"task": "ct-denoise", "network": "light"}))
    _, high, *_ = plain.batch([Draw(Slice(ct, ct.stacks[0], 0))], CROP)
    expected = (textured(3)[0, :CROP, :CROP] - 1000 + 1024) / 4096
    np.testing.assert_allclose(high[0, 0].numpy(), expected, rtol=1e-5)


def test_all_turns_and_gains_are_drawn(mri: PreparedSet) -> None:
    sampler = PairSampler([mri], recipe(batch_size=16, augment=True, gain=[0.5, 1.2]))
    draws = [draw for iteration in range(20) for draw in sampler.draws(iteration)]
    assert {(draw.turns, draw.mirrored) for draw in draws} == {
        (turns, mirrored) for turns in range(4) for mirrored in (False, True)
    }
    gains = [draw.gain for draw in draws]
    assert 0.5 <= min(gains) < 0.55
    assert 1.15 < max(gains) <= 1.2
    assert np.mean(np.log(gains)) == pytest.approx(np.log(0.5 * 1.2) / 2, abs=0.05)
    plain = PairSampler([mri], recipe()).draws(0)
    assert all((d.turns, d.mirrored, d.gain, d.gamma) == (0, False, 1, 1) for d in plain)


def test_slices_are_drawn_alike_or_short_volumes_more_often(mri: PreparedSet) -> None:
    def shares(balance: str) -> Counter[str]:
        sampler = PairSampler([mri], recipe(batch_size=500, balance=balance))
        return Counter(draw.slice.stack.name for draw in sampler.draws(0))

    assert shares("slices")["short"] == pytest.approx(100, abs=40)  # 2 of 10 slices
    assert shares("tasks")["short"] == pytest.approx(500 / 3, abs=45)  # sqrt(2) : sqrt(8)


def test_tasks_share_the_batches_equally(mri: PreparedSet, ct: PreparedSet, tmp_path: Path) -> None:
    with SetWriter(tmp_path / "pet", "balls", "pet-synth") as writer:
        writer.add("a", "a", "train", textured(4) / 100, textured(5) / 100)
    sets = [mri, ct, PreparedSet.read(tmp_path / "pet")]
    sampler = PairSampler(sets, recipe("all-in-one", batch_size=4, balance="tasks"))
    drawn = Counter(d.slice.prepared.task_name for i in range(3) for d in sampler.draws(i))
    assert drawn == {"mri-sr": 4, "ct-denoise": 4, "pet-synth": 4}
    with pytest.raises(ConfigError, match="pet-synth: its sets have no volume for training"):
        PairSampler([mri, ct], recipe("all-in-one"))


@pytest.fixture
def noisy_ct(tmp_path: Path) -> PreparedSet:
    """Two realisations of one scan with a noise of 10 HU, and one of another with 20 HU."""
    generator = np.random.default_rng(0)
    with SetWriter(tmp_path / "noisy", "noisy", "ct-denoise") as writer:
        for name, patient, sigma in (("a-1", "a", 10), ("a-2", "a", 10), ("b", "b", 20)):
            high = np.full((4, 64, 64), 40.0 if patient == "a" else 60.0, np.float32)
            high[:, :16] = -900  # lung
            low = high + generator.normal(0, sigma, high.shape).astype(np.float32)
            writer.add(name, patient, "train", high, low)
    return PreparedSet.read(tmp_path / "noisy")


def test_noise_is_drawn_at_every_level_for_every_scan(noisy_ct: PreparedSet) -> None:
    plan = recipe("ct-denoise", batch_size=200, noise=[3, 40])
    sampler = PairSampler([noisy_ct], plan)
    draws = sampler.draws(0)
    for patient in "ab":
        own = [draw for draw in draws if draw.slice.stack.patient == patient]
        levels = [draw.noise for draw in own]
        assert min(levels) < 4
        assert max(levels) > 30
        assert np.mean(np.log(levels)) == pytest.approx(np.log(3 * 40) / 2, abs=0.25)
        low, high, *_ = sampler.batch(own)
        sigmas = 40 * (low - high).std(dim=(1, 2, 3))  # the network's value 1 is 40 HU
        # A crop of 576 pixels estimates a standard deviation to 3 %; 12 % are four times that.
        np.testing.assert_allclose(sigmas, levels, rtol=0.12)
    assert {d.second.stack.name for d in draws if d.slice.stack.name == "a-1"} == {"a-2"}
    assert all(draw.second is None for draw in draws if draw.slice.stack.name == "b")


def test_mixed_noise_is_new_and_one_realisation_changes_its_sign(noisy_ct: PreparedSet) -> None:
    sampler = PairSampler([noisy_ct], recipe("ct-denoise", noise=[3, 40]))
    first, second, single = (Slice(noisy_ct, stack, 1) for stack in noisy_ct.stacks)

    def noise(source: Slice, angle: float, other: Slice | None) -> torch.Tensor:
        low, high, *_ = sampler.batch([Draw(source, noise=12.0, angle=angle, second=other)])
        return (low - high).flatten()

    one, two, mixed = (noise(first, angle, second) for angle in (0, np.pi / 2, np.pi / 4))
    assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < 0.15
    torch.testing.assert_close(mixed, (one + two) * 2**-0.5, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(noise(single, 0, None), -noise(single, np.pi, None))


def test_without_a_range_the_stored_noise_stays(noisy_ct: PreparedSet) -> None:
    sampler = PairSampler([noisy_ct], recipe("ct-denoise"))
    draws = sampler.draws(0)
    assert all(draw.noise == 0 and draw.second is None for draw in draws)
    with_noise = PairSampler([noisy_ct], recipe("ct-denoise", noise=[3, 40])).draws(0)
    assert draws[0].slice == with_noise[0].slice


def test_a_scan_without_noise_cannot_get_a_level(ct: PreparedSet, tmp_path: Path) -> None:
    high = np.full((2, 32, 32), 40.0)
    with SetWriter(tmp_path / "same", "same", "ct-denoise") as writer:
        writer.add("a", "a", "train", high, high)
    same = PreparedSet.read(tmp_path / "same")
    with pytest.raises(ConfigError, match="a: has no noise between -160 and 240 HU"):
        PairSampler([same], recipe("ct-denoise", noise=[3, 40]))


def test_noise_changes_only_ct(mri: PreparedSet) -> None:
    plain, noisy = (PairSampler([mri], recipe(**more)) for more in ({}, {"noise": [3, 40]}))
    assert plain.draws(3) == noisy.draws(3)


def test_the_level_that_a_network_is_told_is_that_of_the_noise(
    noisy_ct: PreparedSet, mri: PreparedSet
) -> None:
    """At a quarter of the dose sqrt(3) times the noise of the full one is added; MRI has none."""
    told = {"preset": "light", "noise_level": True}
    plan = Recipe.from_dict({**recipe("ct-denoise", batch_size=40).to_dict(), "network": told})
    stored = PairSampler([noisy_ct], plan)
    levels = stored.batch(stored.draws(0)).noise_level
    assert levels is not None
    np.testing.assert_allclose(levels, np.log2(3) / 2, rtol=1e-6)
    plan = dataclasses.replace(plan, data=dataclasses.replace(plan.data, noise=(3.0, 40.0)))
    drawn = PairSampler([noisy_ct], plan)
    draws = drawn.draws(0)
    levels = drawn.batch(draws).noise_level
    assert levels is not None
    for level, draw in zip(levels, draws, strict=True):
        sigma = {"a-1": 10, "a-2": 10, "b": 20}[draw.slice.stack.name]
        # Estimated in 4 slices of 64 x 64 pixels.
        assert level == pytest.approx(np.log2(3) / 2 + np.log2(draw.noise / sigma), abs=0.05)
    plan = Recipe.from_dict({**recipe().to_dict(), "network": told})
    sampler = PairSampler([mri], plan)
    levels = sampler.batch(sampler.draws(0)).noise_level
    assert levels is not None
    assert levels.tolist() == [0, 0, 0]


def test_pixels_outside_the_metric_range_weigh_less(noisy_ct: PreparedSet) -> None:
    plan = recipe("ct-denoise")
    assert (
        PairSampler([noisy_ct], plan).batch([Draw(Slice(noisy_ct, noisy_ct.stacks[0], 0))])[2]
        is None
    )
    weighted = dataclasses.replace(plan, training=dataclasses.replace(plan.training, outside=0.25))
    sampler = PairSampler([noisy_ct], weighted)
    _, high, weight, *_ = sampler.batch([Draw(Slice(noisy_ct, noisy_ct.stacks[0], 0), gain=0.5)])
    assert weight is not None
    assert torch.equal(weight, torch.where(high < -5, 0.25, 1.0))


def test_crops_of_air_are_drawn_again(tmp_path: Path) -> None:
    high = np.zeros((4, 200, 200))
    high[:, :60, :60] = 300
    with SetWriter(tmp_path / "corner", "corner", "mri-sr") as writer:
        writer.add("a", "a", "train", high)
    sets = [PreparedSet.read(tmp_path / "corner")]

    def share_of_tissue(avoid_air: bool) -> float:
        sampler = PairSampler(sets, recipe(batch_size=100, avoid_air=avoid_air))
        _, images, *_ = sampler.batch(sampler.draws(0))
        return float((images.amax(dim=(1, 2, 3)) > 5).float().mean())

    assert share_of_tissue(True) > 2 * share_of_tissue(False)
    corner = Slice(sets[0], sets[0].stacks[0], 0)
    assert is_air(corner.high()[100:], corner)
    assert not is_air(corner.high()[:60, :60], corner)


def test_small_slices_are_padded_by_reflection(tmp_path: Path) -> None:
    with SetWriter(tmp_path / "small", "small", "ct-denoise") as writer:
        high = np.arange(3 * 10 * 12.0).reshape(3, 10, 12)
        writer.add("a", "a", "train", high, high)
    one = PreparedSet.read(tmp_path / "small")
    sampler = PairSampler([one], recipe("ct-denoise"))
    _, image, *_ = sampler.batch([Draw(Slice(one, one.stacks[0], 1))])
    expected = np.pad(high[1], ((0, CROP - 10), (0, CROP - 12)), mode="symmetric") / 40
    np.testing.assert_allclose(image[0, 0].numpy(), expected, rtol=1e-6)


def test_whole_slices_are_evenly_spread(mri: PreparedSet, ct: PreparedSet) -> None:
    assert [s.index for s in slices_of([mri], "validation")] == [0, 1, 2, 3, 4]
    assert [s.index for s in slices_of([mri], "validation", 2)] == [1, 3]
    assert [s.index for s in slices_of([mri], "validation", 99)] == [0, 1, 2, 3, 4]
    assert slices_of([ct], "validation") == []
    assert [s.prepared.task_name for s in slices_of([mri, ct], "train", 1)] == [
        "mri-sr",
        "ct-denoise",
    ]
    one = slices_of([mri], "validation")[0]
    np.testing.assert_array_equal(one.high(), textured(2, (5, 40, 48))[0])
    torch.testing.assert_close(
        torch.from_numpy(one.low()), kspace_crop(torch.from_numpy(one.high()), 2)
    )
