"""DICOM series: exact values, an affine that agrees with the positions, refusals by name."""

from __future__ import annotations

import logging
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from restore_rwkv.errors import InputError
from restore_rwkv.io import DicomSource, read_volume, write_volume
from tests.helpers.synthetic_series import (
    COLUMN,
    COLUMNS,
    NORMAL,
    ORIGIN,
    ROW,
    ROWS,
    SLICES,
    SPACING,
    STEP,
    Change,
    SeriesWriter,
    change_third,
    lps,
    make_slice,
    save,
    slope_of,
    stored_slice,
)


def test_oblique_series_with_a_slope_for_each_slice(write_series: SeriesWriter) -> None:
    volume = read_volume(write_series())
    assert volume.data.shape == (COLUMNS, ROWS, SLICES)
    assert (volume.unit, volume.modality) == ("HU", "CT")
    for k in range(SLICES):
        expected = stored_slice(k) * slope_of(k) - 10 - k  # exact in float32
        np.testing.assert_array_equal(volume.data[..., k].T, expected)
    np.testing.assert_allclose(volume.spacing, (SPACING[1], SPACING[0], STEP), rtol=1e-8)


def test_corner_voxels_lie_where_the_files_say(write_series: SeriesWriter) -> None:
    volume = read_volume(write_series())
    assert isinstance(volume.source, DicomSource)
    for k, file in enumerate(volume.source.files):
        header = pydicom.dcmread(file)
        corner = np.array(header.ImagePositionPatient, float)
        np.testing.assert_allclose(lps(volume, 0, 0, k), corner, atol=1e-8)
        # The opposite corner, from the standard's equation C.7.6.2.1-1.
        opposite = corner + ROW * SPACING[1] * (COLUMNS - 1) + COLUMN * SPACING[0] * (ROWS - 1)
        np.testing.assert_allclose(lps(volume, COLUMNS - 1, ROWS - 1, k), opposite, atol=1e-8)
        assert header.InstanceNumber == k + 1


def test_agrees_with_highdicom_at_every_voxel(write_series: SeriesWriter) -> None:
    folder = write_series()
    volume = read_volume(folder)
    peer = highdicom.get_volume_from_series(
        [pydicom.dcmread(file) for file in folder.iterdir()], apply_presentation_lut=False
    )
    for index in np.ndindex(volume.data.shape):
        there = nibabel.affines.apply_affine(peer.inverse_affine, lps(volume, *index))
        np.testing.assert_allclose(there, there.round(), atol=1e-6)
        assert peer.array[tuple(there.round().astype(int))] == volume.data[index]


def test_nifti_of_a_series(write_series: SeriesWriter, tmp_path: Path) -> None:
    volume = read_volume(write_series())
    write_volume(volume, tmp_path / "out.nii.gz")
    out = nibabel.load(tmp_path / "out.nii.gz")
    assert (int(out.header["qform_code"]), int(out.header["sform_code"])) == (1, 1)
    assert out.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(out.get_fdata(dtype=np.float32), volume.data)
    np.testing.assert_allclose(out.affine, volume.affine, atol=1e-5)  # float32 in the header
    np.testing.assert_allclose(out.get_qform(), volume.affine, atol=1e-5)


