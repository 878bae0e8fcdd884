"""AAPM low-dose CT on small trees of both of its shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from restore_rwkv.data import PreparedSet
from restore_rwkv.data.sources.aapm import prepare_aapm
from restore_rwkv.errors import InputError
from tests.helpers.source_trees import blob, save_ct

PATIENTS = ("L067", "L096", "L109", "L506")


def images(patient: str, dose: str, count: int = 5) -> np.ndarray:
    """Slices (N, rows, columns) in HU."""
    return blob(count, 8, 6, seed=sum(map(ord, patient + dose)), air=-1000, tissue=40)


def save_challenge(root: Path, patient: str, dose: str, kind: str = "3mm", **header) -> Path:
    """As the challenge gives it out: `full_3mm/L067/full_3mm/L067_FD_3_1.CT....IMA`."""
    letters = {"full": "FD", "quarter": "QD"}[dose]
    folder = root / f"{dose}_{kind}" / patient / f"{dose}_{kind}"
    code = "3_SHARP_1" if kind.endswith("sharp") else f"{kind[0]}_1"
    name = f"{patient}_{letters}_{code}.CT.0002.{{}}.2015.12.22.18.09.40.840353.358074219.IMA"
    thickness = float(kind[0])
    values = images(patient, dose + kind)
    return save_ct(folder, values, names=name, SliceThickness=thickness, **header)


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    root = tmp_path / "Training_Image_Data"
    for patient in PATIENTS:
        for dose in ("full", "quarter"):
            save_challenge(root / "3mm B30", patient, dose)
    for dose in ("full", "quarter"):
        save_challenge(root / "3mm D45", "L067", dose, "3mm_sharp")
        save_challenge(root / "1mm B30", "L067", dose, "1mm")
    (root / "readme").mkdir()
    (root / "readme/readme.pdf").touch()
    return root


def check(prepared: PreparedSet, low: str = "quarter3mm", full: str = "full3mm") -> None:
    for stack in prepared.stacks:
        for quality, dose in (("high", full), ("low", low)):
            stored = prepared.images(stack, quality)
            expected = images(stack.patient, dose).transpose(0, 2, 1)  # columns, rows
            np.testing.assert_array_equal(stored, expected)
            assert stored.dtype == np.int16
            assert isinstance(stored, np.memmap)
        assert stack.spacing == (2.0, 0.75, 0.5)


def test_the_layout_of_the_challenge(challenge, tmp_path):
    done = []
    report = prepare_aapm(challenge, tmp_path / "out", progress=lambda *step: done.append(step))
    (prepared,) = report.sets
    check(prepared)
    assert done == [(i, 4) for i in range(1, 5)]
    assert {s.patient: s.split for s in prepared.stacks} == {
        "L067": "train",
        "L096": "train",
        "L109": "validation",
        "L506": "test",
    }
    assert prepared.factor == 4.0
    assert prepared.record["thickness"] == 3.0
    assert report.others == {"sharp kernel": 10, "slices of 1 mm": 10, "no DICOM": 1}


def test_thin_slices_and_other_patients(challenge, tmp_path):
    report = prepare_aapm(challenge, tmp_path / "out", thickness=1, validation=(), test=("L067",))
    assert [(s.patient, s.split) for s in report.sets[0].stacks] == [("L067", "test")]
    check(report.sets[0], "quarter1mm", "full1mm")


def test_the_folder_of_a_patient_may_come_first(tmp_path):
    for patient in ("L109", "L506", "L333"):
        for dose, name in (("full", "IM{}"), ("quarter", "IM{}")):
            save_ct(
                tmp_path / f"in/{patient}/{dose}_3mm", images(patient, f"{dose}3mm"), names=name
            )
    check(prepare_aapm(tmp_path / "in", tmp_path / "out").sets[0])


def test_one_folder_with_everything_in_it(tmp_path):
    for patient in ("L109", "L506", "L333"):
        for letters, dose in (("FD", "full"), ("QD", "quarter")):
            name = f"{patient}_{letters}_3_1.CT.{{}}.IMA"
            save_ct(tmp_path / "in", images(patient, f"{dose}3mm"), names=name)
    check(prepare_aapm(tmp_path / "in", tmp_path / "out").sets[0])


def save_tcia(root: Path, patient: str, **header) -> None:
    """As The Cancer Imaging Archive gives it out, projections too."""
    study = root / "LDCT-and-Projection-data" / patient / "12-23-2021-NA-NA-62464"
    for number, (words, dose) in enumerate((("Full Dose", "full"), ("Low Dose", "quarter")), 1):
        folder = study / f"{number}.000000-{words} Images-3914{number}"
        save_ct(folder, images(patient, f"{dose}3mm"), names="1-{}.dcm", **header)
        folder = study / f"{number + 2}.000000-{words} projections-2432{number}"
        save_ct(folder, images(patient, "projections"), names="1-{}.dcm")


def test_the_layout_of_the_cancer_imaging_archive(tmp_path):
    for patient in ("L014", "L506", "L109"):
        save_tcia(tmp_path / "in", patient)
    report = prepare_aapm(tmp_path / "in", tmp_path / "out")
    check(report.sets[0])
    assert report.others == {"projections": 30}
    assert report.sets[0].factor == 4.0


def test_headers_tell_where_the_path_does_not(tmp_path):
    for patient in ("L109", "L506", "L333"):
        for words, dose in (("Full dose images", "full"), ("Low Dose Images", "quarter")):
            folder = tmp_path / "in" / f"1.2.840.{len(dose)}.{patient[1:]}"
            tags = {"PatientID": patient, "SeriesDescription": words}
            save_ct(folder, images(patient, f"{dose}3mm"), names="{}.dcm", **tags)
        tags["SeriesDescription"] = "Low dose projections"
        save_ct(tmp_path / f"in/9.{patient[1:]}", images(patient, "p"), **tags)
    report = prepare_aapm(tmp_path / "in", tmp_path / "out")
    check(report.sets[0])
    assert report.others == {"projections": 15}


def test_chests_have_a_tenth_of_the_dose(tmp_path):
    for patient in ("C002", "C004"):
        save_tcia(tmp_path / "in", patient, SliceThickness=1.5)
    choice = {"thickness": 1.5, "validation": (), "test": ("C004",)}
    assert prepare_aapm(tmp_path / "in", tmp_path / "out", **choice).sets[0].factor == 10.0
    save_tcia(tmp_path / "in", "L506", SliceThickness=1.5)
    with pytest.raises(InputError, match="C002, C004: chests at 10 % dose among others"):
        prepare_aapm(tmp_path / "in", tmp_path / "both", **choice)


def spoil(root: Path) -> dict[str, str]:
    """Patients with a fault each, and what is to be said of them."""
    root = root / "3mm B30"
    save_challenge(root, "L143", "full")
    save_challenge(root, "L192", "quarter")
    for dose in ("full", "quarter"):
        save_challenge(root, "L286", dose)
        save_challenge(root, "L291", dose)
        save_challenge(root, "L310", dose)
        save_challenge(root, "L333", dose, **({"PixelSpacing": [1, 1]} if dose == "full" else {}))
        save_challenge(root / "twice", "L096", dose)
    sorted((root / "full_3mm/L286/full_3mm").iterdir())[0].unlink()  # some slice in the middle
    save_ct(root / "full_3mm/L291/full_3mm", images("L291", "x")[:4], names="again{}.IMA")
    for path in (root / "full_3mm/L291/full_3mm").glob("L291*"):
        path.unlink()
    last = sorted((root / "quarter_3mm/L310/quarter_3mm").iterdir())[2]
    last.write_bytes(last.read_bytes()[:-60])
    save_ct(root / "full_3mm/L310x", images("L310", "x"), names="{}.IMA")
    save_ct(root / "full_3mm/what", images("L310", "x"), names="{}.IMA", SliceThickness=None)
    return {
        "L143": "has no low dose, only 3mm B30/full_3mm/L143/full_3mm",
        "L192": "has no full dose, only 3mm B30/quarter_3mm/L192/quarter_3mm",
        "L096": "has several series of full dose: 3mm B30/full_3mm/L096/full_3mm and 3mm B30/twice",
        "L286": "1 slice",
        "L291": "1 slices have no partner at full dose, the first at 8 mm",
        "L310": "several series of full dose",
        "L333": "different grids",
        "3mm B30/full_3mm/what": "neither path nor header give: SliceThickness, patient",
    }


def test_every_fault_is_named_at_once_and_nothing_is_written(challenge, tmp_path):
    faults = spoil(challenge)
    with pytest.raises(InputError) as caught:
        prepare_aapm(challenge, tmp_path / "out")
    lines = str(caught.value).splitlines()
    for name, why in faults.items():
        assert any(line.startswith(f"  {name}: ") and why in line for line in lines), name
    assert not (tmp_path / "out").exists()


def test_faulty_patients_are_left_out_and_listed(challenge, tmp_path):
    faults = spoil(challenge)
    report = prepare_aapm(challenge, tmp_path / "out", skip=True)
    assert report.left_out.keys() == faults.keys()
    assert {stack.patient for stack in report.sets[0].stacks} == {"L067", "L109", "L506"}
    assert PreparedSet.read(tmp_path / "out").record["left_out"] == report.left_out


def test_damaged_files_and_other_sizes(challenge, tmp_path):
    root = challenge / "3mm B30"
    damaged = sorted((root / "full_3mm/L067/full_3mm").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-60])
    sized = root / "quarter_3mm/L096/quarter_3mm"
    for path in sized.iterdir():
        path.unlink()
    save_ct(sized, images("L096", "quarter3mm")[:, :7], names="{}.IMA")
    with pytest.raises(InputError) as caught:
        prepare_aapm(challenge, tmp_path / "out")
    assert f"L067: {damaged.name}: " in str(caught.value)
    assert "L096: slices of 8 x 6 at full and 7 x 6 at low dose" in str(caught.value)


def test_slices_are_paired_by_place_not_by_name(challenge, tmp_path):
    shifted = challenge / "3mm B30/quarter_3mm/L067/quarter_3mm"
    for path in shifted.iterdir():
        path.unlink()
    places = [0.0, 2.0, 4.0, 6.0, 8.0]
    save_ct(shifted, images("L067", "quarter3mm")[::-1], positions=places[::-1])
    check(prepare_aapm(challenge, tmp_path / "out").sets[0])
    for path in shifted.iterdir():
        path.unlink()
    save_ct(shifted, images("L067", "quarter3mm"), positions=[place + 1 for place in places])
    with pytest.raises(InputError, match="L067: 5 slices have no partner at low dose"):
        prepare_aapm(challenge, tmp_path / "again")


def test_patients_named_for_a_split_must_be_there(challenge, tmp_path):
    with pytest.raises(InputError, match=r"L999: not there; .* out of L067, L096, L109, L506"):
        prepare_aapm(challenge, tmp_path / "out", test=("L999",))
    with pytest.raises(InputError, match="L109: for validation and for test"):
        prepare_aapm(challenge, tmp_path / "out", test=("L109",))
    with pytest.raises(InputError, match=r"no CT series with slices of 5 mm \(.*slices of 3 mm"):
        prepare_aapm(challenge, tmp_path / "out", thickness=5)
