"""PNG, TIFF and NPY: round trips and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from restore_rwkv.errors import InputError
from restore_rwkv.io import Stored, Volume, read_volume, write_volume

REAL = ["uint8", "int16", "uint16", ">i4", "float32", "float64"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("raster")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integer_image_round_trip(tmp_path: Path, suffix: str, dtype: type) -> None:
    high = np.iinfo(dtype).max
    pixels = np.array([[0, 1, 2], [high, high - 1, 7]], dtype)
    Image.fromarray(pixels).save(tmp_path / f"in{suffix}")
    volume = read_volume(tmp_path / f"in{suffix}")
    assert volume.affine is None
    np.testing.assert_array_equal(volume.data[..., 0], pixels)
    write_volume(volume, tmp_path / f"out{suffix}", dtype="source")
    with Image.open(tmp_path / f"out{suffix}") as out:
        assert np.asarray(out).dtype == dtype
        np.testing.assert_array_equal(np.asarray(out), pixels)


def test_float_tiff_round_trip(tmp_path: Path) -> None:
    pixels = np.array([[-1.5, 1e-20, 3e30]], np.float32)
    Image.fromarray(pixels).save(tmp_path / "in.tif")
    volume = read_volume(tmp_path / "in.tif")
    for dtype in ("float32", "source"):
        write_volume(volume, tmp_path / f"{dtype}.tif", dtype=dtype)
        with Image.open(tmp_path / f"{dtype}.tif") as out:
            np.testing.assert_array_equal(np.asarray(out), pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_kinds_of_tiff_give_their_values_or_are_refused(
    tmp_path: Path, dtype: str, compression: str | None, order: str
) -> None:
    pixels = (np.random.default_rng(0).normal(size=(30, 40)) * 100).astype(dtype)
    tifffile.imwrite(tmp_path / "in.tif", pixels, compression=compression, byteorder=order)
    if order == ">" and compression and dtype not in ("uint8", "uint16"):
        with pytest.raises(InputError, match="a compressed big-endian TIFF"):  # Pillow misreads it
            read_volume(tmp_path / "in.tif")
        return
    volume = read_volume(tmp_path / "in.tif")
    np.testing.assert_array_equal(volume.data[..., 0], pixels.astype(np.float32))
    assert volume.source is not None
    assert volume.source.stored == Stored(np.dtype(dtype))
    if dtype in ("int16", "float64"):
        with pytest.raises(InputError, match=f"cannot store the source's type {dtype}"):
            write_volume(volume, tmp_path / "out.tif", dtype="source")
    write_volume(volume, tmp_path / "out.tif")
    np.testing.assert_array_equal(read_volume(tmp_path / "out.tif").data, volume.data)


def test_png_is_rounded_and_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((1, 4), np.uint8)).save(tmp_path / "in.png")
    volume = read_volume(tmp_path / "in.png")
    result = volume.with_data(np.array([-7.0, 0.6, 254.4, 300.0]).reshape(1, 4, 1))
    write_volume(result, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as out:
        assert np.asarray(out).tolist() == [[0, 1, 254, 255]]


def test_tiff_of_an_integer_image_is_float32_unless_asked(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "in.png")
    volume = read_volume(tmp_path / "in.png").with_data(np.full((2, 2, 1), 0.25))
    write_volume(volume, tmp_path / "out.tif")
    with Image.open(tmp_path / "out.tif") as out:
        assert np.asarray(out).tolist() == [[0.25, 0.25], [0.25, 0.25]]


@settings(max_examples=50)
@given(data=st.data())
def test_array_round_trip(folder: Path, data: st.DataObject) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=3, max_side=5))
    dtype = np.dtype(data.draw(st.sampled_from(REAL)))
    values: dict[str, float] = {"min_value": 0, "max_value": 200}
    array = data.draw(arrays.arrays(dtype, shape, elements=values))
    array = np.asfortranarray(array) if data.draw(st.booleans()) else array
    np.save(folder / "in.npy", array)
    volume = read_volume(folder / "in.npy")
    write_volume(volume, folder / "out.npy", overwrite=True)
    out = np.load(folder / "out.npy")
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, array.astype(np.float32))
    write_volume(volume, folder / "out.npy", dtype="source", overwrite=True)
    out = np.load(folder / "out.npy")
    assert (out.dtype, out.shape) == (array.dtype, shape)


@pytest.mark.parametrize(
    ("mode", "suffix", "reason"),
    [
        ("RGB", ".png", "colour"),
        ("RGBA", ".png", "colour"),
        ("RGB", ".tif", "colour"),
        ("P", ".png", "palette"),
        ("P", ".tif", "palette"),
        ("LA", ".png", "LA"),
        ("1", ".png", "8 or 16 bit"),
        ("1", ".tif", "8 or 16 bit"),
        ("I", ".tif", "8 or 16 bit"),
    ],
)
def test_other_pixel_kinds_are_refused(tmp_path: Path, mode: str, suffix: str, reason: str) -> None:
    Image.new(mode, (4, 3)).save(tmp_path / f"in{suffix}")
    with pytest.raises(InputError, match=reason):
        read_volume(tmp_path / f"in{suffix}")


def test_white_is_zero_tiff_is_refused(tmp_path: Path) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "in.tif", tiffinfo={262: 0})
    with pytest.raises(InputError, match="black is not zero"):
        read_volume(tmp_path / "in.tif")


def test_several_pages_are_refused(tmp_path: Path) -> None:
    page = Image.new("L", (4, 3))
    page.save(tmp_path / "in.tif", save_all=True, append_images=[page])
    with pytest.raises(InputError, match="several pages"):
        read_volume(tmp_path / "in.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    write_volume(Volume(pixels), tmp_path / "x.npy")
    if suffix == ".npy":
        (tmp_path / "x.npy").rename(path)
    else:
        Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:3], b"", b"no image at all, but text"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"in\."):
            read_volume(path)


def test_array_that_promises_more_than_it_holds_is_not_allocated(tmp_path: Path) -> None:
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    with (tmp_path / "in.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
    with pytest.raises(InputError, match="not a sound array"):
        read_volume(tmp_path / "in.npy")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), complex),
        np.zeros((2, 3), bool),
        np.zeros(3),
        np.zeros((2, 0)),
        np.zeros((2, 3, 4, 5)),
        np.array([[np.nan, 1]]),
        np.zeros((2, 2), [("a", "f4")]),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "in.npy", array)
    with pytest.raises(InputError, match=r"in\.npy"):
        read_volume(tmp_path / "in.npy")


def test_pickled_array_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.array([[print]], object))
    with pytest.raises(InputError, match=r"in\.npy: not a sound array"):
        read_volume(tmp_path / "in.npy")


@pytest.mark.parametrize("name", ["out.npy", "out.NPY"])
def test_array_round_trip_under_any_case_of_the_suffix(tmp_path: Path, name: str) -> None:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_volume(Volume(data), tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    np.testing.assert_array_equal(read_volume(tmp_path / name).data, data)
