"""What can be known about an output is known before anything is computed."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.io import (
    DicomSource,
    Volume,
    check_output,
    check_output_path,
    read_volume,
    read_volumes,
    write_volume,
    write_volumes,
)
from restore_rwkv.io.files import check_writable

Usage = namedtuple("Usage", "total used free")
VOLUME = Volume(np.zeros((200, 100, 50)), np.eye(4))  # 4 MB as float32


def test_folders_are_made_when_the_image_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "newer" / "out.nii"
    check_output(VOLUME, path)
    assert not (tmp_path / "new").exists()
    write_volume(VOLUME, path)
    assert [file.name for file in path.parent.iterdir()] == ["out.nii"]


def test_a_relative_output_in_a_missing_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_volume(VOLUME, "new/out.npy")
    assert Path("new/out.npy").is_file()


def test_other_outputs_still_need_their_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; create it first"):
        check_writable(tmp_path / "new" / "weights.safetensors")


@pytest.mark.parametrize(
    ("name", "free", "volumes", "enough"),
    [
        ("out.nii", 3_999_999, 1, False),
        ("out.nii", 4_000_000, 1, True),
        ("out.mha", 3_999_999, 1, False),
        ("out.npy", 3_999_999, 1, False),
        ("out.nii.gz", 999_999, 1, False),  # zeros would fit, a scan not
        ("out.nii.gz", 1_000_000, 1, True),
        ("out.nii", 11_999_999, 3, False),
        ("out.nii", 12_000_000, 3, True),
    ],
)
def test_a_disk_without_room_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    free: int,
    volumes: int,
    enough: bool,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - free, free))
    if enough:
        check_output(VOLUME, tmp_path / "new" / name, volumes=volumes)
        return
    with pytest.raises(
        InputError, match=rf"{name}: needs at least [\d.,e+]+ MB, {tmp_path} has [\d.,e+]+ MB"
    ):
        check_output(VOLUME, tmp_path / "new" / name, volumes=volumes)


def test_room_is_counted_in_the_type_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((200, 100, 50), np.int16), np.eye(4)), tmp_path / "i.nii"
    )
    volume = read_volume(tmp_path / "i.nii")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 2_000_000))
    check_output(volume, tmp_path / "out.nii", dtype="source")
    with pytest.raises(InputError, match="needs at least 4 MB"):
        check_output(volume, tmp_path / "out.nii")


def test_a_folder_that_cannot_be_looked_into_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Path.stat

    def refusing(self: Path, **kwargs: bool) -> os.stat_result:
        if self.name == "out.nii":
            raise PermissionError(13, "Permission denied")  # the tests may run as root
        return stat(self, **kwargs)

    monkeypatch.setattr(Path, "stat", refusing)
    with pytest.raises(InputError, match=r"out\.nii: cannot be used \(Permission denied\)"):
        check_output_path(tmp_path / "out.nii")


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="cannot be used"):
        check_output_path(tmp_path / "loop" / "out.nii")


def test_the_input_is_recognised_through_links(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.eye(4)), tmp_path / "in.nii")
    (tmp_path / "hard.nii").hardlink_to(tmp_path / "in.nii")
    (tmp_path / "soft.nii").symlink_to("in.nii")
    volume = read_volume(tmp_path / "in.nii")
    for name in ("in.nii", "hard.nii", "soft.nii"):
        with pytest.raises(InputError, match="output and input are the same file"):
            check_output(volume, tmp_path / name, overwrite=True)
        with pytest.raises(InputError, match="output and input are the same file"):
            check_output_path(tmp_path / name, source=tmp_path / "in.nii", overwrite=True)


def test_a_pixel_file_of_a_series_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "slice.npy").write_bytes(b"x")
    source = DicomSource(tmp_path, (2, 3, 4), None, (tmp_path / "slice.npy",))
    volume = Volume(np.zeros((2, 3, 4)), np.eye(4), source=source)
    with pytest.raises(InputError, match="output and input are the same file"):
        write_volume(volume, tmp_path / "slice.npy", overwrite=True)


def test_a_folder_is_told_apart_by_its_end_or_by_a_dicom_source(tmp_path: Path) -> None:
    series = Volume(
        np.zeros((2, 3, 4)), np.eye(4), source=DicomSource(tmp_path, (2, 3, 4), None, ())
    )
    for volume, name in ((series, "out"), (series, "out.nii/"), (VOLUME, "out/")):
        with pytest.raises(InputError, match="is a folder"):
            check_output(volume, f"{tmp_path}/{name}")
    with pytest.raises(InputError, match="unknown output format"):
        check_output(VOLUME, f"{tmp_path}/out")
    check_output(series, f"{tmp_path}/out.nii")


def test_axes_longer_than_nifti_1_are_refused(tmp_path: Path) -> None:
    long = Volume(np.zeros((40_000, 1, 1)), np.eye(4))
    with pytest.raises(InputError, match=r"an axis of 40000 is longer than NIfTI-1 holds \(32767"):
        check_output(long, tmp_path / "out.nii")
    write_volume(long, tmp_path / "out.nrrd")
    assert read_volume(tmp_path / "out.nrrd").data.shape == (40_000, 1, 1)
    nibabel.save(nibabel.Nifti2Image(long.data, np.eye(4)), tmp_path / "in.nii")
    write_volume(read_volume(tmp_path / "in.nii"), tmp_path / "out.nii")
    assert nibabel.load(tmp_path / "out.nii").shape == (40_000, 1, 1)


def test_volumes_of_any_source_make_four_axes(tmp_path: Path) -> None:
    parts = [Volume(np.full((2, 3, 4), k), np.eye(4)) for k in range(3)]
    write_volumes(parts, 3, tmp_path / "out.nii")
    image = nibabel.load(tmp_path / "out.nii")
    assert image.get_fdata()[1, 2, 3].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(image.affine, np.eye(4))
    write_volumes(parts[:1], 1, tmp_path / "one.nrrd")
    assert len(read_volumes(tmp_path / "one.nrrd")) == 1
    assert [volume.data.shape for volume in read_volumes(tmp_path / "one.nrrd")] == [(2, 3, 4)]
    with pytest.raises(InputError, match="volume 2 has another grid"):
        write_volumes([parts[0], VOLUME], 2, tmp_path / "two.nii")
    assert not (tmp_path / "two.nii").exists()


@pytest.mark.parametrize("count", [1, 2])
def test_an_output_that_appears_meanwhile_is_kept(tmp_path: Path, count: int) -> None:
    path = tmp_path / "out.nii"

    def volumes() -> Iterator[Volume]:
        yield VOLUME
        path.write_text("of another program")
        if count == 2:
            yield VOLUME

    with pytest.raises(InputError, match="exists already"):
        write_volumes(volumes(), count, path)
    assert path.read_text() == "of another program"
    assert [file.name for file in tmp_path.iterdir()] == ["out.nii"]
