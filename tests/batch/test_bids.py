"""BIDS datasets: what is found, names and metadata of the results, and the official validator."""

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
from restore_rwkv.batch.bids import bids_metadata, bids_target, find_bids
from restore_rwkv.batch.bids_derivative import bids_output, write_bids_sidecar, write_dataset_files
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


def test_images_are_found_and_the_others_are_counted(dataset: Path) -> None:
    write_image(dataset / "derivatives/other/sub-01/anat/sub-01_T1w.nii.gz")
    write_image(dataset / "sourcedata/sub-01/anat/sub-01_T1w.nii.gz")
    write_image(dataset / ".git/sub-01/anat/sub-01_T1w.nii.gz")
    for name in (
        "anat/sub-02_part-phase_T2w.nii.gz",
        "anat/sub-02_part-mag_T2w.nii.gz",
        "anat/sub-02_T1map.nii.gz",
        "anat/sub-02_T1w.mgz",
        "anat/old scan.nii.gz",
        "anat/.sub-02_T1w-01234567.partial.nii.gz",
        "dwi/sub-02_dwi.nii.gz",
        "dwi/sub-02_dwi.bval",
        "func/sub-02_task-rest_T1w.nii.gz",
        "meg/sub-02_task-rest_meg.ds/sub-02_T1w.nii.gz",
    ):
        (dataset / "sub-02" / name).parent.mkdir(parents=True, exist_ok=True)
        (dataset / "sub-02" / name).write_bytes(b"any")
    found = find_bids(dataset)
    assert [(image.name, image.modality, image.refusal) for image in found.images] == [
        (RUN_1, "MR", None),
        ("sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz", "MR", None),
        ("sub-01/ses-b/anat/sub-01_ses-b_run-1_T1w.nii.gz", "MR", None),
        ("sub-01/ses-b/anat/sub-01_ses-b_run-2_T1w.nii.gz", "MR", None),
        ("sub-02/anat/sub-02_FLAIR.nii", "MR", None),
        ("sub-02/anat/sub-02_part-mag_T2w.nii.gz", "MR", None),
        ("sub-02/pet/sub-02_pet.nii.gz", "PT", None),
    ]
    assert found.left_out == {
        "(not a name of BIDS)": 1,
        "T1map": 1,
        "T1w (.mgz)": 1,
        "T1w (in func/)": 1,
        "T2w (part-phase)": 1,
        "bold": 2,
        "dwi": 1,
        "events": 2,
        "meg": 1,
    }


def test_images_of_bidsignore_are_left_out_but_not_ct_for_being_ct(dataset: Path) -> None:
    write_image(dataset / "sub-01/ct/sub-01_ct.nii.gz")
    write_image(dataset / "sub-02/ct/sub-02_ct.nii.gz")
    (dataset / ".bidsignore").write_text("# CT\n**/ct\n*_ct.*\n\nsub-02/\nses-b\n")
    found = find_bids(dataset)
    names = [image.name for image in found.images]
    assert names == ["sub-01/ct/sub-01_ct.nii.gz", RUN_1, RUN_1.replace("run-1", "run-2")]
    # Of sub-02: FLAIR, pet, ct; of session b: two images, bold and events.
    assert found.left_out == {"(in .bidsignore)": 7, "bold": 1, "events": 1}


@pytest.mark.parametrize(
    ("link", "remedy"),
    [
        ("../../.git/annex/objects/Xw/F1/MD5E-s3--0.nii.gz/MD5E-s3--0.nii.gz", "`datalad get"),
        ("nowhere.nii.gz", "a link to a file that is not there"),
    ],
)
def test_a_link_to_nothing_is_refused_with_the_remedy(
    dataset: Path, link: str, remedy: str
) -> None:
    image = dataset / RUN_1
    image.unlink()
    image.symlink_to(link)
    first, *others = find_bids(dataset).images
    assert first.refusal is not None
    assert first.refusal.startswith(RUN_1)
    assert remedy in first.refusal
    assert {image.refusal for image in others} == {None}


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/annex/objects/MD5E-s3--0123.nii.gz\n", "datalad get"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 3\n", "git lfs pull -I"),
    ],
)
def test_a_pointer_in_the_place_of_an_image_is_refused(
    dataset: Path, text: str, command: str
) -> None:
    (dataset / RUN_1).write_text(text)
    refusal = find_bids(dataset).images[0].refusal
    assert refusal == f"{RUN_1}: its content is not here; fetch it with `{command} {RUN_1}`"


