"""The strength of the correction, from the options and the weights to the record."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from restore_rwkv import (
    RestoreOptions,
    Restorer,
    RestoreRWKV,
    Volume,
    read_volume,
    write_volume,
)
from restore_rwkv.errors import ConfigError
from restore_rwkv.model import RestoreRWKVConfig, save_weights
from restore_rwkv.restoration import Refinement, restore_slices
from restore_rwkv.tasks import TASKS, DegradeOptions, ScalingRule, Strength, degrade_file

CURVE = Strength(9.0, ((0.0, 0.0), (0.5, 0.25), (1.0, 1.0)))
RULE = ScalingRule("fixed", 0.0, 40.0)


def disc(sigma: float) -> Volume:
    """A disc of 40 HU in air, 1 mm pixels, with white noise of `sigma`; one corner is padding."""
    x = np.arange(64) - 31.5
    inside = np.hypot(x[:, None], x) < 28
    noise = np.random.default_rng(0).standard_normal((64, 64, 2))
    data = np.where(inside[..., None], 40 + sigma * noise, -1000)
    data[:3, :3] = -3000
    return Volume(data.astype(np.float32), np.eye(4), unit="HU", modality="CT")


@pytest.fixture
def plain(tiny_network: RestoreRWKV, tmp_path: Path) -> Restorer:
    rules = {"ct-denoise": RULE, "mri-sr": ScalingRule("robust")}
    save_weights(tmp_path / "plain.safetensors", tiny_network, scaling=rules, training={})
    return Restorer("ct-denoise", tmp_path / "plain.safetensors", "cpu")


@pytest.fixture
def calibrated(tiny_network: RestoreRWKV, tmp_path: Path) -> Restorer:
    path, rules = tmp_path / "calibrated.safetensors", {"ct-denoise": RULE}
    strength = {"ct-denoise": CURVE}
    save_weights(path, tiny_network, scaling=rules, training={}, strength=strength)
    return Restorer("ct-denoise", path, "cpu")


def test_without_a_calibration_the_network_speaks_on_its_own(
    plain: Restorer, calibrated: Restorer
) -> None:
    volume = disc(12)
    full = plain.run(volume)
    assert full.record.strength == 1
    assert (full.record.noise_found, full.record.factor) == (None, None)
    given = calibrated.run(volume, RestoreOptions(strength=1.0))
    assert np.array_equal(given.volume.data, full.volume.data)
    ct, own = TASKS["ct-denoise"], RestoreOptions(strength=1.0)
    assert not plain.uses_factor(ct, RestoreOptions())
    assert calibrated.uses_factor(ct, RestoreOptions())
    assert not calibrated.uses_factor(ct, own)
    assert Restorer("mri-sr", plain.weights, "cpu").uses_factor(TASKS["mri-sr"], own)
    assert not any(line.startswith("strength") for line in plain.plan(volume).lines())


def test_the_result_is_the_blend_of_scan_and_network(calibrated: Restorer) -> None:
    """Values far below air are padding, which stays bit for bit."""
    volume = disc(12)
    full = calibrated.run(volume, RestoreOptions(strength=1.0)).volume.data
    half = calibrated.run(volume, RestoreOptions(strength=0.5)).volume.data
    np.testing.assert_allclose(half, (volume.data + full) / 2, atol=1e-3)
    assert np.array_equal(half[:3, :3], volume.data[:3, :3])
    assert half[3:].min() >= -1024
    nothing = calibrated.run(volume, RestoreOptions(strength=0.0)).volume.data
    assert np.array_equal(nothing, volume.data)


def test_a_told_factor_decides(calibrated: Restorer) -> None:
    """A quarter of the dose: sqrt(3 / 4) of the noise was added."""
    options = RestoreOptions(factor=4)
    plan = calibrated.plan(disc(12), options)
    assert plan.refinement.strength == pytest.approx(0.25 + 0.75 * (0.75**0.5 - 0.5) / 0.5)
    assert plan.lines()[-1] == "strength: 0.80, at 1/4 of the dose"
    record = calibrated.run(disc(12), options).record
    assert (record.factor, record.no_noise, record.noise_level) == (4, None, None)
    assert record.noise_found is None
    assert record.strength == plan.refinement.strength


def test_the_noise_is_found_where_nothing_is_told(
    calibrated: Restorer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        plan = calibrated.plan(disc(18))
    assert plan.noise is not None
    assert plan.noise.found == pytest.approx(18, rel=0.05)
    assert plan.refinement.strength == pytest.approx(0.80, abs=0.03)
    line = f"strength: {plan.refinement.strength:.2f}, noise of {plan.noise.found:.3g} HU found, "
    line += "up to 9 in a scan of full dose; give the factor if you know it"
    assert plan.lines()[-1] == line
    assert f"array: {line}" in caplog.text
    assert "hardly noisier" not in caplog.text


def test_a_scan_as_quiet_as_a_full_one_stays_as_it_is(
    calibrated: Restorer, caplog: pytest.LogCaptureFixture
) -> None:
    volume = disc(8)
    restored = calibrated.run(volume)
    assert np.array_equal(restored.volume.data, volume.data)
    assert (restored.record.strength, restored.record.noise_reference) == (0, 9)
    assert "array: is hardly noisier than a scan of full dose, so it is left nearly" in caplog.text
    assert "give factor=F if it was taken at 1/F of the dose" in caplog.text
    caplog.clear()
    calibrated.run(volume, RestoreOptions(factor=1.001))
    assert caplog.text == ""


def test_noise_that_cannot_be_measured_is_recorded(
    calibrated: Restorer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.random.default_rng(0).normal(-1000, 5, (64, 64, 2))
    air = disc(5).with_data(values)
    write_volume(air, tmp_path / "air.nii.gz")
    calibrated.file(tmp_path / "air.nii.gz", tmp_path / "out.nii.gz")
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    assert record["no_noise"].startswith("its noise cannot be measured (hu has 0 pixels")
    assert (record["factor"], record["noise_found"]) == (4, None)
    assert record["strength"] == pytest.approx(0.799, abs=1e-3)
    assert "so 1/4 of the dose is assumed; give factor=F if it is 1/F" in caplog.text
    assert (
        "1/4 of the dose is assumed, as its noise cannot be measured (hu"
        in calibrated.plan(air).lines()[-1]
    )


def test_options_that_would_change_nothing_are_refused(
    plain: Restorer, calibrated: Restorer
) -> None:
    volume = disc(12)
    with pytest.raises(ConfigError, match="factor: the weights have no calibrated strength for ct"):
        plain.plan(volume, RestoreOptions(factor=4))
    with pytest.raises(ConfigError, match="strength and factor are both given"):
        calibrated.plan(volume, RestoreOptions(factor=4, strength=0.5))
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=r"strength is .*; give a number from 0 to 1"):
            RestoreOptions(strength=strength)
    mri = Restorer("mri-sr", plain.weights, "cpu")
    image = Volume(np.random.default_rng(0).uniform(0, 900, (24, 20, 2)), modality="MR")
    with pytest.raises(ConfigError, match="strength: is for the noise of a reduced dose, not mri"):
        mri.plan(image, RestoreOptions(strength=0.5))
    assert mri.plan(image, RestoreOptions(strength=1.0)).refinement.strength == 1


@pytest.fixture
def told(tmp_path: Path) -> Restorer:
    """A network that is told the level of the noise, and whose result depends on it."""
    torch.manual_seed(0)
    config = RestoreRWKVConfig(
        dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, noise_level=True
    )
    rules = {"ct-denoise": RULE, "mri-sr": ScalingRule("robust")}
    save_weights(tmp_path / "t.safetensors", RestoreRWKV(config), scaling=rules, training={})
    return Restorer("ct-denoise", tmp_path / "t.safetensors", "cpu")


def test_a_network_is_told_the_noise_that_the_dose_added(told: Restorer) -> None:
    volume, task = disc(18), TASKS["ct-denoise"]
    for factor, level in ((2.0, 0.0), (5.0, 1.0)):
        options = RestoreOptions(factor=factor)
        restored = told.run(volume, options)
        assert (restored.record.strength, restored.record.factor) == (1, factor)
        assert restored.record.noise_level == pytest.approx(level, abs=1e-6)
        scaling = told.plan(volume, options).scaling
        expected, other = (
            restore_slices(
                *(told.network(task), volume.slices(2), task, scaling, (64, 64)),
                refinement=Refinement(noise_level=value),
            )
            for value in (level, level + 1)
        )
        np.testing.assert_allclose(restored.volume.slices(2), expected, atol=1e-3)
        assert np.abs(other - expected).max() > 0.1


def test_a_network_that_is_told_takes_factor_and_strength_together(
    told: Restorer, caplog: pytest.LogCaptureFixture
) -> None:
    plan = told.plan(disc(18), RestoreOptions(factor=2, strength=0.5))
    assert plan.refinement.strength == 0.5
    assert plan.refinement.noise_level == pytest.approx(0)
    assert caplog.text == ""
    assumed = told.run(disc(18)).record
    assert (assumed.factor, assumed.strength) == (4, 1)
    assert assumed.no_noise == "the weights do not know the noise of a full dose"
    assert "so 1/4 of the dose is assumed; give factor=F if it is 1/F" in caplog.text


def test_mri_has_no_level_of_noise(told: Restorer) -> None:
    mri = Restorer("mri-sr", told.weights, "cpu")
    image = Volume(np.random.default_rng(0).uniform(0, 900, (24, 20, 2)), modality="MR")
    assert mri.plan(image).refinement.noise_level == 0


@pytest.mark.parametrize(
    ("values", "factor"),
    [
        ({}, 10),
        ({"task": "pet-synth"}, 4),
        ({"format": "another"}, 4),
        ({"output_sha256": "of another file"}, 4),
        ({"factor": 0.5}, 4),
        ({"factor": "none"}, 4),
        (None, 4),
    ],
)
def test_the_factor_of_a_degraded_scan_is_read_from_its_record(
    told: Restorer, tmp_path: Path, values: dict[str, Any] | None, factor: float
) -> None:
    """A record of another file or task, or a damaged one, counts as none."""
    good, scan = tmp_path / "good.nii.gz", tmp_path / "low.nii.gz"
    write_volume(disc(18), good)
    degrade_file(good, scan, task="ct-denoise", options=DegradeOptions(factor=10, photons=2e5))
    path = tmp_path / "low.degradation.json"
    record = json.loads(path.read_text())
    path.write_text("[" if values is None else json.dumps(record | values))
    found = told.file(scan, tmp_path / "out.nii.gz").record
    assert found.factor == factor
    assert found.factor_from == ("low.degradation.json" if factor == 10 else None)
    lines = told.plan(read_volume(scan)).lines()
    assert ("factor: 10, from low.degradation.json" in lines) == (factor == 10)
    given = told.file(scan, tmp_path / "2.nii.gz", RestoreOptions(factor=2)).record
    assert (given.factor, given.factor_from) == (2, None)


def test_noise_of_other_pixels_is_not_compared(
    tiny_network: RestoreRWKV, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The calibration is for pixels of 2 mm; the disc has 1 mm."""
    path, curve = tmp_path / "w.safetensors", Strength(9.0, CURVE.points, pixel=2.0)
    rules, strength = {"ct-denoise": RULE}, {"ct-denoise": curve}
    save_weights(path, tiny_network, scaling=rules, training={}, strength=strength)
    restorer = Restorer("ct-denoise", path, "cpu")
    record = restorer.run(disc(18)).record
    assert (record.factor, record.noise_found) == (4, None)
    assert record.no_noise == "its pixels are 1 mm, and the noise is known for 2 mm"
    assert "known for 2 mm, so 1/4 of the dose is assumed; give factor=F" in caplog.text
    right = dataclasses.replace(disc(18), affine=np.diag([2.1, 2.1, 5, 1]))
    assert restorer.run(right).record.noise_found == pytest.approx(18, rel=0.05)
