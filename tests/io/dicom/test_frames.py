"""Enhanced multi-frame files: every frame with its own place and slope, or refused by name."""

from __future__ import annotations

import copy
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedPETImage
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import PositronEmissionTomographyImageStorage, generate_uid

from restore_rwkv.errors import InputError
from restore_rwkv.io import DicomSource, Volume, read_volume
from tests.helpers.derivable_series import write_source
from tests.helpers.dicom_folders import enhanced, item
from tests.helpers.synthetic_series import (
    NORMAL,
    ORIGIN,
    SLICES,
    SPACING,
    STEP,
    lps,
    make_slice,
    save,
    slope_of,
    stored_slice,
)


def read(dataset: Dataset, tmp_path: Path) -> Volume:
    save(dataset, tmp_path / "enhanced.dcm")
    return read_volume(tmp_path / "enhanced.dcm")


def check_slices(volume: Volume, slices: int = SLICES) -> None:
    assert volume.data.shape[2] == slices
    for k in range(slices):
        np.testing.assert_allclose(lps(volume, 0, 0, k), ORIGIN + k * STEP * NORMAL, atol=1e-8)
        np.testing.assert_array_equal(volume.data[..., k].T, stored_slice(k) * slope_of(k) + k)


@pytest.mark.parametrize(("modality", "unit"), [("MR", "a.u."), ("CT", "HU"), ("PT", "a.u.")])
def test_each_frame_has_its_place_and_its_slope(tmp_path: Path, modality: str, unit: str) -> None:
    volume = read(enhanced(modality), tmp_path)
    assert (volume.modality, volume.unit) == (modality, unit)
    np.testing.assert_allclose(volume.spacing, (SPACING[1], SPACING[0], STEP), rtol=1e-8)
    check_slices(volume)
    assert isinstance(volume.source, DicomSource)
    assert volume.source.frames == (3, 2, 1, 0)
    assert volume.source.files == (tmp_path / "enhanced.dcm",)
    assert len(volume.source.sop_instance_uids) == 1


def test_agrees_with_highdicom(tmp_path: Path) -> None:
    volume = read(enhanced(), tmp_path)
    peer = highdicom.Image.from_file(tmp_path / "enhanced.dcm").get_volume(
        apply_presentation_lut=False
    )
    for index in np.ndindex(volume.data.shape):
        there = peer.inverse_affine @ [*lps(volume, *index), 1]
        np.testing.assert_allclose(there, there.round(), atol=1e-6)
        assert peer.array[tuple(there[:3].round().astype(int))] == volume.data[index]


def test_one_frame_is_one_slice(tmp_path: Path) -> None:
    volume = read(enhanced(slices=1), tmp_path)
    check_slices(volume, 1)
    np.testing.assert_allclose(volume.spacing, (SPACING[1], SPACING[0], STEP), rtol=1e-8)
    assert isinstance(volume.source, DicomSource)
    assert volume.source.frames == (0,)
    assert volume.source.findings == ()


@pytest.mark.parametrize("kept", [True, False])
def test_all_groups_may_stand_with_the_frames(tmp_path: Path, kept: bool) -> None:
    dataset = enhanced()
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        for group in dataset.SharedFunctionalGroupsSequence[0]:
            frame[group.tag] = copy.deepcopy(group)
    if kept:
        dataset.SharedFunctionalGroupsSequence = Sequence([])
    else:
        del dataset.SharedFunctionalGroupsSequence
    check_slices(read(dataset, tmp_path))


