"""DICOM headers with damaged, missing or hostile elements."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from tests.helpers.odd_files.case import Family, Refused, Restored
from tests.helpers.odd_files.images import keeps
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

FAMILY = Family("DICOM headers", "restore {source} -o out.nii.gz -t ct-denoise")

_same = Restored(keeps(CT, affine()))
_damaged = Refused((3,), "damaged|header|number|missing|finite|invalid|[A-Z][a-z]+[A-Z]")


def _add(name: str, edit: Edit, *right: Restored | Refused) -> None:
    FAMILY.add(name, lambda folder: series(folder / "series", edit), *right, source="series")


def _bytes(keyword: str, vr: str, value: bytes) -> Edit:
    """Return an edit that sets the bytes of an element, valid or not."""

    def edit(d: Dataset, k: int) -> None:
        tag = Tag(keyword)
        raw = RawDataElement(tag, vr, len(value), value, 0, False, True)
        d._dict[tag] = raw

    return edit


for _name, _value in {"text": b"wide", "NaN": b"nan ", "infinity": b"inf ", "nothing": b""}.items():
    _add(f"{_name} as pixel spacing", _bytes("PixelSpacing", "DS", _value), _damaged)
    _add(f"{_name} as position", _bytes("ImagePositionPatient", "DS", _value), _damaged)
for _name, _value in {"text": b"high", "NaN": b"nan ", "two numbers": b"1\\2 "}.items():
    _add(
        f"{_name} as slope",
        _bytes("RescaleSlope", "DS", _value),
        Refused((3, 4), "slope|number|float|finite"),
    )
_add("text as instance number", _bytes("InstanceNumber", "IS", b"one "), _same, _damaged)
_add("text as series number", _bytes("SeriesNumber", "IS", b"last"), _same, _damaged)
_add("two numbers of rows", _bytes("Rows", "US", b"\x28\x00\x28\x00"), _damaged)
_add("a character set of nonsense", setting(SpecificCharacterSet="NONSENSE 7"), _same, _damaged)
_add("names in Latin 1 that say nothing of it", _bytes("PatientName", "PN", b"M\xfcller"), _same)
_add("a value of 100 kB", setting(SeriesDescription="x" * 100_000), _same, _damaged)
_add("line breaks in a value", _bytes("SeriesDescription", "LO", b"a\nb\x1b[31m "), _same)
_add("no identifiers", without("SOPInstanceUID", "StudyInstanceUID"), _same)
_add("no series", without("SeriesInstanceUID"), _same, Refused((3,), "Series"))
_add("no patient", without("PatientID", "PatientName"), _same)
_add("no modality", without("Modality"), _same, Refused((3,), "modality"))
_add("no class", without("SOPClassUID"), _same, Refused((3,), "class|SOPClassUID"))


def _private(d: Dataset, k: int) -> None:
    block = d.private_block(0x0029, "NOBODY", create=True)
    block.add_new(0x10, "OB", np.random.default_rng(k).bytes(2000))
    block.add_new(0x11, "UN", b"\xff" * 100)


_add("private elements", _private, _same)


def _deep(d: Dataset, k: int) -> None:
    inner = item(CodeValue="1")
    for _ in range(60):
        inner = item(ConceptCodeSequence=[inner])
    d.RequestAttributesSequence = [inner]


_add("sixty nested sequences", _deep, _same)


def _spliced(folder: Path, element: bytes, *, name: str = "slice003.dcm") -> None:
    """Insert the bytes of an element before the patient's name in one slice."""
    file = series(folder / "series") / name
    content = file.read_bytes()
    place = content.index(b"\x10\x00\x10\x00PN")
    file.write_bytes(content[:place] + element + content[place:])


_SEQUENCE = b"\x08\x00\x40\x11SQ\x00\x00"
_ITEM = b"\xfe\xff\x00\xe0"
_ENDLESS = struct.pack("<I", 0xFFFFFFFF)
_header = Refused((3,), "damaged|header|DICOM|slice003|missing")

FAMILY.add(
    "a sequence that does not end",
    lambda f: _spliced(f, _SEQUENCE + _ENDLESS + _ITEM + _ENDLESS),
    _header,
    _same,
    source="series",
)
FAMILY.add(
    "5000 sequences in one another that do not end",
    lambda f: _spliced(f, (_SEQUENCE + _ENDLESS + _ITEM + _ENDLESS) * 5000),
    _header,
    _same,
    source="series",
)
FAMILY.add(
    "an element that claims 4 GB",
    lambda f: _spliced(f, b"\x09\x00\x10\x00UN\x00\x00" + struct.pack("<I", 0xFFFFFFF0)),
    _header,
    source="series",
)
FAMILY.add(
    "an unknown value representation",
    lambda f: _spliced(f, b"\x09\x00\x10\x00ZZ\x04\x00abcd"),
    _header,
    _same,
    source="series",
)


@FAMILY.case(_header, source="series")
def three_bytes_of_rows(folder: Path) -> None:
    file = series(folder / "series") / "slice003.dcm"
    content, rows = file.read_bytes(), b"\x28\x00\x10\x00US"
    place = content.index(rows) + len(rows)
    file.write_bytes(content[:place] + b"\x03\x00\x28\x00\x01" + content[place + 4 :])


@FAMILY.case(_header, _same, source="series")
def an_unknown_value_representation_in_the_meta_group(folder: Path) -> None:
    file = series(folder / "series") / "slice003.dcm"
    content, element = file.read_bytes(), b"\x02\x00\x02\x00"
    file.write_bytes(content.replace(element + b"UI", element + b"U\0"))


@FAMILY.case(Refused((3,), "DICOM|damaged|image|pixel"), source="scan.dcm")
def a_header_and_nothing_else(folder: Path) -> None:
    (folder / "scan.dcm").write_bytes(bytes(128) + b"DICM")


@FAMILY.case(_header, Restored(keeps(CT[..., :1], affine())), source="scan.dcm")
def a_wrong_length_of_the_meta_group(folder: Path) -> None:
    write(make(0, CT[..., 0].astype(np.int16)), folder / "scan.dcm")
    content = bytearray((folder / "scan.dcm").read_bytes())
    struct.pack_into("<I", content, 140, 3_000_000_000)
    (folder / "scan.dcm").write_bytes(content)
