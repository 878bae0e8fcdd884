"""Bodies of the type multipart/related (RFC 2046, RFC 2387), read and written as streams."""

from __future__ import annotations

import email.message
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_LONGEST_HEADERS = 1 << 14
_END = b"\r\n"


class MultipartError(Exception):
    """A body is not what its type says, breaks off, or is larger than allowed.

    Attributes:
        transient: whether it broke off, so that the next attempt may get it whole.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Limits of a body.

    Attributes:
        part: most bytes of a part.
        whole: most bytes of the body.
    """

    part: int
    whole: int


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a content type states.

    Raises:
        MultipartError: the type is not multipart/related, or has no boundary of 1 to 70 characters.
    """
    message = email.message.Message()
    message["Content-Type"] = content_type
    if message.get_content_type() != "multipart/related":
        raise MultipartError("answers with another type than multipart/related")
    boundary = message.get_boundary("")
    if not 1 <= len(boundary) <= 70 or not boundary.isascii() or not boundary.isprintable():
        raise MultipartError("answers with multipart/related without a boundary")
    return boundary.encode()


def parts(read: Callable[[], bytes], boundary: bytes, sizes: Sizes) -> Iterator[bytes]:
    """Yield the content of each part of a body, one at a time.

    Memory holds one part and what was read with its end.

    Args:
        read: returns the next bytes of the body; none at its end.
        boundary: of the parts.
        sizes: limits.

    Raises:
        MultipartError: the body breaks off before its closing boundary, is not made of parts, or a
            limit is exceeded.
    """
    stream = _Stream(read, sizes.whole)
    delimiter = _END + b"--" + boundary
    stream.buffer += _END  # of the line before the first boundary
    stream.until(delimiter, _LONGEST_HEADERS, "the text before the first part")
    while (two := stream.exactly(2)) != b"--":
        if two != _END:
            rest = two + stream.until(_END, 80, "the line of a boundary")
            if rest.strip(b" \t"):
                raise MultipartError("sends a boundary with text behind it")
        stream.buffer[:0] = _END  # a part without headers begins with an empty line
        stream.until(2 * _END, _LONGEST_HEADERS, "the headers of a part")
        yield stream.until(delimiter, sizes.part, "a part")


class _Stream:
    def __init__(self, read: Callable[[], bytes], most: int) -> None:
        self.buffer = bytearray()
        self._read = read
        self._left = most

    def _fill(self) -> None:
        block = self._read()
        if not block:
            raise MultipartError("breaks off before the end of its answer", transient=True)
        self._left -= len(block)
        if self._left < 0:
            raise MultipartError("sends more than the limit of a series")
        self.buffer += block

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._fill()
        return self._take(count, count)

    def until(self, mark: bytes, most: int, what: str) -> bytes:
        """Return the bytes before a mark, which is dropped."""
        start = 0
        while (found := self.buffer.find(mark, start)) < 0 and len(self.buffer) <= most + len(mark):
            start = max(0, len(self.buffer) - len(mark) + 1)
            self._fill()
        if not 0 <= found <= most:
            raise MultipartError(f"sends more than {most} bytes as {what}")
        return self._take(found, found + len(mark))

    def _take(self, count: int, dropped: int) -> bytes:
        with memoryview(self.buffer) as view:
            taken = bytes(view[:count])
        del self.buffer[:dropped]
        return taken


class MultipartFiles:
    """A body of DICOM files, for a request that stores them.

    Attributes:
        size: bytes of the body.
        content_type: of the request.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        boundary = uuid.uuid4().hex
        self.content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
        head = f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        self.size = sum(len(head) + file.stat().st_size for file in files) + len(tail)
        self._pieces: list[bytes | Path] = [piece for file in files for piece in (head, file)]
        self._pieces.append(tail)
        self._open: BinaryIO | None = None

    def read(self, count: int = 1 << 16, /) -> bytes:
        """Return the next bytes, at most `count` or a header of a part; none at the end."""
        while self._open or self._pieces:
            if self._open:
                if block := self._open.read(count):
                    return block
                self.close()
                continue
            piece = self._pieces.pop(0)
            if isinstance(piece, bytes):
                return piece
            self._open = piece.open("rb")
        return b""

    def close(self) -> None:
        """Close the file that is being read."""
        if self._open:
            self._open.close()
            self._open = None
