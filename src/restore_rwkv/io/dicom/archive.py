"""DICOM files out of a zip archive, unpacked into a temporary folder within strict limits."""

from __future__ import annotations

import errno
import shutil
import stat
import struct
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.signature import HEAD, may_be_dicom
from restore_rwkv.io.volume import one_line

_CHUNK = 1 << 20
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # plain, strong, and of the list of files
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_REMEDY = "unpack it yourself, and give the folder"


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        entries: Number of files and folders in it.
        size: Sum of the sizes of its files, unpacked, in bytes; that of those that are unpacked.
        ratio: Sum of the sizes over that of the archive, checked above `small`. CT comes to 2 or 3,
            masks to 100; what bombs are made of to 1000 and more.
        small: Unpacked size below which the ratio does not matter, in bytes.
    """

    entries: int = 100_000
    size: int = 16 << 30
    ratio: float = 200.0
    small: int = 256 << 20


class Unpacked:
    """A temporary folder with the DICOM files of an archive, removed when nobody holds it.

    Unlike `tempfile.TemporaryDirectory`, it is meant to be removed with its last reference, so that
    this gives no warning.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="restore-rwkv-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def is_zip(head: bytes) -> bool:
    """Whether a file that starts so is a zip archive."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def unpack(path: Path, limits: Limits | None = None) -> Unpacked:
    """Unpack the DICOM files of a zip archive; other files stay packed.

    Args:
        path: The archive.
        limits: What it may hold.

    Returns:
        The folder with the files under the names of the archive. It is removed with the last
        reference to this object.

    Raises:
        InputError: The archive is damaged, encrypted, too large or a bomb, holds another archive,
            links, or names that lead out of the folder.
        OSError: The archive cannot be read, or the disk is full.
    """
    limits = limits or Limits()
    with path.open("rb") as stream, _refusing(path.name):
        _require_short_list(stream.seek(0, 2), _tail(path), limits, path.name)
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            _check_sizes(entries, path, limits)
            for entry in entries:
                _check_entry(entry, path.name)
            target = Unpacked()
            left = limits.size
            for entry in entries:
                if not entry.is_dir():
                    left -= _extract(archive, entry, target.path, path.name)
                    _require(left >= 0, path.name, f"unpacks to more than {limits.size} bytes")
            if left == limits.size:  # nothing was unpacked
                inner = [e.filename for e in entries if e.filename.lower().endswith(".zip")]
                _require(not inner, path.name, f"holds another archive, {inner[:1]}")
    return target


_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error),
    UnicodeDecodeError,  # a name that is not what it claims
)


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise InputError(
            f"{name}: the archive is damaged ({one_line(error)}); copy or export it again"
        ) from error


def _require(condition: bool, name: str, problem: str, remedy: str = _REMEDY) -> None:
    if not condition:
        raise InputError(f"{name}: {problem}; {remedy}")


def _tail(path: Path) -> bytes:
    """The end of an archive, where the place of its list of files is written."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - 66_000))
        return stream.read()


def _require_short_list(size: int, tail: bytes, limits: Limits, name: str) -> None:
    """Check the length of the list of files before `zipfile` reads the list into memory."""
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        raise zipfile.BadZipFile("cut off: no list of its files at the end")
    length = int(struct.unpack_from("<I", tail, at + 12)[0])
    large = tail.rfind(b"PK\x06\x06")  # the record of archives above 4 GiB or 65,535 files
    if large >= 0 and large + 48 <= len(tail):
        length = max(length % 0xFFFFFFFF, int(struct.unpack_from("<Q", tail, large + 40)[0]))
    _require(
        min(length, size) <= 512 * limits.entries, name, f"holds more than {limits.entries} entries"
    )


def _check_sizes(entries: list[zipfile.ZipInfo], path: Path, limits: Limits) -> None:
    name, total = path.name, sum(entry.file_size for entry in entries)
    _require(
        len(entries) <= limits.entries, name, f"holds {len(entries)} entries, too many to unpack"
    )
    packed = max(path.stat().st_size, 1)
    _require(
        total <= limits.small or total <= limits.ratio * packed,
        name,
        f"would unpack to {total / packed:.0f} times its size, as archives made to fill disks do",
        "pack the series again",
    )
    most = min(limits.size, shutil.disk_usage(tempfile.gettempdir()).free)
    _require(
        total <= most,
        name,
        f"would unpack to {total / 1e9:.1f} GB, more than the {most / 1e9:.1f} GB that are allowed "
        "or free",
        "unpack it yourself, and give the folder of one series",
    )


def _check_entry(entry: zipfile.ZipInfo, name: str) -> None:
    inner = entry.filename
    windows = PureWindowsPath(inner)  # some programs write backslashes
    safe = not PurePosixPath(inner).is_absolute() and not windows.anchor
    # `orig_filename` is the name before zipfile cut it off at a zero byte.
    safe = safe and ".." not in windows.parts and inner == entry.orig_filename
    _require(safe, name, f"its entry {inner!r} leads out of the folder", "pack the series again")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    _require(
        kind in (0, stat.S_IFREG, stat.S_IFDIR),
        name,
        f"its entry {inner!r} is a link or a device",
        "pack the files themselves",
    )
    _require(not entry.flag_bits & _ENCRYPTED, name, "is encrypted")


def may_hold_dicom(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry that cannot be opened may be DICOM, by its name."""
    suffix = PureWindowsPath(entry.filename).suffix.lower()
    return suffix in ("", ".dcm", ".dicom", ".ima") or suffix[1:].isdecimal()


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, name: str) -> int:
    """Write an entry if it is DICOM; return the bytes that were written."""
    method = entry.compress_type
    if method not in _METHODS:
        _require(not may_hold_dicom(entry), name, f"is packed by method {method}, not 8")
        return 0
    with archive.open(entry) as packed:
        block = packed.read(HEAD)
        if not may_be_dicom(block):
            return 0
        target = folder.joinpath(*PureWindowsPath(entry.filename).parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise InputError(
                f"{name}: its entry {entry.filename!r} is there twice; {_REMEDY}"
            ) from None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise InputError(
                f"{name}: its entry {entry.filename[:40]!r}... has too long a name; {_REMEDY}"
            ) from None
        written = 0
        with file:
            while block:
                written += len(block)
                _require(
                    written <= entry.file_size, name, f"its entry {entry.filename!r} is too long"
                )
                file.write(block)
                block = packed.read(_CHUNK)
    return written
