"""Scans of one's own: NIfTI and DICOM, good ones and real pairs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from restore_rwkv.data import PreparedSet
from restore_rwkv.data.slices import index_ranges, slices_across, square_planes
from restore_rwkv.data.sources.folder import FolderOptions, prepare_folder
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import Volume, read_volume
from restore_rwkv.tasks import degradation
from tests.helpers.source_trees import blob, save_ct, save_nifti

AFFINE = np.diag([0.5, 0.75, 3.0, 1.0])
ISOTROPIC = np.diag([1.0, 1.0, 1.2, 1.0])
NO_SPLIT = {"validation": 0, "test": 0}


@pytest.fixture
def calls(monkeypatch):
    """Degrading takes 1 from each voxel; gives the list of (volume, settings, seed)."""
    made = []

    def degrade(volume, task, settings=None, *, seed=0):
        made.append((volume, settings, seed))
        low = volume.with_data(volume.data - 1)
        return degradation.Degraded(low, volume, {"task": task.name, "seed": seed})

    monkeypatch.setattr(degradation, "degrade", degrade)
    return made


def ct(seed: int = 0, slices: int = 9) -> np.ndarray:
    return blob(12, 10, slices, seed=seed, air=-1000, tissue=40)


def test_good_ct_is_degraded_once_with_a_seed_of_its_own(tmp_path, calls):
    for i in range(6):
        save_nifti(tmp_path / f"in/anna{i}_ct.nii.gz", ct(i), AFFINE)
    options = FolderOptions("ct-denoise", factor=10, seed=3)
    report = prepare_folder(tmp_path / "in", tmp_path / "out", options)
    (prepared,) = report.sets
    counts = {split: count.patients for split, count in prepared.counts().items()}
    assert counts == {"train": 4, "validation": 1, "test": 1}
    assert prepared.factor == 10
    for i, stack in enumerate(prepared.stacks):
        assert stack.name == f"patient-{i + 1:04d}-1"
        assert stack.spacing == (3.0, 0.5, 0.75)
        assert stack.origin["slices"] == "1-7"
        assert (stack.origin["slices_of_air"], stack.origin["plane"]) == (2, "axial")
        assert stack.origin["low"]["seed"] == calls[i][2]
        high = np.moveaxis(ct(i), 2, 0)[1:8]
        np.testing.assert_array_equal(prepared.images(stack, "high"), high)
        np.testing.assert_array_equal(prepared.images(stack, "low"), high - 1)
        assert isinstance(prepared.images(stack, "low"), np.memmap)
    assert {(v.modality, v.unit, s.factor) for v, s, _ in calls} == {("CT", "HU", 10)}
    seeds = [seed for *_, seed in calls]
    assert len(set(seeds)) == 6
    again = prepare_folder(tmp_path / "in", tmp_path / "again", options).sets[0]
    assert again.sha256 == prepared.sha256
    (tmp_path / "in/anna0_ct.nii.gz").rename(tmp_path / "in/zoe_ct.nii.gz")
    del calls[:]
    prepare_folder(tmp_path / "in", tmp_path / "other", dataclasses.replace(options, seed=3))
    assert {seed for *_, seed in calls} == set(seeds)  # of the content, not of the name


def test_no_name_and_no_identity_is_written(tmp_path, calls):
    for i, name in enumerate(("mueller_hans", "meier_eva", "schmidt_ute", "wolf_jan")):
        tags = {"PatientID": f"4711-{i}", "PatientName": name}
        tags |= {"SeriesDescription": "thorax", "SeriesInstanceUID": f"1.2.99.{i}"}
        save_ct(tmp_path / "in" / name / "secret-series", ct(i, 5).transpose(2, 1, 0), **tags)
    broken = save_nifti(tmp_path / "in/sub-lehmann_ct.nii.gz", ct())
    broken.write_bytes(broken.read_bytes()[:50])
    options = FolderOptions("ct-denoise", patient=None)
    report = prepare_folder(tmp_path / "in", tmp_path / "out", options, skip=True)
    text = (tmp_path / "out/manifest.json").read_text()
    words = ("hans", "meier", "ute", "wolf", "4711", "secret", "thorax", "1.2.99", "lehmann")
    assert [word for word in words if word in text] == []
    assert report.names["mueller_hans/secret-series"] == "patient-0002-1"
    assert list(report.left_out) == ["sub-lehmann_ct"]
    assert report.sets[0].record["left_out"] == ["patient-0004-1"]


def test_mri_keeps_full_quality_alone_in_the_plane_of_finest_spacing(tmp_path, calls):
    data = blob(9, 40, 36)
    save_nifti(tmp_path / "in/a.nii", data, np.diag([4.0, 1, 1, 1]))
    options = FolderOptions("mri-sr", **NO_SPLIT)
    (prepared,) = prepare_folder(tmp_path / "in", tmp_path / "out", options).sets
    (stack,) = prepared.stacks
    assert set(stack.files) == {"high"}
    assert (stack.shape, stack.spacing) == ((7, 40, 36), (4.0, 1.0, 1.0))
    np.testing.assert_array_equal(prepared.images(stack, "high"), data[1:8])
    assert calls == []


@pytest.mark.parametrize(("factor", "small"), [(4, 7), (20, 19)])
def test_slices_too_small_to_degrade_or_restore_are_faults_of_their_volume(tmp_path, factor, small):
    save_nifti(tmp_path / "in/a.nii", blob(small, 40, 3), AFFINE)
    save_nifti(tmp_path / "in/b.nii", blob(40, 40, 3), AFFINE)
    options = FolderOptions("mri-sr", factor=factor, **NO_SPLIT)
    with pytest.raises(InputError, match=f"a: slices of {small} x 40 pixels are too small"):
        prepare_folder(tmp_path / "in", tmp_path / "out", options)
    report = prepare_folder(tmp_path / "in", tmp_path / "out", options, skip=True)
    assert [stack.shape[1:] for stack in report.sets[0].stacks] == [(40, 40)]
    assert list(report.left_out) == ["a"]


def test_values_that_are_no_hounsfield_units_are_told(tmp_path, calls, caplog):
    save_nifti(tmp_path / "in/a.nii", ct() + 1024, AFFINE)
    prepare_folder(tmp_path / "in", tmp_path / "out", FolderOptions("ct-denoise", **NO_SPLIT))
    assert "a.nii: hardly a value is below -50, so these are not Hounsfield units" in caplog.text


def test_mri_in_all_planes(tmp_path):
    data = blob(40, 34, 36)
    save_nifti(tmp_path / "in/sub-01_T1w.nii", data, ISOTROPIC)
    save_nifti(tmp_path / "in/sub-02_T2w.nii", blob(40, 34, 9), np.diag([1.0, 1, 5, 1]))
    options = FolderOptions("mri-sr", planes="all", **NO_SPLIT)
    (prepared,) = prepare_folder(tmp_path / "in", tmp_path / "out", options).sets
    shapes = {stack.name: stack.shape for stack in prepared.stacks}
    assert shapes == {
        "patient-0001-1-sagittal": (28, 34, 36),
        "patient-0001-1-coronal": (24, 40, 36),
        "patient-0001-1-axial": (24, 40, 34),
        "patient-0002-1-axial": (7, 40, 34),
    }
    coronal = next(s for s in prepared.stacks if s.name.endswith("coronal"))
    np.testing.assert_array_equal(prepared.images(coronal, "high"), np.moveaxis(data, 1, 0)[5:29])
    assert coronal.spacing == pytest.approx((1.0, 1.0, 1.2))


def test_pet_is_coronal_and_in_suv(tmp_path, calls):
    data = blob(10, 12, 8, tissue=100)
    save_nifti(tmp_path / "in/a.nii", data, np.diag([4.0, 4, 4, 1]))
    options = FolderOptions("pet-synth", **NO_SPLIT)
    with pytest.raises(InputError, match="a: nothing says whether it is PET, or MRI to simulate"):
        prepare_folder(tmp_path / "in", tmp_path / "out", options)
    sidecar = tmp_path / "in/a.json"
    sidecar.write_text('{"Modality": "PT", "Units": "GML"}')
    (prepared,) = prepare_folder(tmp_path / "in", tmp_path / "out", options).sets
    np.testing.assert_array_equal(
        prepared.images(prepared.stacks[0], "high"), np.moveaxis(data, 1, 0)[2:10]
    )
    assert (calls[0][0].modality, calls[0][0].unit) == ("PT", "SUV")
    sidecar.write_text('{"Modality": "PT", "Units": "BQML"}')
    with pytest.raises(InputError, match=r"a: .*is in Bq/ml; convert it to SUV"):
        prepare_folder(tmp_path / "in", tmp_path / "again", options)


def test_pet_whose_files_tell_suv_is_converted(tmp_path, calls, monkeypatch):
    from restore_rwkv.data.sources import folder

    def read(path):
        volume = read_volume(path)
        return dataclasses.replace(volume, modality="PT", unit="Bq/ml", suv_per_unit=0.5)

    monkeypatch.setattr(folder, "read_volume", read)
    save_nifti(tmp_path / "in/a.nii", blob(10, 12, 8), np.eye(4))
    options = FolderOptions("pet-synth", **NO_SPLIT)
    (prepared,) = prepare_folder(tmp_path / "in", tmp_path / "out", options).sets
    high = prepared.images(prepared.stacks[0], "high")
    np.testing.assert_array_equal(high, np.moveaxis(blob(10, 12, 8), 1, 0)[2:10] / 2)


def save_pairs(root: Path, names: tuple[str, ...]) -> None:
    for i, name in enumerate(names):
        save_nifti(root / f"HQ/{name}.nii.gz", ct(i), AFFINE)
        save_nifti(root / f"LQ/{name}.nii.gz", ct(i) + 0.5, AFFINE, dtype=np.float32)


def test_real_pairs_are_kept_as_they_are(tmp_path, calls):
    save_pairs(tmp_path / "in", ("p1_a", "p1_b", "p2_a", "p3_a"))
    report = prepare_folder(tmp_path / "in", tmp_path / "out", FolderOptions("ct-denoise"))
    (prepared,) = report.sets
    assert calls == []
    assert [(s.name, s.patient) for s in prepared.stacks] == [
        ("patient-0001-1", "patient-0001"),
        ("patient-0001-2", "patient-0001"),
        ("patient-0002-1", "patient-0002"),
        ("patient-0003-1", "patient-0003"),
    ]
    for i, stack in enumerate(prepared.stacks):
        expected = np.moveaxis(ct(i), 2, 0)[1:8]
        np.testing.assert_array_equal(prepared.images(stack, "high"), expected)
        np.testing.assert_array_equal(prepared.images(stack, "low"), expected + 0.5)
        assert len(stack.origin["low_sha256"]) == 64


def test_pairs_of_dicom_series(tmp_path, calls):
    values = ct().transpose(2, 1, 0)
    for quality, shift in (("HQ", 0), ("LQ", 7)):
        save_ct(tmp_path / "in" / quality / "one", values + shift)
    options = FolderOptions("ct-denoise", **NO_SPLIT)
    (prepared,) = prepare_folder(tmp_path / "in", tmp_path / "out", options).sets
    high, low = (prepared.images(prepared.stacks[0], q) for q in ("high", "low"))
    np.testing.assert_array_equal(low, np.array(high) + 7)


def test_every_fault_of_pairs_is_named_at_once(tmp_path, calls):
    root = tmp_path / "in"
    save_pairs(root, ("p1", "p2", "p3", "p4", "p5", "p6", "p7"))
    (root / "LQ/p1.nii.gz").unlink()
    (root / "HQ/p2.nii.gz").unlink()
    save_nifti(root / "LQ/p3.nii.gz", ct()[:-1], AFFINE)
    save_nifti(root / "LQ/p4.nii.gz", ct(), np.diag([0.5, 0.75, 2.0, 1.0]))
    for quality in ("LQ", "HQ"):
        save_nifti(root / quality / "p5.nii.gz", np.full((12, 10, 9), -1000), AFFINE)
    (root / "HQ/p6.nii.gz").write_bytes(b"junk")
    with pytest.raises(InputError) as caught:
        prepare_folder(root, tmp_path / "out", FolderOptions("ct-denoise"))
    lines = str(caught.value).splitlines()
    for name, why in {
        "LQ/p1": "is missing, its partner is there",
        "HQ/p2": "is missing, its partner is there",
        "p3": "HQ is (12, 10, 9) and LQ (11, 10, 9) voxels",
        "p4": "different grids",
        "p5": "no slice shows more than air; is this CT?",
        "p6": "not a sound gzip",
    }.items():
        assert any(line.startswith(f"  {name}: ") and why in line for line in lines), name
    assert "6 problems" in lines[0]
    assert not (tmp_path / "out").exists()
    for name in ("p7.nii.gz", "p3.nii.gz", "p4.nii.gz"):
        (root / "LQ" / name).unlink()
    options = FolderOptions("ct-denoise", **NO_SPLIT)
    with pytest.raises(InputError, match="nothing is left to train or test ct-denoise") as caught:
        prepare_folder(root, tmp_path / "out", options, skip=True)
    assert "  p6: not a sound gzip" in str(caught.value)


def test_half_a_pair_of_folders_is_refused(tmp_path):
    save_nifti(tmp_path / "in/HQ/a.nii", ct())
    with pytest.raises(InputError, match="has only HQ"):
        prepare_folder(tmp_path / "in", tmp_path / "out", FolderOptions("ct-denoise"))
    save_nifti(tmp_path / "in/LQ/a.nii", ct())
    with pytest.raises(ConfigError, match="real pairs are low in one plane"):
        prepare_folder(tmp_path / "in", tmp_path / "out", FolderOptions("mri-sr", planes="all"))


def test_volumes_of_one_patient_stay_together(tmp_path, calls):
    for patient in range(9):
        for visit in range(3):
            save_nifti(
                tmp_path / f"in/sub-{patient:02d}/ses-{visit}/sub-{patient:02d}_ct.nii", ct()
            )
    options = FolderOptions("ct-denoise", validation=0.3, test=0.3, seed=1)
    (prepared,) = prepare_folder(tmp_path / "in", tmp_path / "out", options).sets
    assert {s: c.patients for s, c in prepared.counts().items()} == dict.fromkeys(
        ("train", "validation", "test"), 3
    )
    assert {s: c.stacks for s, c in prepared.counts().items()} == dict.fromkeys(
        ("train", "validation", "test"), 9
    )


def test_patients_are_told_by_a_pattern_or_not_guessed(tmp_path, calls):
    for patient in ("a", "b", "c"):
        for scan in ("t1", "t2"):
            save_nifti(tmp_path / f"in/{patient}/{scan}.nii", ct())
    with pytest.raises(InputError, match=r"c/t2: the patient is unknown; give patient="):
        prepare_folder(tmp_path / "in", tmp_path / "out", FolderOptions("ct-denoise"))
    options = FolderOptions("ct-denoise", patient="^[^/]+")
    (prepared,) = prepare_folder(tmp_path / "in", tmp_path / "out", options).sets
    assert [s.name for s in prepared.stacks if s.patient == "patient-0002"] == [
        "patient-0002-1",
        "patient-0002-2",
    ]
    with pytest.raises(InputError, match=r"'\(x\)' finds no patient in its name"):
        prepare_folder(tmp_path / "in", tmp_path / "p", FolderOptions("ct-denoise", patient="(x)"))


def test_too_few_patients_for_a_split_are_refused(tmp_path, calls):
    for name in ("scan_1", "scan_2", "other_1"):
        save_nifti(tmp_path / f"in/{name}.nii", ct())
    with pytest.raises(InputError, match=r"2 patients: too few .* patient=PATTERN"):
        prepare_folder(tmp_path / "in", tmp_path / "out", FolderOptions("ct-denoise"), skip=True)
    options = FolderOptions("ct-denoise", validation=0)
    (prepared,) = prepare_folder(tmp_path / "in", tmp_path / "out", options).sets
    assert prepared.counts()["test"].patients == prepared.counts()["train"].patients == 1


def test_other_modalities_and_files(tmp_path, calls):
    save_ct(tmp_path / "in/ct", ct().transpose(2, 1, 0))
    (tmp_path / "in/notes.txt").touch()
    (tmp_path / "in/.DS_Store").touch()
    with pytest.raises(InputError, match="ct: is CT, not MR; leave it out"):
        prepare_folder(tmp_path / "in", tmp_path / "out", FolderOptions("mri-sr", **NO_SPLIT))
    options = FolderOptions("ct-denoise", **NO_SPLIT)
    report = prepare_folder(tmp_path / "in", tmp_path / "out", options)
    assert report.others == {"hidden files": 1, "other files": 1}
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no NIfTI files and no DICOM series"):
        prepare_folder(tmp_path / "empty", tmp_path / "out2", options)


def test_a_name_twice_is_a_fault(tmp_path, calls):
    save_nifti(tmp_path / "in/a.nii", ct())
    save_nifti(tmp_path / "in/a.nii.gz", ct())
    with pytest.raises(InputError, match=r"a\.nii\.gz: is there twice"):
        prepare_folder(tmp_path / "in", tmp_path / "out", FolderOptions("ct-denoise", **NO_SPLIT))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "xray"}, "task 'xray' is unknown"),
        ({"factor": 1}, "above 1"),
        ({"factor": float("nan")}, "above 1"),
        ({"seed": -1}, "from 0"),
        ({"validation": 0.5, "test": 0.5}, "leave nothing to train on"),
        ({"test": -0.1}, "leave nothing to train on"),
        ({"planes": "all"}, "has only 'task'"),
        ({"task": "mri-sr", "planes": "sagittal"}, "'task' or 'all'"),
        ({"patient": "("}, "is no pattern"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        FolderOptions(**({"task": "ct-denoise"} | options))


def test_real_physics_makes_the_pairs_of_ct(tmp_path):
    save_nifti(
        tmp_path / "in/a.nii", blob(48, 48, 6, air=-1000, tissue=40), np.diag([4.0, 4, 5, 1])
    )
    options = FolderOptions("ct-denoise", **NO_SPLIT)
    (prepared,) = prepare_folder(tmp_path / "in", tmp_path / "out", options).sets
    (stack,) = prepared.stacks
    noise = prepared.images(stack, "low") - np.array(prepared.images(stack, "high"))
    assert stack.shape == (4, 48, 48)
    assert noise.std() > 0
    assert PreparedSet.read(tmp_path / "out").stacks[0].origin["low"]["task"] == "ct-denoise"


def test_planes_and_ranges():
    volume = Volume(np.zeros((40, 31, 50)), np.diag([1.0, 1.0, 1.6, 1.0]))
    assert square_planes(volume) == []
    assert square_planes(Volume(np.zeros((40, 32, 50)), np.eye(4))) == [0, 1, 2]
    assert square_planes(Volume(np.zeros((40, 32, 5)), np.diag([1.0, 1, 5, 1]))) == [2]
    images, spacing = slices_across(volume, 1)
    assert (images.shape, spacing) == ((31, 40, 50), (1.0, 1.0, 1.6))
    assert index_ranges([3, 4, 5, 9, 11, 12]) == "3-5, 9, 11-12"
    assert index_ranges([]) == ""


def test_links_are_followed_once(tmp_path, calls):
    save_nifti(tmp_path / "elsewhere/sub-1_ct.nii", ct())
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "elsewhere")
    options = FolderOptions("ct-denoise", **NO_SPLIT)
    report = prepare_folder(tmp_path / "in", tmp_path / "out", options)
    assert list(report.names) == ["link/sub-1_ct"]
