"""Synthetic series with headers that validators accept: classic and enhanced CT, MR and PET."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from tests.helpers.enhanced_headers import code, groups_of, headers_of, of

Kind = Literal["CT", "MR", "PT", "enhanced CT", "enhanced MR", "enhanced PT"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CLASSIC = KINDS[:3]
ENHANCED = KINDS[3:]

ROWS, COLUMNS, SLICES = 24, 20, 4
SPACING = (0.8, 0.5)  # between rows, between columns
STEP = 2.5
ROW = np.array([2.0, -1.0, 2.0]) / 3
COLUMN = np.array([2.0, 2.0, -1.0]) / 3
NORMAL = np.cross(ROW, COLUMN)
ORIGIN = np.array([-31.5, 12.25, 77.0])

_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "enhanced CT": "1.2.840.10008.5.1.4.1.1.2.1",
    "enhanced MR": "1.2.840.10008.5.1.4.1.1.4.1",
    "enhanced PT": "1.2.840.10008.5.1.4.1.1.130",
}


def position(k: int, tilt: float = 0.0) -> list[str]:
    """ImagePositionPatient of slice k; ``tilt`` mm a slice sideways shear the stack."""
    return [f"{x:.9g}" for x in ORIGIN + k * (STEP * NORMAL + tilt * COLUMN)]


def orientation() -> list[str]:
    """ImageOrientationPatient of all slices."""
    return [f"{x:.9g}" for x in (*ROW, *COLUMN)]


def stored(kind: Kind, k: int) -> np.ndarray:
    """Stored pixels of slice k: a disc with a gradient, other values in each slice."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    disc = (y - ROWS / 2 + 0.5) ** 2 + (x - COLUMNS / 2 + 0.5) ** 2 < 70
    values = np.where(disc, 900 + 13 * y + 7 * x + 40 * k, 5 + 3 * k)
    return values.astype(np.int16 if kind == "CT" else np.uint16)


def slope(kind: Kind, k: int) -> float:
    """Rescale slope of slice k; that of PET differs between slices, and classic MR states none."""
    return {"CT": 1.0, "MR": 1.0, "enhanced CT": 1.0, "enhanced MR": 0.5}.get(kind, 1.25 + 0.5 * k)


def intercept(kind: Kind) -> float:
    """Rescale intercept of all slices."""
    return -1024.0 if kind.endswith("CT") else 0.0


def values(kind: Kind, k: int) -> np.ndarray:
    """Values of slice k in physical units."""
    return stored(kind, k) * slope(kind, k) + intercept(kind)


def _patient_and_study(kind: Kind) -> Dataset:
    return of(
        SpecificCharacterSet="ISO_IR 192",
        SOPClassUID=_CLASSES[kind],
        SOPInstanceUID=generate_uid(),
        StudyInstanceUID="1.2.826.0.1.3680043.8.498.1",
        SeriesInstanceUID="1.2.826.0.1.3680043.8.498.2",
        FrameOfReferenceUID="1.2.826.0.1.3680043.8.498.3",
        PatientName="Sch\N{LATIN SMALL LETTER O WITH DIAERESIS}n^Anna",
        PatientID="P1",
        PatientBirthDate="19700101",
        PatientSex="F",
        PatientWeight="70",
        StudyID="1",
        StudyDate="20240102",
        StudyTime="090000",
        SeriesDate="20240102",
        SeriesTime="091500",
        AcquisitionDate="20240102",
        AcquisitionTime="091600",
        ContentDate="20240102",
        ContentTime="092000",
        AccessionNumber="A1",
        ReferringPhysicianName="",
        Modality=kind.removeprefix("enhanced "),
        Manufacturer="Scanner Works",
        ManufacturerModelName="One",
        DeviceSerialNumber="1234",
        SoftwareVersions="1.0",
        SeriesNumber=7,
        SeriesDescription="K\N{LATIN SMALL LETTER O WITH DIAERESIS}rper oblique",
        InstanceNumber=1,
        PositionReferenceIndicator="",
        Rows=ROWS,
        Columns=COLUMNS,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=int(kind == "CT"),
        BurnedInAnnotation="NO",
    )


