"""The spool: instances are stored whole or not at all, once, and within the quota."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from restore_rwkv.apps.node.spooling import spool as spool_module
from restore_rwkv.apps.node.spooling.spool import (
    ConflictError,
    SeriesTooLargeError,
    Spool,
    SpoolFull,
)
from restore_rwkv.errors import InputError
from tests.helpers.derivable_series import classic, save

LARGE = 1 << 30


def file_of(
    folder: Path, change: Callable[[Dataset], None] = lambda dataset: None, k: int = 0
) -> bytes:
    """A DICOM file of a CT slice."""
    image = classic("CT", k)
    image.SOPInstanceUID = f"1.2.3.{k}"
    change(image)
    path = folder / "source.dcm"
    save(image, path)
    return path.read_bytes()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", LARGE, reserve=0)


def files_of(spool_folder: Path) -> list[Path]:
    return sorted(path for path in spool_folder.rglob("*") if path.is_file())


def test_an_instance_is_described_and_its_data_set_is_stored_as_it_came(
    tmp_path: Path, spool: Spool
) -> None:
    sent = file_of(tmp_path)
    instance, new = spool.add(sent, "dimse:SCANNER")
    assert new
    image = dcmread(io.BytesIO(sent))
    assert (instance.sop_instance_uid, instance.series_uid, instance.study_uid) == (
        "1.2.3.0",
        image.SeriesInstanceUID,
        image.StudyInstanceUID,
    )
    assert instance.sop_class_uid == image.SOPClassUID
    assert instance.transfer_syntax == ExplicitVRLittleEndian
    assert instance.origin == "dimse:SCANNER"
    assert instance.header["Modality"] == "CT"
    assert instance.header["ImageType"] == "ORIGINAL\\PRIMARY\\AXIAL"
    assert instance.header["SeriesDescription"] == "Körper oblique"
    assert "StationName" not in instance.header
    assert instance.announced is None
    stored = instance.path.read_bytes()
    assert stored[128:] == sent[128:]
    assert instance.size == len(stored) == spool.used()
    assert instance.path.parent == spool.folder_of(instance.series_uid)
    data_set = sent[144 + int.from_bytes(sent[140:144], "little") :]
    assert instance.sha256 == hashlib.sha256(data_set).hexdigest()


def test_nothing_that_identifies_a_patient_is_in_the_description(
    tmp_path: Path, spool: Spool
) -> None:
    instance, _ = spool.add(file_of(tmp_path), "dimse:SCANNER")
    image = dcmread(io.BytesIO(file_of(tmp_path)))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber"):
        assert keyword not in instance.header
        assert str(image[keyword].value) not in instance.header.values()


def test_the_preamble_which_may_hold_a_program_says_who_sent_the_file(
    tmp_path: Path, spool: Spool
) -> None:
    sent = file_of(tmp_path)
    instance, _ = spool.add(b"MZ" + bytes(126) + sent[128:], "web:archive")
    stored = instance.path.read_bytes()
    assert stored[:128].rstrip(b"\0") == b"restore-rwkv node, from web:archive"
    assert stored[128:] == sent[128:]


def test_the_same_instance_again_is_not_stored_twice(tmp_path: Path, spool: Spool) -> None:
    first, _ = spool.add(file_of(tmp_path), "dimse:A")
    used = spool.used()
    again, new = spool.add(io.BytesIO(file_of(tmp_path)), "dimse:B")
    assert not new
    assert again.path == first.path
    assert again.sha256 == first.sha256
    assert spool.used() == used
    assert files_of(tmp_path / "spool") == [first.path]


def _other_pixels(image: Dataset) -> None:
    image.PixelData = bytes(len(image.PixelData))


def _other_series(image: Dataset) -> None:
    image.SeriesInstanceUID = "1.2.9"


def _other_name(image: Dataset) -> None:
    image.PatientName = "Other"


@pytest.mark.parametrize("change", [_other_pixels, _other_series, _other_name])
def test_another_instance_of_the_same_uid_is_refused_and_the_first_stays(
    tmp_path: Path, spool: Spool, change: Callable[[Dataset], None]
) -> None:
    first, _ = spool.add(file_of(tmp_path), "dimse:A")
    with pytest.raises(ConflictError, match="SOPInstanceUID"):
        spool.add(file_of(tmp_path, change), "dimse:A")
    assert files_of(tmp_path / "spool") == [first.path]
    assert spool.used() == first.size
    spool.remove(first.series_uid)
    assert spool.add(file_of(tmp_path, change), "dimse:A")[1]


def test_an_instance_in_another_transfer_syntax_is_another(tmp_path: Path, spool: Spool) -> None:
    spool.add(file_of(tmp_path), "dimse:A")
    image = dcmread(io.BytesIO(file_of(tmp_path)))
    image.PatientName = "Other"
    stream = io.BytesIO()
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    image.save_as(stream, implicit_vr=True, little_endian=True)
    with pytest.raises(ConflictError):
        spool.add(stream.getvalue(), "dimse:A")


def test_a_spool_opened_again_knows_what_it_holds_and_removes_what_was_incomplete(
    tmp_path: Path, spool: Spool
) -> None:
    first, _ = spool.add(file_of(tmp_path), "dimse:A")
    left = spool.begin(file_of(tmp_path)[:400])
    left.write(b"half of a data set")
    left._stream.close()  # as the end of a process does
    assert len(files_of(tmp_path / "spool")) == 2
    again = Spool(tmp_path / "spool", LARGE, reserve=0)
    assert files_of(tmp_path / "spool") == [first.path]
    assert again.used() == first.size
    assert not again.add(file_of(tmp_path), "dimse:A")[1]
    with pytest.raises(ConflictError):
        again.add(file_of(tmp_path, _other_pixels), "dimse:A")


def test_the_quota_counts_what_is_arriving_and_is_given_back(tmp_path: Path) -> None:
    sent = file_of(tmp_path)
    spool = Spool(tmp_path / "spool", 2 * len(sent) - 1, reserve=0)
    arriving = spool.begin(sent[:400])
    arriving.write(bytes(len(sent) - 400))
    with pytest.raises(SpoolFull, match="quota") as caught:
        spool.add(sent, "dimse:A")
    assert caught.value.errno == errno.ENOSPC
    arriving.discard()
    assert spool.used() == 0
    instance, _ = spool.add(sent, "dimse:A")
    with pytest.raises(SpoolFull, match="quota"):
        spool.add(file_of(tmp_path, k=1), "dimse:A")
    assert files_of(tmp_path / "spool") == [instance.path]
    spool.remove(instance.series_uid)
    assert spool.used() == 0
    assert files_of(tmp_path / "spool") == []
    assert spool.add(file_of(tmp_path, k=1), "dimse:A")[1]


def test_a_disk_below_the_reserve_takes_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", LARGE, reserve=1 << 60)
    with pytest.raises(SpoolFull, match="disk"):
        spool.add(file_of(tmp_path), "dimse:A")
    assert files_of(tmp_path / "spool") == []
    assert spool.used() == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_when_the_file_is_flushed_leaves_nothing(
    tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    sent = file_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(spool_module.os, "fsync", fail)
        with pytest.raises(SpoolFull, match="the disk is full"):
            spool.add(sent, "dimse:A")
    assert files_of(tmp_path / "spool") == []
    assert spool.used() == 0
    assert spool.add(sent, "dimse:A")[1]


def test_a_series_has_no_more_instances_or_bytes_than_one_may_have(tmp_path: Path) -> None:
    size = len(file_of(tmp_path))
    for limits in ({"series_instances": 2}, {"series_bytes": 2 * size + 99}):
        folder = tmp_path / next(iter(limits))
        spool = Spool(folder, LARGE, reserve=0, **limits)
        first, _ = spool.add(file_of(tmp_path), "dimse:A")
        second, _ = spool.add(file_of(tmp_path, k=1), "dimse:A")
        for opened in (spool, Spool(folder, LARGE, reserve=0, **limits)):
            with pytest.raises(SeriesTooLargeError):
                opened.add(file_of(tmp_path, k=2), "dimse:A")
            assert not opened.add(file_of(tmp_path, k=1), "dimse:A")[1]
            assert opened.used() == first.size + second.size
        assert spool.add(file_of(tmp_path, _other_series, k=2), "dimse:A")[1]
        spool.remove(second.series_uid)
        assert spool.add(file_of(tmp_path, k=3), "dimse:A")[1]


def _without(keyword: str) -> Callable[[Dataset], None]:
    def change(image: Dataset) -> None:
        del image[keyword]

    return change


def _hostile_series(image: Dataset) -> None:
    image.SeriesInstanceUID = "../../etc"


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    "change", [_without("SeriesInstanceUID"), _without("StudyInstanceUID"), _hostile_series]
)
def test_an_instance_without_usable_uids_is_refused(
    tmp_path: Path, spool: Spool, change: Callable[[Dataset], None]
) -> None:
    with pytest.raises(InputError, match="InstanceUID is missing or not a UID"):
        spool.add(file_of(tmp_path, change), "dimse:A")
    assert files_of(tmp_path / "spool") == []


def test_a_head_that_names_another_instance_is_refused(tmp_path: Path, spool: Spool) -> None:
    sent = file_of(tmp_path)
    at = sent.index(b"1.2.3.0")
    with pytest.raises(InputError, match="MediaStorageSOPInstanceUID"):
        spool.add(sent[:at] + b"1.2.3.7" + sent[at + 7 :], "dimse:A")


@pytest.mark.parametrize(
    "sent", [b"", b"x" * 500, bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\xff" * 400]
)
def test_what_is_not_dicom_is_refused(tmp_path: Path, spool: Spool, sent: bytes) -> None:
    with pytest.raises(InputError, match=r"DICOM|damaged"):
        spool.add(sent, "dimse:A")
    assert files_of(tmp_path / "spool") == []


@pytest.mark.filterwarnings("ignore:End of file reached", "ignore:Invalid value for VR UI")
def test_a_file_that_ends_before_its_uids_is_refused(tmp_path: Path, spool: Spool) -> None:
    sent = file_of(tmp_path)
    series = sent.index(b"1.2.826.0.1.3680043.8.498.2")
    for end in range(0, series, 37):
        with pytest.raises(InputError):
            spool.add(sent[:end], "dimse:A")
    assert files_of(tmp_path / "spool") == []
    assert spool.used() == 0


def test_a_pet_series_of_one_volume_announces_its_slices(tmp_path: Path, spool: Spool) -> None:
    image = classic("PT", 0)
    save(image, tmp_path / "pet.dcm")
    assert spool.add((tmp_path / "pet.dcm").read_bytes(), "dimse:A")[0].announced == 4
    image.SeriesType = ["DYNAMIC", "IMAGE"]
    image.SOPInstanceUID = "1.2.4"
    save(image, tmp_path / "pet.dcm")
    assert spool.add((tmp_path / "pet.dcm").read_bytes(), "dimse:A")[0].announced is None


def test_instances_that_nobody_knows_of_are_found_as_they_came(
    tmp_path: Path, spool: Spool
) -> None:
    kept, _ = spool.add(file_of(tmp_path), "dimse:A")
    first, _ = spool.add(file_of(tmp_path, k=1), "web:" + 64 * "n")
    second, _ = spool.add(file_of(tmp_path, _other_series, k=2), "dimse:CT 1")
    again = Spool(tmp_path / "spool", LARGE, reserve=0)
    found = sorted(
        again.strangers({kept.path.name}), key=lambda instance: instance.sop_instance_uid
    )
    assert found == sorted([first, second], key=lambda instance: instance.sop_instance_uid)
    assert again.used() == spool.used()


def test_of_instances_that_nobody_knows_of_the_damaged_are_removed(
    tmp_path: Path, spool: Spool
) -> None:
    kept, _ = spool.add(file_of(tmp_path), "dimse:A")
    damaged, _ = spool.add(file_of(tmp_path, k=1), "dimse:A")
    renamed, _ = spool.add(file_of(tmp_path, _other_series, k=2), "dimse:A")
    damaged.path.write_bytes(damaged.path.read_bytes()[:300])
    renamed.path.rename(renamed.path.with_stem("0" * 32))
    again = Spool(tmp_path / "spool", LARGE, reserve=0)
    assert list(again.strangers({kept.path.name})) == []
    assert files_of(tmp_path / "spool") == [kept.path]
    assert not renamed.path.parent.exists()
    assert again.used() == kept.size


def test_threads_that_add_the_same_instances_store_each_once(tmp_path: Path, spool: Spool) -> None:
    sent = [file_of(tmp_path, k=k) for k in range(4)]
    news: list[bool] = []
    failures: list[BaseException] = []

    def add() -> None:
        try:
            for part10 in sent:
                news.append(spool.add(part10, "dimse:A")[1])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sum(news) == 4
    assert len(files_of(tmp_path / "spool")) == 4
    assert spool.used() == sum(path.stat().st_size for path in files_of(tmp_path / "spool"))


_ADD_FOREVER = """
import sys
from pathlib import Path
from restore_rwkv.apps.node.spooling.spool import Spool
spool = Spool(Path(sys.argv[1]), 1 << 30, reserve=0)
sent = Path(sys.argv[2]).read_bytes()
k = 0
while True:
    uid = b"1.2.3.%d" % (1000000 + k)
    spool.add(sent.replace(b"1.2.3.1000000", uid), "dimse:A")
    print(uid.decode(), flush=True)
    k += 1
"""


@pytest.mark.slow
def test_a_process_killed_at_any_moment_loses_nothing_it_confirmed(tmp_path: Path) -> None:
    def named(image: Dataset) -> None:
        image.SOPInstanceUID = "1.2.3.1000000"

    sent = file_of(tmp_path, named)
    folder = tmp_path / "spool"
    for turn in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", _ADD_FOREVER, str(folder), str(tmp_path / "source.dcm")],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            confirmed = [process.stdout.readline().strip() for _ in range(5 + 3 * turn)]
            process.send_signal(signal.SIGKILL)
            confirmed += [line.strip() for line in process.stdout if line.endswith("\n")]
        spool = Spool(folder, LARGE, reserve=0)
        paths = files_of(folder)
        stored = {str(dcmread(path).SOPInstanceUID) for path in paths}
        assert set(confirmed) <= stored
        assert len(stored) <= len(confirmed) + 1
        assert {path.stat().st_size for path in paths} == {len(sent)}
        assert len(list(spool.strangers(()))) == len(stored)
