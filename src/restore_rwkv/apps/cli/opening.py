"""The command open: a page in the browser that restores scans, and shows them before and after."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore_rwkv.apps.cli.options import Device, Quiet, Verbose
from restore_rwkv.apps.cli.terminal import say, say_aside, screen
from restore_rwkv.options import parse_memory

if TYPE_CHECKING:
    from restore_rwkv.apps.page import Page

_LOOPBACK = "127.0.0.1"  # as in `apps.page.settings`, which would not import lightly


def open_page(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH", help="Folder or file whose scans are offered.", show_default=False
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, help="Port to listen at; 0 for any free one.")
    ] = 0,
    host: Annotated[
        str,
        typer.Option(metavar="H", help="Address to listen at; by default this machine only."),
    ] = _LOOPBACK,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Whether the page opens by itself.")
    ] = True,
    upload_cap: Annotated[
        str, typer.Option(metavar="SIZE", help="Most bytes of one file or folder dropped.")
    ] = "4GiB",
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that keeps jobs and uploads; by default a private one, removed at the "
            "end.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Open a page in the browser: restore scans, and compare them; nothing leaves this machine."""
    from restore_rwkv.apps.page import Page, PageSettings
    from restore_rwkv.apps.stopped import stopped_by_signals

    settings = PageSettings(
        path=path,
        host=host,
        port=port,
        device=device,
        upload_cap=parse_memory(upload_cap, "upload_cap"),
        state=state,
    )
    if device != "auto":
        from restore_rwkv.restoration import find_device

        find_device(device)
    stop = threading.Event()
    page = Page(settings)
    os.umask(0o077)  # nobody else on this machine may read what is dropped
    tempfile.tempdir = str(page.state.unpacked)  # archives are unpacked where they are removed
    with stopped_by_signals(stop.set), page:
        _say_where(page, host)
        if browser and _has_display():
            webbrowser.open(page.url_for_browser)
        with _own_errors_only():
            stop.wait()
    say("stopped")


@contextmanager
def _own_errors_only() -> Iterator[None]:
    """Print what goes wrong in the page itself; what is said of scans, the page shows."""
    own, handler = logging.getLogger("restore_rwkv.apps.page"), _Lines()
    own.addHandler(handler)
    try:
        with screen.silenced():
            yield
    finally:
        own.removeHandler(handler)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say_aside(f"error: {record.getMessage()}")


def _say_where(page: Page, host: str) -> None:
    if not host.startswith("127.") and host not in ("localhost", "::1"):
        say_aside(
            f"warning: {host} can be reached from other machines: whoever has the address below "
            "can see the scans, and the connection is not encrypted; leave --host out, and use a "
            "tunnel (ssh -L) instead"
        )
    typer.echo(page.url)  # also with --quiet: nothing else says the token
    say("open this address in a browser of this machine; Ctrl-C ends the page")


def _has_display() -> bool:
    """Whether a browser would open in a window, not in this terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
