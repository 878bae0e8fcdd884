"""Bodies of multipart/related are read and written as streams, and hostile ones refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore_rwkv.apps.node.dicomweb.multipart import (
    MultipartError,
    MultipartFiles,
    Sizes,
    boundary_of,
    parts,
)

SIZES = Sizes(part=1000, whole=100_000)


def reader(content: bytes, step: int = 7) -> Callable[[], bytes]:
    pieces = iter([content[at : at + step] for at in range(0, len(content), step)])
    return lambda: next(pieces, b"")


def endless(start: bytes) -> Callable[[], bytes]:
    first = [start]
    return lambda: first.pop() if first else b"x" * 50


@given(
    contents=st.lists(st.binary(max_size=60), max_size=4),
    step=st.integers(1, 40),
    preamble=st.sampled_from([b"", b"\r\n", b"hello\r\n"]),
    padding=st.sampled_from([b"", b"  \t"]),
    headers=st.sampled_from([b"", b"Content-Type: application/dicom\r\nContent-Length: 99\r\n"]),
    end=st.sampled_from([b"", b"\r\n", b"\r\nepilogue"]),
)
def test_parts_come_back_whatever_the_reads_are(
    contents: list[bytes], step: int, preamble: bytes, padding: bytes, headers: bytes, end: bytes
) -> None:
    body = b"".join(
        b"--Some B0undary" + padding + b"\r\n" + headers + b"\r\n" + content + b"\r\n"
        for content in contents
    )
    body = preamble + body + b"--Some B0undary--" + end
    assert list(parts(reader(body, step), b"Some B0undary", SIZES)) == contents


def test_files_that_are_written_come_back(tmp_path: Path) -> None:
    contents = [b"one\r\n--", b"", bytes(range(256)) * 3]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    body = MultipartFiles([tmp_path / str(number) for number in range(3)])
    pieces = list(iter(lambda: body.read(100), b""))
    assert len(b"".join(pieces)) == body.size
    assert all(len(piece) <= 100 for piece in pieces)
    assert list(parts(reader(b"".join(pieces)), boundary_of(body.content_type), SIZES)) == contents


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        ("text/html", "another type"),
        ("", "another type"),
        ("application/dicom", "another type"),
        ('multipart/related; type="application/dicom"', "without a boundary"),
        ("multipart/related; boundary=", "without a boundary"),
        (f"multipart/related; boundary={71 * 'b'}", "without a boundary"),
        ('multipart/related; boundary="b\N{LATIN SMALL LETTER E WITH ACUTE}"', "without a"),
    ],
)
def test_a_type_without_parts_is_refused(content_type: str, words: str) -> None:
    with pytest.raises(MultipartError, match=words):
        boundary_of(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/related; boundary=b-1",
        'Multipart/Related; type="application/dicom"; boundary="b-1"',
        'multipart/related;BOUNDARY=b-1;start-info="x;boundary=c"',
    ],
)
def test_a_boundary_is_found(content_type: str) -> None:
    assert boundary_of(content_type) == b"b-1"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"--B",
        b"--B\r\n\r\nhalf",
        b"--B\r\n\r\nhalf\r\n--",
        b"--B\r\n\r\none\r\n--B\r\nContent-",
    ],
)
def test_a_body_that_breaks_off_is_worth_another_attempt(content: bytes) -> None:
    with pytest.raises(MultipartError, match="breaks off") as caught:
        list(parts(reader(content), b"B", SIZES))
    assert caught.value.transient


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"x", "the text before the first part"),
        (b"--B", "the line of a boundary"),
        (b"--B\r\n", "the headers of a part"),
        (b"--B\r\n\r\n", "more than 1000 bytes as a part"),
    ],
)
def test_a_body_without_an_end_is_given_up(start: bytes, words: str) -> None:
    with pytest.raises(MultipartError, match=words) as caught:
        list(parts(endless(start), b"B", SIZES))
    assert not caught.value.transient


def test_parts_without_an_end_are_given_up() -> None:
    body = b"--B" + 100 * (b"\r\n\r\n" + 900 * b"x" + b"\r\n--B")
    given: list[bytes] = []
    with pytest.raises(MultipartError, match="limit of a series"):
        given.extend(parts(reader(body, 512), b"B", Sizes(part=1000, whole=10_000)))
    assert 9 <= len(given) <= 11


def test_text_behind_a_boundary_is_refused() -> None:
    with pytest.raises(MultipartError, match="text behind"):
        list(parts(reader(b"--Boo\r\n\r\nx\r\n--B--"), b"B", SIZES))
