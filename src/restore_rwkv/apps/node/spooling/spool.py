"""Received DICOM instances on disk: each is there whole or not at all, and safe once it is added.

Each instance is a file of its own, `SERIES/INSTANCE.dcm`, below the folder of the spool. Both names
are digests of UIDs, so that nothing a sender says becomes a part of a path. A file gets its name by
a rename after it was flushed to the disk.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
import threading
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from restore_rwkv.apps.node.names import DIGITS, file_name
from restore_rwkv.apps.node.spooling.arriving import (
    Arriving,
    ConflictError,
    Instance,
    SeriesTooLargeError,
    SpoolFull,
)
from restore_rwkv.apps.node.spooling.part10 import (
    Facts,
    read_facts,
    read_head,
    read_origin,
    with_origin,
)
from restore_rwkv.errors import InputError
from restore_rwkv.io.atomic import flush_folder

__all__ = ["Arriving", "ConflictError", "Instance", "SeriesTooLargeError", "Spool", "SpoolFull"]

_BLOCK = 1 << 20
_INCOMING = "incoming"
_RESERVE = 512 << 20


class Spool:
    """Instances on disk, below one folder, which one process uses at a time.

    Methods may be called from several threads at once. What a killed process left incomplete is
    removed when the spool is opened.

    Args:
        folder: Where they lie; it is created.
        quota: Most bytes of all of them, with those that are arriving.
        reserve: Bytes of the disk that are left free.
        series_instances: Most instances of a series; None for any number.
        series_bytes: Most bytes of a series; None for any.
    """

    def __init__(
        self,
        folder: Path,
        quota: int,
        *,
        reserve: int = _RESERVE,
        series_instances: int | None = None,
        series_bytes: int | None = None,
    ) -> None:
        self._folder, self._quota, self._reserve = folder.absolute(), quota, reserve
        self._most = (series_instances, series_bytes)
        self._extents: dict[str, tuple[int, int]] = {}  # instances and bytes, by name of folder
        self._lock = threading.Lock()
        self._series_of: dict[str, str] = {}  # name of each file to that of its folder
        self._lasting: set[str] = set()  # folders whose names survive a power cut
        self._used = 0
        self._incoming = self._folder / _INCOMING
        self._incoming.mkdir(parents=True, exist_ok=True)
        flush_folder(self._folder.parent)
        for left in self._incoming.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        for path in self._files():
            self._record(path, path.stat().st_size)
            self._used += path.stat().st_size

    def add(self, part10: bytes | BinaryIO, origin: str) -> tuple[Instance, bool]:
        """Store a DICOM file.

        Args:
            part10: The file, or a stream of it.
            origin: Who sent it, as in `Instance`.

        Returns:
            The instance, which a power cut does not lose any more; and whether it is new: False if
            the same one was there already.

        Raises:
            SpoolFull: The quota or the disk does not hold it.
            ConflictError: Another one with its SOPInstanceUID is there.
            SeriesTooLargeError: Its series would become larger than one may be.
            InputError: It is not DICOM, damaged, or its UIDs are missing or contradict each other.
        """
        stream = io.BytesIO(part10) if isinstance(part10, bytes) else part10
        with self.begin(with_origin(read_head(stream), origin)) as arriving:
            while block := stream.read(_BLOCK):
                arriving.write(block)
            return arriving.store(origin)

    def begin(self, head: bytes) -> Arriving:
        """Open an instance whose data set comes piece by piece.

        Args:
            head: Preamble, signature and file meta information, from `with_origin`.

        Raises:
            SpoolFull: The quota or the disk does not hold it.
        """
        path = self._incoming / f"{secrets.token_hex(8)}.partial"
        return Arriving(self, path, head)

    def folder_of(self, series_uid: str) -> Path:
        """Return the folder of a series, which exists once an instance of it is stored."""
        return self._folder / file_name(series_uid)

    def used(self) -> int:
        """Bytes of all instances, with those that are arriving."""
        with self._lock:
            return self._used

    def remove(self, series_uid: str) -> None:
        """Remove all instances of a series; nothing happens if there are none."""
        folder, gone = self.folder_of(series_uid), self._incoming / f"{secrets.token_hex(8)}.gone"
        with self._lock:
            try:
                os.replace(folder, gone)
            except FileNotFoundError:
                return
            for path in gone.iterdir():
                self._forget(path.name, folder.name, path.stat().st_size)
        flush_folder(self._folder)
        shutil.rmtree(gone)

    def discard(self, instance: Instance) -> None:
        """Remove one instance, such as one that was not registered after all."""
        self._drop([instance.path])

    def strangers(self, names: Collection[str]) -> Iterator[Instance]:
        """Give the instances that nobody knows of; remove files that are not whole.

        The process was killed before an instance was noted in the queue, or the queue is an older
        copy. It is called before anything is received.

        Args:
            names: `Instance.path.name` of those that are known.
        """
        for path in [path for path in self._files() if path.name not in names]:
            try:
                facts = read_facts(path)
                if file_name(facts.sop_instance_uid) != path.stem:
                    raise InputError("instance: another one than its name says")
            except InputError:
                self._drop([path])
                continue
            yield Instance(
                **vars(facts),
                origin=read_origin(path),
                path=path,
                size=path.stat().st_size,
                sha256=_digest(path),
            )

    def _drop(self, paths: Collection[Path]) -> None:
        with self._lock:
            for path in paths:
                if self._series_of.get(path.name) == path.parent.name:
                    self._forget(path.name, path.parent.name, path.stat().st_size)
                    path.unlink()
                    with suppress(OSError):  # it holds others
                        path.parent.rmdir()

    def _files(self) -> Iterator[Path]:
        for folder in self._folder.iterdir():
            if folder != self._incoming and len(folder.name) == DIGITS:
                yield from folder.glob("*.dcm")

    def _record(self, path: Path, size: int) -> None:
        """Note a file under its name."""
        series = path.parent.name
        self._series_of[path.name] = series
        count, total = self._extents.get(series, (0, 0))
        self._extents[series] = (count + 1, total + size)

    def _forget(self, name: str, series: str, size: int) -> None:
        """Undo `_record` for a file that goes."""
        if self._series_of.pop(name, None) is None:
            return
        self._used -= size
        count, total = self._extents.pop(series)
        if count > 1:
            self._extents[series] = (count - 1, total - size)
        else:
            self._lasting.discard(series)

    def _check_extent(self, series: str, size: int) -> None:
        count, total = self._extents.get(series, (0, 0))
        instances, most = self._most
        if instances is not None and count >= instances:
            raise SeriesTooLargeError(
                f"instance: its series has {instances} already, the most of one; raise the limit"
            )
        if most is not None and total + size > most:
            raise SeriesTooLargeError(
                f"instance: its series would have more than {most} bytes; raise the limit"
            )

    def take(self, size: int) -> None:
        """Count bytes that are about to be written.

        Raises:
            SpoolFull: They do not fit.
        """
        if shutil.disk_usage(self._incoming).free < self._reserve + size:
            raise SpoolFull(f"{self._folder.name}: the disk is nearly full; free some space")
        with self._lock:
            if self._used + size > self._quota:
                raise SpoolFull(
                    f"{self._folder.name}: the quota of {self._quota} bytes is used up; raise it, "
                    "or let the series that wait be sent"
                )
            self._used += size

    def give_back(self, size: int) -> None:
        """Undo `take`."""
        with self._lock:
            self._used -= size

    def keep(self, arriving: Arriving, facts: Facts, digest: str) -> tuple[Path, bool]:
        """Give a complete file its name; return it, and whether there was none of that name."""
        name = f"{file_name(facts.sop_instance_uid)}.dcm"
        folder = self.folder_of(facts.series_uid)
        with self._lock:
            former = self._series_of.get(name)
            if former is None:
                self._check_extent(folder.name, arriving.size)
                folder.mkdir(exist_ok=True)
                os.replace(arriving.path, folder / name)
                self._record(folder / name, arriving.size)
        if former is not None:
            _check_same(self._folder / former / name, facts, digest)
        flush_folder(folder)
        if folder.name not in self._lasting:
            flush_folder(self._folder)
            self._lasting.add(folder.name)
        return folder / name, former is None


def _digest(path: Path) -> str:
    """Digest of the data set of a stored file, as `Instance` has it."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        read_head(stream)
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _check_same(path: Path, facts: Facts, digest: str) -> None:
    """Raise ConflictError unless a stored file is the instance that has come again."""
    syntax = read_facts(path).transfer_syntax
    if _digest(path) != digest or syntax != facts.transfer_syntax:
        raise ConflictError(
            "instance: another one with its SOPInstanceUID has come before; give each its own"
        )
