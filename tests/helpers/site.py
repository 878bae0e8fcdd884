"""A folder that is served on this machine, and a browser that reaches nothing else."""

from __future__ import annotations

import base64
import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.helpers.browsers import MILLISECONDS, WEBGL, started

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_LOCAL = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
_BLANK = "blank"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Files without a log, and an empty page."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.rpartition("/")[2] != _BLANK:
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>blank</title>")
        return None


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of a folder as any plain server does, and give its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def chromium(*more: str) -> AbstractContextManager[Browser]:
    """A browser that reaches this machine only."""
    return started(*WEBGL, _LOCAL, *more)


def blank(browser: Browser, address: str) -> Page:
    """Open an empty page of a server, in which its modules can be run."""
    page = browser.new_page()
    page.set_default_timeout(MILLISECONDS)
    page.goto(address + _BLANK)
    page.evaluate(
        """() => {
            window.bytesOf = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
            window.textOf = (bytes) => {
                let text = "";
                for (let i = 0; i < bytes.length; i += 9999)
                    text += String.fromCharCode(...bytes.subarray(i, i + 9999));
                return btoa(text);
            };
            window.floatsOf = (text) => new Float32Array(bytesOf(text).buffer);
            window.textOfFloats = (values) =>
                textOf(new Uint8Array(Float32Array.from(values).buffer));
            window.fileOf = ({ name, text }) => new File([bytesOf(text)], name);
        }"""
    )
    return page


def given(path: Path) -> dict[str, str]:
    """A file as `fileOf` of a blank page takes it."""
    return {"name": path.name, "text": base64.b64encode(path.read_bytes()).decode()}


def sent(values: np.ndarray) -> str:
    """Numbers as `floatsOf` of a blank page takes them."""
    return base64.b64encode(np.ascontiguousarray(values, np.float32).tobytes()).decode()


def received(text: str) -> np.ndarray:
    """Numbers that `textOfFloats` of a blank page gives."""
    return np.frombuffer(base64.b64decode(text), np.float32)
