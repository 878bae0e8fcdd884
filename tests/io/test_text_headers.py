"""NRRD and MetaImage: the header is checked before a voxel is read, and names no file elsewhere."""

from __future__ import annotations

import bz2
import gzip
import logging
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from restore_rwkv.errors import InputError
from restore_rwkv.io import Volume, identify, read_volume, write_volume

NUMBERS = np.arange(24, dtype="<i2").reshape(2, 3, 4, order="F")
RAW = NUMBERS.tobytes(order="F")
NRRD = {
    "type": "int16",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "2 3 4",
    "space directions": "(2,0,0) (0,3,0) (0,0,4)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(-5,6,7)",
}
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "-5 6 7",
    "ElementSpacing": "2 3 4",
    "DimSize": "2 3 4",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
AFFINE = np.array([[-2.0, 0, 0, 5], [0, -3, 0, -6], [0, 0, 4, 7], [0, 0, 0, 1]])


def nrrd(path: Path, data: bytes = RAW, /, **fields: str | None) -> Path:
    """Write a NRRD file; None leaves a field out, _ in names stands for a blank."""
    changed = NRRD | {key.replace("_", " "): value for key, value in fields.items()}
    lines = [f"{key}: {value}" for key, value in changed.items() if value is not None]
    path.write_bytes("\n".join(["NRRD0004", *lines, "", ""]).encode() + data)
    return path


def meta(path: Path, data: bytes = RAW, /, **fields: str | None) -> Path:
    """Write a MetaImage; None leaves a field out."""
    changed = META | fields
    changed["ElementDataFile"] = changed.pop("ElementDataFile")  # the last one
    lines = [f"{key} = {value}" for key, value in changed.items() if value is not None]
    path.write_bytes("\n".join([*lines, ""]).encode() + data)
    return path


def assert_read(path: Path) -> Volume:
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, NUMBERS)
    np.testing.assert_array_equal(volume.affine, AFFINE)
    return volume


def _number() -> Callable[[object], str]:
    """Short names of cases, which would else be their bytes."""
    return lambda value: str(sorted(value)) if isinstance(value, dict) else ""


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (RAW, {}),
        (NUMBERS.astype(">i2").tobytes(order="F"), {"endian": "big"}),
        (gzip.compress(RAW), {"encoding": "gzip"}),
        (gzip.compress(b"skipped" + RAW), {"encoding": "gz", "byte skip": "7"}),
        (gzip.compress(RAW[:9]) + gzip.compress(RAW[9:]), {"encoding": "gz"}),
        (bz2.compress(RAW), {"encoding": "bzip2"}),
        (" ".join(map(str, range(24))).encode(), {"encoding": "ascii", "endian": None}),
        (b"skipped" + RAW, {"byte skip": "7"}),
        (b"skipped" + RAW, {"byteskip": "-1"}),
        (b"one\ntwo\n" + RAW, {"line skip": "2"}),
        (RAW, {"kinds": None}),
        (RAW, {"space units": '"mm" "mm" "mm"', "labels": '"x" "y" "z"', "content": "a: b"}),
        (
            NUMBERS.astype(np.float64).tobytes(order="F"),
            {"type": "double", "measurement frame": "(1,0,0) (0,1,0) (0,0,1)"},
        ),
    ],
    ids=_number(),
)
def test_kinds_of_nrrd(tmp_path: Path, data: bytes, fields: dict[str, str | None]) -> None:
    assert_read(nrrd(tmp_path / "in.nrrd", data, **fields))


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (RAW, {}),
        (NUMBERS.astype(">i2").tobytes(order="F"), {"BinaryDataByteOrderMSB": "True"}),
        (NUMBERS.astype(">i2").tobytes(order="F"), {"ElementByteOrderMSB": "True"}),
        (zlib.compress(RAW), {"CompressedData": "True"}),
        (gzip.compress(RAW), {"CompressedData": "True"}),
        (" ".join(map(str, range(24))).encode(), {"BinaryData": "False"}),
        (NUMBERS.astype("<i4").tobytes(order="F"), {"ElementType": "MET_LONG"}),
        (RAW, {"Offset": None, "Position": "-5 6 7", "Comment": "a = b"}),
        (RAW, {"ElementSpacing": None, "ElementSize": "2 3 4", "DistanceUnits": "mm"}),
        (RAW, {"ElementNumberOfChannels": "1", "ElementToIntensityFunctionSlope": "1"}),
    ],
    ids=_number(),
)
def test_kinds_of_metaimage(tmp_path: Path, data: bytes, fields: dict[str, str | None]) -> None:
    assert_read(meta(tmp_path / "in.mha", data, **fields))