def _set_pixels(dataset: Dataset, pixels: np.ndarray) -> None:
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"


def classic(kind: Kind, k: int, *, tilt: float = 0.0) -> Dataset:
    """Return slice k of a classic series, counted along the normal."""
    dataset = _patient_and_study(kind)
    dataset.update(
        of(
            ImageType=["ORIGINAL", "PRIMARY", "M" if kind == "MR" else "AXIAL"],
            InstanceNumber=10 + k,
            AcquisitionNumber=1,
            ImagePositionPatient=position(k, tilt),
            ImageOrientationPatient=orientation(),
            PixelSpacing=list(SPACING),
            SliceThickness=STEP,
            WindowCenter=40,
            WindowWidth=400,
        )
    )
    pixels = stored(kind, k)
    signed = "SS" if kind == "CT" else "US"
    dataset.add_new("SmallestImagePixelValue", signed, int(pixels.min()))
    dataset.add_new("LargestImagePixelValue", signed, int(pixels.max()))
    if kind != "MR":
        dataset.RescaleSlope, dataset.RescaleIntercept = slope(kind, k), intercept(kind)
    dataset.Laterality = ""
    if kind != "PT":
        dataset.PatientPosition = "HFS"
    dataset.update(_CLASSIC_PARTS[kind]())
    if kind == "PT":
        dataset.ImageIndex = k + 1
    _set_pixels(dataset, pixels)
    return dataset


def _classic_ct() -> Dataset:
    return of(KVP=120, RescaleType="HU", ConvolutionKernel="B30f", ReconstructionDiameter=300)


def _classic_mr() -> Dataset:
    return of(
        ScanningSequence="SE",
        SequenceVariant="NONE",
        ScanOptions="",
        MRAcquisitionType="2D",
        RepetitionTime=2300,
        EchoTime=22,
        EchoTrainLength=1,
        SpacingBetweenSlices=STEP,
        AcquisitionMatrix=[0, 24, 20, 0],
    )


def _classic_pt() -> Dataset:
    isotope = of(
        RadionuclideCodeSequence=[code("C-111A1", "SRT", "^18^Fluorine")],
        Radiopharmaceutical="FDG",
        RadiopharmaceuticalStartTime="080000",
        RadionuclideTotalDose=3.5e8,
        RadionuclideHalfLife=6586.2,
        RadionuclidePositronFraction=0.967,
        RadiopharmaceuticalCodeSequence=[code("C-B1031", "SRT", "Fluorodeoxyglucose F^18^")],
    )
    return of(
        RadiopharmaceuticalInformationSequence=[isotope],
        PatientOrientationCodeSequence=[
            of(
                CodeValue="F-10450",
                CodingSchemeDesignator="SRT",
                CodeMeaning="recumbent",
                PatientOrientationModifierCodeSequence=[code("F-10340", "SRT", "supine")],
            )
        ],
        PatientGantryRelationshipCodeSequence=[code("F-10470", "SRT", "headfirst")],
        Units="BQML",
        CountsSource="EMISSION",
        SeriesType=["STATIC", "IMAGE"],
        NumberOfSlices=SLICES,
        CorrectedImage=["DECY", "ATTN"],
        DecayCorrection="START",
        RandomsCorrectionMethod="DLYD",
        CollimatorType="NONE",
        FrameReferenceTime=0,
        ActualFrameDuration=600000,
        DecayFactor=1,
    )


_CLASSIC_PARTS = {"CT": _classic_ct, "MR": _classic_mr, "PT": _classic_pt}


