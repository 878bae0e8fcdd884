"""Training pairs: the same for the same seed, degraded whole, never from a held-out slab."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from restore_rwkv.datasets import Draw, PairSampler, validation_pairs
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.physics import kspace_crop
from restore_rwkv.scaling import robust_scaling
from restore_rwkv.subjects import (
    HeldOut,
    Subject,
    acquisition_axis,
    load_subjects,
    training_slices,
)

CROP = 24
SHAPE = (40, 44, 48)
UNIT_SPACING = (1.0, 1.0, 1.0)
HALVE = partial(kspace_crop, factor=2)


def subject_of(
    seed: int = 0,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = UNIT_SPACING,
    held_out: HeldOut | None = None,
) -> Subject:
    """A textured ellipsoid in air, in units of some hundred."""
    generator = np.random.default_rng(seed)
    x, y, z = (np.linspace(-1, 1, length) for length in shape)
    inside = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 < 0.6
    data = (inside * generator.uniform(200, 600, shape)).astype(np.float32)
    return Subject(f"subject{seed}", data, spacing, robust_scaling(data), held_out)


def sampler_of(*subjects: Subject, seed: int = 5, batch_size: int = 3) -> PairSampler:
    return PairSampler(subjects or [subject_of()], HALVE, CROP, batch_size=batch_size, seed=seed)


def test_shapes_and_types() -> None:
    for images in sampler_of().batch(0):
        assert images.shape == (3, 1, CROP, CROP)
        assert images.dtype == torch.float32
        assert images.is_contiguous()
        assert 1.25 < images.mean() < 17.5  # the foreground has mean 10, times the gain


def test_batches_depend_on_seed_and_iteration_alone() -> None:
    first, second = sampler_of(), sampler_of()
    second.batch(3)
    for a, b in zip(first.batch(7), second.batch(7), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.batch(7)[1], first.batch(8)[1])
    assert not torch.equal(first.batch(7)[1], sampler_of(seed=6).batch(7)[1])


def test_iterating_gives_the_batches_in_order() -> None:
    sampler = sampler_of()
    for iteration, batch in enumerate(islice(sampler, 3)):
        assert torch.equal(batch[0], sampler.batch(iteration)[0])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("axis", range(3))
def test_pair_is_the_turned_slice_and_its_degraded_whole(
    axis: int, turns: int, mirrored: bool
) -> None:
    subject = subject_of()
    draw = Draw(0, axis, 20, turns, mirrored, row=5, column=9, gain=0.7)
    low, high = sampler_of(subject).pair(draw)
    whole = torch.from_numpy(subject.data.copy()).select(axis, 20).rot90(turns)
    whole = whole.flip(1) if mirrored else whole
    factor = 0.7 / subject.scaling.scale
    window = (slice(5, 5 + CROP), slice(9, 9 + CROP))
    torch.testing.assert_close(high, whole[window] * factor)
    torch.testing.assert_close(low, HALVE(whole)[window] * factor)


def test_all_planes_turns_and_gains_are_drawn() -> None:
    subjects = [subject_of(0), subject_of(1)]
    sampler = sampler_of(*subjects, batch_size=16)
    draws = [draw for iteration in range(20) for draw in sampler.draws(iteration)]
    assert {draw.subject for draw in draws} == {0, 1}
    assert {draw.axis for draw in draws} == {0, 1, 2}
    assert {(draw.turns, draw.mirrored) for draw in draws} == {
        (turns, mirrored) for turns in range(4) for mirrored in (False, True)
    }
    gains = [draw.gain for draw in draws]
    assert 0.5 <= min(gains) < 0.55
    assert 1.15 < max(gains) <= 1.2
    assert np.mean(np.log(gains)) == pytest.approx(np.log(0.5 * 1.2) / 2, abs=0.04)


def test_short_series_are_seen_more_often_than_their_size() -> None:
    long = subject_of(0)
    short = subject_of(1, shape=(48, 48, 8), spacing=(1.0, 1.0, 6.0))
    sampler = sampler_of(long, short)
    counts = np.array([len(slices) for slices in sampler.slices])
    np.testing.assert_allclose(
        sampler.probabilities[1] / sampler.probabilities[0], np.sqrt(counts[1] / counts[0])
    )


def test_thick_slices_are_not_cut_across() -> None:
    thick = subject_of(shape=(48, 48, 40), spacing=(0.9, 0.9, 5.0))
    assert {axis for axis, _ in training_slices(thick)} == {2}
    cubic = subject_of()
    assert {axis for axis, _ in training_slices(cubic)} == {0, 1, 2}
    assert {axis for axis, _ in training_slices(cubic, "acquisition")} == {2}


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [
        ((1.0, 1.0, 1.0), 2),
        ((1.0, 0.9999999, 0.9999999), 2),
        ((5.0, 1.0, 1.0), 0),
        ((1.0, 1.3, 1.0), 1),
    ],
)
def test_acquisition_axis(spacing: tuple[float, float, float], axis: int) -> None:
    assert acquisition_axis(spacing) == axis


def test_slices_of_air_are_left_out() -> None:
    subject = subject_of()
    for axis, index in training_slices(subject):
        assert (subject.slice_at(axis, index) > 0).mean() >= 0.05
    assert (0, 0) not in training_slices(subject)


def test_crops_of_air_are_drawn_again() -> None:
    data = np.zeros((48, 200, 200), np.float32)
    data[:, :60, :60] = 300.0
    subject = Subject("corner", data, (5.0, 1.0, 1.0), robust_scaling(data))
    sampler = PairSampler([subject], HALVE, crop=32, batch_size=8)
    with_signal = [
        float(high.mean()) > 0.01 for i in range(12) for high in sampler.batch(i)[1].unbind()
    ]
    # A crop has signal with probability 0.12; one of eight draws has with 0.64.
    assert np.mean(with_signal) > 0.5


def test_held_out_slab_is_never_drawn() -> None:
    slab = HeldOut(axis=1, start=18, stop=22, guard=2)
    subject = subject_of(held_out=slab)
    slices = training_slices(subject)
    assert {axis for axis, _ in slices} == {1}
    indices = {index for _, index in slices}
    assert indices.isdisjoint(range(16, 24))
    assert {15, 24} <= indices
    sampler = sampler_of(subject, batch_size=32)
    drawn = {(d.axis, d.index) for i in range(10) for d in sampler.draws(i)}
    assert drawn <= set(slices)


def test_small_slices_are_padded_by_reflection() -> None:
    subject = subject_of(shape=(32, 36, 34))
    sampler = PairSampler([subject], HALVE, crop=50, batch_size=2)
    low, high = sampler.batch(0)
    assert low.shape == high.shape == (2, 1, 50, 50)
    _, image = sampler.pair(Draw(0, 0, 16, 0, False, row=0, column=0, gain=1.0))
    padded = np.pad(subject.data[16], ((0, 14), (0, 16)), mode="reflect")
    np.testing.assert_allclose(image.numpy(), padded / subject.scaling.scale, rtol=1e-6)


def test_validation_pairs() -> None:
    slab = HeldOut(axis=0, start=18, stop=24)
    subject = subject_of(held_out=slab)
    pairs = validation_pairs([subject_of(1), subject], HALVE, per_subject=3)
    assert [pair.name for pair in pairs] == [
        "subject0 axis 0 slice 18",
        "subject0 axis 0 slice 20",
        "subject0 axis 0 slice 23",
    ]
    high = torch.from_numpy(subject.data[20])
    assert torch.equal(pairs[1].high[0, 0], high)
    torch.testing.assert_close(pairs[1].low[0, 0], HALVE(high))
    low_volume = HALVE(torch.from_numpy(subject.data)).numpy()
    assert pairs[1].scaling.scale == pytest.approx(robust_scaling(low_volume).scale)


def test_load_subjects(tmp_path: Path) -> None:
    subject = subject_of()
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    for name in ("a.nii.gz", "b.nii"):
        nib.save(nib.Nifti1Image(subject.data, affine), tmp_path / name)
    slab = HeldOut(2, 10, 12)
    first, second = load_subjects([tmp_path / "a.nii.gz", tmp_path / "b.nii"], {"b": slab})
    assert (first.name, second.name) == ("a", "b")
    assert (first.held_out, second.held_out) == (None, slab)
    assert first.spacing == (1.0, 1.0, 2.0)
    assert first.scaling == subject.scaling
    np.testing.assert_array_equal(first.data, subject.data)
    with pytest.raises(ConfigError, match="no subject to hold out is named c; there are: a"):
        load_subjects([tmp_path / "a.nii.gz"], {"c": slab})
    with pytest.raises(InputError, match="named a is there already"):
        load_subjects([tmp_path / "a.nii.gz"] * 2)


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="seed -1"):
        sampler_of(seed=-1)
    with pytest.raises(ConfigError, match="'axial' is unknown"):
        training_slices(subject_of(), "axial")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no subject has a slice"):
        PairSampler([], HALVE)
    with pytest.raises(ConfigError, match="is no slab"):
        HeldOut(axis=0, start=5, stop=5)
    with pytest.raises(ConfigError, match="stop of at most 40"):
        subject_of(held_out=HeldOut(axis=0, start=5, stop=41))
