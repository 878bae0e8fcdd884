"""The series of an archive that were handled, kept on the disk."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Literal

from restore_rwkv.errors import InputError

Handled = Literal["fetched", "own", "refused"]
"""Fetched whole; made by this program; not to be had within the limits."""


class Watched:
    """Remembers which series of an archive were handled, and with how many instances.

    A series is noted after its instances are in the spool and the queue. If the process is killed
    before, it is fetched once more, which changes nothing there.

    Args:
        path: SQLite file; it is created.

    Raises:
        InputError: the file is damaged, or something else.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS series (uid TEXT PRIMARY KEY, handled TEXT NOT NULL, "
                "instances INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID"
            )
            self._connection.execute("SELECT uid, handled, instances, at FROM series LIMIT 1")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise InputError(
                f"{path}: cannot be used ({error}); delete it, and the series of the last days "
                "are fetched again"
            ) from error

    def is_handled(self, uid: str, instances: int) -> bool:
        """Whether a series needs no look: it is our own, or has no more instances than then."""
        row = self._connection.execute(
            "SELECT handled, instances FROM series WHERE uid = ?", (uid,)
        ).fetchone()
        return row is not None and (row[0] == "own" or instances <= row[1])

    def note(self, uid: str, handled: Handled, instances: int) -> None:
        """Write that a series was handled; it is on the disk when this returns."""
        self._connection.execute(
            "INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?)",
            (uid, handled, instances, time.time()),
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
