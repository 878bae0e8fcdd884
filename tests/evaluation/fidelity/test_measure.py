"""A report as a whole: which pairs are refused, which threshold counts, what is always alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from restore_rwkv.errors import InputError, WeightsError
from restore_rwkv.evaluation.fidelity import detector_of, measure_fidelity
from restore_rwkv.evaluation.fidelity.common import seam_ratio
from restore_rwkv.io import Volume
from restore_rwkv.physics.ct import CTScanner
from restore_rwkv.restoration.uncertainty import Spread
from restore_rwkv.tasks import PlaceThreshold, ReportCalibration
from tests.helpers.fidelity_ct import PHOTONS, SHAPE, pair_of, scans, without_geometry


@pytest.fixture(autouse=True)
def known_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    """To fit a scanner takes seconds, and is tested with the physics."""
    monkeypatch.setattr("restore_rwkv.physics.ct.calibrated", lambda *_: CTScanner(photons=PHOTONS))
    return


def test_equal_pairs_give_equal_reports_and_stay_as_they_are() -> None:
    scan, truth = scans()
    pair = pair_of(scan, truth)
    first, second = (measure_fidelity(pair).to_dict() for _ in range(2))
    assert first.pop("seconds") > 0
    assert second.pop("seconds") > 0
    assert first == second
    np.testing.assert_array_equal(pair.before.data, scan)
    np.testing.assert_array_equal(pair.after.data, truth)


def test_the_threshold_of_the_weights_comes_before_the_simulated_one() -> None:
    places = PlaceThreshold(threshold=1.5, false_alarms=0.2, slices=40)
    pair = replace(pair_of(*scans()), calibration=ReportCalibration(places=places))
    found = measure_fidelity(pair)
    assert found.maps[0].threshold == 1.5
    assert [place.flagged for place in found.places] == [abs(p.score) > 1.5 for p in found.places]
    assert any(place.flagged for place in found.places)
    assert "chosen on validation scans" in found.places_by


def test_without_geometry_the_reason_is_said_and_nothing_is_flagged() -> None:
    found = measure_fidelity(without_geometry(pair_of(*scans())))
    assert found.places == found.maps == ()
    assert "the scan has no geometry, so the size of a lesion is not known" in found.places_by
    figures = {each.name: each for each in found.figures}
    assert figures["largest_score"].support == "unknown"
    assert figures["noise_before"].value is not None


def test_seams_of_tiles_stand_out_where_tiles_disagree() -> None:
    scan, _ = scans()
    noise = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    stepped = noise.copy()
    stepped[SHAPE[0] // 2 :] += 30
    alike = seam_ratio(pair_of(scan, scan + noise), (60, SHAPE[1]))
    assert alike == pytest.approx(1, abs=0.2)
    assert (seam_ratio(pair_of(scan, scan + stepped), (60, SHAPE[1])) or 0) > 5
    assert seam_ratio(pair_of(scan, scan + noise), SHAPE[:2]) is None


def changed(after: Volume, kind: str) -> Volume:
    if kind == "cropped":
        return replace(after, data=after.data[:8, :8, :2])
    if kind == "moved":
        moved = np.array(after.affine)
        moved[0, 3] += 3
        return replace(after, affine=moved)
    if kind == "other modality":
        return replace(after, modality="MR", unit=None)
    return replace(after, unit="SUV")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("cropped", "has 8 x 8 x 2 voxels, the scan 96 x 96 x 4; give images on one grid"),
        ("moved", "lies up to 3 mm beside the scan; give images on one grid"),
        ("other modality", "is MR, and ct-denoise is for CT; give another task=NAME"),
        ("other unit", "is in SUV, the scan in HU; give both in one unit"),
    ],
)
def test_pairs_that_cannot_be_compared_are_refused(kind: str, text: str) -> None:
    pair = pair_of(*scans())
    with pytest.raises(InputError, match=text):
        measure_fidelity(replace(pair, after=changed(pair.after, kind)))


def test_a_spread_without_its_calibration_is_refused() -> None:
    pair = pair_of(*scans())
    spread = Spread(method="turns", volume=pair.after, samples=8, scale=40.0)
    with pytest.raises(WeightsError, match="have no calibration of intervals by turns"):
        measure_fidelity(replace(pair, spread=spread))


def test_there_is_no_detector_without_physics() -> None:
    pair = pair_of(*scans())
    other = replace(pair.task, modality="US")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no physics for US"):
        detector_of(replace(pair, task=other))
