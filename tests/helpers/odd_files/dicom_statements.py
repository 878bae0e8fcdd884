"""DICOM files that say themselves that they are no image to restore."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    RTDoseStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
)

from tests.helpers.odd_files.case import Family, Refused, Restored
from tests.helpers.odd_files.images import keeps, pet
from tests.helpers.odd_files.series import (
    CT,
    Edit,
    affine,
    item,
    make,
    series,
    setting,
    without,
    write,
)

FAMILY = Family("DICOM statements")

_TASKS = {"CT": "ct-denoise", "MR": "mri-sr", "PT": "pet-synth"}


def _add(name: str, modality: str, edit: Edit, *right: Restored | Refused) -> None:
    FAMILY.add(
        name,
        lambda folder: series(folder / "series", edit, modality),
        *right,
        words=f"restore series -o out.nii.gz -t {_TASKS[modality]}",
    )


def _unfit(says: str) -> Refused:
    return Refused((3, 4), says)


def _type(*values: str) -> Edit:
    return setting(ImageType=list(values))


_add("a localizer of CT", "CT", _type("ORIGINAL", "PRIMARY", "LOCALIZER"), _unfit("localizer"))
_add("a derived map", "CT", _type("DERIVED", "SECONDARY", "CBF"), _unfit("derived|CBF|map"))
_add(
    "a projection",
    "MR",
    _type("DERIVED", "SECONDARY", "PROJECTION IMAGE", "MIP"),
    _unfit("proj|MIP|derived"),
)
_add("a diffusion map", "MR", _type("DERIVED", "PRIMARY", "ADC"), _unfit("ADC|derived|map"))
_add("MR phase", "MR", _type("ORIGINAL", "PRIMARY", "P"), _unfit("phase"))
_add(
    "a real part",
    "MR",
    _type("ORIGINAL", "PRIMARY", "R"),
    _unfit("real"),
    Restored(says="real part"),
)
_add("RescaleType MGML", "CT", setting(RescaleType="MGML"), _unfit("MGML|RescaleType|unit"))
_add("RescaleType HU", "CT", setting(RescaleType="HU"), Restored(keeps(CT, affine())))
_add(
    "CT without rescale",
    "CT",
    without("RescaleSlope", "RescaleIntercept"),
    _unfit("Rescale|HU"),
    Restored(says="Rescale|HU"),
)
_add(
    "made by a network",
    "CT",
    setting(
        ImageType=["DERIVED", "SECONDARY", "AXIAL"],
        SeriesDescription="AI-restored by restore-rwkv",
        DerivationDescription="restore-rwkv light-ct-denoise",
    ),
    _unfit("restored|AI|network|derived"),
)
_add(
    "a smoothing in the codes of the derivation",
    "CT",
    setting(
        DerivationCodeSequence=[
            item(CodeValue="113087", CodingSchemeDesignator="DCM", CodeMeaning="Smoothing")
        ]
    ),
    _unfit("smooth|deriv|processed|filter"),
    Restored(says="smooth|deriv|processed|filter"),
)
_add("ultrasound", "CT", setting(Modality="US", SOPClassUID=UltrasoundImageStorage), _unfit("US"))
_add(
    "a secondary capture",
    "CT",
    setting(Modality="OT", SOPClassUID=SecondaryCaptureImageStorage),
    _unfit("OT|capture|modality"),
    Restored(says="OT|capture|modality|HU"),
)
_add(
    "a segmentation", "CT", setting(Modality="SEG", SOPClassUID=SegmentationStorage), _unfit("SEG")
)
_add("a dose", "CT", setting(Modality="RTDOSE", SOPClassUID=RTDoseStorage), _unfit("RTDOSE|dose"))
_add("CT given as MR", "CT", setting(Modality="MR"), Refused((3, 4), "MR"))
_add(
    "MR burnt into colours of a screen",
    "MR",
    setting(BurnedInAnnotation="YES"),
    Restored(),
    _unfit("annotation|burn"),
)
_add("lossy compressed before", "CT", setting(LossyImageCompression="01"), Restored())


def _document(name: str, storage: str, **values: object) -> None:
    def make_file(folder: Path) -> None:
        d = make(0, CT[..., 0].astype(np.int16))
        for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "ImagePositionPatient"):
            delattr(d, keyword)
        d.SOPClassUID = storage
        for keyword, value in values.items():
            setattr(d, keyword, value)
        write(d, folder / "scan.dcm")

    FAMILY.add(
        name,
        make_file,
        Refused((3,), "image"),
        words="restore scan.dcm -o out.nii.gz -t ct-denoise",
    )


_document("a report", BasicTextSRStorage, Modality="SR", ContentSequence=[])
_document("a PDF", EncapsulatedPDFStorage, Modality="DOC", EncapsulatedDocument=b"%PDF-1.4\n")
_document("a presentation state", GrayscaleSoftcopyPresentationStateStorage, Modality="PR")

_PET = pet((48, 40, 12))


def _pet(folder: Path, **values: object) -> None:
    def edit(d: Dataset, k: int) -> None:
        d.RescaleSlope, d.RescaleIntercept = 0.5 + 0.05 * k, 0
        d.Units, d.CorrectedImage = "BQML", ["ATTN", "DECY"]
        d.DecayCorrection, d.SeriesType = "START", ["STATIC", "IMAGE"]
        for keyword, value in values.items():
            setattr(d, keyword, value)

    series(folder / "series", edit, "PT", _PET)


_ACTIVITY = np.stack([_PET[..., k] * (0.5 + 0.05 * k) for k in range(12)], -1)
_AS_PET = "restore series -o out.nii.gz -t pet-synth"
FAMILY.add("PET in Bq/ml", _pet, Restored(keeps(_ACTIVITY, affine())), words=_AS_PET)
FAMILY.add(
    "PET in counts",
    lambda f: _pet(f, Units="CNTS"),
    Restored(keeps(_ACTIVITY, affine())),
    _unfit("CNTS|counts|unit"),
    words=_AS_PET,
)
FAMILY.add(
    "PET in per cent",
    lambda f: _pet(f, Units="PCNT"),
    _unfit("PCNT|unit"),
    Restored(says="PCNT|unit"),
    words=_AS_PET,
)
FAMILY.add(
    "PET without attenuation correction",
    lambda f: _pet(f, CorrectedImage=["DECY"]),
    Restored(),
    _unfit("atten|correct"),
    words=_AS_PET,
)
