"""What the files beside an image, and its name, say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from restore_rwkv.io.record import FORMAT
from restore_rwkv.io.sidecar import _OF_TASK, read_sidecar
from restore_rwkv.tasks import TASKS


def test_records_know_the_modality_of_every_task() -> None:
    assert {name: task.modality for name, task in TASKS.items()} == _OF_TASK


NAMES = [
    ("sub-01_T1w.nii.gz", "MR", None),
    ("sub-01_ses-a_acq-x.y_FLAIR.nii", "MR", None),
    ("sub-01_task-rest_bold.nii.gz", "MR", None),
    ("sub-01_pet.nii.gz", "PT", None),
    ("sub-01_ct.nii.gz", "CT", None),
    ("T1w.nii.gz", None, None),  # of no subject
    ("head.nii.gz", None, None),
    ("sub-01_T1map.nii.gz", None, "derived-map"),
    ("sub-01_phasediff.nii.gz", None, "phase"),
    ("sub-01_part-phase_bold.nii.gz", "MR", "phase"),
    ("sub-01_part-mag_bold.nii.gz", "MR", None),
    ("sub-01_dseg.nii.gz", None, "label-map"),
    ("sub-01_desc-brain_mask.nii.gz", None, "label-map"),
    ("my_mask_T1w.nii.gz", "MR", None),
]


@pytest.mark.parametrize(("name", "modality", "kind"), NAMES)
def test_a_name_of_bids_says_what_an_image_is(
    tmp_path: Path, name: str, modality: str | None, kind: str | None
) -> None:
    beside = read_sidecar(tmp_path / name)
    assert (beside.modality, beside.unit) == (modality, None)
    assert [(f.level, f.kind) for f in beside.findings] == ([("unfit", kind)] if kind else [])


def test_a_stated_modality_counts_more_than_a_name(tmp_path: Path) -> None:
    (tmp_path / "a_T1w.json").write_text('{"Modality": "CT"}')
    assert read_sidecar(tmp_path / "a_T1w.nii.gz").modality == "CT"


def test_a_pet_image_by_its_name_has_the_unit_beside_it(tmp_path: Path) -> None:
    (tmp_path / "sub-01_pet.json").write_text('{"Units": "Bq/mL"}')
    beside = read_sidecar(tmp_path / "sub-01_pet.nii.gz")
    assert (beside.modality, beside.unit) == ("PT", "Bq/ml")
    (tmp_path / "sub-01_T1w.json").write_text('{"Units": "Bq/mL"}')
    assert read_sidecar(tmp_path / "sub-01_T1w.nii.gz").unit is None


@pytest.mark.parametrize("kind", ["restoration", "degradation"])
def test_a_record_without_modality_has_that_of_its_task(tmp_path: Path, kind: str) -> None:
    record = {"format": FORMAT, "task": "mri-sr", "modality": None}
    (tmp_path / f"a.{kind}.json").write_text(json.dumps(record))
    assert read_sidecar(tmp_path / "a.nii.gz").modality == "MR"
    (tmp_path / f"a.{kind}.json").write_text(json.dumps(record | {"format": "of another"}))
    assert read_sidecar(tmp_path / "a.nii.gz").modality is None


def test_an_image_with_a_record_of_its_restoration_is_restored_already(tmp_path: Path) -> None:
    (tmp_path / "a.restoration.json").write_text(json.dumps({"format": FORMAT, "task": "mri-sr"}))
    (tmp_path / "b.degradation.json").write_text(json.dumps({"format": FORMAT, "task": "mri-sr"}))
    (finding,) = read_sidecar(tmp_path / "a.nii.gz").findings
    assert (finding.level, finding.kind) == ("unfit", "already-restored")
    assert "a.restoration.json beside it" in finding.text
    assert read_sidecar(tmp_path / "b.nii.gz").findings == ()


FIELDS: list[tuple[dict[str, Any], list[str]]] = [
    ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}, []),
    ({"ImageType": "ORIGINAL"}, []),
    ({"DeepLearning": False}, []),
    ({"DeepLearning": True}, ["deep-learning"]),
    ({"DeepLearningDetails": "0.75\\High"}, ["deep-learning"]),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, ["phase"]),
    ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, ["derived-map"]),
    (
        {"ImageTypeText": ["ORIGINAL", "PRIMARY", "M", "DRG", "DRS"], "DeepLearning": True},
        ["deep-learning"],
    ),
]


@pytest.mark.parametrize(("record", "kinds"), FIELDS)
def test_the_fields_of_dcm2niix_say_what_an_image_is(
    tmp_path: Path, record: dict[str, Any], kinds: list[str]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(record))
    assert [finding.kind for finding in read_sidecar(tmp_path / "a.nii").findings] == kinds
