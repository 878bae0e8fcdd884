"""NRRD, MetaImage, MGH, and NIfTI and Analyze as pairs of files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.helpers.odd_files.case import Family, Make, Refused, Restored
from tests.helpers.odd_files.images import AFFINE, Array, keeps, mri, plain

FAMILY = Family("other formats")

_DATA = mri().astype("<i2")
_BYTES = _DATA.tobytes(order="F")
_LPS = np.diag([-1.0, -1, 1, 1]) @ AFFINE
_same = Restored(keeps(mri()))
_damaged = Refused((3,), "truncated|less|damaged|header|NRRD|MetaImage|MGH|missing|shape|type")


def _triples(matrix: Array) -> str:
    return " ".join("({:g},{:g},{:g})".format(*column) for column in matrix[:3, :3].T)


def _nrrd_header(**changes: str | None) -> bytes:
    fields: dict[str, str | None] = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "48 40 4",
        "space directions": _triples(_LPS),
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "({:g},{:g},{:g})".format(*_LPS[:3, 3]),
    } | {name.replace("_", " "): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return ("NRRD0004\n" + "\n".join(lines) + "\n\n").encode()


def _nrrd(name: str, content: bytes, *right: Restored | Refused, source: str = "scan.nrrd") -> None:
    FAMILY.add(name, lambda f: (f / source).write_bytes(content), *right, source=source)


_nrrd("NRRD", _nrrd_header() + _BYTES, _same)
_nrrd("NRRD in gzip", _nrrd_header(encoding="gzip") + gzip.compress(_BYTES), _same)
_nrrd(
    "NRRD, right-anterior-superior",
    _nrrd_header(
        space="right-anterior-superior",
        space_directions=_triples(AFFINE),
        space_origin="({:g},{:g},{:g})".format(*AFFINE[:3, 3]),
    )
    + _BYTES,
    _same,
)
_nrrd("NRRD, big endian", _nrrd_header(endian="big") + _DATA.astype(">i2").tobytes("F"), _same)
_nrrd(
    "NRRD in text",
    _nrrd_header(encoding="ascii") + " ".join(map(str, _DATA.ravel(order="F"))).encode(),
    _same,
    Refused((3,), "encoding|ascii|text"),
)
_nrrd("NRRD, half of it", _nrrd_header() + _BYTES[:5000], _damaged)
_nrrd("NRRD, text named so", b"this is no image\n", _damaged)
_nrrd("NRRD, no bytes", b"", _damaged, Refused((3,), "empty"))
_nrrd("NRRD, no end of its header", _nrrd_header().rstrip(), _damaged)
_nrrd("NRRD, 65 TB claimed", _nrrd_header(sizes="32000 32000 32000") + _BYTES, _damaged)
_nrrd("NRRD, a size below 0", _nrrd_header(sizes="48 -40 4") + _BYTES, _damaged)
_nrrd("NRRD, sizes of text", _nrrd_header(sizes="many of them") + _BYTES, _damaged)
_nrrd("NRRD, two sizes for three axes", _nrrd_header(sizes="48 160") + _BYTES, _damaged)
_nrrd("NRRD, an unknown type", _nrrd_header(type="quark") + _BYTES, _damaged)
_nrrd(
    "NRRD, an unknown encoding",
    _nrrd_header(encoding="magic") + _BYTES,
    _damaged,
    Refused((3,), "encoding"),
)
_geometry = Refused((3,), "direction|space|spacing|affine|finite|NaN|singular|NRRD|geometry")
_nrrd(
    "NRRD, NaN as a direction",
    _nrrd_header(space_directions="(nan,0,0) (0,1,0) (0,0,3)") + _BYTES,
    _geometry,
)
_nrrd(
    "NRRD, directions of zeros",
    _nrrd_header(space_directions="(0,0,0) (0,0,0) (0,0,0)") + _BYTES,
    _geometry,
)
_nrrd("NRRD, an unknown space", _nrrd_header(space="outer") + _BYTES, _geometry)
_nrrd(
    "NRRD of vectors",
    _nrrd_header(
        dimension="4",
        sizes="3 48 40 4",
        kinds="vector domain domain domain",
        space_directions="none " + _triples(_LPS),
    )
    + _BYTES * 3,
    Refused((3,), "axes|vector|channel|dimension|kinds"),
)


def _detached(data_file: str) -> Make:
    def make(folder: Path) -> None:
        (folder / "scan.raw").write_bytes(_BYTES)
        (folder / "scan.nhdr").write_bytes(_nrrd_header(data_file=data_file))

    return make


_outside = Refused((3,), "names|voxels|beside|outside|file|less|truncated|detached|nhdr|kind")
FAMILY.add("NRRD in two files", _detached("scan.raw"), _same, _outside, source="scan.nhdr")
FAMILY.add("NRRD of another's file", _detached("/etc/passwd"), _outside, source="scan.nhdr")
FAMILY.add("NRRD that leaves its folder", _detached("../../x.raw"), _outside, source="scan.nhdr")
FAMILY.add("NRRD of a device", _detached("/dev/zero"), _outside, source="scan.nhdr")
FAMILY.add("NRRD that is its own data", _detached("scan.nhdr"), _outside, source="scan.nhdr")


def _meta_header(data_file: str = "LOCAL", **changes: str | None) -> bytes:
    direction = _LPS[:3, :3] / np.linalg.norm(_LPS[:3, :3], axis=0)
    fields: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": " ".join(f"{x:g}" for x in direction.T.ravel()),
        "Offset": " ".join(f"{x:g}" for x in _LPS[:3, 3]),
        "ElementSpacing": "1 1 3",
        "DimSize": "48 40 4",
        "ElementType": "MET_SHORT",
    } | changes
    fields["ElementDataFile"] = data_file
    return "".join(f"{k} = {v}\n" for k, v in fields.items() if v is not None).encode()


def _meta(name: str, content: bytes, *right: Restored | Refused) -> None:
    FAMILY.add(name, lambda f: (f / "scan.mha").write_bytes(content), *right, source="scan.mha")


_meta("MetaImage", _meta_header() + _BYTES, _same)
_meta("MetaImage, half of it", _meta_header() + _BYTES[:5000], _damaged)
_meta("MetaImage, text named so", b"this is no image\n", _damaged)
_meta("MetaImage, no bytes", b"", _damaged, Refused((3,), "empty"))
_meta("MetaImage, 65 TB claimed", _meta_header(DimSize="32000 32000 32000") + _BYTES, _damaged)
_meta(
    "MetaImage, a size below 0",
    _meta_header(DimSize="48 -40 4") + _BYTES,
    _damaged,
    Refused((3,), "DimSize"),
)
_meta(
    "MetaImage, sizes of text",
    _meta_header(DimSize="a few") + _BYTES,
    _damaged,
    Refused((3,), "DimSize"),
)
_meta("MetaImage, spacing 0", _meta_header(ElementSpacing="0 0 0") + _BYTES, _geometry)
_meta("MetaImage, spacing NaN", _meta_header(ElementSpacing="nan 1 1") + _BYTES, _geometry)
_meta("MetaImage, an unknown type", _meta_header(ElementType="MET_QUARK") + _BYTES, _damaged)
_meta(
    "MetaImage of three channels",
    _meta_header(ElementNumberOfChannels="3") + _BYTES * 3,
    Refused((3,), "channel"),
)


_misspelt = _meta_header().replace(b"ElementDataFile =", b'ElementDataFile" =')
_meta("MetaImage with a quote behind the name of its last field", _misspelt + _BYTES, _damaged)
for _field in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
    _meta(
        f"MetaImage without {_field}",
        b"".join(
            line + b"\n"
            for line in _meta_header().splitlines()
            if not line.startswith(_field.encode())
        )
        + _BYTES,
        _damaged,
        Refused((3,), _field),
    )


def _raw_beside(data_file: str) -> Make:
    def make(folder: Path) -> None:
        (folder / "scan.raw").write_bytes(_BYTES)
        (folder / "scan.mhd").write_bytes(_meta_header(data_file))

    return make


_elsewhere = Refused((3,), "beside|outside|file|less|truncated|no such|folder")
FAMILY.add("MetaImage in two files", _raw_beside("scan.raw"), _same, source="scan.mhd")
FAMILY.add("MetaImage of another's file", _raw_beside("/etc/passwd"), _elsewhere, source="scan.mhd")
FAMILY.add(
    "MetaImage that leaves its folder", _raw_beside("../x.raw"), _elsewhere, source="scan.mhd"
)
FAMILY.add("MetaImage of a device", _raw_beside("/dev/zero"), _elsewhere, source="scan.mhd")
FAMILY.add(
    "MetaImage of a file that is gone", _raw_beside("gone.raw"), _elsewhere, source="scan.mhd"
)


def _mgh(folder: Path, name: str = "scan.mgz") -> Path:
    nib.save(nib.MGHImage(mri().astype(np.float32), AFFINE), folder / name)
    return folder / name


FAMILY.add("MGZ", _mgh, _same, source="scan.mgz")
FAMILY.add("MGH", lambda f: _mgh(f, "scan.mgh"), _same, source="scan.mgh")


def _mgh_patched(place: int, kind: str, *values: float) -> Make:
    def make(folder: Path) -> None:
        path = _mgh(folder, "scan.mgh")
        content = bytearray(path.read_bytes())
        struct.pack_into(f">{kind}", content, place, *values)
        path.write_bytes(content)

    return make


FAMILY.add("MGH of 65 TB", _mgh_patched(4, "3i", 32000, 32000, 32000), _damaged, source="scan.mgh")
FAMILY.add("MGH, a size below 0", _mgh_patched(4, "i", -48), _damaged, source="scan.mgh")
FAMILY.add("MGH, an unknown type", _mgh_patched(20, "i", 99), _damaged, source="scan.mgh")
FAMILY.add("MGH, an unknown version", _mgh_patched(0, "i", 7), _damaged, source="scan.mgh")
FAMILY.add("MGH, spacing NaN", _mgh_patched(30, "f", float("nan")), _geometry, source="scan.mgh")


@FAMILY.case(_damaged, source="scan.mgz")
def half_an_MGZ(folder: Path) -> None:
    path = _mgh(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _pair(folder: Path, kind: type = nib.Nifti1Pair) -> None:
    nib.save(kind(mri().astype(np.int16), AFFINE), folder / "scan.img")


FAMILY.add("a pair, by its voxels", _pair, _same, source="scan.img")
FAMILY.add("a pair, by its header", _pair, _same, source="scan.hdr")


def _compressed_pair(folder: Path) -> None:
    nib.save(nib.Nifti1Pair(mri().astype(np.int16), AFFINE), folder / "scan.img.gz")


FAMILY.add("a pair in gzip", _compressed_pair, _same, source="scan.img.gz")
_alone = Refused((3,), "hdr|img|pair|header|beside")
FAMILY.add(
    "voxels without a header",
    lambda f: (_pair(f), (f / "scan.hdr").unlink()),
    _alone,
    source="scan.img",
)
FAMILY.add(
    "a header without voxels",
    lambda f: (_pair(f), (f / "scan.img").unlink()),
    _alone,
    source="scan.hdr",
)


@FAMILY.case(Refused((3,), "truncated|less|damaged"), source="scan.img")
def half_the_voxels_of_a_pair(folder: Path) -> None:
    _pair(folder)
    (folder / "scan.img").write_bytes((folder / "scan.img").read_bytes()[:5000])


@FAMILY.case(
    Restored(keeps(mri(), None), says="Analyze|orientation|left"),
    Refused((3,), "Analyze|orientation|NIfTI"),
    source="scan.img",
)
def Analyze_without_orientation(folder: Path) -> None:
    nib.save(nib.AnalyzeImage(mri().astype(np.int16), AFFINE), folder / "scan.img")


for _suffix in ("mnc", "par", "nrd", "h5", "mat", "txt", "pdf", "exe"):
    FAMILY.add(
        f"a file .{_suffix}",
        lambda f, s=_suffix: (f / f"scan.{s}").write_bytes(b"\x01\x02something"),
        Refused((3,), "unknown|kind|format"),
        source=f"scan.{_suffix}",
    )


FAMILY.add(
    "NIfTI named NRRD",
    lambda f: plain(f, "whole.nii").rename(f / "scan.nrrd"),
    _same,
    _damaged,
    source="scan.nrrd",
)
