"""A child process that decodes untrusted data: bounded in memory and time, and free to crash.

Decoders written in C may abort, hang or take all memory on damaged data. In a child process that
costs one file and not the whole run. Messages in both directions are two lengths, a JSON object and
raw bytes: nothing that comes back from the child is executed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io.decoding import DECODING_ERRORS

Decoder = Callable[[dict[str, Any], bytes], "tuple[dict[str, Any], bytes]"]
"""What a child runs: a request and its bytes to facts and their bytes."""

_LENGTHS = struct.Struct("<IQ")  # of the JSON object, of the bytes behind it
_LONGEST_FACTS = 1 << 16
_START_SECONDS = 60.0
_START = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from restore_rwkv.io.child import serve; serve(sys.argv[1])"
)


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes:
        memory: bytes that the child may allocate for it; enforced on Linux only.
        seconds: time after which the child is killed.
        reply: most bytes that may come back.
    """

    memory: int
    seconds: float
    reply: int


class Child:
    """Runs one function in another process, started at the first request and ended by `close`.

    Args:
        function: "package.module:function", a `Decoder`; the child imports nothing else.
        remedy: last part of the messages, such as "copy the file again".

    Example:
        >>> with Child("restore_rwkv.io.dicom.decode:decode", "copy the file again") as child:
        ...     facts, data = child.call(
        ...         "a.dcm: its RLE data", {}, b"", Limits(1 << 28, 9, 1 << 20)
        ...     )  # doctest: +SKIP
    """

    def __init__(self, function: str, remedy: str) -> None:
        self._function, self._remedy = function, remedy
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; the next request starts another."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()  # waits, and closes the pipes

    def call(
        self, subject: str, request: Mapping[str, Any], payload: bytes, limits: Limits
    ) -> tuple[dict[str, Any], bytes]:
        """Return the facts and bytes that the function makes of a request.

        Args:
            subject: what is decoded, as the first words of messages: "a.dcm: its RLE data".
            request: anything that JSON can hold.
            payload: bytes of the file.
            limits: memory, time and length of the reply.

        Raises:
            InputError: The function raises an error, stops or takes too long, or its reply is too
                long.
            ConfigError: The process cannot be started.
        """
        if self._process is None:
            self._process = self._started()
        header = {"memory": limits.memory, "seconds": limits.seconds, "request": dict(request)}
        reply, ending = self._exchange(header, payload, limits)
        if reply is None:
            raise InputError(f"{subject} {ending}; {self._remedy}")
        facts, data = reply
        if "error" in facts:
            raise InputError(f"{subject} cannot be decoded ({facts['error']}); {self._remedy}")
        return facts, data

    def _started(self) -> subprocess.Popen[bytes]:
        if not sys.executable or getattr(sys, "frozen", False):
            raise ConfigError(
                "compressed images are decoded by a second Python process, and this program has no "
                "interpreter to start; convert the images to an uncompressed format"
            )
        # The same packages as here, and neither the current folder nor PYTHON* variables.
        path = [os.path.abspath(folder) for folder in sys.path]
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, self._function, *path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **one_thread},
            )
            ready, ending = self._exchange(None, b"", Limits(0, _START_SECONDS, 0))
        except OSError as error:
            ready, ending = None, str(error)
        if ready is None or self._process is None:
            raise ConfigError(
                f"the process that decodes compressed images does not start ({ending}); "
                f"check that {sys.executable} can import restore_rwkv"
            )
        return self._process

    def _exchange(
        self, header: dict[str, Any] | None, payload: bytes, limits: Limits
    ) -> tuple[tuple[dict[str, Any], bytes] | None, str]:
        """Reply of the child, or None and how it ended; without a header, only its reply."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(limits.seconds, expire)
        timer.daemon = True
        reply = None
        try:
            timer.start()
            if header is not None:
                _send(process.stdin, header, payload)
            reply = _receive(process.stdout, limits.reply)
            timer.cancel()
            timer.join()
        except (OSError, EOFError, ValueError):
            pass  # the child has ended, or its reply is not one
        except BaseException:  # Ctrl-C: half a message may be under way
            timer.cancel()
            self.close()
            raise
        if reply is not None and not expired.is_set():
            return reply, ""
        timer.cancel()
        ending = _ending(process, limits) if not expired.is_set() else None
        self.close()
        return None, ending or f"keeps the decoder busy for more than {limits.seconds:.0f} s"


def _ending(process: subprocess.Popen[bytes], limits: Limits) -> str:
    try:
        code = process.wait(timeout=1)
    except subprocess.TimeoutExpired:  # it lives, and its reply made no sense
        return f"has a reply of more than {limits.reply} bytes"
    if code < 0:
        return f"stops the decoder (signal {-code})"
    return f"stops the decoder (exit code {code})"


def _send(stream: IO[bytes], header: Mapping[str, Any], payload: bytes) -> None:
    text = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(text), len(payload)) + text)
    stream.write(payload)
    stream.flush()


def _receive(stream: IO[bytes], longest: int | None) -> tuple[dict[str, Any], bytes]:
    """Read one message.

    Raises:
        EOFError: The other side has ended.
        ValueError: The message is longer than allowed, or is not one.
    """
    n_text, n_bytes = _LENGTHS.unpack(_read(stream, _LENGTHS.size))
    if longest is not None and (n_text > _LONGEST_FACTS or n_bytes > longest):
        raise ValueError("the message is too long")
    header = json.loads(_read(stream, n_text))
    if not isinstance(header, dict):
        raise ValueError("the message is not an object")
    return header, _read(stream, n_bytes)


def _read(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def serve(function: str) -> None:
    """Answer requests until the parent ends; the child's main function.

    Args:
        function: "package.module:function", a `Decoder`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends us
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not a reply
    module, _, name = function.partition(":")
    decoder: Decoder = getattr(importlib.import_module(module), name)
    limit = _limiter()
    _send(replies, {}, b"")
    while True:
        try:
            header, payload = _receive(requests, None)
        except EOFError:
            return
        limit(header["memory"] + 2 * len(payload), header["seconds"])
        facts, data = _answer(decoder, header["request"], payload)
        _send(replies, facts, data)


def _answer(
    decoder: Decoder, request: dict[str, Any], payload: bytes
) -> tuple[dict[str, Any], bytes]:
    try:
        return decoder(request, payload)
    except MemoryError:
        return {"error": "it needs more memory than its size allows"}, b""
    except DECODING_ERRORS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return {"error": text[:500]}, b""


def _limiter() -> Callable[[int, float], None]:
    """Function that bounds the memory and the processor time of this process."""
    try:
        import resource
    except ImportError:  # Windows
        return lambda memory, seconds: None
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no images of patients in core files
    used = _address_space()

    def limit(memory: int, seconds: float) -> None:
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        # A parent that was killed cannot end a child that hangs.
        _set_soft(resource.RLIMIT_CPU, int(spent + seconds) + 2)
        if used is not None:
            _set_soft(resource.RLIMIT_AS, used + memory)

    def _set_soft(kind: int, value: int) -> None:
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, hard))

    return limit


def _address_space() -> int | None:
    """Bytes of this process's address space, where the system says."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[0])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
