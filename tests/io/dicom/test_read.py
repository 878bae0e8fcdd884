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
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage

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
        (change_third(PixelData=b"12345678"), (0, 1, 2), "cannot be decoded"),
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


def enhanced(slices: int = SLICES) -> Dataset:
    """Return an enhanced multi-frame MR object with the slices in falling order."""
    dataset = make_slice(0)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        delattr(dataset, keyword)
    dataset.SOPClassUID, dataset.Modality = EnhancedMRImageStorage, "MR"
    dataset.NumberOfFrames = slices
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [f"{x:.10g}" for x in (*ROW, *COLUMN)]
    measures.PixelSpacing = list(SPACING)
    measures.SpacingBetweenSlices = STEP
    measures.SliceThickness = STEP
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelMeasuresSequence = Sequence([measures])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames, pixels = [], b""
    for k in reversed(range(slices)):
        position, values, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [f"{x:.10g}" for x in ORIGIN + k * STEP * NORMAL]
        values.RescaleSlope, values.RescaleIntercept = slope_of(k), k
        values.RescaleType = "US"
        frame.PlanePositionSequence = Sequence([position])
        frame.PixelValueTransformationSequence = Sequence([values])
        frames.append(frame)
        pixels += stored_slice(k).tobytes()
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.PixelData = pixels
    return dataset


def test_enhanced_multi_frame_file(tmp_path: Path) -> None:
    save(enhanced(), tmp_path / "enhanced.dcm")
    volume = read_volume(tmp_path / "enhanced.dcm")
    assert (volume.modality, volume.unit) == ("MR", "a.u.")
    np.testing.assert_allclose(volume.spacing, (SPACING[1], SPACING[0], STEP), rtol=1e-8)
    start = lps(volume, 0, 0, 0)
    for index in range(SLICES):
        k = round(float((lps(volume, 0, 0, index) - ORIGIN) @ NORMAL / STEP))
        position = ORIGIN + k * STEP * NORMAL
        np.testing.assert_allclose(lps(volume, 0, 0, index), position, atol=1e-8)
        np.testing.assert_array_equal(volume.data[..., index].T, stored_slice(k) * slope_of(k) + k)
    assert np.linalg.norm(start - lps(volume, 0, 0, SLICES - 1)) > STEP


def test_enhanced_file_with_a_gap_is_refused(tmp_path: Path) -> None:
    dataset = enhanced()
    frame = dataset.PerFrameFunctionalGroupsSequence[0]
    frame.PlanePositionSequence[0].ImagePositionPatient = [
        f"{x:.10g}" for x in ORIGIN + 9 * STEP * NORMAL
    ]
    save(dataset, tmp_path / "enhanced.dcm")
    with pytest.raises(InputError, match=r"6 slice\(s\) missing, .* frame 2 and frame 1"):
        read_volume(tmp_path / "enhanced.dcm")
