"""Bytes of files, compressed or not, bounded before they are read."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from restore_rwkv.errors import InputError
from restore_rwkv.io.volume import one_line

GZIP = b"\x1f\x8b"
_CHUNK = 1 << 24
_DEFLATE = 1032
"""Bytes that one byte of gzip or zlib can expand to at most (zlib's technical details)."""


def is_gzip(path: Path) -> bool:
    """Whether a file starts as gzip does, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(2) == GZIP


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, through gzip if its first bytes say so.

    Raises:
        InputError: Inside the block, as for `refusing_damage`.
    """
    with (
        refusing_damage(path),
        gzip.open(path) if is_gzip(path) else path.open("rb") as stream,
    ):
        yield cast(IO[bytes], stream)


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Turn what the decompressors raise into one line.

    Raises:
        InputError: The compressed data is damaged, truncated or followed by something else, or the
            memory does not hold what is read.
    """
    try:
        yield
    except gzip.BadGzipFile as error:
        raise InputError(
            f"{path.name}: not a sound gzip file ({one_line(error)}); copy it again"
        ) from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path.name}: the gzip data is truncated; copy it again") from error
    except MemoryError as error:
        raise InputError(
            f"{path.name}: too large for the memory that is free; crop it, or use a machine "
            "with more"
        ) from error


def check_declared(path: Path, size: int, voxels: int, width: int, *, compressed: bool) -> None:
    """Check what a header declares against the size of the file and the memory.

    Args:
        path: The file with the voxels.
        size: Bytes that it should hold, uncompressed.
        voxels: Number of voxels that will be held in memory.
        width: Bytes of a stored number; beside it a float32 value is held.
        compressed: Whether the voxels are compressed with gzip or zlib.

    Raises:
        InputError: The file cannot hold so much, or the memory cannot.
    """
    held = path.stat().st_size
    if held * (_DEFLATE if compressed else 1) < size:
        raise InputError(too_short(path, size))
    need, free = voxels * (width + 4), available_memory()
    if free is not None and need > free:
        raise InputError(
            f"{path.name}: {voxels:,} voxels need about {need / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free; crop it, or use a machine with more"
        )


def too_short(path: Path, size: int) -> str:
    """Message for a file that ends before its voxels do."""
    return (
        f"{path.name}: holds less than the {size} bytes that its header gives; "
        "the file is truncated or damaged, copy or export it again"
    )


def read_exactly(stream: IO[bytes], size: int) -> bytearray | None:
    """Read so many bytes, None where the stream ends before; no memory is taken in advance."""
    payload = bytearray()
    while len(payload) < size:
        chunk = stream.read(min(_CHUNK, size - len(payload)))
        if not chunk:
            return None
        payload += chunk
    return payload


def skip(stream: IO[bytes], size: int) -> bool:
    """Go forward by so many bytes; False where the stream ends before."""
    while size > 0:
        chunk = stream.read(min(_CHUNK, size))
        if not chunk:
            return False
        size -= len(chunk)
    return True


def available_memory() -> int | None:
    """Bytes of memory that a program may take now, None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        free = int(text.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        try:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
    try:  # of a container
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        free = min(free, limit)
    except (OSError, ValueError):  # ValueError: "max"
        pass
    return free
