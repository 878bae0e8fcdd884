"""Headers of derived series: what validators do not check."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from restore_rwkv.errors import InputError
from restore_rwkv.io import DicomSource, Volume, read_volume
from restore_rwkv.io.dicom.derived import Derivation
from restore_rwkv.io.dicom.write import check_dicom_output, write_dicom
from restore_rwkv.io.volume import same_field_of_view
from tests.helpers.derivable_series import (
    CLASSIC,
    ENHANCED,
    KINDS,
    SLICES,
    Kind,
    classic,
    code,
    enhanced,
    of,
    save,
    write_source,
)

Derive = Callable[..., tuple[Volume, list[Dataset]]]

_KEPT = (
    "AccessionNumber",
    "AcquisitionDate",
    "BitsStored",
    "FrameOfReferenceUID",
    "Manufacturer",
    "Modality",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientWeight",
    "PixelRepresentation",
    "SOPClassUID",
    "SpecificCharacterSet",
    "StudyDate",
    "StudyID",
    "StudyInstanceUID",
    "StudyTime",
)


@pytest.fixture
def derive(tmp_path: Path, derivation: Derivation) -> Derive:
    """Return a function that makes a source, derives a series, and returns volume and headers."""

    def run(
        kind: Kind,
        change: Callable[[Dataset], None] = lambda dataset: None,
        factor: int = 1,
        **changes: object,
    ) -> tuple[Volume, list[Dataset]]:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        volume = read_volume(write_source(folder.with_name(f"{folder.name}-in"), kind, change))
        folder.mkdir()
        given = dataclasses.replace(derivation, **changes)
        assert volume.affine is not None
        data = volume.data.repeat(factor, 0).repeat(factor, 1)
        affine = same_field_of_view(volume.affine, volume.data.shape, data.shape)
        result = volume if factor == 1 else volume.resampled(data, affine)
        written = write_dicom(result, folder, given)
        return volume, [pydicom.dcmread(folder / name) for name in written.files]

    return run


def _sources(volume: Volume) -> list[Dataset]:
    assert isinstance(volume.source, DicomSource)
    return [pydicom.dcmread(file) for file in volume.source.files]


def _derivations(image: Dataset) -> list[Dataset]:
    """Data sets with the description of the derivation: the image, or one for each frame."""
    if "PerFrameFunctionalGroupsSequence" not in image:
        return [image]
    return [frame.DerivationImageSequence[0] for frame in image.PerFrameFunctionalGroupsSequence]


@pytest.mark.parametrize("kind", KINDS)
def test_patient_and_study_stay_and_the_series_is_new(derive: Derive, kind: Kind) -> None:
    volume, images = derive(kind)
    sources = _sources(volume)
    for image, source in zip(images, sources, strict=True):
        for keyword in _KEPT:
            assert image[keyword] == source[keyword], keyword
        assert image.SOPInstanceUID == image.file_meta.MediaStorageSOPInstanceUID
        assert image.file_meta.MediaStorageSOPClassUID == source.SOPClassUID
        assert image.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert image.SeriesNumber == 1007
        assert image.SeriesDescription == "K\xf6rper oblique AI-restored (restore-rwkv mri-sr)"
    old = {source.SeriesInstanceUID for source in sources}
    assert len({image.SeriesInstanceUID for image in images} - old) == 1
    uids = {image.SOPInstanceUID for image in images} | {s.SOPInstanceUID for s in sources}
    assert len(uids) == 2 * len(images)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1, 2])
def test_the_derivation_is_described_and_coded(derive: Derive, kind: Kind, factor: int) -> None:
    volume, images = derive(kind, factor=factor)
    for image, source in zip(images, _sources(volume), strict=True):
        items = _derivations(image)
        assert len(items) == (1 if kind in CLASSIC else SLICES)
        for number, item in enumerate(items, 1):
            assert item.DerivationDescription.startswith("restore-rwkv ")
            for part in ("mri-sr", "light-mri-sr.safetensors", "ab" * 32, "Not a medical device"):
                assert part in item.DerivationDescription
            codes = [(c.CodeValue, c.CodingSchemeDesignator) for c in item.DerivationCodeSequence]
            assert codes == [("113087" if factor == 1 else "113085", "DCM"), ("123110", "DCM")]
            (reference,) = item.SourceImageSequence
            assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
            assert reference.ReferencedSOPClassUID == source.SOPClassUID
            assert reference.get("ReferencedFrameNumber") == (None if kind in CLASSIC else number)
            assert reference.SpatialLocationsPreserved == ("YES" if factor == 1 else "NO")
            assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        (series,) = image.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == source.SeriesInstanceUID
        (instance,) = series.ReferencedInstanceSequence
        assert instance.ReferencedSOPInstanceUID == source.SOPInstanceUID
        if kind in ENHANCED:
            (study,) = image.SourceImageEvidenceSequence
            assert study.StudyInstanceUID == source.StudyInstanceUID
            assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
            evidence = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
            assert evidence.ReferencedSOPInstanceUID == source.SOPInstanceUID
            assert image.ContentQualification == "RESEARCH"


@pytest.mark.parametrize("kind", KINDS)
def test_image_type_says_derived_everywhere(derive: Derive, kind: Kind) -> None:
    _, images = derive(kind)
    expected = {
        "CT": ["DERIVED", "SECONDARY", "AXIAL"],
        "MR": ["DERIVED", "SECONDARY", "M"],
        "PT": ["DERIVED", "PRIMARY", "AXIAL"],
    }.get(kind, ["DERIVED", "PRIMARY", "VOLUME", "FILTERED"])
    found = []

    def visit(dataset: Dataset, element: pydicom.DataElement) -> None:
        if element.keyword in ("ImageType", "FrameType"):
            found.append(list(element.value))

    for image in images:
        image.walk(visit)
    assert found == [expected] * (len(images) if kind in CLASSIC else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_equipment_is_added_to_that_of_the_source(derive: Derive, kind: Kind) -> None:
    def earlier(image: Dataset) -> None:
        image.ContributingEquipmentSequence = [
            of(
                PurposeOfReferenceCodeSequence=[code("109101", "DCM", "Acquisition Equipment")],
                Manufacturer="Scanner Works",
            )
        ]

    _, images = derive(kind, earlier)
    for image in images:
        first, ours = image.ContributingEquipmentSequence
        assert first.Manufacturer == "Scanner Works"
        assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert ours.Manufacturer == "restore-rwkv"
        assert ours.ManufacturerModelName == "light-mri-sr.safetensors"
        assert "ab" * 32 in ours.ContributionDescription
        assert "Not a medical device" in ours.ContributionDescription
        assert "SyntheticData" not in image


@pytest.mark.parametrize("kind", KINDS)
def test_smallest_and_largest_value_are_those_of_the_pixels(derive: Derive, kind: Kind) -> None:
    def wrong(image: Dataset) -> None:
        signed = "SS" if image.PixelRepresentation else "US"
        image.add_new("SmallestImagePixelValue", signed, 1)
        image.add_new("LargestImagePixelValue", signed, 2)
        image.add_new("LargestPixelValueInSeries", signed, 3)

    _, images = derive(kind, wrong)
    for image in images:
        signed = "SS" if image.PixelRepresentation else "US"
        pixels = image.pixel_array
        for keyword, value in (("Smallest", pixels.min()), ("Largest", pixels.max())):
            element = image[f"{keyword}ImagePixelValue"]
            assert (element.VR, element.value) == (signed, value)
        assert "LargestPixelValueInSeries" not in image


@pytest.mark.parametrize("kind", KINDS)
def test_pet_keeps_the_time_of_its_series_and_others_get_a_new_one(
    derive: Derive, kind: Kind
) -> None:
    _, images = derive(kind)
    for image in images:
        assert image.ContentDate == image.InstanceCreationDate > "20240102"
        if kind.endswith("PT"):
            assert (image.SeriesDate, image.SeriesTime) == ("20240102", "091500")
            isotope = image.RadiopharmaceuticalInformationSequence[0]
            assert isotope.RadionuclideHalfLife == 6586.2
            assert image.Units == "BQML"
        else:
            assert image.SeriesDate == image.ContentDate
    assert len({image.SeriesTime for image in images}) == 1


def test_pet_slopes_are_those_of_each_slice(derive: Derive) -> None:
    volume, images = derive("PT", lambda image: setattr(image, "DecayCorrection", "START"))
    for k, image in enumerate(images):
        assert len(str(image["RescaleSlope"].value.original_string)) <= 16
        assert float(image.RescaleSlope) * 32767 >= volume.data[..., k].max()
        assert float(image.RescaleSlope) * 32767 == pytest.approx(volume.data[..., k].max())
        assert image.RescaleIntercept == 0
        assert image.DecayCorrection == "START"
        assert image.pixel_array.max() == 32767


def test_an_empty_pet_slice_has_slope_1(derive: Derive) -> None:
    def empty(image: Dataset) -> None:
        if image.InstanceNumber == 11:
            image.PixelData = bytes(len(image.PixelData))

    _, images = derive("PT", empty)
    assert images[1].RescaleSlope == 1
    assert not images[1].pixel_array.any()


@pytest.mark.parametrize("kind", KINDS)
def test_real_world_values_stay_where_the_stored_numbers_mean_the_same(
    derive: Derive, kind: Kind
) -> None:
    def mapped(image: Dataset) -> None:
        item = of(
            RealWorldValueSlope=0.5,
            RealWorldValueIntercept=1.0,
            LUTLabel="A",
            LUTExplanation="A",
            MeasurementUnitsCodeSequence=[code("1", "UCUM", "no units")],
        )
        item.add_new("RealWorldValueFirstValueMapped", "US", 0)
        item.add_new("RealWorldValueLastValueMapped", "US", 4095)
        owners = [image, *image.get("SharedFunctionalGroupsSequence", ())]
        owners[-1].RealWorldValueMappingSequence = [item]

    _, images = derive(kind, mapped)
    owners = [images[0], *images[0].get("SharedFunctionalGroupsSequence", ())]
    assert ("RealWorldValueMappingSequence" in owners[-1]) == (not kind.endswith("PT"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_belongs_to_the_source_only_is_dropped(derive: Derive, kind: Kind) -> None:
    def cluttered(image: Dataset) -> None:
        inner = of(CodeValue="1", CodingSchemeDesignator="99X", CodeMeaning="x")
        inner.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "inner secret")
        image.ProcedureCodeSequence = [inner]
        image.private_block(0x0009, "MAKER", create=True).add_new(1, "LO", "secret")
        image.IconImageSequence = [of(Rows=1, Columns=1)]
        image.DigitalSignaturesSequence = [of(MACIDNumber=1)]
        image.add_new(0x00080000, "UL", 4)
        image.add_new(0x50000010, "US", 1)  # a curve
        image.add_new(0x60000010, "US", 24)  # an overlay in the unused bits of the pixels
        image.add_new(0x60000102, "US", 12)
        image.add_new(0x60020010, "US", 24)  # an overlay of its own
        image.add_new(0x60023000, "OW", bytes(60))
        image.add_new(0xFFFCFFFC, "OB", bytes(10))

    for factor in (1, 2):
        volume, images = derive(kind, cluttered, factor)
        assert 0x00091001 in _sources(volume)[0]
        for image in images:
            found = []
            image.walk(lambda dataset, element: found.append(element.tag))  # noqa: B023
            assert not any(tag.is_private or tag.element == 0 for tag in found)
            groups = {tag.group for tag in found}
            assert 0x5000 not in groups
            assert 0x6000 not in groups
            assert (0x6002 in groups) == (factor == 1)  # its pixels are those of the image
            assert 0xFFFC not in groups
            assert "IconImageSequence" not in image
            assert "DigitalSignaturesSequence" not in image
            assert image.ProcedureCodeSequence[0].CodeValue == "1"


def test_sizes_of_pixels_follow_the_finer_grid(derive: Derive) -> None:
    def sized(image: Dataset) -> None:
        image.PixelAspectRatio = [8, 5]
        image.ImagerPixelSpacing = [1.6, 1.0]
        image.ShutterShape = "RECTANGULAR"
        image.ShutterLeftVerticalEdge = 1
        image.ReconstructionDiameter = 300

    _, same = derive("MR", sized)
    assert {"PixelAspectRatio", "ImagerPixelSpacing", "ShutterShape"} <= set(same[0].dir())
    _, finer = derive("MR", sized, 2)
    stays = {"PixelAspectRatio", "ImagerPixelSpacing", "ShutterShape", "ShutterLeftVerticalEdge"}
    assert not stays & set(finer[0].dir())
    assert finer[0].ReconstructionDiameter == 300
    assert list(finer[0].AcquisitionMatrix) == [0, 24, 20, 0]  # as it was acquired


def test_slices_made_from_all_slices_refer_to_all(derive: Derive) -> None:
    volume, images = derive("MR", from_all_slices=True)
    uids = [source.SOPInstanceUID for source in _sources(volume)]
    for image in images:
        assert [item.ReferencedSOPInstanceUID for item in image.SourceImageSequence] == uids
        instances = image.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert [item.ReferencedSOPInstanceUID for item in instances] == uids
    _, (image,) = derive("enhanced MR", from_all_slices=True)
    for item in _derivations(image):
        assert "ReferencedFrameNumber" not in item.SourceImageSequence[0]  # that is, all frames


@pytest.mark.parametrize(("number", "expected"), [(None, 1000), (3, 1003), (2001, 3001)])
def test_series_number_is_a_thousand_above(
    derive: Derive, number: int | None, expected: int
) -> None:
    _, images = derive("CT", lambda image: setattr(image, "SeriesNumber", number))
    assert images[0].SeriesNumber == expected
    _, images = derive("CT", series_number=42)
    assert images[0].SeriesNumber == 42


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO_IR 100", "K\xf6rper " * 9),
        ("ISO_IR 192", "\u8133 " * 32),
        ("ISO_IR 144", "\u0433\u043e\u043b\u043e\u0432\u0430"),
        (None, "head"),
    ],
)
def test_descriptions_stay_in_the_character_set(
    derive: Derive, charset: str | None, text: str
) -> None:
    def described(image: Dataset) -> None:
        image.SpecificCharacterSet, image.PatientName = charset, "Anna"
        image.SeriesDescription = text[:64].strip()

    _, images = derive(
        "CT", described, weights="gewichte-\xfc\\neu.safetensors", description="x" * 2000
    )
    description = images[0].SeriesDescription
    assert len(description) <= 64
    assert description.startswith(text[:10].strip())
    assert description.endswith(" AI-restored (restore-rwkv mri-sr)")
    assert (images[0].get("SpecificCharacterSet") or None) == charset
    assert len(images[0].DerivationDescription) <= 1024
    assert images[0].DerivationDescription.endswith("Not a medical device; for research only.")
    model = images[0].ContributingEquipmentSequence[0].ManufacturerModelName
    assert model == "gewichte-?/neu.safetensors"


def test_dates_are_in_the_time_zone_of_the_source(derive: Derive) -> None:
    created = []
    for offset in ("+0000", "+1200"):
        _, images = derive("CT", lambda image: setattr(image, "TimezoneOffsetFromUTC", offset))  # noqa: B023
        created.append(images[0].ContentDate + images[0].ContentTime[:2])
    early, late = (np.datetime64(f"{t[:4]}-{t[4:6]}-{t[6:8]}T{t[8:]}") for t in created)
    assert np.timedelta64(11, "h") <= late - early <= np.timedelta64(13, "h")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_sources_of_other_encodings_become_explicit(
    tmp_path: Path, derivation: Derivation, syntax: pydicom.uid.UID
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for k in range(SLICES):
        image = classic("CT", k)
        image.add_new("PixelPaddingValue", "SS", -2000)
        if syntax == RLELossless:
            save(image, folder / f"{k}.dcm")
            image = pydicom.dcmread(folder / f"{k}.dcm")
            image.compress(syntax, generate_instance_uid=False)
            image.save_as(folder / f"{k}.dcm")
        else:
            save(image, folder / f"{k}.dcm", syntax)
    volume = read_volume(folder)
    written = write_dicom(volume, out, derivation)
    np.testing.assert_array_equal(read_volume(out).data, volume.data)
    image = pydicom.dcmread(out / written.files[0])
    assert image.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert image["PixelPaddingValue"].VR == "SS"
    assert image.PixelPaddingValue == -2000
    assert image.get("LossyImageCompression") is None


def test_big_endian_is_refused(tmp_path: Path) -> None:
    image = classic("CT", 0)
    image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()
    save(image, tmp_path / "big.dcm", ExplicitVRBigEndian)
    with pytest.raises(InputError, match=r"big\.dcm: big endian"):
        check_dicom_output(read_volume(tmp_path / "big.dcm"))


@pytest.mark.parametrize("kind", ["MR", "enhanced MR"])
def test_a_source_with_loss_is_said_to_have_had_it(
    tmp_path: Path, derivation: Derivation, kind: Kind
) -> None:
    image = classic("MR", 0) if kind == "MR" else enhanced("enhanced MR")
    frames = []
    for pixels in np.frombuffer(image.PixelData, "<u2").reshape(-1, image.Rows, image.Columns):
        stream = io.BytesIO()
        Image.fromarray((pixels / 8).astype(np.uint8)).save(stream, "JPEG", quality=80)
        frames.append(stream.getvalue())
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelData = encapsulate(frames)
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    save(image, tmp_path / "lossy.dcm", JPEGBaseline8Bit)
    volume = read_volume(tmp_path / "lossy.dcm")
    (tmp_path / "out").mkdir()
    (name,) = write_dicom(volume, tmp_path / "out", derivation).files
    result = pydicom.dcmread(tmp_path / "out" / name)
    assert result.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert result.LossyImageCompression == "01"
    assert result.LossyImageCompressionMethod == "ISO_10918_1"
    assert result.LossyImageCompressionRatio >= 1
    np.testing.assert_array_equal(read_volume(tmp_path / "out" / name).data, volume.data)
