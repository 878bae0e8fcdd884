"""Decoding of untrusted data in a process of its own, with limits of memory and time.

Decoders written in C can crash, hang, or take all memory on damaged or hostile data. In a child
process this ends in an error that names the file, and nothing is lost.

Requests and answers are a line of JSON and the bytes it announces; nothing that comes from the
child is executed or unpickled.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError

Decoder = Callable[[dict[str, Any], bytes], npt.NDArray[np.generic]]
"""Gives an array of a request and its data; raises any exception for data it cannot decode."""

SECONDS = 60.0
"""Time for one request; a large slice takes less than one second."""

_SPARE_MEMORY = 1 << 29  # bytes, for the libraries
_TIMES_DECODED = 24  # memory allowed, as a multiple of the announced size of the result
_MOST_HEADER = 1 << 16


class Child:
    """A process that decodes one piece of data after the other.

    Args:
        decoder: Where a `Decoder` is found, as "package.module:function".

    Example:
        >>> with Child("restore_rwkv.io.dicom.decoders:decode") as child:  # doctest: +SKIP
        ...     pixels = child.decode({"syntax": syntax, ...}, data, "i001.dcm", 1 << 20)
    """

    def __init__(self, decoder: str) -> None:
        self._decoder = decoder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def decode(
        self, request: dict[str, Any], data: bytes, name: str, size: int, seconds: float = SECONDS
    ) -> npt.NDArray[np.generic]:
        """Decode data; the process is started at the first call.

        Args:
            request: Plain values for the decoder.
            data: What is to be decoded.
            name: Of the file, for messages.
            size: Bytes that the result is expected to have, which bounds the memory.
            seconds: Time limit.

        Raises:
            InputError: The data cannot be decoded, or not within the limits.
        """
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            head = {**request, "length": len(data), "memory": _TIMES_DECODED * size}
            process.stdin.write(json.dumps(head).encode() + b"\n")
            process.stdin.write(data)
            process.stdin.flush()
            answer = json.loads(process.stdout.readline(_MOST_HEADER) or b"null")
            if answer is not None and "error" not in answer:
                count = math.prod(answer["shape"]) * np.dtype(answer["dtype"]).itemsize
                payload = process.stdout.read(count)
                if len(payload) == count:
                    array: npt.NDArray[np.generic] = np.frombuffer(payload, answer["dtype"])
                    return array.reshape(answer["shape"])
                answer = None
        except (OSError, ValueError):  # the process has ended, or its answer is cut off
            answer = None
        except BaseException:
            self._stop()
            raise
        finally:
            timer.cancel()
        if answer is not None:
            raise InputError(f"{name}: the pixel data cannot be decoded ({answer['error']})")
        raise InputError(f"{name}: {self._end(process, late.is_set(), seconds)}; copy it again")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, self._decoder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def _end(self, process: subprocess.Popen[bytes], late: bool, seconds: float) -> str:
        """Why the process gave no answer."""
        self._stop()
        if late:
            return f"decoding the pixel data took longer than {seconds:g} s"
        code = process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"the pixel data stops its decoder ({how}), so it is damaged"

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        process.wait()


def main() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    module, _, name = sys.argv[1].partition(":")
    decoder: Decoder = getattr(importlib.import_module(module), name)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request.pop("length"))
        _limit_memory(request.pop("memory"))
        _answer(decoder, request, data, answers)


def _answer(decoder: Decoder, request: dict[str, Any], data: bytes, answers: IO[bytes]) -> None:
    payload = b""
    try:
        array = np.ascontiguousarray(decoder(request, data))
        head: dict[str, Any] = {"dtype": array.dtype.str, "shape": list(array.shape)}
        payload = array.tobytes()
    except MemoryError:
        head = {"error": "it needs far more memory than its size announces"}
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        head = {"error": text[:500]}
    answers.write(json.dumps(head).encode() + b"\n")
    answers.write(payload)
    answers.flush()


def _limit_memory(more: int) -> None:
    """Allow this process some bytes more than it has, where the system can limit that."""
    try:
        import resource
    except ImportError:  # Windows
        return
    try:
        with open("/proc/self/statm") as stream:
            now = int(stream.read().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + _SPARE_MEMORY + more, hard))


if __name__ == "__main__":
    main()
