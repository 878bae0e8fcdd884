"""NIfTI: the header survives bit for bit, values agree with nibabel, damage is refused."""

from __future__ import annotations

import gzip
import json
import logging
import weakref
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Extension, Nifti1Header
from nibabel.nifti2 import Nifti2Header

from restore_rwkv.errors import InputError
from restore_rwkv.io import (
    Volume,
    read_volume,
    read_volumes,
    same_field_of_view,
    write_volume,
    write_volumes,
)

# What describes the stored numbers, and so may differ in a float32 copy.
OF_THE_NUMBERS = {"datatype", "bitpix", "scl_slope", "scl_inter", "cal_min", "cal_max"}
OBLIQUE = np.array([[0.9, -0.2, 0.1, 7], [0.3, 1.1, -0.4, -8], [-0.2, 0.5, 2.1, 9], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nifti")


def write_file(path: Path, header: Nifti1Header, numbers: np.ndarray) -> None:
    """Write header and stored numbers as they are, without nibabel's image layer."""
    with gzip.open(path, "wb") if path.name.endswith(".gz") else path.open("wb") as stream:
        header.write_to(stream)
        stream.write(b"\0" * (int(header["vox_offset"]) - stream.tell()))
        stream.write(numbers.astype(header.get_data_dtype()).tobytes(order="F"))


def make_header(shape: tuple[int, ...] = (2, 3, 4), dtype: Any = np.int16) -> Nifti1Header:
    """Return a sound header with an affine of its own in qform and sform."""
    header = Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    header.set_qform(np.diag([2.0, 3.0, 4.0, 1.0]), code=1)
    header.set_sform(OBLIQUE, code=2)
    return header


def simple_file(path: Path, **fields: Any) -> Path:
    """Write a small int16 file whose header has some fields changed."""
    header = make_header()
    for key, value in fields.items():
        header[key] = value
    write_file(path, header, np.arange(24).reshape(2, 3, 4))
    return path


@st.composite
def headers(draw: st.DrawFn) -> Nifti1Header:
    """Any header that readers accept, with odd but legal fields."""
    kind = draw(st.sampled_from([Nifti1Header, Nifti2Header]))
    header = kind(endianness=draw(st.sampled_from("<>")))
    sides = draw(st.lists(st.integers(1, 4), min_size=2, max_size=3))
    ones = [1] * draw(st.integers(0, 4)) if len(sides) == 3 else []
    header.set_data_shape((*sides, *ones))
    header.set_data_dtype(draw(st.sampled_from(["u1", "i1", "i2", "u2", "i4", "f4", "f8"])))
    form = draw(st.sampled_from([OBLIQUE, np.diag([-2.0, 2.0, 5.0, 1.0])]))
    header.set_qform(form, code=draw(st.integers(0, 4)))
    header.set_sform(form @ np.diag([1, 1, 1.5, 1]), code=draw(st.integers(0, 4)))
    header["pixdim"][4:8] = draw(st.sampled_from([0.0, 2.5]))
    if draw(st.booleans()):
        header["pixdim"][0] = 0  # qfac 0 is to be read as 1
    header["scl_slope"] = draw(st.sampled_from([0.0, np.nan, 1.0, 0.25, -3.5]))
    header["scl_inter"] = draw(st.sampled_from([0.0, -1024.0, 0.5]))
    header["xyzt_units"] = draw(st.sampled_from([0, 1, 2, 3, 10, 18, 7]))
    header["descrip"] = draw(st.binary(max_size=80))
    header["aux_file"] = draw(st.binary(max_size=24))
    header["intent_code"] = draw(st.sampled_from([0, 3, 1001, 2003]))
    header["intent_name"] = b"t-score"
    header["intent_p1"], header["toffset"] = 1.5, 0.25
    header["cal_min"], header["cal_max"] = -5, 5
    header["slice_code"], header["slice_end"], header["dim_info"] = 3, 2, 57
    for _ in range(draw(st.integers(0, 2))):
        content = draw(st.binary(min_size=1, max_size=40))
        header.extensions.append(Nifti1Extension(6, content))
    least = header.single_vox_offset + header.extensions.get_sizeondisk()
    header["vox_offset"] = least + draw(st.sampled_from([0, 16, 48]))
    return header


@settings(max_examples=100, deadline=None)
@given(header=headers(), suffix=st.sampled_from([".nii", ".nii.gz"]), seed=st.integers(0, 99))
def test_round_trip_keeps_the_header(
    folder: Path, header: Nifti1Header, suffix: str, seed: int
) -> None:
    shape = header.get_data_shape()
    offset = int(header["vox_offset"])
    numbers = np.random.default_rng(seed).integers(0, 127, shape)
    path, copy = folder / f"in{suffix}", folder / f"out{suffix}"
    write_file(path, header, numbers)
    volume = read_volume(path)
    slope = header["scl_slope"] if np.isfinite(header["scl_slope"]) else 0
    expected = numbers if slope == 0 else numbers * float(slope) + float(header["scl_inter"])
    np.testing.assert_array_equal(
        volume.data, expected.astype(np.float32).reshape(volume.data.shape)
    )

    result = volume.with_data(volume.data + 0.125)
    write_volume(result, copy, overwrite=True)
    assert_same_header(content(path)[:offset], content(copy)[:offset], type(header))
    out = type(header)(content(copy)[: len(header.binaryblock)])
    assert (out["cal_min"], out["cal_max"], out["scl_slope"], out["scl_inter"]) == (0, 0, 1, 0)
    values = np.frombuffer(content(copy)[offset:], out.get_data_dtype())
    np.testing.assert_array_equal(values, result.data.ravel(order="F"))

    write_volume(volume, copy, dtype="source", overwrite=True)
    assert_same_header(content(path)[:offset], content(copy)[:offset], type(header))
    stored = np.frombuffer(content(copy)[offset:], header.get_data_dtype())
    np.testing.assert_array_equal(stored, numbers.ravel(order="F"))
    np.testing.assert_array_equal(read_volume(copy).data, volume.data)


def content(path: Path) -> bytes:
    """Return the uncompressed bytes of a file."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def assert_same_header(one: bytes, two: bytes, kind: type[Nifti1Header]) -> None:
    """Compare all that comes before the voxels, but for the fields about the numbers."""
    size = kind.template_dtype.itemsize
    fields, others = kind(one[:size], check=False), kind(two[:size], check=False)
    assert fields.endianness == others.endianness
    different = {key for key in fields if fields[key].tobytes() != others[key].tobytes()}
    assert different <= OF_THE_NUMBERS
    assert one[size:] == two[size:]  # extensions


@pytest.mark.parametrize("dtype", ["float32", "source"])
def test_nibabel_reads_the_same_image(tmp_path: Path, dtype: str) -> None:
    header = make_header((2, 3, 4, 1))
    header["scl_slope"], header["scl_inter"] = 0.25, -3
    header.extensions.append(Nifti1Extension("comment", b"kept"))
    header["vox_offset"] = 352 + header.extensions.get_sizeondisk()
    write_file(tmp_path / "in.nii.gz", header, np.arange(24).reshape(2, 3, 4, 1))
    volume = read_volume(tmp_path / "in.nii.gz")
    write_volume(volume, tmp_path / "out.nii.gz", dtype=dtype)
    before, after = nibabel.load(tmp_path / "in.nii.gz"), nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(volume.data[..., np.newaxis], before.get_fdata())
    np.testing.assert_array_equal(after.get_fdata(), before.get_fdata())
    np.testing.assert_array_equal(volume.affine, before.affine)
    np.testing.assert_array_equal(after.get_sform(), before.get_sform())
    np.testing.assert_array_equal(after.get_qform(), before.get_qform())
    assert after.header.extensions[0].get_content() == b"kept"


def test_both_forms_and_codes_are_bit_identical(tmp_path: Path) -> None:
    path = simple_file(tmp_path / "in.nii")
    write_volume(read_volume(path), tmp_path / "out.nii")
    before, after = path.read_bytes()[252:348], (tmp_path / "out.nii").read_bytes()[252:348]
    assert before == after  # qform_code to magic, as the NIfTI-1 layout has them


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000.0), (2, 1.0), (3, 0.001), (0, 1.0)])
def test_affine_is_in_millimetres(tmp_path: Path, unit: int, factor: float) -> None:
    path = simple_file(tmp_path / "in.nii", xyzt_units=unit)
    affine = read_volume(path).affine
    assert affine is not None
    np.testing.assert_allclose(affine[:3], OBLIQUE[:3] * factor, rtol=1e-7)
    write_volume(read_volume(path), tmp_path / "out.nii")
    assert nibabel.load(tmp_path / "out.nii").header["xyzt_units"] == unit


def test_source_type_is_rounded_and_clipped(tmp_path: Path) -> None:
    path = simple_file(tmp_path / "in.nii.gz", scl_slope=0.5, scl_inter=-10)
    volume = read_volume(path)
    values = volume.data.copy()
    values[0, 0, :] = [-1e6, 1e6, 0.3, -0.3]
    write_volume(volume.with_data(values), tmp_path / "out.nii.gz", dtype="source")
    out = nibabel.load(tmp_path / "out.nii.gz")
    assert out.get_data_dtype() == np.int16
    assert out.dataobj.slope == 0.5
    assert out.dataobj.inter == -10
    assert out.get_fdata()[0, 0].tolist() == [-32768 / 2 - 10, 32767 / 2 - 10, 0.5, -0.5]


def test_plain_array_gets_scanner_codes_and_millimetres(tmp_path: Path) -> None:
    affine = np.diag([-0.5, 0.75, 2.0, 1.0])
    write_volume(Volume(np.ones((2, 3, 4)), affine), tmp_path / "out.nii.gz")
    out = nibabel.load(tmp_path / "out.nii.gz")
    assert (int(out.header["qform_code"]), int(out.header["sform_code"])) == (1, 1)
    assert out.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(out.get_sform(), affine)
    np.testing.assert_allclose(out.get_qform(), affine, atol=1e-6)
    assert out.header.get_zooms() == (0.5, 0.75, 2.0)
    np.testing.assert_array_equal(out.get_fdata(), 1)


def test_changed_affine_is_written_not_the_source_header(tmp_path: Path) -> None:
    volume = read_volume(simple_file(tmp_path / "in.nii"))
    moved = Volume(volume.data, np.diag([2.0, 2.0, 2.0, 1.0]), source=volume.source)
    write_volume(moved, tmp_path / "out.nii")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "out.nii").affine, moved.affine)


def test_equal_images_give_equal_files(tmp_path: Path) -> None:
    volume = Volume(np.ones((2, 3, 4)), np.eye(4))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(volume, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_least_data_offset_may_be_left_out(tmp_path: Path) -> None:
    path = simple_file(tmp_path / "in.nii")
    data = bytearray(path.read_bytes())
    data[108:112] = bytes(4)  # vox_offset
    path.write_bytes(data)
    np.testing.assert_array_equal(read_volume(path).data.ravel(), np.arange(24))


def test_missing_orientation_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = simple_file(tmp_path / "in.nii", qform_code=0, sform_code=0)
    with caplog.at_level(logging.WARNING):
        read_volume(path)
    assert "no orientation" in caplog.text


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pixdim": [1, 1, 0, 1, 1, 1, 1, 1]}, "spacing is 0 mm on axis 1; fix pixdim"),
        ({"pixdim": [1, 1, np.nan, 1, 1, 1, 1, 1]}, "spacing is nan mm on axis 1"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "NaN or infinity"),
        ({"srow_y": [0, np.inf, 0, 0]}, "NaN or infinity"),
        ({"srow_z": [0, 0, 0, 0]}, "singular"),
        ({"quatern_b": 2.0, "sform_code": 0}, "qform"),
        ({"dim": [3, 2, 0, 4, 1, 1, 1, 1]}, "no voxels"),
        ({"dim": [3, 2, -3, 4, 1, 1, 1, 1]}, "no voxels"),
        ({"dim": [1, 24, 1, 1, 1, 1, 1, 1]}, "is not an image"),
        ({"dim": [4, 2, 3, 2, 2, 1, 1, 1]}, r"4 axes.*one 3-D volume per time point"),
        ({"dim": [5, 2, 3, 2, 1, 2, 1, 1]}, r"5 axes.*channel"),
        ({"dim": [3, 2, 3, 5, 1, 1, 1, 1]}, "less than the 412 bytes"),
        ({"dim": [9, 2, 3, 4, 1, 1, 1, 1]}, r"damaged \(9 axes, NIfTI has 1 to 7\)"),
        ({"dim": [-3, 2, 3, 4, 1, 1, 1, 1]}, r"damaged \(-3 axes"),
        ({"dim": [4, 2, 3, 2, 2, 1, 1, 1], "intent_code": 1007}, "vectors are not supported"),
        ({"pixdim": [1, 1e9, 1, 1, 1, 1, 1, 1]}, r"spacing is 1e\+09 mm on axis 0, which no sc"),
        ({"pixdim": [1, 1, 1, 1e-9, 1, 1, 1, 1]}, "spacing is 1e-09 mm on axis 2"),
        ({"srow_x": [1e9, 0, 0, 0]}, r"spacing is 1e\+09 mm on axis 0"),
        ({"srow_x": [1, 0, 0, 1e9]}, r"first voxel is 1e\+09 mm from the origin"),
        ({"qform_code": 99}, "qform_code is 99; give 0 to 5"),
        ({"sform_code": -1}, "sform_code is -1"),
        ({"quatern_b": np.nan, "sform_code": 0}, "NaN"),
        ({"scl_slope": np.inf}, "slope is infinite"),
        ({"scl_slope": -np.inf}, "slope is infinite"),
        ({"scl_slope": 2, "scl_inter": np.inf}, "inter"),
        ({"bitpix": 8}, r"8 bits a voxel, but the data type int16 has 16"),
        ({"datatype": 512, "bitpix": 32}, "32 bits a voxel, but the data type uint16 has 16"),
        ({"vox_offset": 1e9}, "less than"),
        ({"vox_offset": -352}, "damaged"),
        ({"magic": b"ni1"}, "its voxels are in another file"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "less than"),
        ({"datatype": 32, "bitpix": 64}, "complex"),
        ({"datatype": 128, "bitpix": 24}, "colour"),
        ({"datatype": 7}, "damaged"),
        ({"scl_inter": np.nan, "scl_slope": 2}, "inter"),
        ({"vox_offset": 100}, "damaged"),
        ({"vox_offset": np.nan}, "vox_offset is not finite"),
        ({"magic": b"abc"}, "damaged"),
        ({"sizeof_hdr": 5}, "not a NIfTI file"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_unusable_headers_are_refused(
    tmp_path: Path, fields: dict[str, Any], reason: str, suffix: str
) -> None:
    path = simple_file(tmp_path / f"in{suffix}")
    data = bytearray(content(path))
    header = make_header()
    header["vox_offset"] = 352
    for key, value in fields.items():
        header[key] = value
    data[:348] = header.binaryblock
    path.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
    with pytest.raises(InputError, match=rf"^in{suffix}: .*{reason}"):
        read_volume(path)


def test_voxels_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    numbers = np.zeros((2, 3, 4), np.float32)
    numbers[1, 2, 3] = np.nan
    numbers[1, 0, 2] = np.inf
    write_file(tmp_path / "in.nii", make_header(dtype=np.float32), numbers)
    with pytest.raises(InputError, match=r"2 voxels are not finite, the first at \(1, 0, 2\)"):
        read_volume(tmp_path / "in.nii")


@pytest.mark.parametrize("keep", [0, 3, 20, 60, -10, -4])
def test_truncated_gzip_is_refused(tmp_path: Path, keep: int) -> None:
    path = simple_file(tmp_path / "in.nii.gz")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"^in\.nii\.gz: "):
        read_volume(path)


def test_trailing_garbage_in_gzip_is_refused(tmp_path: Path) -> None:
    path = simple_file(tmp_path / "in.nii.gz")
    path.write_bytes(path.read_bytes() + b"garbage")
    with pytest.raises(InputError, match="not a sound gzip file"):
        read_volume(path)


def test_damaged_gzip_data_is_refused(tmp_path: Path) -> None:
    path = simple_file(tmp_path / "in.nii.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF  # in the checksum
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a sound gzip file"):
        read_volume(path)


def test_gzip_in_several_members_is_read(tmp_path: Path) -> None:
    path = simple_file(tmp_path / "plain.nii")
    data = path.read_bytes()
    (tmp_path / "in.nii.gz").write_bytes(gzip.compress(data[:361]) + gzip.compress(data[361:]))
    np.testing.assert_array_equal(read_volume(tmp_path / "in.nii.gz").data, read_volume(path).data)


def test_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = simple_file(tmp_path / "plain.nii")
    with gzip.open(tmp_path / "in.nii.gz", "wb") as stream:
        stream.write(path.read_bytes() + bytes(50_000_000))
    unpacked = 0
    read = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal unpacked
        data = read(self, size)
        unpacked += len(data)
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(InputError, match="more than the 400 bytes"):
        read_volume(tmp_path / "in.nii.gz")
    assert 0 < unpacked <= 540


@pytest.mark.parametrize(("made", "named"), [("a.nii", "b.nii.gz"), ("a.nii.gz", "b.nii")])
def test_compression_is_found_by_content(tmp_path: Path, made: str, named: str) -> None:
    simple_file(tmp_path / made).rename(tmp_path / named)
    np.testing.assert_array_equal(read_volume(tmp_path / named).data.ravel(), np.arange(24))


def test_text_with_gzip_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.nii.gz").write_text("neither gzip nor NIfTI\n" * 50)
    with pytest.raises(InputError, match="not a sound gzip file, and not a NIfTI file"):
        read_volume(tmp_path / "in.nii.gz")


def test_bytes_behind_the_voxels_are_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = simple_file(tmp_path / "in.nii")
    expected = read_volume(path)
    assert caplog.text == ""
    path.write_bytes(path.read_bytes() + bytes(512))
    volume = read_volume(path)
    assert "in.nii: bytes behind the voxels were ignored" in caplog.text
    np.testing.assert_array_equal(volume.data, expected.data)


def test_bytes_behind_the_voxels_inside_gzip_are_refused(tmp_path: Path) -> None:
    path = simple_file(tmp_path / "in.nii")
    path.write_bytes(gzip.compress(path.read_bytes() + bytes(512)))
    with pytest.raises(InputError, match=r"in\.nii: holds more than the 400 bytes"):
        read_volume(path)


def test_a_gzip_file_too_small_for_its_header_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = simple_file(tmp_path / "plain.nii", dim=[3, 2500, 2000, 2000, 1, 1, 1, 1])
    (tmp_path / "in.nii.gz").write_bytes(gzip.compress(path.read_bytes() + bytes(1 << 20), 9))
    monkeypatch.setattr("restore_rwkv.io.nifti.read_exactly", only_headers)
    with pytest.raises(InputError, match="less than the 20000000352 bytes"):
        read_volume(tmp_path / "in.nii.gz")


def test_more_than_the_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = simple_file(tmp_path / "in.nii.gz")
    monkeypatch.setattr("restore_rwkv.io.payload.available_memory", lambda: 100)
    monkeypatch.setattr("restore_rwkv.io.nifti.read_exactly", only_headers)
    with pytest.raises(InputError, match=r"24 voxels need about 0\.0 GB of memory, 0\.0 GB are"):
        read_volume(path)


def only_headers(stream: Any, size: int) -> bytearray:
    assert size == 348
    return bytearray(stream.read(size))


@pytest.mark.parametrize("named", ["p.hdr", "p.img"])
@pytest.mark.parametrize(
    "suffixes", [(".hdr", ".img"), (".hdr.gz", ".img.gz"), (".hdr", ".img.gz")]
)
def test_a_pair_is_read_by_either_file(
    tmp_path: Path, named: str, suffixes: tuple[str, str]
) -> None:
    numbers = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Pair(numbers, OBLIQUE)
    image.header.extensions.append(Nifti1Extension("comment", b"kept"))
    nibabel.save(image, tmp_path / "p.img")
    for plain, wanted in zip((".hdr", ".img"), suffixes, strict=True):
        if wanted.endswith(".gz"):
            data = (tmp_path / f"p{plain}").read_bytes()
            (tmp_path / f"p{plain}").unlink()
            (tmp_path / f"p{wanted}").write_bytes(gzip.compress(data))
    path = next(tmp_path.glob(named + "*"))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, numbers)
    np.testing.assert_allclose(volume.affine, OBLIQUE, rtol=1e-6)
    assert volume.source is not None
    assert {part.suffix for part in volume.source.parts} <= {".hdr", ".img", ".gz"}
    assert len(volume.source.parts) == 2
    write_volume(volume, tmp_path / "out.nii", dtype="source")
    out = nibabel.load(tmp_path / "out.nii")
    np.testing.assert_array_equal(out.get_fdata(), numbers)
    np.testing.assert_array_equal(out.affine, volume.affine)
    assert out.header.extensions[0].get_content() == b"kept"
    for part in volume.source.parts:
        (tmp_path / "linked.nii").hardlink_to(part)
        with pytest.raises(InputError, match="same file"):
            write_volume(volume, tmp_path / "linked.nii", overwrite=True)
        (tmp_path / "linked.nii").unlink()


def test_a_pair_without_its_partner_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(np.zeros((2, 3, 4), np.int16), OBLIQUE), tmp_path / "p.img")
    (tmp_path / "p.hdr").rename(tmp_path / "q.hdr")
    with pytest.raises(InputError, match=r"p\.img: its \.hdr file is not beside it"):
        read_volume(tmp_path / "p.img")


def test_a_truncated_pair_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(np.zeros((2, 3, 4), np.int16), OBLIQUE), tmp_path / "p.img")
    (tmp_path / "p.img").write_bytes(bytes(47))
    with pytest.raises(InputError, match=r"p\.img: holds less than the 48 bytes"):
        read_volume(tmp_path / "p.hdr")


def test_analyze_does_not_say_where_left_is(tmp_path: Path) -> None:
    image = nibabel.AnalyzeImage(np.zeros((2, 3, 4), np.int16), np.eye(4))
    nibabel.save(image, tmp_path / "p.img")
    for name in ("p.img", "p.hdr"):
        with pytest.raises(InputError, match="an Analyze image without NIfTI header"):
            read_volume(tmp_path / name)


def four_axes(path: Path, count: int = 3) -> np.ndarray:
    """Write a 4-D image and return its values."""
    header = make_header((2, 3, 4, count))
    header["pixdim"][4] = 2.5
    header["scl_slope"], header["scl_inter"] = 0.5, -3
    header["descrip"] = b"dynamic"
    header["vox_offset"] = 352
    numbers = np.arange(24 * count).reshape(2, 3, 4, count)
    write_file(path, header, numbers)
    return numbers * 0.5 - 3


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_fourth_axis_goes_through_volume_by_volume(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    values = four_axes(path)
    volumes = read_volumes(path)
    assert len(volumes) == volumes.count == 3
    for index, volume in enumerate(volumes):
        np.testing.assert_array_equal(volume.data, values[..., index])
        np.testing.assert_array_equal(read_volume(path, volume=index).data, volume.data)
    write_volumes((v.with_data(v.data + 1) for v in volumes), 3, tmp_path / "new" / f"out{suffix}")
    out = nibabel.load(tmp_path / "new" / f"out{suffix}")
    np.testing.assert_array_equal(out.get_fdata(), values + 1)
    assert_same_header(
        content(path)[:352], content(tmp_path / "new" / f"out{suffix}")[:352], Nifti1Header
    )
    write_volumes(volumes, 3, tmp_path / f"stored{suffix}", dtype="source")
    assert content(tmp_path / f"stored{suffix}") == content(path)


def test_one_of_several_volumes_is_written_with_three_axes(tmp_path: Path) -> None:
    values = four_axes(tmp_path / "in.nii")
    write_volume(read_volume(tmp_path / "in.nii", volume=1), tmp_path / "out.nii")
    out = nibabel.load(tmp_path / "out.nii")
    assert out.shape == (2, 3, 4)
    assert out.header["descrip"] == b"dynamic"
    np.testing.assert_array_equal(out.get_fdata(), values[..., 1])


def test_a_finer_grid_of_several_volumes(tmp_path: Path) -> None:
    four_axes(tmp_path / "in.nii")
    affine = same_field_of_view(OBLIQUE, (2, 3, 4), (4, 6, 4))
    finer = (
        volume.resampled(np.full((4, 6, 4), index, np.float32), affine)
        for index, volume in enumerate(read_volumes(tmp_path / "in.nii"))
    )
    write_volumes(finer, 3, tmp_path / "out.nii.gz")
    out = nibabel.load(tmp_path / "out.nii.gz")
    assert out.shape == (4, 6, 4, 3)
    assert out.header.get_zooms()[3] == 2.5
    assert out.get_fdata()[0, 0, 0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(out.affine, affine, rtol=1e-6)


def test_only_one_volume_is_in_memory_at_a_time(tmp_path: Path) -> None:
    four_axes(tmp_path / "in.nii.gz", 9)
    alive: list[weakref.ref[Any]] = []
    for volume in read_volumes(tmp_path / "in.nii.gz"):
        alive.append(weakref.ref(volume.data))
        del volume
        assert sum(array() is not None for array in alive) <= 1


def test_another_number_of_volumes_than_announced_leaves_nothing(tmp_path: Path) -> None:
    four_axes(tmp_path / "in.nii")
    volumes = read_volumes(tmp_path / "in.nii")
    for count in (2, 4):
        with pytest.raises(InputError, match=f"{count} volumes were announced"):
            write_volumes(volumes, count, tmp_path / "out.nii")
    with pytest.raises(InputError, match="fit NIfTI only"):
        write_volumes(volumes, 3, tmp_path / "out.nrrd")
    with pytest.raises(InputError, match="no volumes to write"):
        write_volumes([], 3, tmp_path / "out.nii")
    assert [path.name for path in tmp_path.iterdir()] == ["in.nii"]


@pytest.mark.parametrize("volume", [-1, 3])
def test_a_volume_that_is_not_there_is_refused(tmp_path: Path, volume: int) -> None:
    four_axes(tmp_path / "in.nii")
    with pytest.raises(InputError, match=r"has 3 volume\(s\), counted from 0"):
        read_volume(tmp_path / "in.nii", volume=volume)


def test_truncated_volumes_are_refused(tmp_path: Path) -> None:
    four_axes(tmp_path / "in.nii.gz")
    data = content(tmp_path / "in.nii.gz")
    (tmp_path / "in.nii.gz").write_bytes(gzip.compress(data[:-1]))
    with pytest.raises(InputError, match="less than the 496 bytes"):
        list(read_volumes(tmp_path / "in.nii.gz"))
    (tmp_path / "in.nii").write_bytes(data[:-1])
    with pytest.raises(InputError, match="less than the 496 bytes"):
        read_volumes(tmp_path / "in.nii")


@settings(max_examples=60, deadline=None)
@given(header=headers(), matrix=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_a_finer_grid_keeps_all_else_of_the_header(
    folder: Path, header: Nifti1Header, matrix: tuple[int, int]
) -> None:
    path, copy = folder / "coarse.nii", folder / "fine.nii"
    write_file(path, header, np.zeros(header.get_data_shape()))
    volume = read_volume(path)
    assert volume.affine is not None
    shape = (*matrix, volume.data.shape[2])
    affine = same_field_of_view(volume.affine, volume.data.shape, shape)
    result = volume.resampled(np.ones(shape), affine)
    for dtype in ("float32", "source"):
        write_volume(result, copy, dtype=dtype, overwrite=True)
        size = len(header.binaryblock)
        before, after = (type(header)(content(file)[:size], check=False) for file in (path, copy))
        different = {key for key in before if before[key].tobytes() != after[key].tobytes()}
        origins = {"qoffset_x", "qoffset_y", "qoffset_z"} if header["qform_code"] > 0 else set()
        rows = {"srow_x", "srow_y", "srow_z"} if header["sform_code"] > 0 else set()
        assert different <= {"dim", "pixdim"} | origins | rows | OF_THE_NUMBERS
        assert (
            content(path)[size : int(header["vox_offset"])]
            == content(copy)[size : int(header["vox_offset"])]
        )
        assert before["pixdim"][0] == after["pixdim"][0]
        again = read_volume(copy)
        assert again.data.shape == shape
        np.testing.assert_allclose(
            again.affine, affine, rtol=1e-5, atol=1e-5 * np.abs(affine).max()
        )
        # Both affines tell of the same edges as before, each in its own place.
        before["pixdim"][0] = after["pixdim"][0] = before["pixdim"][0] or 1
        for form in ("get_qform", "get_sform"):
            one, code = getattr(before, form)(coded=True)
            two, same = getattr(after, form)(coded=True)
            assert code == same
            if code:
                expected = same_field_of_view(one, volume.data.shape, shape)
                np.testing.assert_allclose(two, expected, rtol=1e-5, atol=1e-4)


def test_another_orientation_gets_a_header_of_its_own(tmp_path: Path) -> None:
    volume = read_volume(simple_file(tmp_path / "in.nii"))
    turned = volume.resampled(np.ones((3, 2, 4)), np.diag([2.0, 2.0, 2.0, 1.0]))
    write_volume(turned, tmp_path / "out.nii")
    out = nibabel.load(tmp_path / "out.nii")
    assert out.shape == (3, 2, 4)
    np.testing.assert_array_equal(out.affine, turned.affine)


def test_an_unreadable_qform_beside_an_sform_is_given_up_on_another_grid(tmp_path: Path) -> None:
    volume = read_volume(simple_file(tmp_path / "in.nii", quatern_b=2.0))
    assert volume.affine is not None
    affine = same_field_of_view(volume.affine, (2, 3, 4), (4, 6, 4))
    write_volume(volume.resampled(np.ones((4, 6, 4)), affine), tmp_path / "out.nii")
    out = nibabel.load(tmp_path / "out.nii")
    assert (int(out.header["qform_code"]), int(out.header["sform_code"])) == (0, 2)
    np.testing.assert_allclose(out.affine, affine, rtol=1e-6)


SIDECARS = [
    ({"Modality": "MR"}, ("MR", None)),
    ({"Modality": "CT", "Units": "HU"}, ("CT", None)),
    ({"Modality": "PT", "Units": "BQML"}, ("PT", "Bq/ml")),
    ({"Modality": "PT", "Units": "Bq/mL"}, ("PT", "Bq/ml")),
    ({"Modality": "PT", "Units": "GML"}, ("PT", "SUV")),
    ({"Modality": "PT", "Units": ["?"]}, ("PT", None)),
    ({"Modality": "US"}, (None, None)),
    ({"Modality": ["MR"]}, (None, None)),
    ({}, (None, None)),
]


@pytest.mark.parametrize(("record", "expected"), SIDECARS)
@pytest.mark.parametrize("name", ["a.b.nii", "a.b.nii.gz", "a.b.NII.GZ"])
def test_sidecar(
    tmp_path: Path, name: str, record: dict[str, Any], expected: tuple[str | None, str | None]
) -> None:
    path = simple_file(tmp_path / name.lower()).rename(tmp_path / name)
    (tmp_path / "a.b.json").write_text(json.dumps(record), encoding="utf-8")
    volume = read_volume(path)
    assert (volume.modality, volume.unit) == expected


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b"\xff\xfe{}", b"[" * 100_000, b" " * (1 << 20) + b"{}"]
)
def test_an_unreadable_sidecar_is_left_out(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = simple_file(tmp_path / "in.nii")
    (tmp_path / "in.json").write_bytes(content)
    assert read_volume(path).modality is None
    assert "in.json: ignored, not a readable JSON object" in caplog.text


def test_a_folder_is_no_sidecar(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in.json").mkdir()
    assert read_volume(simple_file(tmp_path / "in.nii")).modality is None
    assert caplog.text == ""
