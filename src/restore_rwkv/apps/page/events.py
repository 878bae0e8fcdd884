"""Events for every open tab: what has changed, at most five times a second.

A tab that reads slowly, or comes late, is told the present state of what has changed, not each
change: what waits for it never grows beyond one entry for each job.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

SCANS = "scans"
_PAUSE = 0.2  # seconds between two events about the same
_ALIVE = 15.0  # seconds without any, after which a comment shows that the connection lives
_RETRY = "retry: 1000\n\n"  # milliseconds after which a browser connects again

Snapshot = Callable[[str], "tuple[str, Any] | None"]
"""Returns name and data of the event for a topic; None where there is nothing to say any more."""


class Stream:
    """What one tab has not been told yet.

    Args:
        topics: that it is told at first.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        self._waiting = dict.fromkeys(topics)
        self._wake = asyncio.Event()
        self._wake.set()
        self._ended = False

    def mark(self, topic: str) -> None:
        """Note that something has changed."""
        self._waiting[topic] = None
        self._wake.set()

    def end(self) -> None:
        """End the stream."""
        self._ended = True
        self._wake.set()

    async def texts(self, snapshot: Snapshot) -> AsyncIterator[str]:
        """Give the text of events as things change, until the stream ends."""
        from starlette.concurrency import run_in_threadpool

        yield _RETRY
        while not self._ended:
            try:
                await asyncio.wait_for(self._wake.wait(), _ALIVE)
            except asyncio.TimeoutError:
                yield ": alive\n\n"
                continue
            self._wake.clear()
            topics = list(self._waiting)
            self._waiting.clear()
            for topic in topics:
                told = await run_in_threadpool(snapshot, topic)
                if told is not None:
                    yield f"event: {told[0]}\ndata: {json.dumps(told[1])}\n\n"
            if not self._ended:
                await asyncio.sleep(_PAUSE)


class Hub:
    """All streams. `changed` may be called from any thread, the others from the event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: set[Stream] = set()
        self._closed = False

    def start(self) -> None:
        """Begin, in the event loop that calls this."""
        self._loop = asyncio.get_running_loop()

    def changed(self, topic: str) -> None:
        """Have every tab told what has become of a topic."""
        self._call(self._mark, topic)

    def close(self) -> None:
        """End all streams; may be called from any thread."""
        self._call(self._end)

    @contextmanager
    def opened(self, topics: Iterable[str]) -> Iterator[Stream]:
        """Give a stream that is open within the block."""
        stream = Stream(topics)
        if self._closed:
            stream.end()
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def _call(self, function: Callable[..., None], *values: str) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(function, *values)

    def _mark(self, topic: str) -> None:
        for stream in self._streams:
            stream.mark(topic)

    def _end(self) -> None:
        self._closed = True
        for stream in self._streams:
            stream.end()


class EventResponse:
    """The answer that never ends.

    Args:
        hub: of all streams.
        topics: that are told at first, so that a tab that comes again has missed nothing.
        snapshot: what there is to say of a topic.
    """

    def __init__(self, hub: Hub, topics: Iterable[str], snapshot: Snapshot) -> None:
        self._hub, self._topics, self._snapshot = hub, topics, snapshot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with self._hub.opened(self._topics) as stream:
            leaving = asyncio.create_task(_until_left(receive, stream))
            try:
                async for text in stream.texts(self._snapshot):
                    body = text.encode()
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                leaving.cancel()
                with suppress(asyncio.CancelledError):
                    await leaving


async def _until_left(receive: Receive, stream: Stream) -> None:
    """End a stream when its tab has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.end()