def test_a_link_to_content_that_is_there_is_read_where_it_stands(dataset: Path) -> None:
    image = dataset / RUN_1
    content = dataset / ".git/annex/objects/MD5E-s3--0.nii.gz"
    content.parent.mkdir(parents=True)
    image.rename(content)
    image.symlink_to(content)
    found = find_bids(dataset).images[0]
    assert (found.path, found.refusal) == (image, None)
    assert bids_metadata(found.path)["EchoTime"] == 0.004


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (RUN_1.replace(".nii.gz", ".json"), "{", "not readable JSON"),
        (RUN_1.replace(".nii.gz", ".json"), "[]", "not a JSON object"),
        (RUN_1.replace(".nii.gz", ".json"), '{"EchoTime": NaN}', "not readable JSON"),
        (RUN_1.replace(".nii.gz", ".json"), "[" * 100_000, "not readable JSON"),
        ("acq-x_T1w.json", "{}", None),  # of other images
        ("run-1_T1w.json", "{}", "which BIDS forbids"),  # as T1w.json beside it
    ],
)
def test_metadata_that_cannot_be_trusted_refuses_its_images_only(
    dataset: Path, file: str, text: str, says: str | None
) -> None:
    (dataset / file).write_text(text)
    first, second, *_ = find_bids(dataset).images
    assert (first.refusal is None) if says is None else (says in (first.refusal or ""))
    assert second.refusal is None


def test_names_that_contradict_their_place_or_each_other_are_refused(dataset: Path) -> None:
    write_image(dataset / "sub-02/anat/sub-03_T1w.nii.gz")
    write_image(dataset / "sub-02/anat/sub-02_desc-x_T1w.nii.gz")
    write_image(dataset / "sub-02/anat/sub-02_FLAIR.nii.gz")
    refused = {i.path.name: i.refusal for i in find_bids(dataset).images if i.refusal is not None}
    assert set(refused) == {
        "sub-03_T1w.nii.gz",
        "sub-02_desc-x_T1w.nii.gz",
        "sub-02_FLAIR.nii",
        "sub-02_FLAIR.nii.gz",
    }
    assert "folders" in refused["sub-03_T1w.nii.gz"]
    assert "of a processed image" in refused["sub-02_desc-x_T1w.nii.gz"]
    assert "is there twice" in refused["sub-02_FLAIR.nii"]
    assert not any("\n" in text for text in refused.values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "not a BIDS dataset"),
        ("{", "not readable JSON"),
        ("[1]", "not a JSON object"),
        ('{"DatasetType": "derivative"}', "is a derivative dataset"),
        ('{"PipelineDescription": {}}', "is a derivative dataset"),
        ('{"GeneratedBy": [{"Name": "fMRIPrep"}]}', "may be a derivative dataset"),
        ('{"DatasetType": "study"}', "sourcedata/"),
        ('{"DatasetType": 3}', "DatasetType 3 is unknown"),
    ],
)
def test_a_folder_that_is_not_a_raw_dataset_is_refused(
    dataset: Path, text: str | None, says: str
) -> None:
    description = dataset / "dataset_description.json"
    description.unlink()
    if text is not None:
        description.write_text(text)
    with pytest.raises(InputError, match=says):
        find_bids(dataset)


def test_a_dataset_without_subjects_or_a_file_is_refused(dataset: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "empty/dataset_description.json", DESCRIPTION)
    with pytest.raises(InputError, match="no data of subjects"):
        find_bids(tmp_path / "empty")
    for path in (tmp_path / "absent", dataset / "participants.tsv"):
        with pytest.raises(InputError, match="no such folder"):
            find_bids(path)


NAMES = [
    (RUN_1, None, "sub-01/ses-a/anat/sub-01_ses-a_run-1_desc-restored_T1w.nii.gz"),
    ("sub-01_FLAIR.nii", None, "sub-01/anat/sub-01_desc-restored_FLAIR.nii.gz"),
    ("sub-a+b_trc-FDG_pet.nii.gz", None, "sub-a+b/pet/sub-a+b_trc-FDG_desc-restored_pet.nii.gz"),
    ("sub-01_ct.nii.gz", None, "sub-01/ct/sub-01_desc-restored_ct.nii.gz"),
    ("sub-01_T1w.nii", 2.0, "sub-01/anat/sub-01_res-2x_desc-restored_T1w.nii.gz"),
    ("sub-01_T1w.nii", 1.5, "sub-01/anat/sub-01_res-1p5x_desc-restored_T1w.nii.gz"),
]


@pytest.mark.parametrize(("name", "scale", "target"), NAMES)
def test_a_result_keeps_the_entities_of_its_source_in_order(
    name: str, scale: float | None, target: str
) -> None:
    assert bids_target(Path(name).name, scale).as_posix() == target


@pytest.mark.parametrize(
    "name", ["head.nii.gz", "T1w.nii.gz", "ses-a_T1w.nii", "sub-01_bold.nii.gz", "sub-1_sub-2_T1w"]
)
def test_other_names_have_no_result(name: str) -> None:
    with pytest.raises(InputError, match="not the name of an image of BIDS"):
        bids_target(name)


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
