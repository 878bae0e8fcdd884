"""MRI: a restored image against the measured block of k-space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restore_rwkv.evaluation.fidelity import Figure, RestoredPair
from restore_rwkv.evaluation.fidelity.mri import MRIDetector, mri_figures, mri_maps
from restore_rwkv.evaluation.measures.measure import NoScoreError
from restore_rwkv.io import Volume
from restore_rwkv.physics.mri import cubic_interpolate, kspace_crop, kspace_noise, low_resolution
from restore_rwkv.tasks import TASKS

SHAPE = (5, 128, 112)


def truth() -> NDArray[np.float32]:
    """Slices of a head with texture and noise, in air."""
    rng = np.random.default_rng(0)
    rows, columns = np.linspace(-1, 1, SHAPE[1]), np.linspace(-1, 1, SHAPE[2])
    inside = np.hypot(rows[:, None], columns) < 0.7
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, SHAPE[1:]), indexing="ij"))
    texture = np.fft.ifft2(np.fft.fft2(rng.standard_normal(SHAPE)) / (0.02 + frequency)).real
    image = (600 + 100 * texture / texture.std()) * inside
    noise = 20 * (rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE))
    return np.abs(image + noise).astype(np.float32)


def lesion(slice_: int = 2, row: int = 60, column: int = 50, radius: float = 5.0) -> np.ndarray:
    rows, columns = np.ogrid[: SHAPE[1], : SHAPE[2]]
    disc = np.zeros(SHAPE, dtype=np.float32)
    disc[slice_] = np.hypot(rows - row, columns - column) <= radius
    return disc


def low(image: np.ndarray, factor: float = 4.0) -> NDArray[np.float32]:
    return kspace_crop(torch.from_numpy(image), factor).numpy()


def pair_of(before: np.ndarray, after: np.ndarray, **known: object) -> RestoredPair:
    """A pair with slices across the second axis of the array, of 1 mm."""
    affine = np.diag([1.0, 3.0, 1.0, 1.0])
    first, second = (
        Volume(np.moveaxis(a, 0, 1).copy(), affine, "a.u.", "MR") for a in (before, after)
    )
    return RestoredPair(
        **{"before": first, "after": second, "task": TASKS["mri-sr"], "axis": 1, **known}
    )


def figures(pair: RestoredPair) -> dict[str, Figure]:
    return {each.name: each for each in mri_figures(pair, None, None)}


def test_the_truth_agrees_with_what_was_measured() -> None:
    found = figures(pair_of(low(truth()), truth()))
    assert found["consistency"].value == pytest.approx(0, abs=1e-6)
    assert {each.support for each in found.values()} == {"supported"}
    assert "6.25 % of k-space was measured" in found["inferred"].says


def test_an_image_that_was_filtered_disagrees() -> None:
    image = truth()
    cubic = np.stack(
        [cubic_interpolate(low_resolution(torch.from_numpy(a)), a.shape) for a in image]
    )
    found = figures(pair_of(low(image), cubic))
    assert found["consistency"].support == "unsupported"
    assert found["negative"].support != "supported"


def test_missing_values_are_named_and_not_taken_for_a_wrong_factor() -> None:
    image = truth()
    scan = low(image)
    missing = np.zeros(SHAPE, dtype=bool)
    missing[:, :30] = missing[:, :, 20:60] = True  # of the body too, which is filled with 0
    pair = pair_of(np.where(missing, 0, scan).astype(np.float32), image)
    assert figures(pair)["block"].support == "unsupported"
    before = replace(pair.before, missing=np.moveaxis(missing, 0, 1).copy())
    found = figures(replace(pair, before=before))
    for name in ("block", "consistency", "inferred"):
        assert (found[name].value, found[name].support) == (None, "unknown")
        assert "missing (NaN)" in found[name].reason
    # Where nothing of the kind is missing, the block is judged as before.
    whole = pair_of(scan, image)
    rest = replace(whole.before, missing=np.zeros(whole.before.data.shape, dtype=bool))
    assert figures(replace(whole, before=rest))["block"].support == "supported"


def test_a_head_at_the_border_of_the_image_has_the_scores_of_noise() -> None:
    image = truth()
    image = np.roll(image, (40, 30), axis=(1, 2))  # a field of view that wraps around
    generator = torch.Generator().manual_seed(1)
    noise = kspace_noise(SHAPE, 200.0, generator, 4.0, torch.float32)
    scan = kspace_crop(torch.from_numpy(image), 4.0, noise).numpy()
    found = MRIDetector(pair_of(scan, image))
    scores = found.scores(scan, image)
    rim = np.ones(SHAPE, dtype=bool)
    rim[:, 8:-8, 8:-8] = False
    assert found.simulated_threshold is not None
    assert np.abs(scores).max() < found.simulated_threshold
    assert (
        scores[rim].std() / scores[~rim].std() < 1.2
    )  # 1.13: tissue, and air at the other borders


def test_a_wrong_factor_makes_the_report_say_that_it_knows_nothing() -> None:
    image = truth()
    found = figures(pair_of(low(image, 2.5), image))
    assert found["block"].support == "unsupported"
    assert "wrong factor" in found["block"].says
    for name in ("consistency", "inferred"):
        assert found[name].value is None
        assert found[name].support == "unknown"
        assert "not that of the scan" in found[name].reason
    told = figures(pair_of(low(image, 2.5), image, factor=2.5))
    assert told["consistency"].support == "supported"


def test_factors_may_differ_by_axis_and_less_than_assumed_is_said() -> None:
    image = truth()
    measured = kspace_crop(torch.from_numpy(image), (4.0, 2.0)).numpy()
    assert figures(pair_of(measured, image, factor=(4.0, 2.0)))[
        "consistency"
    ].value == pytest.approx(0, abs=1e-6)
    assert figures(pair_of(low(image, 6), image))["block"].support == "look"


def test_energy_inside_and_outside_add_up() -> None:
    image = truth()
    pair = pair_of(low(image), image)
    (inferred,) = mri_maps(pair, None, None)
    energy = float(np.square(inferred.volume.data).sum() / np.square(image).sum())
    assert figures(pair)["inferred"].value == pytest.approx(100 * energy, rel=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_lesion_that_was_removed_or_added_stands_out(sign: int) -> None:
    image = truth()
    planted = image + 60 * lesion()  # a tenth of the tissue
    before, after = (low(planted), image) if sign == 1 else (low(image), planted)
    detector = MRIDetector(pair_of(before, after))
    scores = detector.scores(before, after)
    assert np.unravel_index(np.abs(scores).argmax(), SHAPE) == pytest.approx((2, 60, 50), abs=2)
    largest = sign * scores[2, 60, 50]
    assert detector.simulated_threshold is not None
    assert largest > detector.simulated_threshold > 3
    elsewhere = np.where(lesion(radius=16) > 0, 0, np.abs(scores)).max()
    assert elsewhere < largest / 5


def test_noise_that_was_removed_does_not_stand_out() -> None:
    # y has noise that x does not have; scores are those of noise, and rather smaller.
    clean = np.abs(600 * lesion(radius=40)) + 300 * lesion(1, radius=40) + 1
    generator = torch.Generator().manual_seed(1)
    from restore_rwkv.physics.mri import kspace_noise

    drawn = kspace_noise(SHAPE, 40.0, generator)
    before = kspace_crop(torch.from_numpy(clean), 4.0, drawn).numpy()
    detector = MRIDetector(pair_of(before, clean))
    scores = detector.scores(before, clean)
    inside = lesion(radius=35) > 0
    assert 0.5 < scores[inside].std() < 1.1
    assert detector.simulated_threshold is not None
    assert np.abs(scores).max() < detector.simulated_threshold
    found = detector.map_of(detector_volume(scores))
    assert found.signed
    assert found.threshold == detector.simulated_threshold


def detector_volume(scores: np.ndarray) -> Volume:
    return Volume(np.moveaxis(scores, 0, 1).copy(), np.diag([1.0, 3.0, 1.0, 1.0]))


def test_detail_finer_than_the_block_is_not_seen() -> None:
    image = truth()
    stripes = np.zeros(SHAPE, dtype=np.float32)
    stripes[2, 50:70:2, 45:65] = 200
    stripes[2, 51:70:2, 45:65] = -200
    detector = MRIDetector(pair_of(low(image), image))
    assert detector.simulated_threshold is not None
    scores = detector.scores(low(image), np.abs(image + stripes))
    assert np.abs(scores).max() < detector.simulated_threshold


def test_scans_with_signs_are_compared_with_signs() -> None:
    from restore_rwkv.physics.mri import measured_part

    image = truth() - 300
    before = measured_part(torch.from_numpy(image)).real.numpy()
    pair = pair_of(before, image, signed=True)
    found = figures(pair)
    assert found["consistency"].value == pytest.approx(0, abs=1e-6)
    assert found["negative"].value is None
    assert found["negative"].support == "unknown"
    assert np.abs(MRIDetector(pair).scores(before, image)).max() < 0.01


def test_what_cannot_be_measured_has_a_reason() -> None:
    image = truth()
    pair = pair_of(low(image), image)
    bare = replace(
        pair,
        before=replace(pair.before, affine=None),
        after=replace(pair.after, affine=None),
    )
    with pytest.raises(NoScoreError, match="no geometry"):
        MRIDetector(bare)
    assert figures(bare)["consistency"].support == "supported"
    nothing = np.zeros(SHAPE, dtype=np.float32)
    found = figures(pair_of(nothing, nothing))
    assert found["consistency"].value is None
    assert found["consistency"].reason
    assert found["block"].support == "unknown"
    assert "constant" in found["block"].reason
    with pytest.raises(NoScoreError):
        MRIDetector(pair_of(nothing, nothing))


def test_the_radius_is_at_least_a_pixel_of_the_block() -> None:
    image = truth()
    pair = pair_of(low(image, 8.0), image, factor=8.0)
    assert MRIDetector(pair).radius_mm == pytest.approx(8)
    assert MRIDetector(pair_of(low(image), image)).radius_mm == 5
