"""Degradation of volumes by each task's physics: geometry, records and errors."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from restore_rwkv import Volume, read_volume
from restore_rwkv.errors import ConfigError, InputError, OperatorError
from restore_rwkv.physics.ct import CTScanner, reduce_dose
from restore_rwkv.physics.mri import kspace_crop
from restore_rwkv.tasks import TASKS, DegradeOptions, degrade, degrade_file

MRI, CT, PET = (TASKS[name] for name in ("mri-sr", "ct-denoise", "pet-synth"))
THICK = np.diag([1.0, 1.0, 4.0, 1.0])


def disc(value: float, outside: float, shape: tuple[int, int, int] = (40, 40, 3)) -> np.ndarray:
    x = np.linspace(-1, 1, shape[0])
    inside = x[:, None] ** 2 + x**2 < 0.5
    return np.where(inside[..., None], value, outside) * np.ones(shape)


def body() -> Volume:
    """CT of a disc of water with some noise, in air."""
    noise = np.random.default_rng(0).normal(0, 10, (40, 40, 3))
    return Volume(disc(0, -1000) + noise, THICK, "HU", "CT")


def test_mri_loses_the_outer_k_space_in_the_plane_of_finest_spacing() -> None:
    data = np.random.default_rng(0).uniform(0, 900, (32, 24, 5)).astype(np.float32)
    volume = Volume(data, THICK, "a.u.", "MR")
    made = degrade(volume, MRI)
    assert made.high is volume
    expected = kspace_crop(torch.from_numpy(data[..., 2].copy()), 4)
    np.testing.assert_allclose(made.low.data[..., 2], expected, atol=1e-3)
    assert made.record["kept"] == [8, 6]
    assert (made.record["factor"], made.record["slice_axis"]) == (4, 2)
    noisy = degrade(volume, MRI, DegradeOptions(factor=2, sigma=50), seed=3)
    assert noisy.record["sigma"] == 50
    assert not np.allclose(noisy.low.data, degrade(volume, MRI, DegradeOptions(factor=2)).low.data)


def test_ct_gets_the_noise_that_is_missing_at_the_dose() -> None:
    volume = body()
    quarter, twentieth = (
        degrade(volume, CT, DegradeOptions(factor=factor, photons=2e5), seed=1)
        for factor in (4, 20)
    )
    inside = disc(1, 0) > 0
    spread = [float((one.low.data - volume.data)[inside].std()) for one in (quarter, twentieth)]
    assert spread[1] / spread[0] == pytest.approx((19 / 3) ** 0.5, rel=0.15)
    assert quarter.record["scanner"]["photons"] == 2e5
    assert json.dumps(quarter.record)
    assert quarter.low.data.min() >= -1024
    np.testing.assert_array_equal(
        degrade(volume, CT, DegradeOptions(photons=2e5), seed=1).low.data, quarter.low.data
    )
    assert np.array_equal(np.asarray(quarter.low.affine), THICK)


def test_ct_slices_are_axial_however_the_volume_lies() -> None:
    volume = body()
    turned = Volume(
        np.moveaxis(volume.data, 2, 0), np.asarray(volume.affine)[:, [2, 0, 1, 3]], "HU", "CT"
    )
    made = degrade(turned, CT, DegradeOptions(photons=2e5), seed=1)
    assert made.record["slice_axis"] == 0
    expected = degrade(volume, CT, DegradeOptions(photons=2e5), seed=1).low.data
    np.testing.assert_allclose(np.moveaxis(made.low.data, 0, 2), expected, atol=1e-3)


def test_slices_of_ct_are_counted_and_are_those_of_the_whole_stack() -> None:
    data = np.repeat(body().data[..., :1].clip(min=-1024), 11, axis=2)
    told: list[tuple[int, int]] = []
    made = degrade(
        Volume(data, THICK, "HU", "CT"),
        CT,
        DegradeOptions(photons=2e5),
        seed=1,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(8, 11), (11, 11)]
    whole = reduce_dose(
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(data, 2, 0))),
        (1.0, 1.0),
        dose=0.25,
        scanner=CTScanner(photons=2e5),
        generator=torch.Generator().manual_seed(1),
    )
    np.testing.assert_array_equal(np.moveaxis(made.low.data, 2, 0), whole.numpy())


def test_padding_of_ct_is_air_in_both_scans() -> None:
    data = body().data
    data[0] = -3024
    made = degrade(Volume(data, THICK, "HU", "CT"), CT, DegradeOptions(photons=2e5))
    assert made.low.data.min() == made.high.data.min() == -1024
    np.testing.assert_array_equal(made.high.data[1:], data[1:].clip(-1024))


def test_values_that_are_no_hounsfield_units_are_told(caplog: pytest.LogCaptureFixture) -> None:
    stored = Volume(body().data + 1024, THICK)
    degrade(stored, CT, DegradeOptions(photons=2e5))
    assert "array: hardly a value is below -50, so these are not Hounsfield units" in caplog.text


def test_the_post_filter_of_pet_knows_the_distance_of_slices() -> None:
    """One slice of activity among empty ones: thick slices are far apart."""
    data = disc(5, 0, (40, 40, 5)) * (np.arange(5) == 2)
    made = degrade(Volume(data, np.diag([3.0, 3, 12, 1]), "SUV", "PT"), PET)
    assert made.record["scanner"]["slice_spacing"] == 12
    assert made.low.data[..., 1].sum() < 1e-6 * made.low.data[..., 2].sum()


@pytest.mark.parametrize("unit", ["SUV", "Bq/ml"])
def test_pet_is_taken_for_the_activity_and_keeps_its_total(unit: str) -> None:
    scale = 1 if unit == "SUV" else 4000
    volume = Volume(disc(5 * scale, 0), np.diag([3.0, 3, 3, 1]), unit, "PT")
    made = degrade(volume, PET, seed=2)
    assert made.low.unit == unit
    assert made.low.data.sum() == pytest.approx(volume.data.sum(), rel=0.05)
    assert made.low.data.min() >= 0
    inside = disc(1, 0, (40, 40, 3)) > 0
    assert made.low.data[inside].std() > 0.1 * scale


@pytest.mark.parametrize(
    ("volume", "task", "options", "error", "match"),
    [
        (body(), MRI, None, InputError, "is CT; mri-sr degrades MR"),
        (body(), CT, DegradeOptions(sigma=5), ConfigError, "sigma: is for mri-sr, not ct-denoise"),
        (body(), CT, DegradeOptions(axes="PIR"), ConfigError, "axes: is for pet-synth"),
        (
            Volume(disc(0, 0)),
            MRI,
            DegradeOptions(photons=1e5),
            ConfigError,
            "photons: is for ct-denoise",
        ),
        (
            Volume(disc(0, 0)),
            MRI,
            DegradeOptions(dose=0.25),
            ConfigError,
            "for ct-denoise and pet-synth",
        ),
        (Volume(disc(0, 0)), CT, None, InputError, "has no geometry"),
        (Volume(disc(0, 0), modality="PT"), PET, None, InputError, "has no geometry"),
        (Volume(disc(0, 0)), PET, None, InputError, "nothing says whether it is PET, or MRI"),
        (
            Volume(disc(5, 0), np.diag([2.0, 3, 4, 1]), "SUV", "PT"),
            *(PET, None, InputError, "array: pixels of 2 x 3 mm, and simulated PET has square"),
        ),
        (Volume(disc(0, -1000), THICK, "HU", "CT"), CT, None, OperatorError, "noise"),
    ],
)
def test_what_does_not_suit_is_refused(
    volume: Volume,
    task: object,
    options: DegradeOptions | None,
    error: type[Exception],
    match: str,
) -> None:
    with pytest.raises(error, match=match):
        degrade(volume, task, options)  # type: ignore[arg-type]


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="factor is 1; give a number above 1"):
        DegradeOptions(factor=1)
    with pytest.raises(ConfigError, match="dose is 2; give the fraction to keep"):
        DegradeOptions(dose=2)
    with pytest.raises(ConfigError, match="dose and factor are both given"):
        DegradeOptions(factor=4, dose=0.25)
    assert [DegradeOptions(dose=0.25).factor_for(task) for task in (CT, PET)] == [4, 4]
    for seed in (-1, 1.5, 2**64):
        with pytest.raises(ConfigError, match=f"seed is {seed}"):
            degrade(body(), CT, seed=seed)  # type: ignore[arg-type]
    for options in ({"photons": 0}, {"sigma": -1.0}, {"sigma": float("nan")}, {"dose": 1e-300}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            DegradeOptions(**options)


def test_a_file_is_degraded_with_its_record(scan: Path, tmp_path: Path) -> None:
    output, truth = tmp_path / "low.nii.gz", tmp_path / "high.nii.gz"
    before = scan.read_bytes()
    record_path = degrade_file(scan, output, task="mri-sr", seed=5, truth=truth)
    record = json.loads(record_path.read_text())
    assert record_path.name == "low.degradation.json"
    assert (record["task"], record["seed"], record["source"]) == ("mri-sr", 5, scan.name)
    assert "ot a medical device" in record["notice"]
    assert scan.read_bytes() == before
    assert read_volume(output).modality == "MR"  # from the record beside it
    np.testing.assert_array_equal(read_volume(truth).data, read_volume(scan).data)
    assert np.array_equal(nib.load(output).affine, nib.load(scan).affine)
    with pytest.raises(InputError, match="exists already"):
        degrade_file(scan, output, task="mri-sr")
    with pytest.raises(InputError, match="nothing says whether it is MR, CT or PT"):
        degrade_file(scan, tmp_path / "other.nii.gz")
    with pytest.raises(InputError, match="is named twice"):
        degrade_file(scan, tmp_path / "o.nii", task="mri-sr", truth=tmp_path / "o.nii")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "high.nii.gz",
        "low.degradation.json",
        "low.nii.gz",
        scan.name,
    ]