def test_several_files_of_one_frame_are_one_series(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for k in range(SLICES):
        dataset = enhanced(slices=SLICES)
        frame = dataset.PerFrameFunctionalGroupsSequence[SLICES - 1 - k]
        dataset.PerFrameFunctionalGroupsSequence = Sequence([frame])
        dataset.NumberOfFrames, dataset.PixelData = 1, stored_slice(k).tobytes()
        save(dataset, tmp_path / "series" / f"{5 - k}.dcm")
    volume = read_volume(tmp_path / "series")
    check_slices(volume)
    assert isinstance(volume.source, DicomSource)
    assert (volume.source.frames, len(volume.source.files)) == ((0, 0, 0, 0), SLICES)


def test_a_gap_is_refused(tmp_path: Path) -> None:
    dataset = enhanced()
    frame = dataset.PerFrameFunctionalGroupsSequence[0]
    frame.PlanePositionSequence[0].ImagePositionPatient = [
        f"{x:.10g}" for x in ORIGIN + 9 * STEP * NORMAL
    ]
    reason = r"^enhanced.dcm: 6 slice\(s\) missing, .* frame 2 and frame 1"
    with pytest.raises(InputError, match=reason):
        read(dataset, tmp_path)


def test_several_stacks_are_refused_by_name(tmp_path: Path) -> None:
    dataset = enhanced()
    for i, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence = Sequence([item(StackID=str(i // 2))])
    with pytest.raises(InputError, match=r"^enhanced.dcm: 2 stacks of slices \(StackID 0, 1\); ex"):
        read(dataset, tmp_path)


@pytest.mark.parametrize(
    ("group", "keyword", "values"),
    [
        ("FrameContentSequence", "TemporalPositionIndex", (1, 2)),
        ("MREchoSequence", "EffectiveEchoTime", (4.5, 9.0)),
        ("MRDiffusionSequence", "DiffusionBValue", (0.0, 800.0)),
        ("MRImageFrameTypeSequence", "ComplexImageComponent", ("MAGNITUDE", "PHASE")),
    ],
)
def test_several_images_at_each_position_are_refused_by_name(
    tmp_path: Path, group: str, keyword: str, values: tuple[object, object]
) -> None:
    dataset = enhanced()
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    both = []
    for value in values:
        for frame in copy.deepcopy(frames):
            setattr(frame, group, Sequence([item(**{keyword: value})]))
            both.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(both)
    dataset.NumberOfFrames = len(both)
    dataset.PixelData = dataset.PixelData * 2
    reason = rf"^enhanced.dcm: frame 4 and frame 8 lie at the same position; {keyword} separates 2"
    with pytest.raises(InputError, match=reason):
        read(dataset, tmp_path)


def test_frames_without_their_groups_are_refused(tmp_path: Path) -> None:
    dataset = enhanced()
    del dataset.PerFrameFunctionalGroupsSequence[0]
    with pytest.raises(
        InputError, match=r"^enhanced.dcm: has 4 frames, but functional groups of 3"
    ):
        read(dataset, tmp_path)


def test_fewer_pixels_than_frames_are_refused(tmp_path: Path) -> None:
    dataset = enhanced()
    dataset.PixelData = dataset.PixelData[:-70]
    with pytest.raises(InputError, match=r"^enhanced.dcm: "):
        read(dataset, tmp_path)


def test_several_multi_frame_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for name in ("a", "b"):
        dataset = enhanced()
        save(dataset, tmp_path / "series" / name)
    with pytest.raises(InputError, match=r"^a: one of several multi-frame files"):
        read_volume(tmp_path / "series")


@pytest.mark.parametrize(
    ("code", "factor", "unit"),
    [
        ("Bq/ml", 1.0, "Bq/ml"),
        ("{SUVbw}g/ml", 1.0, "SUV"),
        ("Bq/ml", 2.0, "a.u."),
        ("mm", 1, "a.u."),
    ],
)
def test_a_map_that_is_the_rescaling_gives_the_unit_of_pet(
    tmp_path: Path, code: str, factor: float, unit: str
) -> None:
    dataset = enhanced("PT")
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        values = frame.PixelValueTransformationSequence[0]
        mapping = item(
            RealWorldValueSlope=factor * float(values.RescaleSlope),
            RealWorldValueIntercept=float(values.RescaleIntercept),
            MeasurementUnitsCodeSequence=Sequence([item(CodeValue=code)]),
        )
        frame.RealWorldValueMappingSequence = Sequence([mapping])
    volume = read(dataset, tmp_path)
    assert volume.unit == unit
    check_slices(volume)


def test_legacy_converted_pet_is_read_as_its_slices(tmp_path: Path) -> None:
    (tmp_path / "classic").mkdir()
    for k in range(SLICES):
        dataset = make_slice(k)
        dataset.SOPClassUID = PositronEmissionTomographyImageStorage
        dataset.Modality, dataset.Units, dataset.SeriesType = "PT", "BQML", ["WHOLE BODY", "IMAGE"]
        dataset.PatientID, dataset.PatientName = "T1", "Test^Person"
        dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = ""
        dataset.StudyID, dataset.ReferringPhysicianName, dataset.Manufacturer = "1", "", "X"
        dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "20200101"
        dataset.AcquisitionDate = "20200101"
        dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = "100000"
        dataset.ContentTime, dataset.PositionReferenceIndicator = "100000", ""
        dataset.ImageType = ["ORIGINAL", "PRIMARY"]
        dataset.FrameReferenceTime, dataset.RescaleIntercept = 0, 0
        dataset.BurnedInAnnotation = "NO"
        save(dataset, tmp_path / "classic" / f"{k}.dcm")
    classic = read_volume(tmp_path / "classic")
    slices = [pydicom.dcmread(file) for file in sorted((tmp_path / "classic").iterdir())]
    legacy = LegacyConvertedEnhancedPETImage(slices, generate_uid(), 9, generate_uid(), 1)
    legacy.save_as(tmp_path / "legacy.dcm")
    volume = read_volume(tmp_path / "legacy.dcm")
    np.testing.assert_array_equal(volume.data, classic.data)
    np.testing.assert_allclose(np.asarray(volume.affine), np.asarray(classic.affine), atol=1e-8)
    assert (volume.modality, volume.unit) == (classic.modality, classic.unit) == ("PT", "Bq/ml")


@pytest.mark.parametrize("frames", [3, 2_000_000_000])
def test_frames_without_groups_of_their_own_are_refused_at_once(
    tmp_path: Path, frames: int
) -> None:
    def claim(image: Dataset) -> None:
        del image.PerFrameFunctionalGroupsSequence
        image.NumberOfFrames = frames

    source = write_source(tmp_path / "in", "enhanced MR", claim)
    with pytest.raises(InputError, match=f"has {frames} frames without a position of their own"):
        read_volume(source)


def test_a_part_of_a_concatenation_is_refused(tmp_path: Path) -> None:
    def part(image: Dataset) -> None:
        image.InConcatenationNumber, image.InConcatenationTotalNumber = 1, 3

    with pytest.raises(InputError, match="one part of an image that was cut into several"):
        read_volume(write_source(tmp_path / "in", "enhanced MR", part))