def test_source_type_needs_one_slope_for_all_slices(
    write_series: SeriesWriter, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no source type"):
        write_volume(read_volume(write_series()), tmp_path / "out.nii", dtype="source")

    def same(k: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024

    volume = read_volume(write_series(same))
    write_volume(volume, tmp_path / "out.nii", dtype="source")
    out = nibabel.load(tmp_path / "out.nii")
    assert (out.get_data_dtype(), out.dataobj.slope, out.dataobj.inter) == (np.int16, 2, -1024)
    np.testing.assert_array_equal(out.get_fdata(), volume.data)


def test_inverted_display_does_not_change_values(write_series: SeriesWriter) -> None:
    def inverted(k: int, dataset: Dataset) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    plain = read_volume(write_series()).data
    np.testing.assert_array_equal(read_volume(write_series(inverted)).data, plain)


def test_one_file_is_one_slice(write_series: SeriesWriter) -> None:
    folder = write_series(slices=(2,))
    volume = read_volume(next(folder.iterdir()))
    assert volume.data.shape == (COLUMNS, ROWS, 1)
    np.testing.assert_allclose(lps(volume, 0, 0, 0), ORIGIN + 2 * STEP * NORMAL, atol=1e-8)
    assert volume.spacing == pytest.approx((SPACING[1], SPACING[0], 9.0))  # its thickness


@pytest.mark.parametrize(
    ("modality", "units", "unit"),
    [("PT", "BQML", "Bq/ml"), ("PT", "GML", "SUV"), ("PT", "CNTS", "a.u."), ("MR", None, "a.u.")],
)
def test_units(write_series: SeriesWriter, modality: str, units: str | None, unit: str) -> None:
    def change(k: int, dataset: Dataset) -> None:
        dataset.Modality, dataset.Units = modality, units

    volume = read_volume(write_series(change))
    assert (volume.modality, volume.unit) == (modality, unit)


@pytest.mark.parametrize(("told", "modality"), [("NM", "NM"), ("OT", None), ("", None)])
def test_other_modality_has_no_unit(
    write_series: SeriesWriter, told: str, modality: str | None
) -> None:
    volume = read_volume(write_series(lambda k, dataset: setattr(dataset, "Modality", told)))
    assert (volume.modality, volume.unit) == (modality, None)


def test_empty_identifiers_are_reported_and_read(
    write_series: SeriesWriter, caplog: pytest.LogCaptureFixture
) -> None:
    def without(k: int, dataset: Dataset) -> None:
        for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, keyword, "")

    with caplog.at_level(logging.WARNING):
        assert read_volume(write_series(without)).data.shape[2] == SLICES
    assert "SOPClassUID, SOPInstanceUID, SeriesInstanceUID missing" in caplog.text


def test_bytes_after_the_pixels_are_ignored(
    write_series: SeriesWriter, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_series()
    expected = read_volume(folder).data
    for file, tail in zip(sorted(folder.iterdir()), (bytes(5000), b"\x07" * 5000), strict=False):
        file.write_bytes(file.read_bytes() + tail)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read_volume(folder).data, expected)
    assert caplog.text.count("trailing data after the pixels") == 2


def test_other_files_in_the_folder_are_ignored(
    write_series: SeriesWriter, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_series()
    (folder / "README.txt").write_text("no DICOM")
    report = make_slice(0)
    del report.Rows
    save(report, folder / "report.dcm")
    with caplog.at_level(logging.WARNING):
        assert read_volume(folder).data.shape[2] == SLICES
    assert "ignored 2 file(s) that are not DICOM images" in caplog.text


def test_several_series_are_listed_and_one_can_be_chosen(write_series: SeriesWriter) -> None:
    folder = write_series()
    for k in range(2):
        other = make_slice(k)
        other.SeriesInstanceUID, other.SeriesNumber = "1.2.3.9", 8
        other.SeriesDescription = "localizer"
        save(other, folder / f"other{k}.dcm")
    with pytest.raises(InputError) as caught:
        read_volume(folder)
    text = str(caught.value)
    assert text.startswith("series: 2 series")
    assert "7 (CT oblique, 4 files)" in text
    assert "8 (CT localizer, 2 files)" in text
    for chosen in (8, "8", "1.2.3.9"):
        assert read_volume(folder, series=chosen).data.shape[2] == 2
    with pytest.raises(InputError, match=r"none of its series is 9"):
        read_volume(folder, series=9)


@pytest.mark.parametrize(
    ("change", "slices", "reason"),
    [
        (change_third(SamplesPerPixel=3), (0, 1, 2), "colour"),
        (change_third(PhotometricInterpretation="PALETTE COLOR"), (0, 1, 2), "colour"),
        (change_third(NumberOfFrames=2), (0, 1, 2), "multi-frame"),
        (change_third(NumberOfFrames=2), (2,), "without their positions"),
        (
            change_third(PixelData=b"12345678"),
            (0, 1, 2),
            "holds 8 bytes of pixels, and its header says 70",
        ),
        (change_third(RescaleSlope="1e300"), (0, 1, 2), "not finite"),
    ],
)
def test_images_that_cannot_be_used_are_refused(
    write_series: SeriesWriter, change: Change, slices: tuple[int, ...], reason: str
) -> None:
    folder = write_series(change, slices=slices)
    with pytest.raises(InputError, match=reason):
        read_volume(folder)


def test_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder is empty"):
        read_volume(tmp_path)
    (tmp_path / "notes.txt").write_text("x" * 200)
    (tmp_path / "deeper").mkdir()
    with pytest.raises(InputError, match="no DICOM images here"):
        read_volume(tmp_path)
    (tmp_path / "text.dcm").write_text("x" * 200)
    with pytest.raises(InputError, match="not a DICOM file"):
        read_volume(tmp_path / "text.dcm")


@pytest.mark.parametrize("keep", [140, 300, 700, -10])
def test_truncated_file_is_refused(write_series: SeriesWriter, keep: int) -> None:
    file = next(write_series(slices=(0,)).iterdir())
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"^{file.name}: "):
        read_volume(file)


def one_slice_finding(path: Path) -> str:
    volume = read_volume(path)
    assert volume.source is not None
    return " ".join(
        finding.text for finding in volume.source.findings if finding.kind == "one-slice"
    )


def test_one_slice_of_a_series_says_so_if_the_files_do(
    write_series: SeriesWriter, tmp_path: Path
) -> None:
    folder = write_series()
    file = sorted(folder.iterdir())[0]
    said = "one slice of a series whose other files lie beside it; give the folder of the series"
    assert one_slice_finding(file) == said
    assert one_slice_finding(folder) == ""
    (tmp_path / "apart").mkdir()
    file = file.rename(tmp_path / "apart" / file.name)
    save(other := make_slice(1), tmp_path / "apart" / "other.dcm")
    assert one_slice_finding(file) == said
    other.SeriesInstanceUID = "1.2.3.9"
    save(other, tmp_path / "apart" / "other.dcm")
    assert one_slice_finding(file) == ""


def test_one_slice_of_an_acquisition_says_so(write_series: SeriesWriter) -> None:
    def acquired(k: int, dataset: Dataset) -> None:
        dataset.ImagesInAcquisition = 36

    folder = write_series(acquired, slices=(1,))
    assert one_slice_finding(folder) == (
        "one slice of an acquisition of 36; give the folder of the series"
    )
    assert one_slice_finding(write_series(acquired)) == ""


def test_ct_without_rescaling_is_not_in_hu(write_series: SeriesWriter) -> None:
    def stored_only(k: int, dataset: Dataset) -> None:
        del dataset.RescaleSlope, dataset.RescaleIntercept

    volume = read_volume(write_series(stored_only))
    assert (volume.modality, volume.unit) == ("CT", "a.u.")