def enhanced(kind: Kind, *, tilt: float = 0.0, shared_slope: bool = False) -> Dataset:
    """Return an enhanced multi-frame object with the slices in falling order."""
    dataset = _patient_and_study(kind)
    organisation = generate_uid()
    dataset.update(
        of(
            ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
            NumberOfFrames=SLICES,
            AcquisitionDateTime="20240102091600",
            AcquisitionDuration=60.0,
            AcquisitionNumber=1,
            ContentQualification="PRODUCT",
            PixelPresentation="MONOCHROME",
            VolumetricProperties="VOLUME",
            VolumeBasedCalculationTechnique="NONE",
            PresentationLUTShape="IDENTITY",
            LossyImageCompression="00",
            AcquisitionContextSequence=[],
            BitsStored=12 if kind != "enhanced PT" else 16,
            HighBit=11 if kind != "enhanced PT" else 15,
            DimensionOrganizationSequence=[of(DimensionOrganizationUID=organisation)],
            DimensionIndexSequence=[
                of(
                    DimensionOrganizationUID=organisation,
                    DimensionIndexPointer=pointer,
                    FunctionalGroupPointer=0x00209111,
                )
                for pointer in (0x00209056, 0x00209057)
            ],
        )
    )
    dataset.update(headers_of(kind))
    if kind != "enhanced PT":
        dataset.PatientPosition = "HFS"
    shared = of(
        PlaneOrientationSequence=[of(ImageOrientationPatient=orientation())],
        PixelMeasuresSequence=[
            of(PixelSpacing=list(SPACING), SliceThickness=STEP, SpacingBetweenSlices=STEP)
        ],
        FrameVOILUTSequence=[of(WindowCenter=40, WindowWidth=400)],
        FrameAnatomySequence=[
            of(FrameLaterality="U", AnatomicRegionSequence=[code("T-A0100", "SRT", "Brain")])
        ],
    )
    shared.update(groups_of(kind))
    if shared_slope:
        shared.PixelValueTransformationSequence = [_rescale(kind, 0)]
    dataset.SharedFunctionalGroupsSequence = [shared]
    order = tuple(reversed(range(SLICES)))
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame(kind, k, tilt=tilt, own_slope=not shared_slope) for k in order
    ]
    _set_pixels(dataset, np.stack([stored(kind, k) for k in order]))
    return dataset


def _rescale(kind: Kind, k: int) -> Dataset:
    return of(
        RescaleIntercept=intercept(kind),
        RescaleSlope=slope(kind, k),
        RescaleType="HU" if kind == "enhanced CT" else "US",
    )


def _frame(kind: Kind, k: int, *, tilt: float, own_slope: bool) -> Dataset:
    frame = of(
        FrameContentSequence=[
            of(
                FrameAcquisitionDateTime="20240102091600",
                FrameReferenceDateTime="20240102091600",
                FrameAcquisitionDuration=1000.0,
                TemporalPositionIndex=1,
                StackID="1",
                InStackPositionNumber=k + 1,
                DimensionIndexValues=[1, k + 1],
            )
        ],
        PlanePositionSequence=[of(ImagePositionPatient=position(k, tilt))],
    )
    if own_slope:
        frame.PixelValueTransformationSequence = [_rescale(kind, k)]
    return frame


def save(dataset: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> None:
    """Write a data set as a DICOM file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


def write_source(
    folder: Path,
    kind: Kind,
    change: Callable[[Dataset], None] = lambda dataset: None,
    *,
    tilt: float = 0.0,
    shared_slope: bool = False,
) -> Path:
    """Write a series of a kind, after ``change(image)``; return what `read_volume` takes."""
    folder.mkdir()
    if kind in ENHANCED:
        image = enhanced(kind, tilt=tilt, shared_slope=shared_slope)
        change(image)
        save(image, folder / "enhanced.dcm")
        return folder / "enhanced.dcm"
    for k in range(SLICES):
        image = classic(kind, k, tilt=tilt)
        change(image)
        save(image, folder / f"IM{(3 * k + 2) % 5}.dcm")  # not in the order of the slices
    return folder
