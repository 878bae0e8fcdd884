"""Who is let in: token, host, origin; and what a browser may do with the answers."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import httpx
import pytest

from restore_rwkv.apps.page import Page
from restore_rwkv.apps.page.access import COOKIE, Access
from tests.helpers.local_page import Visitor

PATHS = (
    *("/", "/static/index.html", "/api/state", "/api/scans", "/api/events", "/api/jobs/1"),
    *("/api/jobs/1/before.nii.gz", "/api/jobs/1/record", "/api/jobs/1/report", "/nothing"),
)


@pytest.fixture
def stranger(page: Page) -> Iterator[httpx.Client]:
    base = f"http://127.0.0.1:{page.port}"
    with httpx.Client(base_url=base, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_answered_without_the_token(stranger: httpx.Client, path: str) -> None:
    for cookie in (None, "wrong", "."):
        stranger.cookies.clear()
        if cookie is not None:
            stranger.cookies.set(COOKIE, cookie)
        answer = stranger.get(path)
        assert answer.status_code == 403
        assert "token: is missing" in answer.text
        assert answer.text.strip().count("\n") == 0
    assert stranger.get("/", params={"token": "wrong"}).status_code == 403


def test_uploads_and_jobs_need_the_token_too(stranger: httpx.Client) -> None:
    for method, path in (
        *(("PUT", "/api/uploads/a"), ("POST", "/api/uploads/a/done"), ("POST", "/api/jobs")),
        *(("DELETE", "/api/jobs/1"), ("DELETE", "/api/uploads/a")),
    ):
        assert stranger.request(method, path, content=b"x").status_code == 403


def test_the_first_visit_sets_a_cookie_that_scripts_and_other_sites_cannot_use(
    stranger: httpx.Client, page: Page
) -> None:
    answer = stranger.get("/", params={"token": page.access.token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert stranger.get("/").status_code == 200


def test_pages_on_other_ports_keep_their_tokens_in_the_one_cookie() -> None:
    first, second = Access("127.0.0.1"), Access("127.0.0.1")
    cookie = second.cookie(first.cookie(""))
    assert first.is_let_in(cookie)
    assert second.is_let_in(cookie)
    assert not Access("127.0.0.1").is_let_in(cookie)
    for _ in range(20):
        cookie = Access("127.0.0.1").cookie(cookie)
    assert len(cookie) < 500


def test_the_address_for_the_browser_works_once(stranger: httpx.Client, page: Page) -> None:
    assert page.access.token not in page.url_for_browser
    url = page.url_for_browser
    assert stranger.get(url).status_code == 303
    stranger.cookies.clear()
    assert stranger.get(url).status_code == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "10.0.0.1",
        "[::2]",
        "",
    ],
)
def test_a_foreign_host_is_refused(visitor: Visitor, host: str) -> None:
    answer = visitor.get("/api/state", headers={"Host": host})
    assert (answer.status_code, "host: " in answer.json()["error"]) == (403, True)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9999", "127.0.0.1", "[::1]:1", "LOCALHOST"]
)
def test_names_of_this_machine_are_hosts_behind_a_tunnel_too(visitor: Visitor, host: str) -> None:
    assert visitor.get("/api/state", headers={"Host": host}).status_code == 200


def test_with_any_address_only_numbers_and_the_own_name_are_hosts() -> None:
    access = Access("0.0.0.0")
    for host, right in (
        *(("192.0.2.7:80", True), (socket.gethostname(), True), ("[2001:db8::1]:5", True)),
        *(("evil.example", False), ("1.2.3", False)),
    ):
        assert (access.refusal([host], []) == "") is right, host


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:1", "http://127.0.0.1", "file://", ""],
)
def test_another_origin_is_refused(visitor: Visitor, origin: str) -> None:
    for method, path in (("POST", "/api/jobs"), ("GET", "/api/state")):
        answer = visitor.request(method, path, headers={"Origin": origin}, content=b"{}")
        assert (answer.status_code, "origin: " in answer.json()["error"]) == (403, True)
    own = {"Origin": f"http://127.0.0.1:{visitor.page.port}"}
    assert visitor.get("/api/state", headers=own).status_code == 200


def test_pages_of_other_servers_on_this_machine_are_other_sites(visitor: Visitor) -> None:
    """A cookie is sent for every port of a host, also by images and scripts without an origin."""
    for site, status in (("same-site", 403), ("cross-site", 403), ("same-origin", 200)):
        answer = visitor.get("/api/state", headers={"Sec-Fetch-Site": site})
        assert answer.status_code == status


def test_two_hosts_in_one_request_are_refused(page: Page) -> None:
    with socket.create_connection(("127.0.0.1", page.port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert connection.recv(100).split()[1] in (b"400", b"403")


def test_every_answer_has_the_strict_headers(visitor: Visitor) -> None:
    for path, status in (("/", 200), ("/api/state", 200), ("/nothing", 404), ("/api/jobs/9", 404)):
        answer = visitor.get(path)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
    assert visitor.get("/", headers={"Host": "evil"}).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        *("/static/", "/static", "/static/../server.py", "/static/%2e%2e/server.py"),
        *("/static/..%2fserver.py", "/static/....//server.py", "/static//etc/passwd"),
        *("/static/%2fetc%2fpasswd", "/static/index.html%00.js", "/static/.hidden"),
        *("/api/jobs/1/../../state.nii.gz", "/api/jobs/../state", "/api/jobs/99999999999999999999"),
        *("/api/jobs/1/maps/..%2f..%2fpage.nii.gz", "/../../etc/passwd", "/static/..\\server.py"),
    ],
)
def test_no_path_leads_out(visitor: Visitor, path: str) -> None:
    """Asked for byte by byte: a client would clean the path."""
    connection = http.client.HTTPConnection("127.0.0.1", visitor.page.port, timeout=10)
    try:
        cookie = f"{COOKIE}={visitor.cookies[COOKIE]}"
        connection.request("GET", path, headers={"Cookie": cookie})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == 404, text
    assert "root:" not in text
    assert "import" not in text


def test_files_of_the_page_have_their_kind(visitor: Visitor) -> None:
    answer = visitor.get("/static/index.html")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
