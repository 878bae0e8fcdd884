"""Formats chosen by name, and outputs refused before anything is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import Volume, check_output, check_output_path, read_volume, write_volume

VOLUME = Volume(np.zeros((2, 3, 4)), np.eye(4))
IMAGE = Volume(np.zeros((2, 3)))


def test_missing_file_is_named_in_full(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path / 'no.nii'}: no such file"):
        read_volume(tmp_path / "no.nii")


@pytest.mark.parametrize("name", ["scan.mrc", "scan", "scan.gz", "scan.npz"])
def test_unknown_input_is_refused(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "scan.npz", VOLUME.data)
    if name != "scan.npz":
        (tmp_path / name).write_bytes(b"what no reader knows")
    with pytest.raises(InputError, match="unknown kind of file"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["scan.mha", "scan", "scan.gz", "scan.nii", "scan.png", "a.dcm"])
def test_an_empty_file_is_refused_as_such(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"^{name}: the file is empty; copy or export it again"):
        read_volume(tmp_path / name)


def test_series_is_for_dicom_only(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.zeros((2, 3)))
    with pytest.raises(InputError, match="only a DICOM folder has series"):
        read_volume(tmp_path / "in.npy", series=3)


@pytest.mark.parametrize(
    ("volume", "name", "dtype", "reason"),
    [
        (IMAGE, "out.nii.gz", "auto", "no geometry"),
        (VOLUME, "out.png", "auto", "4 slices"),
        (VOLUME, "out.tif", "auto", "4 slices"),
        (IMAGE, "out.png", "auto", "no source type"),
        (IMAGE, "out.png", "float32", "PNG has no float32"),
        (VOLUME, "out.nii", "source", "no source type"),
        (IMAGE, "out.npy", "source", "no source type"),
        (VOLUME, "out.mhd", "auto", "unknown output format; name it .mha, one file"),
        (VOLUME, "out.img.gz", "auto", "unknown output format; name it .nii.gz, one file"),
        (VOLUME, "-", "auto", "standard output"),
        (IMAGE, "out.mha", "auto", "no geometry"),
        (VOLUME, "there.nii/out.nii", "auto", "is a file, not a folder"),
        (VOLUME, "out", "auto", "unknown output format"),
        (VOLUME, "out.dcm", "auto", "unknown output format"),
        (VOLUME, "folder", "auto", "is a folder"),
        (VOLUME, "folder/", "auto", "is a folder"),
        (VOLUME, "x" * 250 + ".nii", "auto", "this system allows 215; shorten it"),
        (VOLUME, "x" * 300 + "/out.nii", "auto", "this system allows 255; shorten it"),
        (VOLUME, "there.nii", "auto", "exists already"),
    ],
)
def test_impossible_output_is_refused(
    tmp_path: Path, volume: Volume, name: str, dtype: str, reason: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "there.nii").touch()
    before = sorted(tmp_path.rglob("*"))
    for refuse in (check_output, write_volume):
        with pytest.raises(InputError, match=reason):
            refuse(volume, f"{tmp_path}/{name}" if name != "-" else name, dtype=dtype)
    assert sorted(tmp_path.rglob("*")) == before


def test_unknown_type_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="int8"):
        check_output(VOLUME, tmp_path / "out.nii", dtype="int8")


def test_float_source_does_not_fit_png(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.zeros((2, 3)))
    with pytest.raises(InputError, match="float64"):
        check_output(read_volume(tmp_path / "in.npy"), tmp_path / "out.png")


def test_input_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(path)
    volume = read_volume(path)
    with pytest.raises(InputError, match="same file"):
        check_output(volume, path, overwrite=True)
    with pytest.raises(InputError, match="same file"):
        check_output_path(tmp_path / ".." / tmp_path.name / "in.png", source=path, overwrite=True)


def test_overwrite_replaces(tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    write_volume(VOLUME, path)
    write_volume(VOLUME.with_data(np.ones((2, 3, 4))), path, overwrite=True)
    assert read_volume(path).data.min() == 1
    assert [file.name for file in tmp_path.iterdir()] == ["out.npy"]


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_volume(VOLUME, tmp_path / "out.npy")
    assert list(tmp_path.iterdir()) == []


def test_suffix_in_capitals(tmp_path: Path) -> None:
    write_volume(VOLUME, tmp_path / "OUT.NII.GZ")
    assert (tmp_path / "OUT.NII.GZ").read_bytes()[:2] == b"\x1f\x8b"
    assert read_volume(tmp_path / "OUT.NII.GZ").data.shape == (2, 3, 4)


def test_a_read_only_folder_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # the tests may run as root
    with pytest.raises(InputError, match="cannot be written to; choose another folder"):
        check_output_path(tmp_path / "out.nii.gz")
