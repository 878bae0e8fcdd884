"""SUV from DICOM fields: each rule against its formula, and no SUV rather than a wrong one."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from restore_rwkv.errors import InputError
from restore_rwkv.io import DicomSource, Volume, read_volume
from restore_rwkv.io.dicom.suv import PetUnit, pet_unit
from tests.helpers.synthetic_series import SLICES, SeriesWriter, slope_of, stored_slice

# pydicom tells of odd values as they are set.
pytestmark = pytest.mark.filterwarnings("ignore:(Invalid value|The value length):UserWarning")

HALF_LIFE = 6586.2  # s, fluorine-18
DOSE, WEIGHT = 370e6, 70.0
UNDECAYED = 1000 * WEIGHT / DOSE


def drug_of(**fields: Any) -> Sequence:
    drug = Dataset()
    drug.RadionuclideTotalDose = DOSE
    drug.RadionuclideHalfLife = HALF_LIFE
    drug.RadiopharmaceuticalStartTime = "090000"
    for keyword, value in fields.items():
        setattr(drug, keyword, value)
    return Sequence([drug])


def as_pet(dataset: Dataset, **fields: Any) -> Dataset:
    """Turn a slice into one of an FDG scan at 10:00, injected at 9:00."""
    dataset.Modality, dataset.Units = "PT", "BQML"
    dataset.DecayCorrection = "START"
    dataset.CorrectedImage = ["DECY", "ATTN", "SCAT", "NORM"]
    dataset.PatientWeight = WEIGHT
    dataset.SeriesDate = dataset.AcquisitionDate = "20200302"
    dataset.SeriesTime, dataset.AcquisitionTime = "100000", "100003.5"
    dataset.RadiopharmaceuticalInformationSequence = drug_of()
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return dataset


def decayed(seconds: float, half_life: float = HALF_LIFE) -> float:
    return UNDECAYED * 2 ** (seconds / half_life)


def test_a_gram_of_a_body_that_has_it_all_evenly_has_suv_1() -> None:
    """At the injection, 370 MBq in 70 kg are 5286 Bq in each gram."""
    unit = pet_unit([as_pet(Dataset(), DecayCorrection="ADMIN")])
    assert unit.unit == "Bq/ml"
    assert unit.suv_per_unit == pytest.approx(1 / 5285.714, rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "drug", "expected"),
    [
        ({}, {}, decayed(3600)),
        ({"DecayCorrection": "ADMIN"}, {}, UNDECAYED),
        # No time is needed where nothing has decayed.
        ({"DecayCorrection": "ADMIN", "AcquisitionTime": ""}, {"RadionuclideHalfLife": ""}, None),
        ({"SeriesTime": "10:00:00"}, {"RadiopharmaceuticalStartTime": "0900"}, decayed(3600)),
        # Over midnight: injected at 23:30 of the day before.
        (
            {"SeriesTime": "003000", "AcquisitionTime": "003100"},
            {"RadiopharmaceuticalStartTime": "233000.5"},
            decayed(3599.5),
        ),
        # The date and time count before the time alone.
        ({}, {"RadiopharmaceuticalStartDateTime": "20200302083000"}, decayed(5400)),
        ({}, {"RadiopharmaceuticalStartDateTime": "20200302083000.250+0100"}, decayed(5399.75)),
        (
            {"TimezoneOffsetFromUTC": "+0200"},
            {"RadiopharmaceuticalStartDateTime": "20200302080000+0100"},
            decayed(3600),
        ),
        # A long-lived nuclide needs the day.
        (
            {},
            {"RadionuclideHalfLife": 282240, "RadiopharmaceuticalStartDateTime": "20200228100000"},
            decayed(3 * 86400, 282240),
        ),
    ],
)
def test_rules(fields: dict[str, Any], drug: dict[str, Any], expected: float | None) -> None:
    header = as_pet(Dataset(), RadiopharmaceuticalInformationSequence=drug_of(**drug), **fields)
    unit = pet_unit([header])
    assert unit.no_suv is None
    assert unit.suv_per_unit == pytest.approx(expected or UNDECAYED, rel=1e-12)


def test_beds_are_corrected_to_the_start_of_the_series() -> None:
    headers = [as_pet(Dataset(), AcquisitionTime=f"10{k:02d}00") for k in (12, 0, 4, 8)]
    assert pet_unit(headers).suv_per_unit == pytest.approx(decayed(3600), rel=1e-12)


def test_a_series_written_afterwards_is_timed_by_its_acquisition() -> None:
    late = {"SeriesTime": "150000"}
    headers = [as_pet(Dataset(), AcquisitionTime=f"10{k:02d}00", **late) for k in (12, 0, 4)]
    assert pet_unit(headers).suv_per_unit == pytest.approx(decayed(3600), rel=1e-12)


def test_it_is_timed_by_the_frame_reference_where_there_is_one() -> None:
    """Two hours of carbon-11 at 11:00; its mean activity is that of 11:41:52, not of the middle."""
    half_life, duration = 1223.4, 7200.0
    decay = math.log(2) / half_life
    mean = math.log(decay * duration / (1 - math.exp(-decay * duration))) / decay
    header = as_pet(
        Dataset(),
        SeriesTime="150000",
        AcquisitionTime="110000",
        ActualFrameDuration=int(1000 * duration),
        FrameReferenceTime=f"{1000 * (mean + 1800):.6f}",  # the scan began at 10:30
        RadiopharmaceuticalInformationSequence=drug_of(
            RadionuclideHalfLife=half_life, RadiopharmaceuticalStartTime="102000"
        ),
    )
    assert mean == pytest.approx(41 * 60 + 52, abs=1)
    assert pet_unit([header]).suv_per_unit == pytest.approx(decayed(600, half_life), rel=1e-8)


@pytest.mark.parametrize(
    ("fields", "drug", "reason"),
    [
        ({"PatientWeight": None}, {}, "PatientWeight missing"),
        ({"PatientWeight": None, "DecayCorrection": ""}, {}, "DecayCorrection, PatientWeight mis"),
        ({"PatientWeight": 0}, {}, "PatientWeight is 0 kg"),
        ({"PatientWeight": 70000}, {}, "PatientWeight is 70000 kg"),
        ({"PatientWeight": "nan"}, {}, "PatientWeight is nan kg"),
        ({}, {"RadionuclideTotalDose": None}, "RadionuclideTotalDose missing"),
        ({}, {"RadionuclideTotalDose": 0}, "RadionuclideTotalDose is 0 Bq"),
        ({}, {"RadionuclideTotalDose": 370}, "RadionuclideTotalDose is 370 Bq"),
        ({}, {"RadionuclideTotalDose": 370e3}, "RadionuclideTotalDose is 370000 Bq for 70 kg"),
        ({"PatientWeight": 0.02}, {}, "Dose is 3.7e+08 Bq for 0.02 kg"),
        ({}, {"RadionuclideHalfLife": None}, "RadionuclideHalfLife missing"),
        ({}, {"RadionuclideHalfLife": -1}, "RadionuclideHalfLife is -1 s"),
        ({}, {"RadionuclideHalfLife": 109.77}, "1.00 h from injection to scan"),
        ({}, {"RadiopharmaceuticalStartTime": ""}, "StartTime missing"),
        ({}, {"RadiopharmaceuticalStartTime": "2561"}, "StartTime missing or unreadable"),
        # A clock that is two minutes fast is not an injection 24 hours ago.
        ({}, {"RadiopharmaceuticalStartTime": "100200"}, "23.97 h from injection"),
        (
            {},
            {"RadiopharmaceuticalStartDateTime": "20200302110000"},
            "-1.00 h from injection to scan",
        ),
        ({}, {"RadiopharmaceuticalStartDateTime": "20200301090000"}, "25.00 h from injection"),
        ({}, {"RadionuclideHalfLife": 282240}, "RadiopharmaceuticalStartDateTime missing"),
        ({"AcquisitionTime": None}, {}, "AcquisitionTime missing"),
        ({"SeriesTime": "000000"}, {"RadiopharmaceuticalStartTime": "230000"}, "SeriesTime is 10"),
        (
            {"SeriesTime": "000000", "AcquisitionTime": "000000"},
            {"RadiopharmaceuticalStartTime": "000000"},
            "blank",
        ),
        (
            {"AcquisitionTime": "000000", "FrameReferenceTime": "1", "ActualFrameDuration": 9},
            {"RadiopharmaceuticalStartTime": "140000"},
            "AcquisitionTime is blank, 00:00:00",
        ),
        ({}, {"RadiopharmaceuticalStartTime": "000000.00"}, "scan is blank, 00:00:00"),
        ({}, {"RadiopharmaceuticalStartDateTime": "20200302000000"}, "scan is blank, 00:00:00"),
        ({"DecayCorrection": "NONE"}, {}, "DecayCorrection is NONE"),
        ({"CorrectedImage": ["ATTN", "SCAT"]}, {}, "CorrectedImage lacks DECY"),
        ({"CorrectedImage": "DECY"}, {}, "CorrectedImage lacks ATTN"),
        ({"RadiopharmaceuticalInformationSequence": None}, {}, "Sequence missing"),
        (
            {"RadiopharmaceuticalInformationSequence": Sequence([*drug_of(), *drug_of()])},
            {},
            "Sequence has 2 items",
        ),
        ({"Units": "CNTS"}, {}, "Units is CNTS"),
        ({"Units": None}, {}, "Units missing"),
        ({"Units": "GML", "SUVType": "LBM"}, {}, "SUVType is LBM"),
    ],
)
def test_no_suv_rather_than_a_wrong_one(
    fields: dict[str, Any], drug: dict[str, Any], reason: str
) -> None:
    fields = {"RadiopharmaceuticalInformationSequence": drug_of(**drug)} | fields
    unit = pet_unit([as_pet(Dataset(), **fields)])
    assert unit.suv_per_unit is None
    assert unit.unit == ("Bq/ml" if fields.get("Units", "BQML") == "BQML" else "a.u.")
    assert unit.no_suv is not None
    assert reason in unit.no_suv
    assert "\n" not in unit.no_suv


@pytest.mark.parametrize("field", ["PatientWeight", "Units", "DecayCorrection"])
def test_slices_that_differ_have_no_suv(field: str) -> None:
    headers = [as_pet(Dataset()), as_pet(Dataset(), **{field: "GML" if field == "Units" else "9"})]
    assert pet_unit(headers).no_suv == f"{field} differs between slices"
    headers[1] = as_pet(
        Dataset(), RadiopharmaceuticalInformationSequence=drug_of(RadionuclideTotalDose=1e8)
    )
    assert pet_unit(headers).no_suv == "RadionuclideTotalDose differs between slices"


def test_suv_needs_no_factor() -> None:
    for kind in ("BW", "", None):
        assert pet_unit([as_pet(Dataset(), Units="GML", SUVType=kind)]) == PetUnit("SUV")


@pytest.mark.parametrize("minutes", [0, 1, 59, 110, 240, 658])
def test_factor_times_activity_left_is_weight(minutes: int) -> None:
    scan = datetime.datetime(2020, 3, 2, 7) + datetime.timedelta(minutes=minutes)
    clock = scan.strftime("%H%M%S")
    header = as_pet(Dataset(), SeriesTime=clock, AcquisitionTime=clock)
    header.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime = "070000"
    factor = pet_unit([header]).suv_per_unit
    left = DOSE * math.exp(-math.log(2) * 60 * minutes / HALF_LIFE)
    assert factor is not None
    assert factor * left == pytest.approx(1000 * WEIGHT, rel=1e-12)


def written(change: Callable[..., Dataset], **fields: Any) -> Callable[[int, Dataset], None]:
    def apply(k: int, dataset: Dataset) -> None:
        change(dataset, RescaleIntercept=0, **fields)

    return apply


def test_a_series_of_files_with_a_slope_for_each_slice(write_series: SeriesWriter) -> None:
    volume = read_volume(write_series(written(as_pet)))
    assert (volume.modality, volume.unit) == ("PT", "Bq/ml")
    assert volume.suv_per_unit == pytest.approx(decayed(3600), rel=1e-12)
    for k in range(SLICES):
        np.testing.assert_array_equal(volume.data[..., k].T, stored_slice(k) * slope_of(k))
    assert volume.with_data(volume.data + 1).suv_per_unit == volume.suv_per_unit


def test_files_without_weight_are_read_and_say_so(write_series: SeriesWriter) -> None:
    volume = read_volume(write_series(written(as_pet, PatientWeight=None)))
    assert volume.suv_per_unit is None
    assert isinstance(volume.source, DicomSource)
    assert volume.source.no_suv == "PatientWeight missing"


def test_odd_pet_fields_do_not_keep_a_ct_from_being_read(write_series: SeriesWriter) -> None:
    def change(k: int, dataset: Dataset) -> None:
        dataset.ActualFrameDuration, dataset.CorrectedImage = 7, "?"
        dataset["ActualFrameDuration"]._value = "1.5"

    assert read_volume(write_series(change)).unit == "HU"


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_a_volume_refuses_a_factor_that_is_none(tmp_path: Path, factor: float) -> None:
    with pytest.raises(InputError, match="SUV"):
        Volume(np.zeros((2, 2)), unit="Bq/ml", modality="PT", suv_per_unit=factor)
