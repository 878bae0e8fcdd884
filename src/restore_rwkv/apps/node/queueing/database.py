"""The SQLite file of the node: its schema, and transactions that are on the disk when they end.

It holds, for each series: its UIDs, the origin, the values of the header that rules look at
(`rules.HEADER_KEYWORDS`), sizes, hashes, times, its state and the reason for it. It holds no names,
numbers or dates of patients.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from restore_rwkv.errors import InputError

VERSION = 1
STATES = (
    *("receiving", "ready", "restoring", "restored", "sending"),  # open
    *("done", "refused", "failed"),  # ended
)

Run = Callable[..., sqlite3.Cursor]
"""Executes one statement with its values, within a transaction."""

# One row of `series` is one revision of a series: all instances that had come when it was complete.
# `due` is when the series is next looked at: when it will have been quiet for long enough, or when
# it may be tried (again). Counts are kept by triggers, as counting a million rows takes long.
_SCHEMA = (
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY,
        series_uid TEXT NOT NULL, revision INTEGER NOT NULL, study_uid TEXT NOT NULL,
        origin TEXT NOT NULL, header TEXT NOT NULL, announced INTEGER,
        instances INTEGER NOT NULL, bytes INTEGER NOT NULL,
        state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
        first_at REAL NOT NULL, due REAL NOT NULL, ended_at REAL,
        claims INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
        seconds REAL, UNIQUE (series_uid, revision))""",
    "CREATE INDEX series_due ON series (state, due)",
    "CREATE INDEX series_open ON series (first_at) WHERE ended_at IS NULL",
    "CREATE INDEX series_ended ON series (ended_at) WHERE ended_at IS NOT NULL",
    """CREATE TABLE instances (
        series_uid TEXT NOT NULL, sop_instance_uid TEXT NOT NULL, revision INTEGER NOT NULL,
        path TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
        PRIMARY KEY (series_uid, sop_instance_uid)) WITHOUT ROWID""",
    """CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY, series INTEGER NOT NULL REFERENCES series ON DELETE CASCADE,
        destination TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
        created_at REAL NOT NULL, due REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
        UNIQUE (series, destination))""",
    "CREATE INDEX deliveries_due ON deliveries (destination, due) WHERE state = 'open'",
    """CREATE TABLE files (
        delivery INTEGER NOT NULL REFERENCES deliveries ON DELETE CASCADE, path TEXT NOT NULL,
        sent INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (delivery, path)) WITHOUT ROWID""",
    # Series whose rows are deleted, but whose files may not be.
    "CREATE TABLE trash (series_uid TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE counts (state TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID",
    *(f"INSERT INTO counts VALUES ('{state}', 0)" for state in STATES),
    """CREATE TRIGGER series_added AFTER INSERT ON series BEGIN
        UPDATE counts SET number = number + 1 WHERE state = new.state; END""",
    """CREATE TRIGGER series_moved AFTER UPDATE OF state ON series BEGIN
        UPDATE counts SET number = number - 1 WHERE state = old.state;
        UPDATE counts SET number = number + 1 WHERE state = new.state; END""",
    """CREATE TRIGGER series_removed AFTER DELETE ON series BEGIN
        UPDATE counts SET number = number - 1 WHERE state = old.state; END""",
)


class Database:
    """One SQLite file, used by all threads of one process.

    Args:
        folder: of the node; it is created. The file in it is `queue.sqlite`.

    Raises:
        InputError: another process uses the folder, the file is damaged, or of a newer version.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock, Timeout

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder.resolve()
        # Threads other than the one that opened the node may close it.
        self._claim = FileLock(folder / "node.lock", timeout=0, thread_local=False)
        try:
            self._claim.acquire()
        except Timeout as error:
            raise InputError(
                f"{folder}: another node uses this folder; stop it, or name another folder"
            ) from error
        self._lock = threading.RLock()
        path = folder / "queue.sqlite"
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
                for statement in _SCHEMA:
                    execute(statement)
                execute(f"PRAGMA user_version={VERSION}")
            elif version != VERSION:
                raise InputError(
                    f"{path}: has version {version} of the queue, this program knows {VERSION}; "
                    "use the restore-rwkv that wrote it, or another folder"
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
        """Return a path as it is stored: below the folder of the node, which may be moved."""
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
