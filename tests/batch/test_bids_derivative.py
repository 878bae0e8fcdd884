"""Derivative datasets of BIDS: description, metadata of each image, and the official validator."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from restore_rwkv import RestoreOptions, Restorer
from restore_rwkv.batch.bids import bids_target, find_bids
from restore_rwkv.batch.bids_derivative import (
    bids_jobs,
    bids_output,
    write_bids_sidecar,
    write_dataset_files,
)
from restore_rwkv.errors import InputError
from restore_rwkv.io import read_volume, record_of, record_values
from restore_rwkv.model import RestoreRWKV, save_weights
from restore_rwkv.tasks import TASKS, PlaneChoice
from tests.helpers.bids_datasets import DESCRIPTION, write_dataset, write_image, write_json

RECORD: dict[str, Any] = {
    "software": "restore-rwkv 0.1.0",
    "task": "mri-sr",
    "weights": "mri.safetensors",
    "weights_sha256": "0123456789abcdef" * 4,
    "not_for": "Research only, not a medical device.",
    "scale": None,
}
VALIDATOR = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or (
    shutil.which("bids-validator-deno")
)
RUN_1 = "sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "raw")


def issues(dataset: Path, *options: str) -> dict[str, set[str]]:
    """Return the codes of the official validator's errors and warnings."""
    command = [str(VALIDATOR), "--format", "json", *options, str(dataset)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found: dict[str, set[str]] = {"error": set(), "warning": set(), "ignore": set()}
    results = json.loads(run.stdout)
    for result in (results, *results.get("derivativesSummary", {}).values()):
        for issue in result["issues"]["issues"]:
            found[issue["severity"]].add(f"{issue['code']} {issue.get('subCode', '')}".strip())
    return found


def write_derivative(root: Path, out: Path | None = None, scale: float | None = None) -> Path:
    """Write a derivative dataset with the images as they are in the place of restored ones."""
    found = find_bids(root)
    out = bids_output(root, out)
    write_dataset_files(out, found)
    for image in found.images:
        target = out / bids_target(image.path.name, scale)
        target.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.load(image.path), target)
        record_of(target).write_text(json.dumps(RECORD))
        write_bids_sidecar(image.path, target, RECORD | {"scale": scale})
    return out


def test_images_become_jobs_and_those_refused_have_the_reason(
    dataset: Path, tmp_path: Path
) -> None:
    write_image(dataset / "sub-02/anat/sub-02_desc-x_T1w.nii.gz")
    (dataset / RUN_1).unlink()
    (dataset / RUN_1).symlink_to("../.git/annex/objects/x.nii.gz")
    jobs = {found.job.name: found for found in bids_jobs(find_bids(dataset), tmp_path / "out", 2.0)}
    assert len({found.job.key for found in jobs.values()}) == len(jobs) == 7
    flair = jobs["sub-02/anat/sub-02_FLAIR.nii"]
    assert flair.job.target == f"{tmp_path}/out/{bids_target('sub-02_FLAIR.nii', 2.0)}"
    assert flair.job.size == Path(flair.job.source).stat().st_size > 0
    assert flair.fault == ""
    refused = {name: found.fault for name, found in jobs.items() if found.fault}
    assert set(refused) == {RUN_1, "sub-02/anat/sub-02_desc-x_T1w.nii.gz"}
    assert "datalad get" in refused[RUN_1]


def test_a_sidecar_keeps_what_holds_and_says_what_was_done(dataset: Path, tmp_path: Path) -> None:
    out, image = tmp_path / "out", dataset / RUN_1
    own = {"EchoTime": 0.004, "Description": "raw", "IntendedFor": "bids::x", "SliceTiming": [0, 1]}
    write_json(image.with_name(image.name.replace(".nii.gz", ".json")), own)
    target = out / bids_target(image.name)
    target.parent.mkdir(parents=True)
    write_bids_sidecar(image, target, RECORD)
    text = target.with_name(target.name.replace(".nii.gz", ".json"))
    assert json.loads(text.read_text()) == {
        "Manufacturer": "Siemens",
        "MagneticFieldStrength": 3,
        "EchoTime": 0.004,
        "RepetitionTime": 2.0,
        "ImageType": ["DERIVED", "PRIMARY", "M"],
        "SliceTiming": [0, 1],
        "Description": "Restored by restore-rwkv 0.1.0, task mri-sr, weights mri.safetensors. "
        "Research only, not a medical device.",
        "Sources": [f"bids:raw:{RUN_1}"],
        "DeepLearning": True,
        "DeepLearningDetails": "restore-rwkv 0.1.0: Restore-RWKV, task mri-sr, weights "
        "mri.safetensors (SHA-256 0123456789abcdef...)",
        "SkullStripped": False,
    }
    before = text.stat()
    write_bids_sidecar(image, target, RECORD)
    assert text.stat().st_mtime_ns == before.st_mtime_ns
    assert text.stat().st_ino == before.st_ino


