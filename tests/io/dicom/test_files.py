"""Files of a DICOM series: their signature, their patient, and those that cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.files import is_dicom, patient_id, read_image
from restore_rwkv.io.dicom.folder import find_files
from tests.helpers.synthetic_series import make_slice, save


def test_dicom_is_known_by_its_signature(tmp_path: Path) -> None:
    save(make_slice(0), tmp_path / "slice")
    (tmp_path / "text").write_text("no image")
    (tmp_path / "empty").touch()
    assert is_dicom(tmp_path / "slice")
    assert not is_dicom(tmp_path / "text")
    assert not is_dicom(tmp_path / "empty")


def test_a_file_that_cannot_be_opened_is_not_overlooked(tmp_path: Path) -> None:
    assert is_dicom(tmp_path / "missing")
    with pytest.raises(OSError, match="missing"):
        find_files(tmp_path / "missing", read_image)


@pytest.mark.parametrize(("stored", "expected"), [(" A 1 ", "A 1"), ("", ""), (None, "")])
def test_patient_id(tmp_path: Path, stored: str | None, expected: str) -> None:
    dataset = make_slice(0)
    if stored is not None:
        dataset.PatientID = stored
    elif "PatientID" in dataset:
        del dataset.PatientID
    save(dataset, tmp_path / "slice")
    assert patient_id(tmp_path / "slice") == expected


def test_patient_of_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^missing: the DICOM header is damaged"):
        patient_id(tmp_path / "missing")