def test_scales_of_length(tmp_path: Path) -> None:
    fields = {"space units": '"cm" "cm" "cm"', "space directions": "(.2,0,0) (0,.3,0) (0,0,.4)"}
    path = nrrd(tmp_path / "in.nrrd", **fields, space_origin="(-.5,.6,.7)")
    np.testing.assert_allclose(read_volume(path).affine, AFFINE)


@pytest.mark.parametrize("name", ["scan.raw", "sub/scan.raw"])
def test_voxels_beside_the_header(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_bytes(RAW)
    one = nrrd(tmp_path / "in.nhdr", b"", data_file=name)
    two = meta(tmp_path / "in.mhd", b"", ElementDataFile=name)
    three = meta(tmp_path / "end.mhd", b"", ElementDataFile=name, HeaderSize="-1")
    for path in (one, two, three):
        volume = assert_read(path)
        assert volume.source is not None
        assert volume.source.parts == (path, path.parent / name)
        with pytest.raises(InputError, match="unknown output format"):
            write_volume(volume, tmp_path / "out.mhd")
        (tmp_path / "out.nii").hardlink_to(tmp_path / name)
        with pytest.raises(InputError, match="same file"):
            write_volume(volume, tmp_path / "out.nii", overwrite=True)
        (tmp_path / "out.nii").unlink()


@pytest.mark.parametrize("name", ["../secret", "{secret}", "link", "sub/../../secret", "in.file"])
def test_voxels_elsewhere_are_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(RAW)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    name = name.format(secret=tmp_path / "secret")
    for suffix, write, field in ((".nhdr", nrrd, "data file"), (".mhd", meta, "ElementDataFile")):
        other = name.replace(".file", suffix)
        path = write(folder / f"in{suffix}", b"", **{field: other})
        with pytest.raises(InputError, match=rf"in\{suffix}: names .*"):
            read_volume(path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"dimension": "4", "sizes": "3 2 3 4", "kinds": "vector domain domain domain"}, "vector"),
        (
            {"dimension": "4", "sizes": "3 2 3 4", "kinds": "RGB-color domain domain domain"},
            "kind 'rgb-color'",
        ),
        (
            {"dimension": "4", "sizes": "2 3 4 5", "kinds": "domain domain domain list"},
            "kind 'list'",
        ),
        ({"dimension": "4", "sizes": "2 3 4 5", "kinds": None}, "4 axes"),
        ({"kinds": "domain domain time"}, "axis 2 is of kind 'time'"),
        ({"kinds": "domain domain"}, "damaged"),
        ({"type": "block"}, "type 'block'"),
        ({"type": None}, "type ''"),
        ({"encoding": "hex"}, "encoding 'hex'"),
        ({"endian": None}, "does not say endian"),
        ({"sizes": "2 3"}, "damaged"),
        ({"sizes": "2 3 -4"}, "damaged"),
        ({"sizes": "2 3 0"}, "no voxels"),
        ({"sizes": "2 3 5"}, "holds less than the"),
        ({"sizes": "200000 300000 400000"}, "holds less than the"),
        ({"sizes": "200000 300000 400000", "encoding": "gzip"}, "holds less than the"),
        ({"sizes": "200000 300000 400000", "encoding": "text"}, "holds less than the"),
        ({"sizes": "200000 300000 400000", "encoding": "bz2"}, "GB of memory"),
        ({"dimension": "x"}, "dimension is 'x'"),
        ({"space": "scanner-xyz"}, "does not say where left and right are"),
        ({"space": "3D-right-handed"}, "does not say where left and right are"),
        ({"space": None, "space dimension": "3"}, "does not say where left and right are"),
        ({"space directions": None}, "space directions or space origin is missing"),
        ({"space directions": "none (0,3,0) (0,0,4)"}, "space directions or space origin"),
        ({"space directions": "(2,0,x) (0,3,0) (0,0,4)"}, "space directions or space origin"),
        ({"space directions": "(2,0,0) (0,0,0) (0,0,4)"}, "singular"),
        ({"space directions": "(nan,0,0) (0,3,0) (0,0,4)"}, "NaN"),
        ({"space directions": "(1e9,0,0) (0,3,0) (0,0,4)"}, "no scanner makes"),
        ({"space origin": None}, "space origin is missing"),
        ({"space units": '"inch" "inch" "inch"'}, "space units"),
        ({"space units": '"mm" "mm" "cm"'}, "space units"),
        ({"space units": "inch inch inch"}, "space units"),
        ({"data file": "LIST"}, "several files"),
        ({"data file": "scan%03d.raw 1 4 1"}, "several files"),
        ({"data file": "none.raw"}, "no such file"),
        ({"Type": "int8"}, "damaged"),
        ({"byte skip": "-2"}, "damaged"),
        ({"byte skip": "-1", "encoding": "gzip"}, "damaged"),
    ],
)
def test_unusable_nrrd_headers_are_refused(
    tmp_path: Path, fields: dict[str, str | None], reason: str
) -> None:
    path = nrrd(tmp_path / "in.nrrd", **fields)
    with pytest.raises(InputError, match=rf"^(in|{tmp_path}/none)\.(nrrd|raw): .*{reason}"):
        read_volume(path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ElementNumberOfChannels": "3"}, "'3' channels"),
        ({"NDims": "4", "DimSize": "2 3 4 5"}, "4 axes"),
        ({"NDims": "2"}, "damaged"),
        ({"DimSize": "2 3 x"}, "DimSize is missing or damaged"),
        ({"DimSize": None}, "DimSize is missing or damaged"),
        ({"DimSize": "2 3 0"}, "no voxels"),
        ({"DimSize": "2 3 5"}, "holds less than the"),
        ({"DimSize": "200000 300000 400000"}, "holds less than the"),
        ({"DimSize": "200000 300000 400000", "CompressedData": "True"}, "holds less than the"),
        ({"ElementType": "MET_OTHER"}, "type 'MET_OTHER'"),
        ({"ElementType": None}, "type ''"),
        ({"ElementSpacing": None}, "ElementSpacing is missing"),
        ({"ElementSpacing": "0 3 4"}, "singular"),
        ({"ElementSpacing": "nan 3 4"}, "NaN"),
        ({"ElementSpacing": "1e-9 3 4"}, "no scanner makes"),
        ({"ElementSpacing": "2 3"}, "ElementSpacing is '2 3'"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0 0"}, "singular"),
        ({"TransformMatrix": "1 0 0"}, "TransformMatrix is"),
        ({"ElementToIntensityFunctionSlope": "2"}, "save the values themselves"),
        ({"DistanceUnits": "um"}, "DistanceUnits"),
        ({"ObjectType": "Tube"}, "holds 'Tube'"),
        ({"ElementDataFile": "LIST"}, "several files"),
        ({"ElementDataFile": "scan%03d.raw 1 4 1"}, "several files"),
        ({"ElementDataFile": "none.raw"}, "no such file"),
        ({"ElementDataFile": None}, "does not end"),
        ({"ElementDataFile": None, "ElementDataFiles": "LOCAL"}, "ElementDataFile is missing"),
        ({"ElementDataFile": "a\x1b[2Jb"}, r"names 'a\\x1b\[2Jb', outside"),
        ({"HeaderSize": "-1", "CompressedData": "True", "ElementDataFile": "d"}, "HeaderSize is"),
    ],
)
def test_unusable_metaimage_headers_are_refused(
    tmp_path: Path, fields: dict[str, str | None], reason: str
) -> None:
    (tmp_path / "d").write_bytes(RAW)
    path = meta(tmp_path / "in.mha", **fields)
    with pytest.raises(InputError, match=rf"^(in|{tmp_path}/none)\.(mha|raw): .*{reason}"):
        read_volume(path)


