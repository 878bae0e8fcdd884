"""The overview in a real browser: nothing is fetched, nothing goes wrong, and its script works."""

from __future__ import annotations

import html
import http.server
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.overviews import HOSTILE, RECORD, entry, picture, write
from tests.helpers.tools import needs

pytestmark = [pytest.mark.slow, needs("chromium")]

_OF_THE_BROWSER = ("google.com", "googleapis.com", "gvt1.com")  # looks for updates of itself


@dataclass
class Opened:
    """A page after it was opened.

    Attributes:
        html: its document, as its scripts left it.
        console: lines of its console.
        requests: addresses that were asked for, but those of the browser for itself.
    """

    html: str
    console: list[str]
    requests: list[str]


@contextmanager
def proxy() -> Iterator[tuple[int, list[str]]]:
    """A proxy through which the browser fetches everything: its port, and what it is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_CONNECT = do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], asked
        server.shutdown()
        thread.join()


def opened(path: Path, folder: Path, *options: str) -> Opened:
    with proxy() as (port, asked):
        command = [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            f"--user-data-dir={folder / 'profile'}",
            f"--proxy-server=http://127.0.0.1:{port}",
            *("--proxy-bypass-list=<-loopback>", "--enable-logging=stderr"),
            *("--virtual-time-budget=2000", *options, "--dump-dom", path.as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    hosts = re.compile(r"(?:http://)?([^/:]+)")
    others = [
        address
        for address in asked
        if not str(hosts.match(address)[1]).endswith(_OF_THE_BROWSER)  # type: ignore[index]
    ]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Opened(done.stdout, console, others)


def driven(path: Path, folder: Path, script: str) -> str:
    """The value of an expression in a page, whose policy is removed so that it can be asked."""
    text = path.read_text(encoding="utf-8")
    free = re.sub(r"<meta http-equiv=[^>]*>", "", text)
    assert free != text
    asks = f"<script>document.title = 'value: ' + String({script});</script></body>"
    (folder / "driven.html").write_text(free.replace("</body>", asks), encoding="utf-8")
    title = re.search("<title>value: (.*?)</title>", opened(folder / "driven.html", folder).html)
    assert title is not None
    return html.unescape(title[1])


@pytest.fixture
def overview(tmp_path: Path) -> Path:
    """Scans with hostile names, and two restored ones."""
    entries = [entry(name, "refused", reason=name) for name in HOSTILE.values()]
    image = picture()
    entries += [
        entry("b10.nii", record=RECORD, thumbnail=image, seconds=1.0, bytes_read=5),
        entry("b9.nii", record=RECORD, thumbnail=image, seconds=2.0, bytes_read=1),
    ]
    return write(tmp_path, entries)


def test_the_browser_reports_requests_and_errors_of_other_pages(tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text("<img src='http://elsewhere.example/a'><script>nothing()</script>")
    page = opened(other, tmp_path)
    assert page.requests == ["http://elsewhere.example/a"]
    assert "nothing is not defined" in "".join(page.console)


def test_a_page_asks_for_nothing_and_has_no_errors(overview: Path, tmp_path: Path) -> None:
    page = opened(overview, tmp_path)
    assert page.requests == []
    assert page.console == []
    assert "8 of 8 shown" in page.html  # its script has run, so its policy allows it


def test_the_policy_of_a_page_stops_what_would_be_added_to_it(
    overview: Path, tmp_path: Path
) -> None:
    added = "<img src='http://elsewhere.example/a'><script>document.title = 'taken'</script>"
    text = overview.read_text(encoding="utf-8")
    overview.write_text(text.replace("<main>", f"<main>{added}"), encoding="utf-8")
    page = opened(overview, tmp_path)
    assert page.requests == []
    assert "<title>taken" not in page.html
    assert len(page.console) >= 2


def test_scans_are_found_by_state_and_by_text(overview: Path, tmp_path: Path) -> None:
    typed = "document.querySelector('[name=text]')"
    value = f"""(() => {{
        const shown = () => [...document.querySelectorAll('.scan:not([hidden])')].length;
        const changed = () => document.querySelector('form')
            .dispatchEvent(new Event('input', {{bubbles: true}}));
        const counts = [shown()];
        for (const text of ['B9', 'b9 tiles', 'b9 nowhere', '']) {{
            {typed}.value = text; changed(); counts.push(shown());
        }}
        document.querySelector('[value=refused]').click(); counts.push(shown());
        return counts + ' ' + document.querySelector('output').textContent;
    }})()"""
    assert driven(overview, tmp_path, value) == "8,1,1,0,8,2 2 of 8 shown"


@pytest.mark.parametrize(
    ("order", "first"), [("seconds", "b9.nii"), ("size", "b10.nii"), ("given", HOSTILE["script"])]
)
def test_scans_are_put_in_order(overview: Path, tmp_path: Path, order: str, first: str) -> None:
    value = f"""(() => {{
        const order = document.querySelector('select');
        order.value = 'seconds'; order.dispatchEvent(new Event('change', {{bubbles: true}}));
        order.value = '{order}'; order.dispatchEvent(new Event('change', {{bubbles: true}}));
        return document.querySelector('.scan').dataset.name;
    }})()"""
    assert driven(overview, tmp_path, value) == first


def test_names_are_sorted_by_their_numbers(overview: Path, tmp_path: Path) -> None:
    value = """(() => {
        const order = document.querySelector('select');
        order.value = 'name'; order.dispatchEvent(new Event('change', {bubbles: true}));
        const names = [...document.querySelectorAll('.scan')].map(scan => scan.dataset.name);
        return names.indexOf('b9.nii') < names.indexOf('b10.nii');
    })()"""
    assert driven(overview, tmp_path, value) == "true"


def test_a_picture_is_enlarged_by_the_keyboard_too(overview: Path, tmp_path: Path) -> None:
    value = """(() => {
        const image = document.querySelector('.picture img');
        const before = image.clientWidth, control = image.closest('summary');
        control.focus();
        const focused = document.activeElement === control;
        control.click();
        return [focused, image.clientWidth > 1.4 * before].join();
    })()"""
    assert driven(overview, tmp_path, value) == "true,true"


def test_a_narrow_screen_needs_no_scrolling_to_the_side(tmp_path: Path) -> None:
    long = entry("x" * 300, "refused", reason="y" * 300)
    path = write(tmp_path, [long, entry("b.nii", record=RECORD, thumbnail=picture())])
    # Frames have the width that is asked for, windows have one that the browser allows.
    ask = """new Promise(resolve => {
        const frame = document.createElement('iframe');
        frame.style = 'width: 390px; height: 800px; border: 0';
        frame.srcdoc = document.documentElement.outerHTML.replace(/<script[^]*/, '');
        frame.onload = () => resolve(frame.contentDocument.documentElement);
        document.body.append(frame);
    }).then(page => document.title =
        `value: ${page.scrollWidth <= page.clientWidth && page.clientWidth <= 390}`)"""
    assert driven(path, tmp_path, ask) == "true"
