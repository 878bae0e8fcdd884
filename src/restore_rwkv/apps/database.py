"""A SQLite file that one process uses: its schema, and transactions that last.

The node keeps its queue so, and the page its jobs.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_rwkv.errors import InputError

Run = Callable[..., sqlite3.Cursor]
"""Executes one statement with its values, within a transaction."""


@dataclass(frozen=True)
class Schema:
    """What a file holds.

    Attributes:
        owner: what uses it, for messages and for the name of its lock, such as "node".
        file: name of the file.
        version: of the statements; a file of another one is refused.
        statements: that make the tables.
    """

    owner: str
    file: str
    version: int
    statements: tuple[str, ...]


class Database:
    """One SQLite file, used by all threads of one process.

    Args:
        folder: it is created, and the file in it.
        schema: what the file holds.

    Raises:
        InputError: another process uses the folder, the file is damaged, or of a newer version.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, schema: Schema) -> None:
        from filelock import FileLock, Timeout

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self._schema = schema
        # Threads other than the one that opened it may close it.
        self._claim = FileLock(folder / f"{schema.owner}.lock", timeout=0, thread_local=False)
        try:
            self._claim.acquire()
        except Timeout as error:
            raise InputError(
                f"{folder}: another {schema.owner} uses this folder; stop it, or name another "
                "folder"
            ) from error
        self._lock = threading.RLock()
        path = folder / schema.file
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            self._open(path)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise InputError(
                    f"{path}: cannot be used as a queue ({error}); put back a copy, or start with "
                    "another folder"
                ) from error
            raise

    def _open(self, path: Path) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")  # a commit survives a power cut
        run("PRAGMA foreign_keys=ON")
        run("PRAGMA journal_size_limit=67108864")
        with self.transaction() as execute:
            version = execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in self._schema.statements:
                    execute(statement)
                execute(f"PRAGMA user_version={self._schema.version}")
            elif version != self._schema.version:
                raise InputError(
                    f"{path}: has version {version} of the queue, this program knows "
                    f"{self._schema.version}; use the restore-rwkv that wrote it, or another folder"
                )

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        """Give a function that executes statements, all of which take effect, or none.

        Raises:
            OSError: the disk is full or does not work; nothing has changed then.
        """
        with self._lock, _as_os_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite may have undone it by itself
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let no other thread read or write within the block."""
        with self._lock:
            yield

    def rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with self._lock, _as_os_errors():
            return self._connection.execute(statement, values).fetchall()

    def stored(self, path: Path) -> str:
        """Return a path as it is stored: below the folder, which may be moved."""
        path = path.absolute()
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else str(path)

    def located(self, stored: str) -> Path:
        """Return the path that was stored."""
        return self.folder / stored

    def close(self) -> None:
        """Close the file, and let another process use the folder."""
        with self._lock:
            if hasattr(self, "_connection"):
                self._connection.close()
            self._claim.release()


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Turn what SQLite says of the disk into an OSError, as that of any other file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text:
            raise OSError(errno.EBUSY, "another program writes to the queue") from error
        if "full" in text:
            raise OSError(errno.ENOSPC, "the disk of the queue is full") from error
        if "I/O" in text or "readonly" in text or "unable to open" in text:
            raise OSError(errno.EIO, f"the queue cannot be written ({text})") from error
        raise