@pytest.mark.parametrize(("write", "suffix"), [(nrrd, ".nrrd"), (meta, ".mha")])
def test_bytes_behind_and_before_the_end(
    tmp_path: Path, write: object, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert_read(write(tmp_path / f"in{suffix}", RAW + b"more"))
    assert f"in{suffix}: bytes behind the voxels were ignored" in caplog.text
    with pytest.raises(InputError, match="holds less than"):
        read_volume(write(tmp_path / f"in{suffix}", RAW[:-1]))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda packed, pack: packed[:-12], "truncated|less"),
        (lambda packed, pack: packed[:20] + b"\xff" * 9 + packed[29:], "truncated|damaged|sound"),
        (lambda packed, pack: pack(RAW + bytes(9)), "holds more than the 48 bytes"),
        (lambda packed, pack: pack(RAW + bytes(50_000_000)), "holds more than the 48 bytes"),
        (lambda packed, pack: pack(RAW[:-1]), "holds less than the 48 bytes"),
        (lambda packed, pack: b"no packed data at all, but text", "sound|truncated|damaged"),
    ],
)
@pytest.mark.parametrize("kind", ["nrrd gzip", "nrrd bzip2", "mha zlib", "mha gzip"])
def test_damaged_packed_voxels_are_refused(
    tmp_path: Path, kind: str, damage: object, reason: str
) -> None:
    pack = {"gzip": gzip.compress, "bzip2": bz2.compress, "zlib": zlib.compress}[kind.split()[1]]
    data = damage(pack(RAW), pack)
    if kind.startswith("nrrd"):
        path = nrrd(tmp_path / "in.nrrd", data, encoding=kind.split()[1])
    else:
        path = meta(tmp_path / "in.mha", data, CompressedData="True")
    with pytest.raises(InputError, match=rf"^in\.(nrrd|mha): .*({reason})"):
        read_volume(path)


