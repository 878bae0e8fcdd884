"""The noise that a reduced dose added, and the strength that follows from it."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
import torch

from restore_rwkv import Volume
from restore_rwkv.errors import ConfigError, OperatorError
from restore_rwkv.physics.pet import noise_level
from restore_rwkv.tasks import TASKS, AddedNoise, Strength

CT, PET = TASKS["ct-denoise"], TASKS["pet-synth"]
CURVE = Strength(9.0, ((0.0, 0.0), (0.5, 0.2), (1.0, 0.8)))


def disc(sigma: float, value: float = 40.0, air: float = -1000.0, count: int = 4) -> Volume:
    """Slices (96, 96, count) of a disc with white noise of `sigma`."""
    x = np.arange(96) - 47.5
    inside = np.hypot(x[:, None], x) < 40
    noise = np.random.default_rng(0).standard_normal((96, 96, count))
    data = np.where(inside[..., None], value + sigma * noise, air)
    return Volume(data.astype(np.float32), unit=CT.unit, modality="CT")


def test_a_told_factor_needs_no_measurement() -> None:
    """A quarter of the dose has 4 times the variance, of which 3 were added."""
    nothing = Volume(np.zeros((8, 8, 1)))
    assert CT.rules.added_noise(nothing, CT, 4.0, 9.0) == AddedNoise(math.sqrt(0.75), factor=4.0)
    assert AddedNoise.told(1.01).ratio == pytest.approx(0.0995, abs=1e-4)


def test_without_a_reference_the_dose_of_the_task_is_assumed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    noise = CT.rules.added_noise(disc(18), CT, None, None)
    assert (noise.factor, noise.ratio) == (4.0, AddedNoise.told(4.0).ratio)
    assert noise.assumed == "the weights do not know the noise of a full dose"
    assert "the weights do not know the noise of a full dose, so 1/4 of the dose is" in caplog.text


def test_the_level_of_noise_is_in_octaves_of_that_of_a_full_dose() -> None:
    """At half the dose as much is added as was there; at a fifth twice as much."""
    levels = [AddedNoise.told(factor).level for factor in (2.0, 5.0, 1.25)]
    assert levels == pytest.approx([0, 1, -1])
    assert AddedNoise.told(4.0).level == pytest.approx(math.log2(3) / 2)
    assert AddedNoise.measured(5.0, 3.0).level == pytest.approx(math.log2(4 / 3))
    assert [AddedNoise.measured(found, 9.0).level for found in (8.0, 9.0001, 1e12)] == [-4, -4, 4]
    assert [AddedNoise.told(factor).level for factor in (1 + 1e-12, 1e9)] == [-4, 4]


@pytest.mark.parametrize("sigma", [10.0, 18.0, 40.0])
def test_noise_beyond_that_of_a_full_scan_was_added(sigma: float) -> None:
    """The mean over 7 x 7 pixels takes a 49th of the variance; found within 3 %, so 5 % allowed."""
    noise = CT.rules.added_noise(disc(sigma), CT, None, 9.0)
    assert noise.found == pytest.approx(sigma, rel=0.05)
    assert (noise.reference, noise.factor, noise.assumed) == (9.0, None, None)
    assert noise.ratio == pytest.approx(math.sqrt(1 - (9 / noise.found) ** 2))
    assert CT.rules.added_noise(disc(sigma), CT, None, sigma * 1.1).ratio == 0


def test_the_noise_of_pet_grows_with_the_inverse_root_of_the_counts() -> None:
    """White noise keeps its standard deviation in the filter; found within 2 %, so 4 % allowed."""
    found = [PET.rules.noise_of(disc(8 * part, 8.0, 0.0), PET) for part in (0.05, 0.1, 0.2)]
    assert found == pytest.approx([0.05, 0.1, 0.2], rel=0.04)
    scaled = disc(0.8 * 1e4, 8e4, 0.0)
    assert PET.rules.noise_of(scaled, PET) == pytest.approx(found[1], rel=1e-4)
    with pytest.raises(OperatorError, match="images has 0 pixels inside the foreground"):
        noise_level(torch.zeros(2, 16, 16))
    with pytest.raises(OperatorError, match="with finite values"):
        noise_level(torch.full((2, 16, 16), math.nan))
    with pytest.raises(OperatorError, match="images has type int32"):
        noise_level(torch.zeros(2, 16, 16, dtype=torch.int32))


def test_noise_is_measured_in_sixteen_slices_of_the_plane_of_the_task() -> None:
    """All slices but those measured are of twice the noise."""
    quiet, loud = disc(10.0, count=64), disc(20.0, count=64)
    data = loud.data.copy()
    data[..., 2::4] = quiet.data[..., 2::4]
    assert CT.rules.noise_of(Volume(data), CT) == pytest.approx(10, rel=0.05)
    turned = Volume(np.moveaxis(data, 2, 0), np.eye(4)[:, [2, 0, 1, 3]])
    assert CT.rules.noise_of(turned, CT) == CT.rules.noise_of(Volume(data), CT)


def test_noise_that_cannot_be_measured_is_that_of_the_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    air = Volume(np.full((32, 32, 3), -1000.0), unit="HU", modality="CT")
    with caplog.at_level(logging.WARNING):
        noise = CT.rules.added_noise(air, CT, None, 9.0)
    assert (noise.factor, noise.found) == (4.0, None)
    assert noise.ratio == AddedNoise.told(4.0).ratio
    assert noise.assumed is not None
    assert noise.assumed.startswith("its noise cannot be measured (hu has 0 pixels inside")
    assert "its noise cannot be measured (hu has 0 pixels" in caplog.text
    assert "so 1/4 of the dose is assumed; give factor=F if it is 1/F" in caplog.text


def test_mri_has_no_noise_of_a_dose() -> None:
    mri = TASKS["mri-sr"]
    assert mri.rules.noise_unit is None
    with pytest.raises(TypeError, match="MRI: low quality is not the noise of a reduced dose"):
        mri.rules.added_noise(Volume(np.zeros((8, 8, 1))), mri, None, 1.0)


def test_the_strength_is_linear_between_its_points() -> None:
    found = [CURVE.at(ratio) for ratio in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([0, 0.1, 0.2, 0.5, 0.8])
    short = Strength(9.0, ((0.0, 0.0), (0.5, 0.25)))
    assert short.at(0.9) == 0.25
    assert Strength(9.0, ((0.0, 0.0),)).at(0.9) == 0
    assert Strength.from_dict(CURVE.to_dict()) == CURVE


@pytest.mark.parametrize(
    ("reference", "points", "match"),
    [
        (0.0, [[0, 0]], "reference is 0.0; give a number above 0"),
        (math.inf, [[0, 0]], "reference is not finite"),
        (9.0, [], "start with"),
        (9.0, [[0.1, 0]], "start with"),
        (9.0, [[0, 0], [0.5, 0.4], [0.5, 0.5]], "rising ratios"),
        (9.0, [[0, 0], [0.5, 0.4], [0.6, 0.3]], "strengths that do not fall"),
        (9.0, [[0, 0], [0.5, 1.2]], "from 0 to 1"),
        (9.0, [[0, 0], [0.5, math.nan]], "from 0 to 1"),
        (9.0, [[0, 0, 0]], "points is"),
        (9.0, "none", "points is 'none'; give a list"),
    ],
)
def test_a_curve_out_of_order_is_refused(reference: float, points: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Strength.from_dict({"reference": reference, "points": points})
