"""Requests that are refused, and how: a status, and one line without paths."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from restore_rwkv.apps.page.access import refused
from restore_rwkv.apps.words import Words
from restore_rwkv.errors import InputError, RestoreError, kind_of_error

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_logger = logging.getLogger(__name__)
_LONGEST_BODY = 65536  # bytes of JSON
_DRAIN_BYTES, _DRAIN_SECONDS = 256 << 20, 3.0


class TooLargeError(InputError):
    """An upload exceeds the cap."""


class MissingError(InputError):
    """There is no such upload, scan or job (any more)."""


class ConflictError(InputError):
    """What is asked for does not go together with the present state."""


async def read_json(request: Request) -> Any:
    """Return the body of a request.

    Raises:
        InputError: it is not JSON, or too long.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise InputError("job: is not JSON; send application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            raise TooLargeError("job: is too long")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError("job: is not JSON; send an object") from error


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (MissingError, 404),
    (ConflictError, 409),
    (TooLargeError, 413),
)
_STATUS_OF_KIND = {"system": 507, "usage": 400, "bug": 500}


class _BeforeTheEnd(Response):
    """An answer that comes while the request is still being sent.

    What follows is read and dropped for a moment: a connection that is closed with unread data
    loses the answer, and its sender sees a broken connection in place of a line.
    """

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.body, answer.status_code, dict(answer.headers))
        self.headers["Connection"] = "close"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send(start | {"headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_drained(receive), _DRAIN_SECONDS)
        await send({"type": "http.response.body", "body": b""})


async def _drained(receive: Receive) -> None:
    """Read what is left of a request, up to a limit."""
    read, more = 0, True
    while more and read < _DRAIN_BYTES:
        message = await receive()
        read += len(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)


def error_handlers(words: Words) -> dict[Any, Callable[[Request, Exception], Awaitable[Response]]]:
    """Return what answers where something was raised: one line, without paths."""

    async def told(request: Request, error: Exception) -> Response:
        kind = kind_of_error(error)
        status = next((s for c, s in _STATUS if isinstance(error, c)), None)
        if kind == "bug":
            _logger.error("%s: %s", request.url.path.partition("/uploads/")[0], words.error(error))
        status = status or _STATUS_OF_KIND.get(kind, 422)
        answer = refused(request, status, words.error(error))
        early = request.method == "PUT" or isinstance(error, TooLargeError)
        return _BeforeTheEnd(answer) if early else answer

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return refused(request, error.status_code, error.detail)

    return {HTTPException: of_http, RestoreError: told, OSError: told, Exception: told}
