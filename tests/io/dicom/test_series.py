"""Which series there are, which one is chosen, and copies of its files."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from restore_rwkv.errors import InputError
from restore_rwkv.io import read_volume
from restore_rwkv.io.dicom import find_series, read_dicom
from tests.helpers.synthetic_series import COLUMNS, ROWS, SLICES, SeriesWriter, make_slice, save


def other(modality: str, uid: str, number: int = 9, *, pixels: bool = True) -> Dataset:
    dataset = make_slice(0)
    dataset.Modality, dataset.SeriesInstanceUID, dataset.SeriesNumber = modality, uid, number
    if not pixels:
        del dataset.Rows, dataset.Columns, dataset.PixelData
    return dataset


def test_series_are_described_from_their_headers(write_series: SeriesWriter) -> None:
    folder = write_series()
    (folder / "deeper").mkdir()
    save(other("SR", "1.2.3.9", pixels=False), folder / "deeper" / "report")
    coded = other("MR", "1.2.3.8", number=3)
    coded.SeriesDescription = ""
    coded.PixelData = encapsulate([b"coded"])
    save(coded, folder / "deeper" / "coded", syntax=JPEG2000Lossless)
    mr, ct, report = find_series(folder)
    assert (ct.uid, ct.number, ct.description, ct.modality) == ("1.2.3.4", "7", "oblique", "CT")
    assert (ct.rows, ct.columns, len(ct.files), ct.is_image) == (ROWS, COLUMNS, SLICES, True)
    assert ct.transfer_syntaxes == ("1.2.840.10008.1.2.1",)
    assert (mr.number, mr.description, mr.transfer_syntaxes) == ("3", "", (JPEG2000Lossless,))
    assert (report.modality, report.is_image, report.rows) == ("SR", False, 0)
    assert report.files == (folder / "deeper" / "report",)


def test_a_folder_without_dicom_has_no_series(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x" * 200)
    assert find_series(tmp_path) == ()
    with pytest.raises(InputError, match="not a DICOM file"):
        find_series(tmp_path / "notes.txt")


def test_two_hundred_series_give_a_short_message(tmp_path: Path) -> None:
    for n in range(200):
        dataset = other("MR", f"1.2.3.{n}", number=n + 1)
        dataset.SeriesDescription = "a description of many words, as long as the standard allows it"
        save(dataset, tmp_path / f"{n}.dcm")
    with pytest.raises(InputError) as caught:
        read_dicom(tmp_path)
    text = str(caught.value)
    assert "200 series, 1 (MR a description" in text
    assert "; 8 (MR " in text
    assert "; 9 (MR " not in text
    assert "; ... and 192 more; choose one by series=NUMBER (or its UID)" in text
    assert len(text) < 800
    assert read_dicom(tmp_path, series=150).data.shape[2] == 1


@pytest.mark.parametrize("modality", ["SR", "RTSTRUCT", "PR", "KO"])
def test_reports_and_contours_are_not_series_to_choose_from(
    write_series: SeriesWriter, modality: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_series()
    save(other(modality, "1.2.3.9", pixels=False), folder / "other")
    with caplog.at_level(logging.WARNING):
        assert read_dicom(folder).data.shape[2] == SLICES
    assert "ignored 1 file(s) that are not DICOM images" in caplog.text
    with pytest.raises(InputError, match=r"none of its series is 9; choose one of 7 \(CT oblique"):
        read_dicom(folder, series=9)
    for file in folder.glob("*.dcm"):
        file.unlink()
    with pytest.raises(InputError, match=f"no DICOM images here, only {modality}; give the folder"):
        read_dicom(folder)


@pytest.mark.parametrize("modality", ["SEG", "RTDOSE"])
def test_labels_and_dose_are_not_series_to_choose_from(
    write_series: SeriesWriter, modality: str
) -> None:
    folder = write_series()
    save(other(modality, "1.2.3.9"), folder / "other")
    assert read_dicom(folder).data.shape[2] == SLICES


def test_one_number_twice_needs_the_uid(write_series: SeriesWriter) -> None:
    folder = write_series()
    save(other("CT", "1.2.3.9", number=7), folder / "other")
    with pytest.raises(InputError, match=r"7 \(CT oblique, 1 file, UID 1\.2\.3\.9\)"):
        read_dicom(folder)
    with pytest.raises(InputError, match=r"2 series are 7, .*; choose one by series='UID', its"):
        read_dicom(folder, series=7)
    assert read_dicom(folder, series="1.2.3.4").data.shape[2] == SLICES


def test_identical_copies_are_dropped_with_one_warning(
    write_series: SeriesWriter, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_series()
    expected = read_volume(folder)
    for file in sorted(folder.iterdir())[:3]:
        shutil.copy(file, folder / f"{file.stem} (1).dcm")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read_dicom(folder).data, expected.data)
    assert caplog.text.count("identical copies") == 1
    assert "ignored 3 identical copies of slices, the first IM" in caplog.text


def test_copies_with_another_preamble_are_copies(write_series: SeriesWriter) -> None:
    folder = write_series()
    expected = read_volume(folder)
    file = next(folder.iterdir())
    (folder / "copy").write_bytes(b"II*\0" + file.read_bytes()[4:])
    np.testing.assert_array_equal(read_dicom(folder).data, expected.data)


@pytest.mark.parametrize("changed", ["pixels", "slope"])
def test_copies_with_other_content_are_refused(write_series: SeriesWriter, changed: str) -> None:
    folder = write_series(slices=(0, 1, 2))
    dataset = make_slice(3)
    save(dataset, folder / "a.dcm")
    if changed == "pixels":
        dataset.PixelData = bytes(len(dataset.PixelData))
    else:
        dataset.RescaleSlope = 99
    save(dataset, folder / "b.dcm")
    with pytest.raises(InputError, match=r"^series: a.dcm and b.dcm have the same SOPInstanceUID"):
        read_dicom(folder)


def test_slices_that_share_an_instance_uid_are_kept_with_a_warning(
    write_series: SeriesWriter, caplog: pytest.LogCaptureFixture
) -> None:
    expected = read_volume(write_series())

    def shared(k: int, dataset: Dataset) -> None:
        dataset.SOPInstanceUID = "1.2.3.5"

    with caplog.at_level(logging.WARNING):
        volume = read_dicom(write_series(shared))
    np.testing.assert_array_equal(volume.data, expected.data)
    assert "3 slices have the SOPInstanceUID of another" in caplog.text
