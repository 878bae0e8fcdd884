"""Where the files of a series are looked for: folders at any depth, DICOMDIR, links, pipes."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from restore_rwkv.errors import InputError
from restore_rwkv.io import read_volume
from restore_rwkv.io.dicom import DicomSource, find_series, read_dicom
from restore_rwkv.io.dicom import folder as folder_room
from restore_rwkv.io.dicom.files import read_image
from restore_rwkv.io.dicom.folder import find_files
from tests.helpers.dicom_folders import bare, write_cd
from tests.helpers.synthetic_series import SLICES, SeriesWriter, make_slice, save


def slices(number: int = 7) -> list[Dataset]:
    found = [make_slice(k) for k in range(SLICES)]
    for dataset in found:
        dataset.SeriesNumber = number
    return found


def test_a_series_is_found_at_any_depth_without_suffixes(
    write_series: SeriesWriter, tmp_path: Path
) -> None:
    expected = read_volume(write_series())
    deep = tmp_path / "cd" / "DICOM" / "PAT001" / "ST000"
    for k, dataset in enumerate(slices()):
        (deep / f"SE00{k % 2}").mkdir(parents=True, exist_ok=True)
        save(dataset, deep / f"SE00{k % 2}" / f"IM00{k}")
    volume = read_dicom(tmp_path / "cd")
    np.testing.assert_array_equal(volume.data, expected.data)
    assert isinstance(volume.source, DicomSource)
    assert [file.name for file in volume.source.files] == ["IM000", "IM001", "IM002", "IM003"]


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_a_preamble_are_read(
    write_series: SeriesWriter, tmp_path: Path, implicit: bool
) -> None:
    expected = read_volume(write_series())
    (tmp_path / "bare").mkdir()
    for k, dataset in enumerate(slices()):
        (tmp_path / "bare" / str(k)).write_bytes(bare(dataset, implicit=implicit))
    volume = read_dicom(tmp_path / "bare")
    np.testing.assert_array_equal(volume.data, expected.data)
    assert volume.affine is not None
    np.testing.assert_array_equal(volume.affine, np.asarray(expected.affine))
    (series,) = find_series(tmp_path / "bare")
    assert series.transfer_syntaxes == ("1.2.840.10008.1.2" + ".1" * (not implicit),)


def test_a_dicomdir_is_read_by_itself_and_by_its_folder(tmp_path: Path) -> None:
    cd = write_cd(tmp_path / "cd", {"1.2.3.7": slices(7), "1.2.3.8": slices(8)})
    for path in (cd, cd / "DICOMDIR"):
        assert [series.number for series in find_series(path)] == ["7", "8"]
        assert read_dicom(path, series=7).data.shape[2] == SLICES
    save(make_slice(9), cd / "not on the CD")
    assert len(find_series(cd / "DICOMDIR")) == 2
    assert len(find_series(cd)) == 3


def test_names_of_a_dicomdir_match_in_either_case(tmp_path: Path) -> None:
    cd = write_cd(tmp_path / "cd", {"1.2.3.7": slices()})
    for here, folders, files in os.walk(cd, topdown=False):
        for name in (*folders, *(f for f in files if f != "DICOMDIR")):
            os.rename(Path(here, name), Path(here, name.lower() + (";1" * (name in files))))
    assert read_dicom(cd / "DICOMDIR").data.shape[2] == SLICES


def test_a_file_that_a_dicomdir_names_but_is_missing_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cd = write_cd(tmp_path / "cd", {"1.2.3.7": slices(7), "1.2.3.8": slices(8)})
    last = find_series(cd)[0].files[-1]
    last.unlink()
    name = last.relative_to(cd).as_posix()
    for path in (cd, cd / "DICOMDIR"):
        with pytest.raises(InputError, match=rf"1 file\(s\) .* missing, the first {name}; copy"):
            read_dicom(path, series=7)
        with caplog.at_level(logging.WARNING):
            assert read_dicom(path, series=8).data.shape[2] == SLICES
        assert f"1 file(s) of other series are named by the DICOMDIR but missing, the first {name}"
        assert name in caplog.text


def test_a_dicomdir_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    secret = tmp_path / "PT000000" / "ST000000" / "SE000000"
    secret.mkdir(parents=True)
    cd = write_cd(tmp_path / "cd", {"1.2.3.7": slices()[:1]})
    (file,) = find_series(cd)[0].files
    file.rename(tmp_path / "OUTSIDE1")
    data = (cd / "DICOMDIR").read_bytes()
    inner = b"PT000000\\ST000000\\SE000000\\IM000000"
    assert inner in data
    outside = b"..\\OUTSIDE1".ljust(len(inner))
    (cd / "DICOMDIR").write_bytes(data.replace(inner, outside))
    with pytest.raises(InputError, match="no DICOM images here"):
        read_dicom(cd / "DICOMDIR")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_not_followed_out_of_the_folder(
    write_series: SeriesWriter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_series()
    save(make_slice(9), tmp_path / "outside.dcm")
    (folder / "away").symlink_to(tmp_path / "outside.dcm")
    (folder / "nowhere").symlink_to(tmp_path / "absent")
    (folder / "circle").symlink_to(folder, target_is_directory=True)
    (folder / "inside").symlink_to(sorted(folder.iterdir())[0])
    with caplog.at_level(logging.WARNING):
        assert read_dicom(folder).data.shape[2] == SLICES
    assert "did not follow 2 symbolic link(s)" in caplog.text
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "away").symlink_to(tmp_path / "outside.dcm")
    with pytest.raises(InputError, match=r"no DICOM images here, 1 symbolic link\(s\)"):
        read_dicom(linked)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_pipes_are_not_opened(write_series: SeriesWriter) -> None:
    folder = write_series()
    os.mkfifo(folder / "pipe")  # to open it would wait for ever
    assert read_dicom(folder).data.shape[2] == SLICES
    with pytest.raises(InputError, match=r"^pipe: not a DICOM file"):
        read_dicom(folder / "pipe")


def test_a_header_is_not_read_beyond_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_slice(0)
    del dataset.PixelData
    file = tmp_path / "large.dcm"
    save(dataset, file)
    with file.open("ab") as stream:  # a sequence that claims to be 2 GiB long
        stream.write(b"\x00\x52\x29\x92SQ\0\0" + (2 << 30).to_bytes(4, "little"))
        stream.write(bytes(3 << 20))
    monkeypatch.setattr("restore_rwkv.io.dicom.files._MOST_HEADER", 1 << 20)
    with pytest.raises(
        InputError, match=r"^large.dcm: the DICOM header is damaged \(longer than 1"
    ):
        find_files(file, read_image)


def test_deflated_data_that_inflates_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_slice(0)
    dataset.ImageComments = "x" * 5000
    file = tmp_path / "deflated.dcm"
    save(dataset, file, syntax="1.2.840.10008.1.2.1.99")
    assert read_dicom(file).data.shape[2] == 1
    monkeypatch.setattr("restore_rwkv.io.dicom.files._MOST_INFLATED", 1000)
    with pytest.raises(InputError, match="inflates to more than"):
        read_dicom(file)


def test_a_file_and_a_folder_that_cannot_be_opened_stop_no_search(
    write_series: SeriesWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_series()
    closed = folder / "closed"
    closed.mkdir()
    lost = min(folder.glob("*.dcm"))
    whole, scandir = folder_room.is_dicom, os.scandir

    def is_dicom(path: Path) -> bool:
        if path == lost:  # between the search and the reading
            path.unlink(missing_ok=True)
            return True
        return whole(path)

    def refusing(path: Any = ".") -> Any:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(folder_room, "is_dicom", is_dicom)
    monkeypatch.setattr(os, "scandir", refusing)
    damaged: dict[Path, str] = {}
    (series,) = find_series(folder, damaged)
    assert len(series.files) == 3
    assert set(damaged) == {closed, lost}
    assert damaged[closed].startswith(f"{closed}: Permission denied; check the path")
    assert "No such file" in damaged[lost]
    with pytest.raises(PermissionError):  # as its series may be that of any file
        read_dicom(folder)
    with pytest.raises(PermissionError):
        find_series(closed, {})


def test_a_search_keeps_little_of_each_file(write_series: SeriesWriter) -> None:
    """Archives have millions of files; a whole header takes 20 kB."""
    folder = write_series()
    first = min(folder.glob("*.dcm"))
    for number in range(200):
        shutil.copy(first, folder / f"copy{number}.dcm")
    find_series(folder)  # what is imported and kept by then is no matter
    tracemalloc.start()
    try:
        (series,) = find_series(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / len(series.files) < 2000  # 440 in 4000 files, by Python 3.11


def test_a_series_of_number_0_has_it(write_series: SeriesWriter) -> None:
    (series,) = find_series(write_series(lambda k, dataset: setattr(dataset, "SeriesNumber", 0)))
    assert series.number == "0"
