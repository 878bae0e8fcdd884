"""A restored scan that is measured again, and the kinds of its tissue."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from restore_rwkv import Volume
from restore_rwkv.errors import InputError, OperatorError
from restore_rwkv.physics.ct import scan_noise
from restore_rwkv.physics.mri import kspace_crop, zero_fill
from restore_rwkv.physics.mri.kspace import kspace_block
from restore_rwkv.tasks import TASKS, TURNS, Turn
from restore_rwkv.tasks.again import RestoredScan
from tests.helpers.ct_phantoms import QUICK, poisson_disc
from tests.helpers.pet_discs import discs, generator

MRI, CT, PET = (task.rules for task in TASKS.values())


def masked(*shape: int) -> np.ndarray:
    """Positive values in the middle of slices, air around them, slices first."""
    values = np.random.default_rng(0).uniform(100, 900, shape)
    values[:, : shape[1] // 5] = values[:, -shape[1] // 5 :] = 0
    return values.astype(np.float32)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("factor", [4.0, (3.0, 4.0)])
def test_mri_keeps_the_block_of_turned_slices(
    turn: Turn, factor: float | tuple[float, float]
) -> None:
    """Without noise, as there is no air to find it in."""
    values = np.random.default_rng(0).uniform(100, 900, (32, 48, 2))
    volume = Volume(values, modality="MR")
    case = RestoredScan(scan=volume, restored=volume, axis=2, factor=factor)
    found = MRI.measure_again(case)(turn, generator())
    slices = turn.turned(volume.slices(2))
    swapped = factor[::-1] if isinstance(factor, tuple) and turn.transposed else factor
    expected = kspace_crop(torch.from_numpy(slices), swapped).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_mri_has_the_noise_of_the_scan() -> None:
    """Noise of 5 in the low-resolution scan is 5 again, in air."""
    image = torch.from_numpy(masked(8, 128, 128))
    shape, sigma = (8, 32, 32, 2), 5.0
    noise = torch.view_as_complex(torch.randn(shape, generator=generator())) * sigma / 32
    low = zero_fill(kspace_block(image, 4) + noise, (128, 128)).abs().numpy()
    volumes = [Volume(np.moveaxis(x, 0, 2), modality="MR") for x in (low, image.numpy())]
    case = RestoredScan(scan=volumes[0], restored=volumes[1], axis=2, factor=4.0)
    again = MRI.measure_again(case)(TURNS[0], generator(1))
    plain = kspace_crop(image, 4).numpy()
    body = plain > 300
    assert 0.7 * sigma < np.std((again - plain)[body]) < 1.8 * sigma  # ringing counts as noise
    assert not np.array_equal(again, MRI.measure_again(case)(TURNS[0], generator(2)))


def test_signed_mri_stays_signed() -> None:
    volume = Volume(np.random.default_rng(0).uniform(-900, 900, (64, 64, 2)), modality="MR")
    case = RestoredScan(scan=volume, restored=volume, axis=2, factor=4.0)
    found = MRI.measure_again(case)(TURNS[0], generator())
    kept = kspace_block(torch.from_numpy(np.ascontiguousarray(volume.slices(2))), 4)
    np.testing.assert_allclose(found, zero_fill(kept, (64, 64)).real.numpy(), atol=0.05)
    assert found.min() < 0


def ct_case(affine: np.ndarray, axis: int) -> RestoredScan:
    slices = np.moveaxis(poisson_disc(5.0, views=180).numpy(), 0, axis)
    volume = Volume(slices, affine, unit="HU", modality="CT")
    smooth = slices.clip(-1000, 20)
    smooth[..., :2, :2] = -2000
    restored = volume.with_data(smooth)
    return RestoredScan(scan=volume, restored=restored, axis=axis, factor=1.0)


@pytest.mark.parametrize("axis", [0, 2])
def test_ct_has_the_noise_of_its_own_dose_and_keeps_its_padding(
    axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore_rwkv.physics.ct.calibrated", lambda *_: QUICK)
    affine = np.eye(4)[[0, 1, 2, 3] if axis == 2 else [1, 2, 0, 3]] * [5, 5, 5, 1]
    case = ct_case(affine, axis)
    turn = TURNS[5]
    found = turn.turned_back(CT.measure_again(case)(turn, generator()))
    image = np.ascontiguousarray(case.restored.slices(axis))
    body = torch.from_numpy(image.clip(-1024))
    noise = scan_noise(body, (5.0, 5.0), scanner=QUICK, generator=generator()).numpy()
    padding = image < -1024
    assert padding.any()
    assert np.array_equal(found[padding], image[padding])
    expected = (image + noise).clip(-1024)
    np.testing.assert_allclose(found[~padding], expected[~padding], atol=1e-3)
    assert np.std((found - image)[~padding]) > 1


def test_ct_whose_noise_cannot_be_measured_is_refused() -> None:
    air = Volume(np.full((32, 32, 4), -1000.0), np.eye(4), unit="HU", modality="CT")
    with pytest.raises(OperatorError, match="pixels inside soft tissue"):
        CT.measure_again(RestoredScan(scan=air, restored=air, axis=2, factor=1.0))


def pet_case(axis: int) -> tuple[RestoredScan, np.ndarray]:
    """Twelve axial slices of 4 mm, with white noise; sliced across another axis."""
    image = discs(12)[0]
    low = (image * (1 + 0.3 * torch.randn(image.shape, generator=generator()))).clamp(min=0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    volumes = [
        Volume(np.moveaxis(x.numpy(), 0, 2), affine, unit="SUV", modality="PT")
        for x in (low, image)
    ]
    return RestoredScan(scan=volumes[0], restored=volumes[1], axis=axis, factor=1.0), image.numpy()


def test_pet_is_simulated_in_axial_slices_and_turned_in_its_own() -> None:
    case, image = pet_case(axis=1)
    again = PET.measure_again(case)
    turn = TURNS[4]
    assert turn.transposed
    found = again(turn, generator(1))
    assert found.shape == (48, 12, 48)
    assert found.min() == 0
    back = np.moveaxis(np.moveaxis(turn.turned_back(found), 0, 1), 2, 0)
    noise = (back - image)[image == 2]
    low = np.moveaxis(case.scan.data, 2, 0)
    assert PET.measured_noise(back) == pytest.approx(PET.measured_noise(low), rel=0.2)
    assert abs(noise.mean()) < 0.2 * noise.std()
    assert np.array_equal(found, again(turn, generator(1)))


def test_pet_needs_a_geometry_of_square_pixels() -> None:
    case, _ = pet_case(axis=1)
    flat = Volume(case.scan.data, unit="SUV", modality="PT")
    with pytest.raises(InputError, match="has no geometry, which PET needs"):
        PET.measure_again(RestoredScan(scan=flat, restored=flat, axis=1, factor=1.0))
    long = Volume(case.scan.data, np.diag([4.0, 5.0, 4.0, 1.0]), unit="SUV", modality="PT")
    with pytest.raises(InputError, match="4 x 5 mm"):
        PET.measure_again(RestoredScan(scan=long, restored=long, axis=1, factor=1.0))


def test_kinds_of_tissue() -> None:
    values = np.array([[-2000.0, -900, -899, -300, -299, 0, 200, 201, 3000]], np.float32)
    kinds, names = CT.tissues(values, 40.0)
    assert [names[kind] for kind in kinds[0]] == [
        *("air", "air", "lung", "lung", "soft-tissue", "soft-tissue", "soft-tissue", "bone", "bone")
    ]
    assert kinds.dtype == np.int8
    values = np.array([-5.0, 0, 24, 26, 99, 101, 5000], np.float32)
    kinds, names = MRI.tissues(values, 10.0)  # the mean of the foreground is 100
    assert [names[kind] for kind in kinds] == [
        *("background", "background", "background", "dark", "dark", "bright", "bright")
    ]
    values = np.array([0.0, 0.24, 0.26, 4.9, 5.1], np.float32)
    kinds, names = PET.tissues(values, 0.5)
    assert [names[kind] for kind in kinds] == [
        *("background", "background", "low-uptake", "low-uptake", "high-uptake")
    ]


def test_bootstraps_take_at_most_all_turns() -> None:
    for rules in (MRI, CT, PET):
        assert 2 <= rules.samples <= len(TURNS) - 1
