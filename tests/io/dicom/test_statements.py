"""What DICOM headers say against restoring their images."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from restore_rwkv.io.dicom.statements import (
    STATEMENT_FIELDS,
    findings_of,
    image_type_findings,
)
from tests.helpers.synthetic_series import make_slice, save

IMAGE_TYPES = [
    ("ORIGINAL\\PRIMARY\\AXIAL", None),
    ("ORIGINAL\\PRIMARY\\M\\ND\\NORM", None),
    ("ORIGINAL\\PRIMARY\\M_FFE\\M\\FFE", None),
    ("DERIVED\\SECONDARY\\AXIAL", None),  # as a reconstruction of another plane
    ("DERIVED\\SECONDARY\\OTHER", None),
    ("ORIGINAL\\PRIMARY\\MPR", None),
    ("ORIGINAL\\PRIMARY\\PERFUSION\\NONE", None),
    ("ORIGINAL\\PRIMARY\\VOLUME\\NONE", None),
    ("ORIGINAL\\PRIMARY", None),
    ("", None),
    ("ORIGINAL\\PRIMARY\\LOCALIZER", ("unfit", "localizer")),
    ("ORIGINAL\\PRIMARY\\M\\LOCALIZER", ("unfit", "localizer")),
    ("ORIGINAL\\PRIMARY\\Localizer\\CT_SOM5 TOP", ("unfit", "localizer")),
    ("DERIVED\\SECONDARY\\MIP", ("unfit", "projection")),
    ("DERIVED\\SECONDARY\\PROJECTION IMAGE", ("unfit", "projection")),
    ("DERIVED\\SECONDARY\\MPR", ("doubtful", "reformatted")),
    ("DERIVED\\SECONDARY\\SCREEN SAVE", ("unfit", "screen-capture")),
    ("DERIVED\\SECONDARY\\CBF", ("unfit", "derived-map")),
    ("DERIVED\\PRIMARY\\DIFFUSION\\ADC", ("unfit", "derived-map")),
    ("DERIVED\\PRIMARY\\PERFUSION\\NONE", ("unfit", "derived-map")),
    ("DERIVED\\PRIMARY\\M\\T2 MAP", ("unfit", "derived-map")),
    ("DERIVED\\PRIMARY\\STIFFNESS MAP", ("unfit", "derived-map")),
    ("DERIVED\\PRIMARY\\DIFFUSION\\TRACEW", ("doubtful", "trace")),
    ("DERIVED\\SECONDARY\\SEGMENTATION", ("unfit", "label-map")),
    ("ORIGINAL\\PRIMARY\\P", ("unfit", "phase")),
    ("ORIGINAL\\PRIMARY\\PHASE MAP\\P\\FFE", ("unfit", "phase")),
    ("ORIGINAL\\PRIMARY\\M\\ND\\PHASE", ("unfit", "phase")),  # as dcm2niix adds it
    ("ORIGINAL\\PRIMARY\\I", ("unfit", "imaginary")),
    ("ORIGINAL\\PRIMARY\\R", ("doubtful", "real")),
    ("ORIGINAL\\PRIMARY\\M\\DRG\\NORM\\DRS\\DIS2D", ("doubtful", "deep-learning")),
]


@pytest.mark.parametrize(("told", "expected"), IMAGE_TYPES)
def test_an_image_type_says_what_an_image_is(told: str, expected: tuple[str, str] | None) -> None:
    found = image_type_findings(told.split("\\"))
    assert [(finding.level, finding.kind) for finding in found] == [expected] * bool(expected)
    assert all(told.upper() in finding.text for finding in found)


def item(**values: Any) -> Sequence:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return Sequence([dataset])


HEADERS: list[tuple[dict[str, Any], tuple[str, str] | None]] = [
    ({}, None),
    ({"RescaleType": "HU"}, None),
    ({"RescaleType": "MGML"}, ("unfit", "not-hu")),
    ({"RescaleType": "US"}, ("doubtful", "not-hu")),
    ({"RescaleIntercept": None}, ("doubtful", "not-hu")),
    ({"Modality": "MR", "RescaleType": "US"}, None),
    ({"Modality": "MR", "RescaleType": "normalized"}, None),
    ({"Modality": "MR", "RescaleType": "SIGNAL INTENSITY (UNITLESS)"}, None),
    ({"Modality": "MR", "RescaleIntercept": None}, None),
    ({"Modality": "MR", "RescaleType": "ms"}, ("unfit", "derived-map")),
    ({"Modality": "MR", "ComplexImageComponent": "MAGNITUDE"}, None),
    ({"Modality": "MR", "ComplexImageComponent": "PHASE"}, ("unfit", "phase")),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, ("unfit", "label-map")),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.30"}, ("unfit", "derived-map")),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, ("doubtful", "secondary-capture")),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, ("doubtful", "secondary-capture")),
    ({"BurnedInAnnotation": "NO"}, None),
    ({"BurnedInAnnotation": "YES"}, ("doubtful", "annotated")),
    ({"PresentationIntentType": "FOR PRESENTATION"}, ("doubtful", "for-presentation")),
    ({"DerivationDescription": "restore-rwkv 1.0, light-ct"}, ("unfit", "already-restored")),
    ({"DerivationDescription": "mean of two"}, None),
    (
        {"ContributingEquipmentSequence": item(Manufacturer="restore-rwkv")},
        ("unfit", "already-restored"),
    ),
    ({"ContributingEquipmentSequence": item(Manufacturer="another")}, None),
    ({"DerivationCodeSequence": item(CodeValue="123110")}, ("doubtful", "deep-learning")),
    ({"DerivationCodeSequence": item(CodeValue="113085")}, ("doubtful", "processed")),
    ({"DerivationCodeSequence": item(CodeValue="113040")}, None),
    ({"SeriesDescription": "Ax T2 Deep Resolve"}, ("doubtful", "deep-learning")),
    ({"SeriesDescription": "Thorax TrueFidelity-H"}, ("doubtful", "deep-learning")),
    ({"SeriesDescription": "subtle lesion, adlirum"}, None),
]


@pytest.mark.parametrize(("values", "expected"), HEADERS)
def test_a_header_says_what_an_image_is(
    values: dict[str, Any], expected: tuple[str, str] | None
) -> None:
    header = changed(values)
    found = findings_of([header, header])
    assert [(finding.level, finding.kind) for finding in found] == [expected] * bool(expected)
    assert all("slices: " not in finding.text for finding in found)


def changed(values: dict[str, Any]) -> Dataset:
    header = make_slice(0)
    for keyword, value in values.items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    return header


def test_private_elements_tell_of_networks_when_only_the_fields_are_read(tmp_path: Any) -> None:
    """As the example scans of dcm_qa_cs_dl have them."""
    ge, siemens, off = make_slice(0), make_slice(0), make_slice(0)
    ge.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0xCA, "LO", ["0.75", "High"])
    off.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0xCA, "LO", ["0", "Off"])
    block = siemens.private_block(0x0021, "SIEMENS MR SDI 02", create=True)
    assert block.get_tag(0x75) == 0x00211075
    siemens.add_new(0x00210011, "LO", "SIEMENS MR SDI 02")
    siemens.add_new(0x00211175, "CS", ["ORIGINAL", "PRIMARY", "M", "DRB", "DRS"])
    texts = []
    for name, dataset in (("ge", ge), ("siemens", siemens), ("off", off)):
        save(dataset, tmp_path / name)
        header = dcmread(tmp_path / name, specific_tags=[*STATEMENT_FIELDS])
        texts.append([finding.text for finding in findings_of([header])])
    assert "(0043,10CA) 0.75\\High: AIR Recon DL" in texts[0][0]
    assert "(0021,1175): Deep Resolve Boost, Sharp" in texts[1][0]
    assert texts[2] == []


def test_what_only_some_slices_say_is_counted() -> None:
    odd = changed({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})
    (finding,) = findings_of([make_slice(0), odd, make_slice(2)])
    assert finding.text.startswith("1 of 3 slices: ImageType ORIGINAL\\PRIMARY\\LOCALIZER")


def test_damaged_elements_say_nothing() -> None:
    dataset = make_slice(0)
    dataset.ImageType = "ORIGINAL\\PRIMARY\\AXIAL"
    stream = io.BytesIO()
    dataset.save_as(stream, implicit_vr=True, little_endian=True)
    header = dcmread(io.BytesIO(stream.getvalue()), force=True)
    header.add_new(0x004310CA, "UN", b"\xff\xfe")
    header.ContributingEquipmentSequence = []
    assert findings_of([header]) == ()
    assert findings_of([Dataset()]) == ()
