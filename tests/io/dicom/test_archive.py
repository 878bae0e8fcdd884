"""Zip archives of DICOM: what is unpacked and for how long, and what is refused by name."""

from __future__ import annotations

import gc
import logging
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from restore_rwkv.errors import InputError
from restore_rwkv.io import read_volume
from restore_rwkv.io.dicom import DicomSource, find_series, read_dicom
from restore_rwkv.io.dicom.archive import Limits, unpack
from tests.helpers.synthetic_series import SLICES, SeriesWriter


@pytest.fixture
def archive(write_series: SeriesWriter, tmp_path: Path) -> Path:
    path = tmp_path / "scan.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for file in write_series().iterdir():
            out.write(file, f"DICOM/PAT001/{file.stem}")
        out.writestr("README.txt", "no DICOM")
        out.writestr("viewer/viewer.exe", b"MZ" + bytes(5000))
    return path


def test_an_archive_is_read_as_its_folder(
    archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = read_volume(tmp_path / "series")
    with caplog.at_level(logging.WARNING):
        volume = read_dicom(archive)
    np.testing.assert_array_equal(volume.data, expected.data)
    np.testing.assert_array_equal(np.asarray(volume.affine), np.asarray(expected.affine))
    assert isinstance(volume.source, DicomSource)
    assert volume.source.path == archive


def test_only_dicom_is_unpacked_and_removed_with_the_last_reference(archive: Path) -> None:
    volume = read_dicom(archive)
    changed = volume.with_data(volume.data + 1)
    assert isinstance(volume.source, DicomSource)
    assert volume.source.unpacked is not None
    folder, files = volume.source.unpacked.path, volume.source.files
    assert sorted(f for f in folder.rglob("*") if f.is_file()) == sorted(files)
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    del volume
    gc.collect()
    assert all(file.is_file() for file in files)
    del changed
    gc.collect()
    assert not folder.exists()


def test_series_of_an_archive_keep_their_files(archive: Path) -> None:
    found = find_series(archive)
    assert len(found) == 1
    files = found[0].files
    assert len(files) == SLICES
    assert all(file.is_file() for file in files)
    del found
    gc.collect()
    assert not any(file.exists() for file in files)


def test_nothing_is_left_of_an_archive_that_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    file = next((tmp_path / "series").iterdir())
    with zipfile.ZipFile(archive, "a") as out:
        out.write(file, "twice")
        with pytest.warns(UserWarning, match="Duplicate"):
            out.write(file, "twice")
    with pytest.raises(InputError, match=r"^scan.zip: its entry 'twice' is there twice"):
        read_dicom(archive)
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/tmp/out", "C:\\out", "..\\out", "C:out", "//host/out"]
)
def test_names_that_leave_the_folder_are_refused(archive: Path, name: str) -> None:
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(InputError, match=r"^scan.zip: its entry .* leads out of the folder; pack"):
        read_dicom(archive)


def test_links_are_refused(archive: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"^scan.zip: its entry 'link' is a link"):
        read_dicom(archive)


def test_an_archive_in_an_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer.zip"
    with zipfile.ZipFile(outer, "w") as out:
        out.write(archive, "inner.ZIP")
    with pytest.raises(InputError, match=r"^outer.zip: holds another archive"):
        read_dicom(outer)


def test_an_encrypted_archive_is_refused(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"^scan.zip: is encrypted; unpack it yourself"):
        read_dicom(archive)


def test_other_methods_of_packing_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "scan.zip", "w", zipfile.ZIP_LZMA) as out:
        out.writestr("a", b"x")
    with pytest.raises(InputError, match=r"^scan.zip: is packed by method 14, not 8; unpack"):
        read_dicom(tmp_path / "scan.zip")


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        (Limits(entries=SLICES), "holds 6 entries"),
        (Limits(entries=0), "holds more than 0 entries"),
        (Limits(ratio=0.5, small=0), "times its size, as archives made to fill disks do"),
        (Limits(size=1000), "more than the 0.0 GB that are allowed"),
    ],
)
def test_bombs_are_refused(archive: Path, limits: Limits, problem: str) -> None:
    with pytest.raises(InputError, match=rf"^scan.zip: .*{problem}"):
        unpack(archive, limits)


def test_a_real_bomb_is_refused_without_unpacking(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out,
        out.open("a.dcm", "w", force_zip64=True) as stream,
    ):
        for _ in range(300):
            stream.write(bytes(1 << 20))
    with pytest.raises(InputError, match=r"^bomb.zip: would unpack to 1\d\d\d times its size"):
        unpack(path)


def test_a_false_size_does_not_unpack_more(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    at = data.find(b"PK\x01\x02") + 24  # the unpacked size in the list
    data[at : at + 4] = (600).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"^scan.zip: .*(damaged|too long)"):
        unpack(archive)


@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_a_cut_off_archive_is_refused(archive: Path, keep: float) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError, match=r"^scan.zip: the archive is damaged \("):
        read_dicom(archive)


def test_a_damaged_entry_is_refused(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[200:220] = os.urandom(20)
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"^scan.zip: the archive is damaged \("):
        read_dicom(archive)


def test_an_archive_without_dicom_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert find_series(tmp_path / "empty.zip") == ()
    with pytest.raises(InputError, match=r"^empty.zip: "):
        read_dicom(tmp_path / "empty.zip")
