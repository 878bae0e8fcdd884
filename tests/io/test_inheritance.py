"""Names of BIDS, and the JSON files that apply to an image by the inheritance principle."""

from __future__ import annotations

from pathlib import Path

import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.io.inheritance import bids_name, dataset_of, inherited_files

IMAGE = "sub-01/ses-a/anat/sub-01_ses-a_acq-x_run-1_T1w.nii.gz"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "sub-01/ses-a/anat").mkdir(parents=True)
    (tmp_path / "dataset_description.json").write_text("{}")
    return tmp_path


def test_a_name_has_its_parts_in_order() -> None:
    name = bids_name("sub-01_ses-a+b_run-1_T1w.nii.gz")
    assert name is not None
    assert list(name.entities.items()) == [("sub", "01"), ("ses", "a+b"), ("run", "1")]
    assert (name.suffix, name.extension) == ("T1w", ".nii.gz")
    assert str(name) == "sub-01_ses-a+b_run-1_T1w.nii.gz"


@pytest.mark.parametrize(
    "name",
    ["T1w", "sub-01_sub-02_T1w.nii", "sub-0.1_T1w.nii", "sub-_T1w.nii", "a b.nii", "sub-01_.nii"],
)
def test_other_names_have_none(name: str) -> None:
    assert bids_name(name) is None


def test_the_files_of_every_level_apply_and_those_of_other_images_do_not(dataset: Path) -> None:
    apply = [
        "acq-x_T1w.json",
        "sub-01/sub-01_T1w.json",
        "sub-01/ses-a/sub-01_ses-a_run-1_T1w.json",
        IMAGE.replace(".nii.gz", ".json"),
    ]
    others = [
        "acq-y_T1w.json",
        "T2w.json",
        "sub-01_T1w.json",  # in a place where BIDS has none
        "sub-01/sub-02_T1w.json",
        "sub-01/ses-a/sub-01_T1w.json",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.json",  # gives way to the one of this very image
        IMAGE.replace(".nii.gz", ".restoration.json"),
    ]
    for file in (*apply, *others):
        (dataset / file).write_text("{}")
    found = [path.relative_to(dataset).as_posix() for path in inherited_files(dataset / IMAGE)]
    assert found == apply


def test_two_files_of_one_folder_are_refused(dataset: Path) -> None:
    for file in ("acq-x_T1w.json", "run-1_T1w.json"):
        (dataset / file).write_text("{}")
    with pytest.raises(InputError, match=r"acq-x_T1w.json: applies to .* as run-1_T1w.json beside"):
        inherited_files(dataset / IMAGE)


def test_an_image_elsewhere_is_of_no_dataset(dataset: Path, tmp_path: Path) -> None:
    assert dataset_of(dataset / IMAGE) == dataset
    assert dataset_of(dataset / "sub-01/ses-b/anat/sub-01_ses-a_T1w.nii") is None
    assert dataset_of(dataset / "sub-01/ses-a/anat/head.nii") is None
    assert dataset_of(dataset / "sub-01/ses-a/anat/T1w.nii") is None
    (dataset / "dataset_description.json").unlink()
    assert dataset_of(dataset / IMAGE) is None
    assert inherited_files(dataset / IMAGE) == ()
