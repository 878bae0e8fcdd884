"""Who may ask, and what a browser may do with the answers.

The page listens on this machine only, unless told otherwise; but every program on it, and every
web page that its user has open, can send requests there as well. So a request needs the token, it
has to name this page as its host (a foreign name that was made to lead here is refused), and it
must not come from another page.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "restore_rwkv"
_MOST_TOKENS = 8  # in one cookie: browsers keep one for all ports of a host
_SECONDS = 12 * 3600
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY = ("", "0.0.0.0", "::")

# NiiVue draws with WebGL, compiles no WebAssembly, and sets styles through objects, which need no
# permission. Images are made from data and blobs.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# A page of its own: it may show itself, but neither ask this server nor see the page around it.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class Access:
    """Tokens, and the names of this page.

    Args:
        host: address that the page listens at.

    Attributes:
        token: that opens the page.
    """

    def __init__(self, host: str) -> None:
        self.token = secrets.token_urlsafe(32)
        self._once: str | None = None
        self._lock = threading.Lock()
        self._any_address = host in _ANY
        own = {host.lower()} if not self._any_address else {socket.gethostname().lower()}
        self._names = _LOOPBACK | own

    def token_for_browser(self) -> str:
        """Return a token that works once: all users of a machine may see how programs start."""
        self._once = secrets.token_urlsafe(32)
        return self._once

    def opens(self, token: str) -> bool:
        """Whether a token of an address opens the page; one that works once is used up by this."""
        with self._lock:
            if self._once is not None and _same(token, self._once):
                self._once = None
                return True
        return _same(token, self.token)

    def refusal(self, hosts: list[str], origins: list[str]) -> str:
        """Return why a request is refused before its token is looked at; empty where it is not."""
        if len(hosts) != 1 or not self._is_name(_name_of(hosts[0])):
            return "host: this is not an address of the page; use the one that was printed"
        if origins and origins not in ([f"http://{hosts[0]}"], [f"https://{hosts[0]}"]):
            return "origin: the request comes from another page; open this one itself"
        return ""

    def is_let_in(self, cookie: str) -> bool:
        """Whether a cookie has the token."""
        return any([_same(token, self.token) for token in cookie.split(".")[:_MOST_TOKENS]])

    def cookie(self, before: str) -> str:
        """Return a cookie with the token; those of pages on other ports stay in it."""
        others = [token for token in before.split(".") if token and token != self.token]
        return ".".join([self.token, *others][:_MOST_TOKENS])

    def _is_name(self, name: str) -> bool:
        if name in self._names:
            return True
        if not self._any_address:
            return False
        try:  # only names can be made to lead elsewhere
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Guard:
    """Lets requests through to an application, and sets the headers of every answer.

    Args:
        app: ASGI application.
        access: who may ask.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from starlette.requests import Request

        answer = self._answer(Request(scope))

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message)
            await send(message)

        await (answer or self._app)(scope, receive, guarded)

    def _answer(self, request: Request) -> Response | None:
        """The answer to a request that does not reach the application."""
        from starlette.responses import RedirectResponse

        headers, access = request.headers, self._access
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        refusal = access.refusal(hosts, origins)
        if refusal:
            return refused(request, 403, refusal)
        cookie = request.cookies.get(COOKIE, "")
        if request.url.path == "/" and "token" in request.query_params:
            if request.method != "GET" or not access.opens(request.query_params["token"]):
                return refused(request, 403, _NO_TOKEN)
            answer = RedirectResponse("/", 303)
            answer.set_cookie(
                *(COOKIE, access.cookie(cookie)), _SECONDS, httponly=True, samesite="strict"
            )
            return answer
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return refused(request, 403, "origin: the request comes from another page")
        if not access.is_let_in(cookie):
            return refused(request, 403, _NO_TOKEN)
        return None


_NO_TOKEN = (
    "token: is missing, wrong or used up; open the address that restore-rwkv open has printed"
)


def refused(request: Request, status: int, line: str, **headers: str) -> Response:
    """Return an answer that refuses a request in one line: JSON below /api, else text."""
    from starlette.responses import JSONResponse, PlainTextResponse

    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": line}, status, headers)
    return PlainTextResponse(f"{line}\n", status, headers)


def _add_headers(message: Message) -> None:
    from starlette.datastructures import MutableHeaders

    headers = MutableHeaders(scope=message)
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _name_of(host: str) -> str:
    """Return the name of a Host header, without its port and brackets: a tunnel has another."""
    name = host.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if ":" in name else name
