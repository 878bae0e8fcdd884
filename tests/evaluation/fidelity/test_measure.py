"""What a report says of a pair as a whole, and which pairs are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from restore_rwkv.errors import InputError, WeightsError
from restore_rwkv.evaluation.fidelity import RestoredPair, measure_fidelity
from restore_rwkv.evaluation.fidelity.measure import check_pair
from restore_rwkv.io import Volume
from restore_rwkv.restoration.uncertainty import Spread
from restore_rwkv.tasks import TASKS, PlaceThreshold, ReportCalibration
from tests.helpers.fidelity_ct import detector, disc, pair_of, scans, without_geometry

PLACE = (60, 50, 2)


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports of CT with geometry use one detector, prepared once."""
    from restore_rwkv.evaluation.fidelity import measure

    find = measure.detector_of
    monkeypatch.setattr(
        measure,
        "detector_of",
        lambda pair, progress: detector() if _is_ct(pair) else find(pair, progress),
    )


def _is_ct(pair: RestoredPair) -> bool:
    return pair.task.modality == "CT" and pair.after.affine is not None


def test_the_truth_is_supported_and_the_report_is_repeatable() -> None:
    pair = pair_of(*scans())
    found = measure_fidelity(pair)
    assert found.support == "supported"
    assert found.verdict.startswith("What was removed looks like the noise of this scan. None of")
    assert [each.name for each in found.maps] == ["removed"]
    assert found.maps[0].threshold == detector().simulated_threshold
    assert "5 % of scans" in found.places_by
    again = measure_fidelity(pair)
    assert {**again.to_dict(), "seconds": 0} == {**found.to_dict(), "seconds": 0}
    np.testing.assert_array_equal(again.maps[0].volume.data, found.maps[0].volume.data)
    for volume, known in zip((pair.before, pair.after), scans(), strict=True):
        np.testing.assert_array_equal(volume.data, known)


def test_a_lesion_that_is_gone_is_the_first_place_and_in_the_map_and_the_verdict() -> None:
    scan, truth = scans()
    found = measure_fidelity(pair_of(scan + 60 * disc(*PLACE), truth))
    assert found.support == "look"
    assert found.verdict.startswith("Look closer before you rely on the restored image: in a disc")
    assert found.places[0].index == pytest.approx(PLACE, abs=1)
    assert found.maps[0].volume.data[found.places[0].index] == found.places[0].score
    assert found.maps[0].volume.unit is None


def test_the_threshold_of_a_calibration_is_used() -> None:
    scan, truth = scans()
    high = PlaceThreshold(threshold=40.0, false_alarms=0.25, slices=120)
    pair = pair_of(scan + 60 * disc(*PLACE), truth)
    found = measure_fidelity(replace(pair, calibration=ReportCalibration(places=high)))
    assert found.maps[0].threshold == 40
    assert not any(place.flagged for place in found.places)
    assert "40.00" in found.places_by
    assert "0.25 such places" in found.places_by
    assert found.figures[0].name == "largest_score"
    assert found.figures[0].support == "supported"


def test_an_unchanged_copy_is_called_one() -> None:
    scan, _ = scans()
    found = measure_fidelity(pair_of(scan, scan))
    assert found.verdict.startswith("The image is the scan, unchanged: nothing was restored.")
    assert found.places == ()
    assert "No place is listed" in found.places_by


def test_without_geometry_nothing_speaks_for_the_image_and_the_verdict_says_why() -> None:
    found = measure_fidelity(without_geometry(pair_of(*scans())))
    assert found.support == "unknown"
    assert "not known: the scan has no geometry" in found.verdict
    assert "looks like the noise" not in found.verdict
    assert found.maps == ()
    assert found.places_by.startswith("No places were looked for: the scan has no geometry")
    for each in found.figures:
        assert (each.value is None) == bool(each.reason)
        assert (each.value is None) <= (each.support == "unknown")


def test_what_speaks_against_an_image_counts_without_geometry_too() -> None:
    scan, truth = scans()
    found = measure_fidelity(without_geometry(pair_of(scan, truth + 9)))
    assert found.support == "unsupported"
    assert found.verdict.startswith("The scan does not support the restored image: the mean of")


@pytest.mark.parametrize("task", ["mri-sr", "pet-synth"])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constant_images_are_not_supported_by_anything(task: str, value: float) -> None:
    modality = TASKS[task].modality
    volume = Volume(np.full((32, 32, 10), value, dtype=np.float32), np.eye(4), None, modality)
    pair = RestoredPair(before=volume, after=volume, task=TASKS[task], axis=2)
    found = measure_fidelity(pair)
    if found.support != "unknown":
        assert found.verdict.startswith("The image is the scan, unchanged")
    assert not any(place.flagged for place in found.places)


def test_a_small_pet_scan_without_a_region_has_a_reason() -> None:
    from restore_rwkv.evaluation.fidelity.pet import pet_figures
    from tests.evaluation.fidelity import test_pet

    image, scan = test_pet.scans()
    detected = test_pet.detector()
    noise = replace(detected.noise, foreground=np.zeros_like(detected.noise.foreground))
    noise.foreground[10:14, 10:14, 10:14] = True
    small = object.__new__(type(detected))
    small.__dict__.update(detected.__dict__, noise=noise)
    found = {each.name: each for each in pet_figures(test_pet.pair_of(scan, image), small, None)}
    assert (found["region_shift"].value, found["region_shift"].support) == (None, "unknown")
    assert found["region_shift"].reason == "no region is large enough"


def test_a_spread_without_calibration_is_refused() -> None:
    pair = pair_of(*scans())
    spread = Spread(method="turns", volume=pair.after, samples=3, scale=1.0)
    with pytest.raises(WeightsError, match="no calibration of intervals by turns"):
        measure_fidelity(replace(pair, spread=spread))


def changed(**change: Any) -> RestoredPair:
    pair = pair_of(*scans())
    return replace(pair, after=replace(pair.after, **change))


TURNED = np.array(changed().after.affine)[:, [1, 0, 2, 3]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": scans()[1][:, :, :3]}, "give images on one grid"),
        ({"affine": TURNED}, "beside the scan; give images on one grid"),
        ({"affine": np.diag([2.0, 2.0, 5.0, 1.0])}, "beside the scan; give images on one grid"),
        ({"modality": "MR"}, "is MR, and ct-denoise is for CT"),
        ({"unit": "SUV"}, "is in SUV, the scan in HU"),
        ({"data": np.where(scans()[1] > 500, np.nan, scans()[1])}, "not finite"),
    ],
)
def test_pairs_that_do_not_belong_together_are_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_pair(changed(**change))


def test_a_cube_with_exchanged_axes_is_another_grid() -> None:
    data = np.zeros((8, 8, 8), dtype=np.float32)
    first = Volume(data, np.eye(4), "HU", "CT")
    second = replace(first, affine=np.eye(4)[:, [2, 1, 0, 3]])
    pair = RestoredPair(before=first, after=second, task=TASKS["ct-denoise"], axis=2)
    with pytest.raises(InputError, match="beside the scan"):
        check_pair(pair)
    check_pair(replace(pair, after=replace(first, affine=np.diag([1 + 1e-6, 1, 1, 1]))))
