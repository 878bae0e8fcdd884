"""An instance on its way to the disk, what it is when it is there, and why it may not get there."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from restore_rwkv.apps.node.spooling.part10 import Facts, read_facts
from restore_rwkv.errors import InputError, RestoreError


class SpoolFull(RestoreError, OSError):  # noqa: N818 - what is wrong is in the name
    """The quota of the spool is used up, or its disk is full; `errno` is that of a full disk."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC


class ConflictError(InputError):
    """Another instance with this SOPInstanceUID is in the spool."""


class SeriesTooLargeError(InputError):
    """A series has as many instances, or bytes, as one may have."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One received DICOM instance.

    Attributes:
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        sop_instance_uid: SOPInstanceUID.
        sop_class_uid: SOPClassUID.
        transfer_syntax: UID of the transfer syntax that it was sent and is stored in.
        origin: Who sent it: "dimse:" and the AE title, or "web:" and the name of an archive.
        path: Where it lies in the spool.
        size: Bytes of the file.
        sha256: Digest of its data set, which is the file without its head; hex.
        header: What rules look at, by keyword (`HEADER_FIELDS` of `part10`); what is missing or
            empty is left out, several values are joined by backslashes.
        announced: Number of instances of its series where the header says it, else None.
    """

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax: str
    origin: str
    path: Path
    size: int
    sha256: str
    header: Mapping[str, str]
    announced: int | None


class Store(Protocol):
    """Where instances go: what a spool offers to those that arrive."""

    def take(self, size: int) -> None:
        """Count bytes that are about to be written; raise SpoolFull where they do not fit."""

    def give_back(self, size: int) -> None:
        """Undo `take`."""

    def keep(self, arriving: Arriving, facts: Facts, digest: str) -> tuple[Path, bool]:
        """Give a complete file its name; return it, and whether there was none of that name."""


class Arriving:
    """An instance on its way into a spool; as a context manager, it leaves no remains.

    Args:
        store: Where it goes.
        path: Temporary file.
        head: What stands before its data set.

    Attributes:
        path: The temporary file.
        size: Bytes that have come, with the head.
    """

    def __init__(self, store: Store, path: Path, head: bytes) -> None:
        self.size = 0
        self._store, self.path = store, path
        self._digest = hashlib.sha256()
        with _full_disk():
            self._stream = path.open("xb")
        try:
            self._put(head)
        except BaseException:
            self.discard()
            raise

    def write(self, block: bytes) -> None:
        """Append bytes of the data set.

        Raises:
            SpoolFull: The quota or the disk does not hold them.
        """
        self._digest.update(block)
        self._put(block)

    def store(self, origin: str) -> tuple[Instance, bool]:
        """Store the instance; arguments, results and errors are those of `Spool.add`."""
        digest = self._digest.hexdigest()
        with _full_disk():
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            facts = read_facts(self.path)
            path, new = self._store.keep(self, facts, digest)
        instance = Instance(**vars(facts), origin=origin, path=path, size=self.size, sha256=digest)
        if new:
            self.size = 0  # which now is the spool's
        self.discard()
        return instance, new

    def discard(self) -> None:
        """Remove what has come; nothing happens once the instance is stored."""
        with suppress(OSError):  # of what could not be flushed to a full disk
            self._stream.close()
        self.path.unlink(missing_ok=True)
        self._store.give_back(self.size)
        self.size = 0

    def __enter__(self) -> Arriving:
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()

    def _put(self, block: bytes) -> None:
        self._store.take(len(block))
        self.size += len(block)
        with _full_disk():
            self._stream.write(block)


@contextmanager
def _full_disk() -> Iterator[None]:
    """Turn the errors of a full disk into a SpoolFull."""
    try:
        yield
    except SpoolFull:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpoolFull("spool: the disk is full; free some space") from error
        raise
