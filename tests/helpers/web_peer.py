"""Servers on the loopback that answer as a test says, badly too."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

Reply = tuple[int, Mapping[str, str], bytes | Iterable[bytes]]
"""Status, headers and body; one in pieces has no Content-Length, and ends with the connection."""

Respond = Callable[[str, str, Mapping[str, str], bytes], Reply]
"""Makes a reply of method, path with query, headers and body."""


@contextmanager
def web_server(respond: Respond) -> Iterator[str]:
    """Give the address of a server of HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            status, headers, content = respond(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if isinstance(content, bytes) and "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(OSError):  # the other side has had enough
                for piece in [content] if isinstance(content, bytes) else content:
                    self.wfile.write(piece)

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def log_message(self, format: str, *values: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Give the port of a server that does with each connection what `talk` does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # `close` does not end an `accept`
        listener.close()
        thread.join(5)


class Archive:
    """A small DICOMweb archive that can do its work badly.

    Attributes:
        series: files of each series, by UID; study, modality and date are the same for all.
        rows: changes the rows of a search, before they are divided into pages.
        parts: changes the files of a series as they are retrieved.
        status: answered to everything, where it is not 200.
        damaged: series that status 500 is answered to.
        asked: paths, in order.
    """

    study = "1.2.3"

    def __init__(self, series: Mapping[str, Sequence[bytes]], modality: str = "CT") -> None:
        self.series = dict(series)
        self.modality = modality
        self.rows: Callable[[list[dict[str, object]]], list[dict[str, object]]] = lambda rows: rows
        self.parts: Callable[[list[bytes]], list[bytes]] = lambda parts: parts
        self.metadata: dict[str, object] = {}
        self.status = 200
        self.damaged: set[str] = set()
        self.asked: list[str] = []

    def __call__(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        self.asked.append(path)
        if self.status != 200:
            return self.status, {}, b"<html>Anna Smith is not here</html>"
        if self.damaged & set(path.split("/")):
            return 500, {}, b"<html>Anna Smith cannot be read</html>"
        if path == "/series":
            rows = [self._row(uid) for uid in sorted(self.series)]
            if "Modality" in query and query["Modality"] != [self.modality]:
                rows = []
            return self._page(self.rows(rows), query)
        if path.endswith("/metadata"):
            return _json([self.metadata])
        if path.endswith("/instances"):
            count = len(self.series[path.split("/")[-2]])
            uids = [{"00080018": {"vr": "UI", "Value": [f"1.{n}"]}} for n in range(count)]
            return self._page(uids, query)
        if re.fullmatch(r"/studies/[0-9.]+/series/[0-9.]+", path):
            parts = self.parts(list(self.series[path.split("/")[-1]]))
            content = b"".join(b"\r\n--B\r\n\r\n" + part for part in parts) + b"\r\n--B--"
            return 200, {"Content-Type": 'multipart/related; boundary="B"'}, content
        return 404, {}, b""

    def _row(self, uid: str) -> dict[str, object]:
        return {
            "0020000D": {"vr": "UI", "Value": [self.study]},
            "0020000E": {"vr": "UI", "Value": [uid]},
            "00080060": {"vr": "CS", "Value": [self.modality]},
            "00201209": {"vr": "IS", "Value": [len(self.series[uid])]},
        }

    def _page(self, rows: list[dict[str, object]], query: Mapping[str, list[str]]) -> Reply:
        first = int(query.get("offset", ["0"])[0])
        return _json(rows[first : first + int(query["limit"][0])])


def _json(rows: list[dict[str, object]]) -> Reply:
    return 200, {"Content-Type": "application/dicom+json"}, json.dumps(rows).encode()
