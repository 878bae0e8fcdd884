"""What tests do beside a real archive; each function runs in a network of its own."""

from __future__ import annotations

import io
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread

from restore_rwkv.apps.node.config import Archive, Destination, NodeConfig, Rule
from restore_rwkv.apps.node.dicomweb.client import DicomWeb
from restore_rwkv.apps.node.dicomweb.multipart import Sizes
from restore_rwkv.apps.node.metrics import Metrics
from restore_rwkv.apps.node.outgoing import SendError
from restore_rwkv.apps.node.sending.senders import Sender, sender_of
from restore_rwkv.apps.node.spooling.spool import Instance, Spool
from restore_rwkv.apps.node.watching.watcher import Watcher
from tests.helpers.derivable_series import Kind, write_source
from tests.helpers.namespace import small_disk
from tests.helpers.orthanc import Orthanc, orthanc
from tests.helpers.synthetic_series import make_slice, save

KINDS: tuple[Kind, ...] = ("CT", "MR", "PT", "enhanced CT", "enhanced MR", "enhanced PT")
SIZES = Sizes(part=10**8, whole=10**9)


def node(folder: Path, archive: Orthanc) -> NodeConfig:
    return NodeConfig(
        folder=folder / "node",
        ae_title="NODE",
        archives=(Archive(name="pacs", url=archive.web_url, every_seconds=0.1, days=9),),
        rules=(Rule(name="none", action="ignore"),),
        quiet_seconds=0.05,
        retry_seconds=0.05,
    )


def sender(kind: str, archive: Orthanc, config: NodeConfig) -> Sender:
    if kind == "web":
        return sender_of(Destination(name="pacs", kind="web", url=archive.web_url), config)
    peer = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": archive.dicom_port}
    return sender_of(Destination(name="pacs", kind="dimse", **peer), config)  # type: ignore[arg-type]


def series_of(folder: Path, uid: str, count: int, **changes: object) -> list[Path]:
    """Write a series of today."""
    folder.mkdir(parents=True)
    for number in range(count):
        image = make_slice(number)
        image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.840.5", uid
        image.SOPInstanceUID = f"{uid}.{number}"
        image.PatientID, image.PatientName = "P1", "Smith^Anna"
        image.StudyDate = time.strftime("%Y%m%d")
        for keyword, value in changes.items():
            setattr(image, keyword, value)
        save(image, folder / f"{number:03}.dcm")
    return sorted(folder.iterdir())


def same(files: list[Path], archive: Orthanc, series: str) -> bool:
    """Whether an archive has the data sets of the files, and no others in the series."""
    stored = archive.files(series)
    sent = {str(image.SOPInstanceUID): image for image in map(dcmread, files)}
    found: dict[str, Dataset] = {uid: dcmread(io.BytesIO(file)) for uid, file in stored.items()}
    return found == sent


def sends_every_kind(folder: str, kind: str) -> list[str]:
    """Send a series of each kind of image; return those that did not arrive as they are."""
    wrong = []
    with orthanc(Path(folder) / "archive") as archive:
        config = node(Path(folder), archive)
        for name in KINDS:
            place = write_source(Path(folder) / name, name, _series(name))
            files = sorted(place.iterdir()) if place.is_dir() else [place]
            if list(sender(kind, archive, config).send(files)) != files:
                wrong.append(f"{name} was not accepted")
            if not same(files, archive, f"1.2.840.6.{KINDS.index(name)}"):
                wrong.append(f"{name} is not the same")
            if list(sender(kind, archive, config).send(files)) != files:
                wrong.append(f"{name} was not accepted when it was there already")
        if len(archive.series()) != len(KINDS):
            wrong.append(f"{len(archive.series())} series")
    return wrong


def _series(name: Kind) -> Any:
    def change(image: Dataset) -> None:
        image.SeriesInstanceUID = f"1.2.840.6.{KINDS.index(name)}"

    return change


def goes_on_after_a_restart(folder: str, kind: str) -> dict[str, Any]:
    """Kill the archive while 200 files are sent; send the others once it is back."""
    files = series_of(Path(folder) / "files", "1.2.840.7", 200)
    with orthanc(Path(folder) / "archive") as archive:
        config = node(Path(folder), archive)
        if kind == "web":  # in one request
            accepted: list[Path] = []
            timer = threading.Timer(0.02, archive.kill)
            timer.start()
            errors = _sent(sender(kind, archive, config), files, accepted)
            timer.join()
        else:
            accepted = []
            errors = _sent(sender(kind, archive, config), files, accepted, kill=(40, archive))
        archive.kill()
        errors += _sent(sender(kind, archive, config), files, [])
        archive.start()
        rest = [file for file in files if file not in accepted]
        before = len(accepted)
        errors += _sent(sender(kind, archive, config), rest, accepted)
        return {
            "before": before,
            "transient": [error.transient for error in errors],
            "accepted": len(set(accepted)),
            "same": same(files, archive, "1.2.840.7"),
        }


def _sent(
    to: Sender, files: list[Path], accepted: list[Path], kill: tuple[int, Orthanc] | None = None
) -> list[SendError]:
    try:
        for file in to.send(files):
            accepted.append(file)
            if kill and len(accepted) == kill[0]:
                kill[1].kill()
    except SendError as error:
        return [error]
    return []


