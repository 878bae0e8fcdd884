"""Restoration on disk: every kind of output, with its record, whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from restore_rwkv import RestoreOptions, Restorer, read_volume
from restore_rwkv.errors import InputError, UnfitError
from restore_rwkv.io import DicomSource, claimed, file_sha256, plane_axis
from restore_rwkv.io.affines import Plane
from restore_rwkv.model import RestoreRWKV, save_weights
from restore_rwkv.tasks import TASKS
from tests.helpers.derivable_series import CLASSIC, KINDS, Kind, write_source
from tests.helpers.tools import needs

FORCE = RestoreOptions(force=True, consistency=0)
TASK_OF = {task.modality: name for name, task in TASKS.items()}


@pytest.fixture
def identity(tiny_network: RestoreRWKV, tmp_path: Path) -> Path:
    """Weights for all tasks whose network returns its input."""
    for parameter in tiny_network.parameters():
        parameter.data.zero_()
    path = tmp_path / "identity.safetensors"
    scaling = {name: task.scaling for name, task in TASKS.items()}
    save_weights(path, tiny_network, scaling=scaling, training={})
    return path


def options_for(source: Path) -> RestoreOptions:
    """Options for the slices as they are stored, which are oblique."""
    volume = read_volume(source)
    assert volume.affine is not None
    planes: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
    plane = next(name for name in planes if plane_axis(volume.affine, name) == 2)
    consistency = 0 if volume.modality == "MR" else None
    return RestoreOptions(force=True, plane=plane, consistency=consistency)


@pytest.mark.parametrize("kind", KINDS)
def test_an_identity_network_gives_a_series_within_one_step_at_the_same_places(
    kind: Kind, identity: Path, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "in", kind)
    restorer = Restorer(weights=identity, device="cpu")
    restored = restorer.file(source, f"{tmp_path}/out/", options_for(source))
    before, after = read_volume(source), read_volume(tmp_path / "out")
    np.testing.assert_array_equal(after.affine, before.affine)
    step = 1.0 if kind in ("CT", "MR") else float(before.data.max()) / 32767
    np.testing.assert_allclose(after.data, before.data, rtol=0, atol=step)
    assert (after.unit, after.modality) == (before.unit, before.modality)
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    assert isinstance(after.source, DicomSource)
    assert record["output_series_instance_uid"] == after.source.series_instance_uid
    for name, digest in record["output_files"].items():
        assert file_sha256(tmp_path / "out" / name) == digest
    assert record["clipped_voxels"] == 0
    assert restored.record.output is not None
    record_path = tmp_path / "out.restoration.json"
    made = {tmp_path / "in", identity, tmp_path / "out", record_path}
    assert set(tmp_path.iterdir()) == made
    assert all(file.suffix == ".dcm" for file in (tmp_path / "out").iterdir())


def test_a_tilted_series_goes_out_as_dicom_and_is_refused_as_nifti(
    identity: Path, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "in", "CT", tilt=0.6)
    restorer = Restorer(weights=identity, device="cpu")
    with pytest.raises(InputError, match=r"out.nii: the slices are tilted by \d.*write DICOM"):
        restorer.file(source, tmp_path / "out.nii", options_for(source))
    restorer.file(
        source, tmp_path / "out", options_for(source)
    )  # no suffix, as its source is DICOM
    places = [
        sorted(str(pydicom.dcmread(file).ImagePositionPatient) for file in folder.glob("*.dcm"))
        for folder in (tmp_path / "in", tmp_path / "out")
    ]
    assert places[0] == places[1]


def test_a_finer_grid_goes_out_as_dicom(identity: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "in", "MR")
    options = RestoreOptions(force=True, scale=2)
    restored = Restorer(weights=identity, device="cpu").file(
        source, tmp_path / "any.name", options, format="dicom"
    )
    after = read_volume(tmp_path / "any.name")
    np.testing.assert_allclose(after.affine, restored.volume.affine, atol=1e-6)
    assert after.data.shape == restored.volume.data.shape
    image = SimpleITK.ReadImage(str(sorted((tmp_path / "any.name").glob("*.dcm"))[0]))
    assert image.GetSpacing()[:2] == pytest.approx(after.spacing[:2] if after.spacing else ())


@pytest.mark.parametrize("kind", CLASSIC)
def test_a_restored_series_is_not_restored_again(
    kind: Kind, identity: Path, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "in", kind)
    restorer = Restorer(weights=identity, device="cpu")
    options = options_for(source)
    restorer.file(source, tmp_path / "out", options)
    with pytest.raises(UnfitError, match="restored by this program already"):
        restorer.file(tmp_path / "out", tmp_path / "again", replace(options, force=False))
    assert not (tmp_path / "again").exists()


@needs("dciodvfy")
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_restoration_writes_is_valid(kind: Kind, identity: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "in", kind)
    Restorer(weights=identity, device="cpu").file(source, tmp_path / "out", options_for(source))
    errors = []
    for folder in (tmp_path / "in", tmp_path / "out"):
        file = sorted(folder.glob("*.dcm"))[0]
        said = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True).stderr
        errors.append({line for line in said.splitlines() if line.startswith("Error")})
    assert errors[1] <= errors[0]


def test_folders_are_never_replaced(identity: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "in", "CT")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    restorer = Restorer(weights=identity, device="cpu")
    with pytest.raises(InputError, match="exists already, and a folder is never replaced"):
        restorer.file(source, f"{tmp_path}/out/", options_for(source), overwrite=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def nifti(path: Path, values: np.ndarray) -> Path:
    image = nibabel.Nifti1Image(values.astype(np.float32), np.diag([1.0, 1, 3, 1]))
    image.header["descrip"] = b"kept"
    nibabel.save(image, path)
    return path


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(10, 900, shape)


def test_each_volume_of_a_4d_image_is_restored_on_its_own(
    tiny_weights: Path, tmp_path: Path
) -> None:
    values = noise(24, 20, 2, 3) * [1, 100, 10_000]  # each with its own scale
    source = nifti(tmp_path / "in.nii.gz", values)
    seen: list[tuple[int, int]] = []
    restorer = Restorer("mri-sr", tiny_weights, "cpu")
    restored = restorer.file(
        source, tmp_path / "out.nii.gz", FORCE, progress=lambda *step: seen.append(step)
    )
    image = nibabel.load(tmp_path / "out.nii.gz")
    assert image.shape == (24, 20, 2, 3)
    assert image.header["descrip"].item() == b"kept"
    for k in range(3):
        single = nifti(tmp_path / f"{k}.nii", values[..., k])
        alone = restorer.run(read_volume(single), FORCE)
        np.testing.assert_array_equal(image.dataobj[..., k], alone.volume.data)
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    assert record["volumes"] == 3
    assert record["change"]["largest"] > 10_000
    np.testing.assert_array_equal(restored.volume.data, image.dataobj[..., 0])
    assert seen[-1][0] == seen[-1][1]
    assert seen == sorted(seen)


def test_nan_outside_the_body_is_put_back_on_request(tiny_weights: Path, tmp_path: Path) -> None:
    values = noise(24, 20, 12)
    values[:3] = np.nan
    source = nifti(tmp_path / "in.nii.gz", values)
    restorer = Restorer("mri-sr", tiny_weights, "cpu")
    for keep in (False, True):
        output = tmp_path / f"{keep}.nii.gz"
        record = restorer.file(source, output, FORCE, keep_nan=keep).record
        result = nibabel.load(output).get_fdata()
        assert np.isnan(result[:3]).all() == keep
        assert np.isfinite(result[3:]).all()
        assert "without a value" in record.warnings[0]


def test_the_record_says_what_changed_and_why_it_may_be_doubted(
    tiny_weights: Path, tmp_path: Path
) -> None:
    source = nifti(tmp_path / "in.nii.gz", noise(24, 20, 2))
    restored = Restorer("mri-sr", tiny_weights, "cpu").file(source, tmp_path / "out.nii", FORCE)
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    difference = restored.volume.data.astype(np.float64) - read_volume(source).data
    assert record["change"]["mean"] == pytest.approx(difference.mean())
    assert record["change"]["largest"] == pytest.approx(abs(difference).max())
    assert record["change"]["shift"] == {}
    assert record["output_sha256"] == file_sha256(tmp_path / "out.nii")
    assert record["fit"]["outcome"] in ("fit", "doubtful", "unfit")
    assert record["modality"] == "MR"


def test_clipped_voxels_are_counted(tiny_weights: Path, tmp_path: Path) -> None:
    values = noise(24, 20, 2)
    image = nibabel.Nifti1Image(values.astype(np.uint8), np.eye(4))
    nibabel.save(image, tmp_path / "in.nii")
    restored = Restorer("mri-sr", tiny_weights, "cpu").file(
        tmp_path / "in.nii", tmp_path / "out.nii", FORCE, dtype="source"
    )
    beyond = (restored.volume.data > 255.5).sum() + (restored.volume.data < -0.5).sum()
    assert restored.record.output is not None
    assert restored.record.output.clipped_voxels == beyond > 0


def test_unfit_images_are_refused_unless_forced_and_doubtful_ones_if_strict(
    tiny_weights: Path, tmp_path: Path
) -> None:
    source = nifti(tmp_path / "in_T1map.nii", noise(24, 20, 2))
    restorer, output = Restorer("mri-sr", tiny_weights, "cpu"), tmp_path / "out.nii"
    with pytest.raises(UnfitError, match=r"T1map in its name .*; or give force=True to restore"):
        restorer.file(source, output)
    assert not output.exists()
    record = restorer.file(source, output, RestoreOptions(force=True)).record
    assert record.fit.forced
    assert record.fit.outcome == "unfit"
    wide = nibabel.Nifti1Image(noise(24, 20, 2), np.diag([1, 1, 40.0, 1]))
    nibabel.save(wide, tmp_path / "wide.nii")
    assert restorer.file(tmp_path / "wide.nii", tmp_path / "w.nii").record.fit.outcome == "doubtful"
    with pytest.raises(UnfitError, match=r"40 mm are unlikely.*leave strict out"):
        restorer.file(tmp_path / "wide.nii", tmp_path / "s.nii", RestoreOptions(strict=True))


def test_two_processes_do_not_write_one_output(tiny_weights: Path, tmp_path: Path) -> None:
    source = nifti(tmp_path / "in.nii", noise(24, 20, 2))
    program = (
        "import sys, time\n"
        "from restore_rwkv.io import claimed\n"
        "with claimed(sys.argv[1]):\n"
        "    print('claimed', flush=True)\n"
        "    time.sleep(60)\n"
    )
    output = tmp_path / "out.nii"
    with subprocess.Popen(
        [sys.executable, "-c", program, output], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(InputError, match="another process is writing it"):
            Restorer("mri-sr", tiny_weights, "cpu").file(source, output, FORCE)
        other.kill()
    assert not output.exists()
    with claimed(output):
        pass
    assert not any(name.endswith(".lock") for name in os.listdir(tmp_path))


def test_a_series_of_several_folders_is_known_by_all_its_files(
    identity: Path, tmp_path: Path
) -> None:
    """Two of its files have the same name."""
    source = write_source(tmp_path / "in", "CT")
    for number, file in enumerate(sorted(source.glob("*.dcm"))):
        folder = source / f"part{number % 2}"
        folder.mkdir(exist_ok=True)
        file.rename(folder / f"IM{number // 2}")
    record = (
        Restorer(weights=identity, device="cpu")
        .file(source, tmp_path / "out.nii", options_for(source))
        .record
    )
    assert record.source is not None
    assert sorted(record.source.source_files) == [
        "part0/IM0",
        "part0/IM1",
        "part1/IM0",
        "part1/IM1",
    ]


def test_a_volume_that_would_be_refused_is_told_of_before_anything_is_computed(
    tiny_weights: Path, tmp_path: Path
) -> None:
    values = noise(24, 20, 2, 3)
    values[..., 2] = 0
    source = nifti(tmp_path / "in.nii.gz", values)
    restorer, output = Restorer("mri-sr", tiny_weights, "cpu"), tmp_path / "out.nii.gz"
    steps: list[int] = []
    with pytest.raises(UnfitError, match=r"volume 3 of 3: in.nii.gz: all values are 0"):
        restorer.file(source, output, progress=lambda done, total: steps.append(done))
    assert not steps
    assert restorer.preview(source, output).refusals[0].startswith("volume 3 of 3")


def test_the_record_of_a_4d_image_tells_its_volumes_apart(
    tiny_weights: Path, tmp_path: Path
) -> None:
    source = nifti(tmp_path / "in.nii.gz", noise(24, 20, 2, 2) * [1, 100])
    Restorer("mri-sr", tiny_weights, "cpu").file(source, tmp_path / "out.nii.gz", FORCE)
    first, second = json.loads((tmp_path / "out.restoration.json").read_text())["each_volume"]
    assert second["scaling"]["scale"] == pytest.approx(100 * first["scaling"]["scale"], rel=0.1)
    assert second["change"]["largest"] > 10 * first["change"]["largest"]


def test_an_output_beside_its_input_does_not_make_the_input_restored(
    tiny_weights: Path, tmp_path: Path
) -> None:
    source = nifti(tmp_path / "scan.nii.gz", noise(24, 20, 2))
    restorer = Restorer("mri-sr", tiny_weights, "cpu")
    restorer.file(source, tmp_path / "scan.nrrd", FORCE)
    restorer.file(source, tmp_path / "other.nii.gz", RestoreOptions(consistency=0))
    with pytest.raises(UnfitError, match="restored by this program already"):
        restorer.file(tmp_path / "scan.nrrd", tmp_path / "again.nii.gz")


def test_outputs_of_one_stem_do_not_share_a_record(tiny_weights: Path, tmp_path: Path) -> None:
    source = nifti(tmp_path / "in.nii", noise(24, 20, 2))
    restorer = Restorer("mri-sr", tiny_weights, "cpu")
    restorer.file(source, tmp_path / "x.nii.gz", FORCE)
    with pytest.raises(InputError, match=r"x.restoration.json: is the record of x.nii.gz; give"):
        restorer.file(source, tmp_path / "x.npy", FORCE, overwrite=True)
    restorer.file(source, tmp_path / "x.nii.gz", FORCE, overwrite=True)
    (tmp_path / "y.restoration.json").mkdir()
    with pytest.raises(InputError, match="exists and is not a file"):
        restorer.file(source, tmp_path / "y.nii.gz", FORCE, overwrite=True)


def test_a_series_is_not_written_into_its_source(identity: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "in", "CT")
    with pytest.raises(InputError, match="lies in the input, which would then hold two series"):
        Restorer(weights=identity).file(source, f"{source}/derived/", options_for(source))


def test_any_image_of_python_is_restored(tiny_weights: Path) -> None:
    values = noise(24, 20, 2).astype(np.float32)
    restorer = Restorer("mri-sr", tiny_weights, "cpu")
    of_array = restorer.run(values, FORCE).volume.data  # type: ignore[arg-type]
    image = nibabel.Nifti1Image(values, np.eye(4))
    of_nibabel = restorer.run(image, FORCE).volume.data
    np.testing.assert_array_equal(of_array, of_nibabel)