def test_a_finer_grid_says_its_resolution_and_drops_what_is_of_the_former(dataset: Path) -> None:
    image = dataset / RUN_1
    own = {"SliceTiming": [0, 1], "SkullStripped": True, "DeepLearningDetails": "Deep Resolve"}
    write_json(image.with_name(image.name.replace(".nii.gz", ".json")), own)
    target = write_derivative(dataset, scale=2.0) / bids_target(image.name, 2.0)
    values = json.loads(target.with_name(target.name.replace(".nii.gz", ".json")).read_text())
    said = "Voxels of 6 x 6 x 8 mm, a grid finer by 2 along both axes of a slice"
    assert values["Resolution"] == said
    assert "SliceTiming" not in values
    assert values["SkullStripped"] is True
    assert values["DeepLearningDetails"].startswith("Deep Resolve; restore-rwkv 0.1.0: ")


def test_a_restored_image_is_known_as_such_when_it_is_read(dataset: Path) -> None:
    target = write_derivative(dataset) / bids_target("sub-02_FLAIR.nii")
    record_of(target).unlink()
    volume = read_volume(target)
    assert volume.source is not None
    assert [finding.kind for finding in volume.source.findings] == ["deep-learning"]


def test_readers_know_what_an_image_inherits(dataset: Path) -> None:
    write_json(dataset / "T1w.json", {"Modality": "MR", "DeepLearning": True})
    source = read_volume(dataset / RUN_1).source
    assert source is not None
    assert [finding.kind for finding in source.findings] == ["deep-learning"]
    pet = dataset / "sub-02/pet/sub-02_pet.nii.gz"
    volume = read_volume(pet, volume=0)
    assert (volume.modality, volume.unit) == ("PT", "Bq/ml")
    (dataset / "dataset_description.json").unlink()  # then it is not a dataset
    assert read_volume(pet, volume=0).unit is None


def test_the_description_carries_over_who_made_the_source(dataset: Path) -> None:
    out = write_derivative(dataset)
    description = json.loads((out / "dataset_description.json").read_text())
    (generator,) = description.pop("GeneratedBy")
    assert (generator["Name"], generator["Version"][:1].isdigit()) == ("restore-rwkv", True)
    assert description == {
        "Name": "Synthetic heads, restored",
        "BIDSVersion": "1.11.1",
        "DatasetType": "derivative",
        "License": "CC0",
        "Authors": ["A. Author", "B. Author"],
        "SourceDatasets": [{"URL": "../..", "DOI": DESCRIPTION["DatasetDOI"]}],
        "DatasetLinks": {"raw": "../.."},
    }


def test_a_second_run_keeps_what_is_there_and_adds_its_version(dataset: Path) -> None:
    out = write_derivative(dataset)
    path = out / "dataset_description.json"
    values = json.loads(path.read_text())
    values["GeneratedBy"][0]["Version"] = "0.0.1"
    values["Acknowledgements"] = "added by hand"
    write_json(path, values)
    (out / ".bidsignore").write_text("own\n*.restoration.json\n")
    (out / "README.md").write_text("written by hand")
    write_dataset_files(out, find_bids(dataset))
    after = json.loads(path.read_text())
    assert [generator["Version"] == "0.0.1" for generator in after["GeneratedBy"]] == [True, False]
    assert after["Acknowledgements"] == "added by hand"
    lines = (out / ".bidsignore").read_text().splitlines()
    assert lines[:2] == ["own", "*.restoration.json"]
    assert len(lines) == len(set(lines)) > 4
    assert (out / "README.md").read_text() == "written by hand"
    before = path.stat().st_ino
    write_dataset_files(out, find_bids(dataset))
    assert path.stat().st_ino == before


