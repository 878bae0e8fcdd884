"""BIDS datasets: which images are found, what is left out and refused, names of the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from restore_rwkv.batch.bids import bids_metadata, bids_target, find_bids
from restore_rwkv.errors import InputError
from tests.helpers.bids_datasets import DESCRIPTION, write_dataset, write_image, write_json

RUN_1 = "sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "raw")


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
