"""One request to a DICOMweb service: credentials, TLS, timeouts, and limits on what it answers.

Over `http.client` and not over a library of sessions: nothing of the environment is looked at (no
proxies, no `.netrc` whose passwords would go to a server), no redirect is followed, certificates
are the system's, and a server that sends a byte a minute is given up.
"""

from __future__ import annotations

import base64
import http
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlencode, urlsplit

from restore_rwkv.apps.node.config import Archive, Destination
from restore_rwkv.apps.node.config_file import read_secret
from restore_rwkv.errors import ConfigError, RestoreError

_BLOCK = 1 << 16
_TRANSIENT = {401, 408, 413, 421, 423, 425, 429, 500, 502, 503, 504, 507, 509}
_REMEDIES = {
    401: "check the user, the password or the token of the configuration",
    403: "allow the user of the configuration to do this",
    404: "check the url of the configuration",
    413: "let the server take larger requests",
}


class WebError(RestoreError):
    """A DICOMweb service cannot be reached, refuses, or answers what cannot be used.

    Attributes:
        transient: whether the same may succeed later.
        status: status of HTTP; None where there was no answer.
    """

    def __init__(self, message: str, *, transient: bool, status: int | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        self.status = status


WebService: TypeAlias = Destination | Archive
"""What has a url and credentials."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a service is waited for.

    Attributes:
        connect: seconds until the connection is open.
        silence: seconds without a byte.
        answer: seconds until the head of the answer is there; an archive may put a whole series
            together first. The time to send a body at `pace` is added.
        pace: lowest mean rate of a body after the first minute, bytes a second.
    """

    connect: float = 10.0
    silence: float = 60.0
    answer: float = 300.0
    pace: float = 10_000.0


PATIENCE = Patience()


class Body(Protocol):
    """The body of a request."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        ...

    def read(self, count: int = ..., /) -> bytes:
        """Return the next bytes, about `count` at most; none at the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request.

    Attributes:
        path: below the root of the service, with a leading "/"; only what needs no quoting.
        query: parameters.
        accept: media type that is asked for.
        content_type: of `body`.
        body: what is posted; None for a GET.
        answers: statuses of an error whose answer is wanted; others raise.
    """

    path: str
    query: Mapping[str, str | int] = field(default_factory=dict)
    accept: str = "application/dicom+json"
    content_type: str = ""
    body: Body | None = None
    answers: tuple[int, ...] = ()


class Answer:
    """An answer whose body is read as it is needed.

    Attributes:
        status: status of HTTP.
        content_type: as the server says; empty where it does not.
    """

    def __init__(self, name: str, response: http.client.HTTPResponse, patience: Patience) -> None:
        self.status = response.status
        self.content_type = response.headers.get("Content-Type", "")
        self._name = name
        self._response = response
        self._patience = patience
        self._began = time.monotonic()
        self._count = 0
        self._left = response.length  # which `read1` does not keep up to date before Python 3.13

    def read(self) -> bytes:
        """Return the bytes of the body that are there, at least one; none at its end.

        Raises:
            WebError: the connection broke, or is silent or slow for too long.
        """
        if self._left == 0:
            return b""
        try:
            block = self._response.read1(min(_BLOCK, self._left or _BLOCK))
            if self._left is not None:
                if not block:
                    raise http.client.IncompleteRead(b"", self._left)
                self._left -= len(block)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken(self._name, error) from error
        self._count += len(block)
        seconds = time.monotonic() - self._began
        if seconds > self._patience.silence and self._count < self._patience.pace * seconds:
            raise WebError(
                f"{self._name}: sends fewer than {self._patience.pace:.0f} bytes a second; "
                "see whether it is overloaded",
                transient=True,
            )
        return block

    def body(self, most: int) -> bytes:
        """Return the whole body.

        Args:
            most: most bytes.

        Raises:
            WebError: it is longer, or breaks off.
        """
        body = bytearray()
        while block := self.read():
            body += block
            if len(body) > most:
                raise WebError(
                    f"{self._name}: answers with more than {most} bytes; check its url",
                    transient=False,
                )
        return bytes(body)

    def json(self, most: int) -> Any:
        """Return the body, which is JSON; arguments and errors are those of `body`.

        Raises:
            WebError: it is not JSON.
        """
        body = self.body(most)
        if self.status == 204:
            return []
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            kind = self.content_type.partition(";")[0].strip().lower()
            shown = kind if kind in ("text/html", "text/plain", "application/xml") else "a body"
            raise WebError(
                f"{self._name}: answers with {shown} that is not JSON; check its url",
                transient=False,
            ) from error


@contextmanager
def ask(service: WebService, request: Request, patience: Patience = PATIENCE) -> Iterator[Answer]:
    """Send one request, and give the answer; its connection is closed at the end of the block.

    Raises:
        WebError: the service cannot be reached, or its status is not one of success. A message
            never quotes what the server says, which may hold data of patients.
    """
    try:
        connection = _connection(service, patience)
    except (ConfigError, OSError) as error:  # a file is being replaced, perhaps
        raise _broken(service.name, error) from error
    try:
        with _answered(service, connection, request, patience) as response:
            if response.status not in request.answers:
                _check_status(service, response)
            yield Answer(service.name, response, patience)
    finally:
        connection.close()


def _answered(
    service: WebService,
    connection: http.client.HTTPConnection,
    request: Request,
    patience: Patience,
) -> http.client.HTTPResponse:
    """Send a request, and return the head of its answer."""
    query = f"?{urlencode(request.query)}" if request.query else ""
    target = f"{urlsplit(service.url).path.rstrip('/')}{request.path}{query}"
    seconds = patience.answer + (request.body.size / patience.pace if request.body else 0)
    expired = threading.Event()
    try:
        headers = {"Accept": request.accept, "Connection": "close", **_credentials(service)}
        if request.body:
            headers["Content-Type"] = request.content_type
            headers["Content-Length"] = str(request.body.size)
        with _at_most(seconds, connection, expired):
            method = "POST" if request.body else "GET"
            # A server may refuse, and say why, before it has the whole body.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, request.body, headers)
            response = connection.getresponse()
    except (ConfigError, OSError, http.client.HTTPException) as error:
        late = TimeoutError(f"no answer within {seconds:.0f} s") if expired.is_set() else None
        raise _broken(service.name, late or error) from error
    if expired.is_set():  # the end of the connection is taken for the end of the headers
        response.close()
        raise _broken(service.name, TimeoutError(f"no answer within {seconds:.0f} s"))
    return response


def _credentials(service: WebService) -> dict[str, str]:
    """Return the header of the credentials, from files that are read anew each time."""
    if service.token_file:
        return {"Authorization": f"Bearer {read_secret(service.token_file)}"}
    if service.user and service.password_file:
        both = f"{service.user}:{read_secret(service.password_file)}".encode()
        return {"Authorization": f"Basic {base64.b64encode(both).decode()}"}
    return {}


def _connection(service: WebService, patience: Patience) -> http.client.HTTPConnection:
    """Return an open connection."""
    place = urlsplit(service.url)
    host, port = place.hostname or "", place.port
    connection: http.client.HTTPConnection
    if place.scheme == "https":
        context = ssl.create_default_context(cafile=service.authorities)
        connection = http.client.HTTPSConnection(
            host, port, timeout=patience.connect, context=context, blocksize=_BLOCK
        )
    elif place.scheme == "http":
        connection = http.client.HTTPConnection(
            host, port, timeout=patience.connect, blocksize=_BLOCK
        )
    else:
        raise ConfigError(f"the url has the scheme {place.scheme!r}; give http or https")
    connection.connect()
    connection.sock.settimeout(patience.silence)
    return connection


@contextmanager
def _at_most(
    seconds: float, connection: http.client.HTTPConnection, expired: threading.Event
) -> Iterator[None]:
    """Break the connection after a time: a timeout of a socket begins anew with each byte."""
    opened = connection.sock

    def expire() -> None:
        expired.set()
        # Not `SSLSocket.shutdown`, which would let the other thread read what is not decrypted.
        with suppress(OSError):
            socket.socket.shutdown(opened, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check_status(service: WebService, response: http.client.HTTPResponse) -> None:
    name, status = service.name, response.status
    if 200 <= status < 300:
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise WebError(
                f"{name}: compresses its answer, which was not asked for; turn that off",
                transient=False,
            )
        return
    if 300 <= status < 400:
        raise WebError(
            f"{name}: answers with a redirect ({status}), which is not followed; "
            "give the address behind it as url",
            transient=False,
            status=status,
        )
    try:
        said = f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        said = str(status)
    remedy = _REMEDIES.get(status, "see the log of the server")
    raise WebError(
        f"{name}: answers {said}; {remedy}", transient=status in _TRANSIENT, status=status
    )


def _broken(name: str, error: Exception) -> WebError:
    return WebError(f"{name}: {_words(error)}", transient=True)


def _words(error: Exception) -> str:
    """Return what happened to a connection, without what the other side said."""
    if isinstance(error, RestoreError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({error.verify_message}); check authorities and url"
    if isinstance(error, ssl.SSLError):
        return "no connection by TLS; check the url and the certificates"
    if isinstance(error, TimeoutError):
        return f"{error or 'timed out'}; see whether it runs"
    if isinstance(error, socket.gaierror):
        return "its host name is not known; check the url"
    if isinstance(error, OSError):
        return f"{error.strerror or 'the connection broke'}; see whether it runs"
    return "answers what is not HTTP, or breaks off; check the url"