def waits_for_room(folder: str, kind: str) -> dict[str, Any]:
    """Send more than the disk of the archive holds; send the others when it is larger."""
    place = Path(folder)
    pixels = {"Rows": 64, "Columns": 64, "PixelData": bytes(64 * 64 * 2)}
    files = series_of(place / "files", "1.2.840.7", 100, **pixels)
    accepted: list[Path] = []
    with small_disk(place / "disk", 2**20) as disk, orthanc(disk / "archive") as archive:
        config = node(place, archive)
        errors = _sent(sender(kind, archive, config), files, accepted)
        before = len(accepted)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        rest = [file for file in files if file not in accepted]
        errors += _sent(sender(kind, archive, config), rest, accepted)
        return {
            "some before": 0 < before < 100,
            "transient": [error.transient for error in errors],
            "accepted": len(accepted),
            "same": same(files, archive, "1.2.840.7"),
        }


def wrong_title(folder: str) -> list[Any]:
    """Call the archive by another name."""
    files = series_of(Path(folder) / "files", "1.2.840.7", 1)
    with orthanc(Path(folder) / "archive") as archive:
        peer = {"ae_title": "OTHER", "host": "127.0.0.1", "port": archive.dicom_port}
        destination = Destination(name="pacs", kind="dimse", **peer)  # type: ignore[arg-type]
        for _ in range(5):
            [error] = _sent(sender_of(destination, node(Path(folder), archive)), files, [])
            # On a busy machine the end of the connection may be seen before the archive's answer;
            # such an error is transient, and the node tries again as this does.
            if not error.transient:
                break
        return [str(error), error.transient]


def searches_and_retrieves(folder: str) -> dict[str, Any]:
    """Search by modality and day, and retrieve what was sent by dcmtk, compressed files too."""
    place = Path(folder)
    files = series_of(place / "ct", "1.2.840.7", 3)
    old = series_of(place / "old", "1.2.840.8", 2, StudyDate="20010101", StudyInstanceUID="1.2.8")
    mr = series_of(place / "mr", "1.2.840.9", 4, Modality="MR", StudyInstanceUID="1.2.9")
    with orthanc(place / "archive") as archive:
        for path in files + old + mr:
            subprocess.run(
                ["storescu", "-aec", "ORTHANC", "127.0.0.1", str(archive.dicom_port), str(path)],
                check=True,
            )
        web = DicomWeb(node(place, archive).archives[0], SIZES)
        [ct] = web.search("CT", days=2)
        return {
            "all": sorted([row.series_uid, row.modality, row.instances] for row in web.search()),
            "CT of two days": [ct.series_uid, ct.instances],
            "MR": [row.series_uid for row in web.search("MR", days=2)],
            "XA": len(web.search("XA")),
            "header": web.header(ct)["0020000E"]["Value"],
            "same": sorted(web.retrieve(ct)) == sorted(archive.files("1.2.840.7").values()),
        }


def watches(folder: str) -> dict[str, Any]:
    """Fetch a series that grows, once, through an end and a restart; leave our own alone."""
    place = Path(folder)
    ct = series_of(place / "ct", "1.2.840.7", 6)
    own = series_of(place / "own", "1.2.840.8", 2, DerivationDescription="restore-rwkv 1.0: made")
    with orthanc(place / "archive") as archive, _watcher(place, archive) as accepted:
        to = sender("dimse", archive, node(place, archive))
        for files in (own, ct[:2], ct[2:]):
            list(to.send(files))
        _until(lambda: len(accepted) >= 6)
        archive.restart()
        more = series_of(place / "more", "1.2.840.9", 2)
        list(to.send(more))
        _until(lambda: len(accepted) >= 8)
        time.sleep(0.5)
        stored = archive.files("1.2.840.7") | archive.files("1.2.840.9")
        return {
            "uids": sorted({instance.sop_instance_uid for instance in accepted}),
            "announced": sorted({instance.announced for instance in accepted}),
            "same": all(
                instance.path.read_bytes()[128:] == stored[instance.sop_instance_uid][128:]
                for instance in accepted
            ),
        }


@contextmanager
def _watcher(place: Path, archive: Orthanc) -> Iterator[list[Instance]]:
    accepted: list[Instance] = []
    config, spool = node(place, archive), Spool(place / "spool", 10**9, reserve=0)
    watcher = Watcher(config.archives[0], config, spool, accepted.append, Metrics())
    watcher.start()
    try:
        yield accepted
    finally:
        watcher.stop()


def _until(holds: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


def survives_a_kill(folder: str) -> dict[str, Any]:
    """Kill and start the archive; what it held is there."""
    place = Path(folder)
    files = series_of(place / "ct", "1.2.840.7", 6)
    with orthanc(place / "archive", {"node": ("NODE", "127.0.0.1", 1)}) as archive:
        list(sender("dimse", archive, node(place, archive)).send(files))
        archive.kill()
        archive.start()
        return {
            "series": archive.series(),
            "instances": len(archive.instances()),
            "of": len(archive.instances("1.2.840.7")),
            "peers": archive.get("/modalities"),
        }