def test_text_voxels_are_counted(tmp_path: Path) -> None:
    for text, reason in (
        (" 1" * 30, "holds 30 voxels, its header gives 24"),
        (" 111" * 20, "holds 20 voxels, its header gives 24"),
        (" x" * 24, "a voxel is not a number"),
    ):
        path = nrrd(tmp_path / "in.nrrd", text.encode(), encoding="ascii")
        with pytest.raises(InputError, match=reason):
            read_volume(path)


def test_images_without_a_place_have_no_geometry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = {"space": None, "space directions": None, "space origin": None}
    with caplog.at_level(logging.WARNING):
        volume = read_volume(nrrd(tmp_path / "in.nrrd", **bare, spacings="2 3 4"))
    assert volume.affine is None
    assert "no position in space" in caplog.text
    two = {"dimension": "2", "sizes": "4 6", "kinds": "domain domain"}
    volume = read_volume(nrrd(tmp_path / "in.nrrd", **bare, **two))
    assert (volume.affine, volume.data.shape) == (None, (4, 6, 1))
    flat = SimpleITK.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(6, 4))
    SimpleITK.WriteImage(flat, tmp_path / "in.mha")
    other = read_volume(tmp_path / "in.mha")
    assert other.affine is None
    np.testing.assert_array_equal(other.data, volume.data)
    np.testing.assert_array_equal(Volume.from_sitk(flat).data, volume.data)


def test_a_metaimage_without_directions_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert_read(meta(tmp_path / "in.mha", TransformMatrix=None))
    assert "no orientation" in caplog.text


def test_modality_and_unit_come_from_the_file_beside(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"Modality": "PT", "Units": "BQML"}')
    for path in (nrrd(tmp_path / "in.nrrd"), meta(tmp_path / "in.mha")):
        volume = read_volume(path)
        assert (volume.modality, volume.unit) == ("PT", "Bq/ml")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mgz"])
def test_types_of_the_source_are_kept_or_refused(tmp_path: Path, suffix: str) -> None:
    for kind in ("u1", "i2", "u2", "i4", "f4", "f8", "i8"):
        np.save(tmp_path / "in.npy", NUMBERS.astype(kind))
        array = read_volume(tmp_path / "in.npy")
        volume = Volume(array.data, AFFINE, source=array.source)
        path = tmp_path / f"out{suffix}"
        if suffix == ".mgz" and kind in ("f8", "i8"):
            with pytest.raises(InputError, match="cannot store the source's type"):
                write_volume(volume, path, dtype="source", overwrite=True)
            continue
        write_volume(volume, path, dtype="source", overwrite=True)
        again = read_volume(path)
        assert again.source is not None
        assert again.source.stored is not None
        assert again.source.stored.dtype.newbyteorder("=") == np.dtype(kind)
        np.testing.assert_array_equal(again.data, NUMBERS)


def test_a_record_identifies_header_and_voxels(tmp_path: Path) -> None:
    (tmp_path / "scan.raw").write_bytes(RAW)
    one = identify(read_volume(meta(tmp_path / "in.mhd", b"", ElementDataFile="scan.raw")))
    assert one is not None
    assert set(one.source_files) == {"in.mhd", "scan.raw"}
    (tmp_path / "scan.raw").write_bytes(RAW[::-1])
    two = identify(read_volume(tmp_path / "in.mhd"))
    assert two is not None
    assert one.source_sha256 != two.source_sha256
    single = identify(read_volume(meta(tmp_path / "in.mha")))
    assert single is not None
    assert list(single.source_files.values()) == [single.source_sha256]
