"""What each task does with its scans: auto, units of PET, air in CT, finer grids of MRI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

import restore_rwkv
from restore_rwkv import RestoreOptions, Restorer, Volume
from restore_rwkv.errors import InputError, WeightsError
from restore_rwkv.model import RestoreRWKV, save_weights
from restore_rwkv.restoration.restorer import record_of
from restore_rwkv.tasks import TASKS, robust_scaling


@pytest.fixture
def all_in_one(tiny_network: RestoreRWKV, tmp_path: Path) -> Path:
    """One network for every task, each with the scaling of our own weights."""
    path = tmp_path / "all-in-one.safetensors"
    save_weights(
        path, tiny_network, scaling={t.name: t.scaling for t in TASKS.values()}, training={}
    )
    return path


@pytest.fixture
def adding_nothing(tiny_network: RestoreRWKV, tmp_path: Path) -> Path:
    """As `all_in_one`, of a network that gives its input back."""
    for parameter in tiny_network.parameters():
        parameter.data.zero_()
    path = tmp_path / "nothing.safetensors"
    save_weights(
        path, tiny_network, scaling={t.name: t.scaling for t in TASKS.values()}, training={}
    )
    return path


@pytest.mark.parametrize(
    ("modality", "task", "axis", "scaling"),
    [
        ("MR", "mri-sr", 2, None),
        ("CT", "ct-denoise", 2, {"offset": 0.0, "scale": 40.0}),
        ("PT", "pet-synth", 1, {"offset": 0.0, "scale": 0.5}),
    ],
)
def test_auto_restores_by_what_the_sidecar_says(
    scan: Path, all_in_one: Path, tmp_path: Path, modality: str, task: str, axis: int, scaling: Any
) -> None:
    (tmp_path / "scan.json").write_text(json.dumps({"Modality": modality, "Units": "GML"}))
    data = np.random.default_rng(0).uniform(-1000 if modality == "CT" else 0, 100, (16, 12, 9))
    nib.save(nib.Nifti1Image(data.astype(np.float32), np.diag([1.0, 1, 2, 1])), scan)
    restored = restore_rwkv.restore(scan, tmp_path / "out.nii.gz", weights=all_in_one)
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    assert (record["task"], record["modality"]) == (task, modality)
    assert record["slice_axis"] == axis
    assert scaling is None or record["scaling"] == scaling
    by_name = restore_rwkv.restore(scan, tmp_path / "b.nii", task=task, weights=all_in_one)
    assert np.array_equal(restored.data, by_name.data)


def test_auto_needs_a_modality_and_weights_for_its_task(
    scan: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"scan\.nii\.gz: nothing says.*task=mri-sr\|ct-den"):
        restore_rwkv.restore(scan, tmp_path / "out.nii.gz", weights=tiny_weights)
    (tmp_path / "scan.json").write_text('{"Modality": "CT"}')
    with pytest.raises(WeightsError, match=r"tiny.*: trained for mri-sr, not ct-denoise; give oth"):
        restore_rwkv.restore(scan, tmp_path / "out.nii.gz", weights=tiny_weights)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("task", TASKS)
def test_a_setting_overrules_the_scaling_of_the_weights(all_in_one: Path, task: str) -> None:
    volume = Volume(np.random.default_rng(0).uniform(0, 20, (12, 12, 3)), unit=TASKS[task].unit)
    restorer = Restorer(task, all_in_one)
    scalings = {
        choice: restorer.run(volume, RestoreOptions(scaling=choice)).record.scaling
        for choice in ("auto", "robust", "paper")
    }
    assert scalings["robust"] == robust_scaling(volume.data).to_dict()
    assert scalings["paper"] == TASKS[task].paper_scaling.scaling_of(volume.data).to_dict()
    assert scalings["auto"] == TASKS[task].scaling.scaling_of(volume.data).to_dict()


def test_ct_is_clipped_at_air_where_it_was_not_below(all_in_one: Path) -> None:
    data = np.full((16, 16, 1), -1020.0)
    data[4:, 4:] = np.random.default_rng(0).normal(40, 10, (12, 12, 1))
    data[:, 0] = -3024  # padding, as scanners write outside the field of view
    restorer = Restorer("ct-denoise", all_in_one)
    output = restorer.run(Volume(data, unit="HU", modality="CT")).volume.data
    assert (output[:, 0] == -3024).all()
    assert (output[:, 1:] >= -1024).all()
    assert (output[:, 1:] == -1024).any()  # this network would go below


def test_padding_of_ct_is_air_to_the_network(all_in_one: Path) -> None:
    data = np.random.default_rng(0).normal(40, 15, (24, 24, 2))
    data[:, 20:], data[:4] = -1000, -1024
    padded = np.where(data == -1024, -3024, data)
    data[12, 12] = padded[12, 12] = -1030  # no padding, and below the values of CT
    restorer = Restorer("ct-denoise", all_in_one)
    one, two = (
        restorer.run(Volume(x, unit="HU", modality="CT")).volume.data for x in (data, padded)
    )
    np.testing.assert_array_equal(one[4:, :12], two[4:, :12])
    assert (two[:4] == -3024).all()
    assert two[4:].min() >= -1030


def write_pet(folder: Path, **fields: Any) -> NDArray[np.float64]:
    """Write an axial FDG series, injected an hour before; return its Bq/ml (x, y, z)."""
    folder.mkdir()
    stored = np.random.default_rng(0).integers(0, 32000, (10, 9, 12)).astype(np.int16)
    slopes = 1.25 + np.arange(10) / 8
    for k, pixels in enumerate(stored):
        dataset, drug = Dataset(), Dataset()
        drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 370e6, 6586.2
        drug.RadiopharmaceuticalStartTime = "090000"
        dataset.RadiopharmaceuticalInformationSequence = Sequence([drug])
        dataset.Modality, dataset.Units, dataset.DecayCorrection = "PT", "BQML", "START"
        dataset.CorrectedImage, dataset.PatientWeight = ["DECY", "ATTN"], 70.0
        dataset.SeriesDate = dataset.AcquisitionDate = "20200302"
        dataset.SeriesTime = dataset.AcquisitionTime = "100000"
        dataset.SOPClassUID = PositronEmissionTomographyImageStorage
        dataset.SOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID = dataset.SeriesInstanceUID = "1.2.3"
        dataset.ImagePositionPatient = [0, 0, 4 * k]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing = [2, 2]
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 9, 12, 1
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.RescaleSlope, dataset.RescaleIntercept = slopes[k], 0
        dataset.PixelData = pixels.tobytes()
        for keyword, value in fields.items():
            setattr(dataset, keyword, value)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return (stored * slopes[:, None, None]).transpose(2, 1, 0)


LEFT = 370e6 * 0.5 ** (3600 / 6586.2)


@pytest.mark.parametrize(
    ("fields", "unit", "factor"),
    [
        ({}, "Bq/ml", 70000 / LEFT),
        ({"DecayCorrection": "ADMIN"}, "Bq/ml", 70000 / 370e6),
        ({"Units": "GML"}, "SUV", 1.0),
    ],
)
def test_pet_goes_back_in_the_unit_it_came_in(
    adding_nothing: Path, tmp_path: Path, fields: dict[str, Any], unit: str, factor: float
) -> None:
    values = write_pet(tmp_path / "pet", **fields)
    output = tmp_path / "out.nii.gz"
    restored = restore_rwkv.restore(tmp_path / "pet", output, weights=adding_nothing)
    record = json.loads(record_of(output).read_text())
    assert (record["task"], record["unit"], record["slice_axis"]) == ("pet-synth", unit, 1)
    assert record["suv_per_unit"] == pytest.approx(factor, rel=1e-12)
    assert record["scaling"] == {"offset": 0.0, "scale": pytest.approx(0.5 / factor, rel=1e-12)}
    assert restored.unit == unit
    np.testing.assert_allclose(nib.load(output).get_fdata(), values, rtol=1e-6)


def test_the_network_is_given_suv_whatever_the_unit(all_in_one: Path, tmp_path: Path) -> None:
    """Activity and SUV of the same examination restore to the same image in either unit."""
    write_pet(tmp_path / "pet")
    activity = restore_rwkv.read_volume(tmp_path / "pet")
    assert activity.suv_per_unit is not None
    uptake = Volume(activity.data * activity.suv_per_unit, activity.affine, "SUV", "PT")
    restorer = Restorer("pet-synth", all_in_one)
    one, two = (
        restorer.run(activity).volume.data * activity.suv_per_unit,
        restorer.run(uptake).volume.data,
    )
    assert np.abs(two - uptake.data).max() > 0.1
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


def test_pet_without_its_fields_is_restored_with_a_warning(
    adding_nothing: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = write_pet(tmp_path / "pet", PatientWeight=0)
    output = tmp_path / "out.nii.gz"
    restore_rwkv.restore(tmp_path / "pet", output, weights=adding_nothing)
    record = json.loads(record_of(output).read_text())
    assert record["no_suv"] == "PET without SUV (PatientWeight is 0 kg)"
    assert record["scaling"] == robust_scaling(values).to_dict()
    assert "pet: PET without SUV (PatientWeight is 0 kg), so it is scaled by its own" in caplog.text
    np.testing.assert_allclose(nib.load(output).get_fdata(), values, rtol=1e-6)


def test_pet_in_nifti_is_suv_where_the_user_says_so(scan: Path, all_in_one: Path) -> None:
    volume = restore_rwkv.read_volume(scan)
    restored = Restorer("pet-synth", all_in_one).run(
        volume, RestoreOptions(plane="axial", unit="SUV")
    )
    assert restored.record.scaling == {"offset": 0.0, "scale": 0.5}


@pytest.mark.parametrize("dtype", ["float32", "source"])
def test_a_scan_on_its_native_grid_gets_a_finer_one(
    scan: Path, adding_nothing: Path, tmp_path: Path, dtype: Any
) -> None:
    output = tmp_path / "out.nii.gz"
    restore_rwkv.restore(
        scan,
        output,
        task="mri-sr",
        weights=adding_nothing,
        options=RestoreOptions(scale=2.5),
        dtype=dtype,
    )
    before, after = nib.load(scan), nib.load(output)
    assert after.shape == (100, 82, 5)
    assert after.get_data_dtype() == (np.int16 if dtype == "source" else np.float32)
    assert after.header["descrip"] == before.header["descrip"]
    for form in ("get_sform", "get_qform"):
        old, new = getattr(before, form)(), getattr(after, form)()
        for corner in ((-0.5, -0.5, 0), (39.5, 32.5, 4)):  # outer edges in the plane
            there = new @ [*((np.array(corner[:2]) + 0.5) * [2.5, 82 / 33] - 0.5), corner[2], 1]
            np.testing.assert_allclose(there, old @ [*corner, 1], atol=1e-4)
    np.testing.assert_allclose(after.get_fdata().mean(), before.get_fdata().mean(), rtol=1e-2)
    record = json.loads(record_of(output).read_text())
    assert record["scale"] == 2.5


def test_an_image_without_geometry_gets_a_finer_matrix(
    adding_nothing: Path, tmp_path: Path
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (10, 12)).astype(np.uint8)
    np.save(tmp_path / "in.npy", image)
    for name in ("a.npy", "b.tif"):
        restore_rwkv.restore(
            *(tmp_path / "in.npy", tmp_path / name),
            task="mri-sr",
            weights=adding_nothing,
            options=RestoreOptions(scale=4),
        )
        assert restore_rwkv.read_volume(tmp_path / name).data.shape == (40, 48, 1)
    assert np.load(tmp_path / "a.npy").shape == (40, 48)
