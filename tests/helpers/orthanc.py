"""A real archive, Orthanc with DICOMweb, for tests and measurements.

It listens to all addresses, so it only runs in a network of its own: `tests.helpers.namespace`.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import namespace
from tests.helpers.tools import REQUIRED, needs

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

Modality = tuple[str, str, int]
"""AE title, host and port of a peer that the archive knows."""


def needs_orthanc() -> list[pytest.MarkDecorator]:
    """Mark a test that starts an archive; without Orthanc or DICOMweb it is skipped."""
    absent = not PLUGIN.exists() and not REQUIRED
    reason = f"{PLUGIN.name} of orthanc-dicomweb is absent"
    return [needs("Orthanc"), pytest.mark.skipif(absent, reason=reason)]


def free_port() -> int:
    """Return a port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """An archive.

    Args:
        folder: where its files, its configuration and its log are.
        modalities: peers that it knows, by name; others may store too.
        settings: further entries of its configuration.

    Attributes:
        dicom_port: of DICOM, AE title ORTHANC.
        http_port: of its own interface and of DICOMweb.
    """

    def __init__(
        self,
        folder: Path,
        modalities: Mapping[str, Modality] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if not namespace.inside():
            raise RuntimeError("an archive that all may reach; start it by tests.helpers.namespace")
        self.folder = folder
        self.dicom_port, self.http_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "orthanc.json"
        self._config.write_text(json.dumps(self._settings(modalities or {}) | dict(settings or {})))

    @property
    def web_url(self) -> str:
        """Root of DICOMweb."""
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    @property
    def pid(self) -> int:
        """Number of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self, seconds: float = 30) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(self._config)], stdout=log, stderr=subprocess.STDOUT
            )
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            try:
                self.get("/system")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        raise RuntimeError(
            f"Orthanc does not start: {(self.folder / 'log.txt').read_text()[-800:]}"
        )

    def stop(self) -> None:
        """End it as its service manager would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with -9."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End it and start it again, with what it holds, at the same ports."""
        self.stop()
        self.start()

    def get(self, path: str) -> Any:
        """Return the JSON of a path of its own interface."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.http_port}{path}", timeout=30
        ) as answer:
            return json.load(answer)

    def series(self) -> list[str]:
        """Return the SeriesInstanceUIDs that it holds, sorted."""
        rows = self.get("/series?expand")
        return sorted(row["MainDicomTags"]["SeriesInstanceUID"] for row in rows)

    def instances(self, series: str | None = None) -> list[str]:
        """Return the SOPInstanceUIDs that it holds, of one series or of all, sorted."""
        return sorted(row["MainDicomTags"]["SOPInstanceUID"] for row in self._rows(series))

    def files(self, series: str) -> dict[str, bytes]:
        """Return the files of a series, by SOPInstanceUID."""
        found = {}
        for row in self._rows(series):
            address = f"http://127.0.0.1:{self.http_port}/instances/{row['ID']}/file"
            with urllib.request.urlopen(address, timeout=60) as answer:
                found[row["MainDicomTags"]["SOPInstanceUID"]] = answer.read()
        return found

    def send(self, series: str, modality: str) -> None:
        """Send a series by C-STORE to a peer that it knows."""
        [row] = [
            row
            for row in self.get("/series?expand")
            if row["MainDicomTags"]["SeriesInstanceUID"] == series
        ]
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/modalities/{modality}/store",
            data=row["ID"].encode(),
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()

    def _rows(self, series: str | None) -> list[Any]:
        if series is None:
            return list(self.get("/instances?expand"))
        return [
            row
            for found in self.get("/series?expand")
            if found["MainDicomTags"]["SeriesInstanceUID"] == series
            for row in self.get(f"/series/{found['ID']}/instances")
        ]

    def _settings(self, modalities: Mapping[str, Modality]) -> dict[str, Any]:
        database = str(self.folder / "database")
        return {
            "StorageDirectory": database,
            "IndexDirectory": database,
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": True,
            "DicomModalities": {name: list(peer) for name, peer in modalities.items()},
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def orthanc(
    folder: Path,
    modalities: Mapping[str, Modality] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Orthanc]:
    """Give a running archive, as `Orthanc`; it ends with the block."""
    archive = Orthanc(folder, modalities, settings)
    archive.start()
    try:
        yield archive
    finally:
        archive.kill()
