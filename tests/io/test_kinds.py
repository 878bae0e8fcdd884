"""The content of a file decides where it is certain; what is not a file is never opened."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restore_rwkv.errors import InputError
from restore_rwkv.io import Volume, check_output_path, read_volume, read_volumes, write_volume
from tests.helpers.synthetic_series import make_slice, save


def files(folder: Path) -> dict[str, Path]:
    """One sound file of each kind that says itself what it is."""
    numbers = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = SimpleITK.GetImageFromArray(numbers.transpose())
    nibabel.save(nibabel.Nifti1Image(numbers, np.eye(4)), folder / "a.nii")
    nibabel.save(nibabel.Nifti2Image(numbers, np.eye(4)), folder / "a2.nii")
    (folder / "a.nii.gz").write_bytes(gzip.compress((folder / "a.nii").read_bytes()))
    SimpleITK.WriteImage(image, folder / "a.nrrd")
    SimpleITK.WriteImage(image, folder / "a.mha")
    Image.fromarray(numbers[..., 0].astype(np.uint8)).save(folder / "a.png")
    Image.fromarray(numbers[..., 0].astype(np.float32)).save(folder / "a.tif")
    np.save(folder / "a.npy", numbers)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("other", ["b", "b.nii", "b.nii.gz", "b.png", "b.dcm", "b.mgz", "b.dat"])
@pytest.mark.parametrize(
    "name", ["a.nii", "a2.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.tif", "a.npy"]
)
def test_a_wrong_name_does_not_matter(tmp_path: Path, name: str, other: str) -> None:
    (tmp_path / "in").mkdir()
    path = files(tmp_path / "in")[name]
    expected = read_volume(path).data
    (tmp_path / "out").mkdir()
    shutil.copy(path, tmp_path / "out" / other)
    np.testing.assert_array_equal(read_volume(tmp_path / "out" / other).data, expected)


@pytest.mark.parametrize("name", ["slice", "slice.nii", "slice.nii.gz", "slice.jpg", "slice.dcm"])
def test_a_dicom_file_is_read_under_any_name(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(make_slice(0), tmp_path / name)
    assert read_volume(tmp_path / name).modality == "CT"
    assert ("read as DICOM, which its content is" in caplog.text) == (".nii" in name)
    bare = (tmp_path / name).read_bytes()[132:]  # without the preamble
    (tmp_path / name).write_bytes(bare)
    assert read_volume(tmp_path / name).modality == "CT"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xd8\xff\xe0", "a JPEG picture; convert it"),
        (b"GIF89a", "a GIF picture"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"CDF\x01", "a NetCDF file"),
        (b"%PDF-1.4\n", "a PDF document"),
        (b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    ],
)
@pytest.mark.parametrize("name", ["in.nii", "in.png", "in"])
def test_other_kinds_are_named(tmp_path: Path, content: bytes, reason: str, name: str) -> None:
    (tmp_path / name).write_bytes(content + bytes(600))
    with pytest.raises(InputError, match=f"^{name}: {reason}"):
        read_volume(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_before_it_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in.nii.gz")
    for read in (read_volume, read_volumes):
        with pytest.raises(InputError, match="is a named pipe; save the image to a file"):
            read(tmp_path / "in.nii.gz")
    with pytest.raises(InputError, match="is a device or a pipe, not a file"):
        check_output_path(tmp_path / "in.nii.gz", overwrite=True)


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="the system has no /dev/null")
def test_a_device_is_refused() -> None:
    with pytest.raises(InputError, match="/dev/zero: is a device"):
        read_volume("/dev/zero")
    with pytest.raises(InputError, match="/dev/null: is a device or a pipe"):
        write_volume(Volume(np.zeros((2, 3, 4)), np.eye(4)), "/dev/null", overwrite=True)


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("in.nii")
        with pytest.raises(InputError, match="is a socket"):
            read_volume("in.nii")


def test_links_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    (tmp_path / "lost.nii").symlink_to("none.nii")
    with pytest.raises(InputError, match=r"loop\.nii: cannot be opened \(Too many levels"):
        read_volume(tmp_path / "loop.nii")
    with pytest.raises(InputError, match=r"lost\.nii: a link to a file that is not there"):
        read_volume(tmp_path / "lost.nii")
    with pytest.raises(InputError, match="exists already"):
        check_output_path(tmp_path / "lost.nii")
    with pytest.raises(InputError, match="no such file or folder"):
        read_volume(tmp_path / "none.nii" / "more.nii")
    with pytest.raises(InputError, match="cannot be opened"):
        read_volume("a\0b.nii")


def test_a_link_to_an_image_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.ones((2, 3)))
    (tmp_path / "link.npy").symlink_to("in.npy")
    assert read_volume(tmp_path / "link.npy").data.sum() == 6


@pytest.mark.parametrize("name", ["in.nii.gz", "in.mha", "in.png", "in.hdr"])
def test_a_folder_with_the_name_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: is a folder; give the .* file in it"):
        read_volume(tmp_path / name)


def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "in.npy", np.ones((2, 3)))
    monkeypatch.setattr("os.access", lambda *_: False)  # the tests may run as root
    with pytest.raises(InputError, match="may not be read; correct its permissions"):
        read_volume(tmp_path / "in.npy")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_one_line(data: st.DataObject, damaged: Path) -> None:
    suffix = data.draw(st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha", ".mgh", ".mgz"]))
    content = bytearray((damaged / f"sound{suffix}").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content), 400) - 1))
        left_out = data.draw(st.integers(0, 6))
        content[at : at + left_out] = data.draw(st.binary(max_size=6))
    path = damaged / f"in{suffix}"
    path.write_bytes(content)
    message = ""
    try:
        list(read_volumes(path))
    except InputError as error:
        message = str(error)
    assert message.isprintable()


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    volume = Volume(np.arange(60).reshape(5, 4, 3), np.diag([2.0, 2.0, 3.0, 1.0]))
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".mgh", ".mgz"):
        write_volume(volume, folder / f"sound{suffix}")
    return folder
