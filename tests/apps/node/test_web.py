"""One request to a service that does not behave: a clear line, and nothing hangs."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from restore_rwkv.apps.node.config import Archive
from restore_rwkv.apps.node.dicomweb.request import Patience, Request, WebError, ask
from tests.helpers.certificates import Certificates, make_certificates
from tests.helpers.tools import needs
from tests.helpers.web_peer import Reply, raw_server, web_server

pytestmark = pytest.mark.slow  # beside servers and peers, which takes time

QUICK = Patience(connect=2, silence=0.5, answer=0.8, pace=10_000)
SEARCH = Request(path="/series")


def archive(url: str, **changes: object) -> Archive:
    return replace(Archive(name="pacs", url=url), **changes)  # type: ignore[arg-type]


def ask_for_json(service: Archive, request: Request = SEARCH, most: int = 10_000) -> object:
    with ask(service, request, QUICK) as answer:
        return answer.json(most)


def refusal(service: Archive, request: Request = SEARCH) -> WebError:
    began = time.monotonic()
    with pytest.raises(WebError) as caught:
        ask_for_json(service, request)
    assert time.monotonic() - began < 5
    assert str(caught.value).startswith("pacs: ")
    assert "; " in str(caught.value)
    assert "Smith" not in str(caught.value)
    return caught.value


def always(reply: Reply) -> Callable[..., Reply]:
    return lambda method, path, headers, body: reply


@pytest.mark.parametrize(
    ("status", "transient"),
    [
        *[(401, True), (408, True), (429, True), (500, True), (502, True), (503, True)],
        *[(400, False), (403, False), (404, False), (415, False), (501, False), (799, False)],
    ],
)
def test_a_status_says_whether_to_try_again(status: int, transient: bool) -> None:
    with web_server(always((status, {}, b"<html>Anna Smith</html>"))) as url:
        error = refusal(archive(url))
    assert (error.status, error.transient) == (status, transient)
    assert str(status) in str(error)


@pytest.mark.parametrize("where", ["file:///etc/passwd", "http://127.0.0.1:1/x", "/elsewhere", ""])
def test_a_redirect_is_not_followed(where: str) -> None:
    asked = []

    def respond(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        asked.append(path)
        return 302, {"Location": where}, b""

    with web_server(respond) as url:
        error = refusal(archive(url))
    assert "redirect" in str(error)
    assert not error.transient
    assert asked == ["/series"]


@pytest.mark.parametrize(
    ("headers", "body", "words"),
    [
        ({"Content-Type": "text/html"}, b"<html>Anna Smith</html>", "text/html that is not JSON"),
        ({"Content-Type": "x/Smith"}, b"\xff\xfe", "a body that is not JSON"),
        ({}, 9000 * b"[", "not JSON"),
        ({}, 10_001 * b" ", "more than 10000 bytes"),
        ({"Content-Encoding": "gzip"}, b"", "compresses"),
    ],
)
def test_an_answer_that_is_not_dicom_json_is_refused(
    headers: dict[str, str], body: bytes, words: str
) -> None:
    with web_server(always((200, headers, body))) as url:
        error = refusal(archive(url))
    assert words in str(error)
    assert not error.transient


def test_an_endless_body_is_given_up() -> None:
    with web_server(always((200, {}, itertools.repeat(1000 * b" ")))) as url:
        assert "more than 10000 bytes" in str(refusal(archive(url)))


def test_a_body_shorter_than_its_length_is_worth_another_attempt() -> None:
    with web_server(always((200, {"Content-Length": "100"}, b"[]"))) as url:
        assert refusal(archive(url)).transient


def test_a_body_ends_at_its_length() -> None:
    with web_server(always((200, {"Content-Length": "2"}, b"[] and more"))) as url:
        assert ask_for_json(archive(url)) == []


def drip(start: bytes, piece: bytes = b"x") -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(0.05)

    return talk


def silent(connection: socket.socket) -> None:
    connection.settimeout(3)
    while connection.recv(1000):
        pass


@pytest.mark.parametrize(
    "talk",
    [
        silent,
        lambda connection: None,
        lambda connection: connection.sendall(b"\x02\x00\x00\x00Smith\r\n\r\n"),
        drip(b""),
        drip(b"HTTP/1.1 200 OK\r\nX-Smith: "),
        drip(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        drip(b"HTTP/1.1 200 OK\r\n\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        lambda connection: connection.sendall(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSmith\r\n"
        ),
        lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"),
    ],
)
def test_a_server_that_does_not_answer_as_one_should_never_hangs(
    talk: Callable[[socket.socket], None],
) -> None:
    with raw_server(talk) as port:
        assert refusal(archive(f"http://127.0.0.1:{port}")).transient


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = refusal(archive(f"http://127.0.0.1:{port}"))
    assert error.transient
    assert "Connection refused" in str(error)
    assert "host name" in str(refusal(archive("http://nowhere.invalid")))


def test_what_the_caller_raises_is_not_taken_for_a_fault_of_the_connection() -> None:
    with web_server(always((200, {}, b"[]"))) as url, pytest.raises(OSError, match="full"):  # noqa: SIM117
        with ask(archive(url), SEARCH, QUICK):
            raise OSError("full")


def test_credentials_are_read_anew_and_nothing_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login evil password evil\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    secret = tmp_path / "secret"
    secret.touch(0o600)

    def respond(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        return 200, {}, json.dumps([path, headers.get("Authorization")]).encode()

    with web_server(respond) as url:
        by_token = archive(f"{url}/dicom-web/", token_file=secret)
        for token in ("first", "second"):
            secret.write_text(f"{token}\n")
            assert ask_for_json(by_token) == ["/dicom-web/series", f"Bearer {token}"]
        by_name = archive(
            url, user="M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller", password_file=secret
        )
        encoded = base64.b64encode("M\u00fcller:second".encode()).decode()
        assert ask_for_json(by_name) == ["/series", f"Basic {encoded}"]
        question = Request(path="/series", query={"StudyDate": "20200101-20200102", "limit": 3})
        asked = ["/series?StudyDate=20200101-20200102&limit=3", None]
        assert ask_for_json(archive(url), question) == asked
        secret.unlink()
        error = refusal(by_token)
    assert error.transient
    assert "check the path" in str(error)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@needs("openssl")
@pytest.mark.parametrize(
    ("host", "trusted", "words"),
    [
        ("localhost", True, None),
        ("127.0.0.1", True, "certificate is refused (IP address mismatch"),
        ("localhost", False, "certificate is refused"),
    ],
)
def test_certificate_and_host_name_of_a_server_are_checked(
    certificates: Certificates, host: str, trusted: bool, words: str | None
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)

    def talk(connection: socket.socket) -> None:
        connection.settimeout(5)
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1000)
            secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

    authorities = certificates.authorities if trusted else certificates.stranger
    with raw_server(talk) as port:
        service = archive(f"https://{host}:{port}", authorities=authorities)
        if words is None:
            assert ask_for_json(service) == []
        else:
            error = refusal(service)
            assert error.transient
            assert words in str(error)