def test_the_dataset_of_another_program_or_source_is_refused(dataset: Path, tmp_path: Path) -> None:
    found = find_bids(dataset)
    for name, description, says in (
        ("fmriprep", {"GeneratedBy": [{"Name": "fMRIPrep"}]}, "was made by fMRIPrep"),
        ("odd", {"GeneratedBy": "restore-rwkv"}, "is not of restore-rwkv"),
        ("none", {}, "is not of restore-rwkv"),
    ):
        path = write_json(tmp_path / name / "dataset_description.json", description)
        with pytest.raises(InputError, match=says):
            write_dataset_files(path.parent, found)
        assert json.loads(path.read_text()) == description
        assert len(list(path.parent.iterdir())) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    for place in (tmp_path / "other", tmp_path / "other/notes.txt"):
        with pytest.raises(InputError, match="holds files of something else"):
            write_dataset_files(place, found)
    out = write_derivative(dataset, tmp_path / "out")
    with pytest.raises(InputError, match="was made from another dataset"):
        write_dataset_files(out, find_bids(write_dataset(tmp_path / "second")))


def test_results_never_go_among_raw_data(dataset: Path, tmp_path: Path) -> None:
    assert bids_output(dataset) == dataset / "derivatives/restore-rwkv"
    for out in (dataset / "derivatives/x", tmp_path / "elsewhere"):
        assert bids_output(dataset, out) == out
    for out in (dataset, dataset / "sub-01", dataset / "derivatives", tmp_path):
        with pytest.raises(InputError, match="would mix results into the raw dataset"):
            bids_output(dataset, out)


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is absent")
@pytest.mark.slow
@pytest.mark.parametrize("place", [None, "a folder/elsewhere"])
@pytest.mark.parametrize("scale", [None, 1.5])
def test_the_official_validator_has_nothing_to_say(
    dataset: Path, tmp_path: Path, place: str | None, scale: float | None
) -> None:
    write_image(dataset / "sub-01/ct/sub-01_ct.nii.gz")
    (dataset / ".bidsignore").write_text("**/ct\n")
    assert issues(dataset)["error"] == set()
    out = write_derivative(dataset, None if place is None else tmp_path / place, scale)
    for name in ("manifest.sqlite", "manifest.sqlite-wal", "overview-2.html", "report.json"):
        (out / name).write_text("{}")
    assert issues(out) == {"error": set(), "warning": set(), "ignore": set()}
    assert issues(dataset)["error"] == set()
    # With --recursive, version 3.0.2 drops the .bidsignore of derivatives: without what it names.
    for path in [*out.glob("*.sqlite*"), *out.glob("*.html"), out / "report.json"]:
        path.unlink()
    for path in out.rglob("*.restoration.json"):
        path.unlink()
    shutil.rmtree(out / "sub-01/ct")
    assert issues(dataset, "--recursive")["error"] == set()


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is absent")
@pytest.mark.slow
def test_the_official_validator_accepts_restored_images(
    dataset: Path, tmp_path: Path, tiny_network: RestoreRWKV
) -> None:
    for parameter in tiny_network.parameters():
        parameter.data.zero_()
    scaling = {name: task.scaling for name, task in TASKS.items()}
    save_weights(tmp_path / "w.safetensors", tiny_network, scaling=scaling, training={})
    restorer = Restorer(weights=tmp_path / "w.safetensors", device="cpu")
    out, found = bids_output(dataset), find_bids(dataset)
    write_dataset_files(out, found)
    for image in found.images:
        scale = 2.0 if image.modality == "MR" else None
        target = out / bids_target(image.path.name, scale)
        plane: PlaneChoice = "axial" if image.modality == "PT" else "auto"
        options = RestoreOptions(force=True, consistency=0, scale=scale, plane=plane)
        restored = restorer.file(image.path, target, options)
        assert restored.record is not None
        write_bids_sidecar(image.path, target, record_values(restored.record))
    assert nib.load(target).shape == (32, 32, 3, 2)
    assert issues(out) == {"error": set(), "warning": set(), "ignore": set()}


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is absent")
@pytest.mark.slow
def test_a_kill_between_an_image_and_its_sidecar_is_corrected_by_writing_it(dataset: Path) -> None:
    out = write_derivative(dataset)
    target = out / bids_target(Path(RUN_1).name)
    sidecar = target.with_name(target.name.replace(".nii.gz", ".json"))
    before = sidecar.read_text()
    sidecar.unlink()
    assert issues(out)["error"] == {"SIDECAR_KEY_REQUIRED SkullStripped"}
    write_bids_sidecar(dataset / RUN_1, target, RECORD)
    assert sidecar.read_text() == before
    assert issues(out)["error"] == set()
