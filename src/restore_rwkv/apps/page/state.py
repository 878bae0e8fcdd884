"""The folder of the page: jobs, uploads and results, which only its user can read."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from restore_rwkv.apps.database import Database, Schema
from restore_rwkv.errors import InputError, StorageError

_PREFIX = "restore-rwkv-page-"
_RESERVE = 256 << 20  # bytes of the disk that stay free
_FRESH_SECONDS = 60.0  # a folder that is younger may be about to be claimed

_SCHEMA = Schema(
    "page",
    "page.sqlite",
    1,
    (
        # AUTOINCREMENT: the number of a job that was forgotten never names another one.
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT, scan TEXT NOT NULL, name TEXT NOT NULL,
            source TEXT NOT NULL, upload TEXT, options TEXT NOT NULL, state TEXT NOT NULL,
            error TEXT NOT NULL DEFAULT '', outputs TEXT NOT NULL DEFAULT '{}',
            made REAL NOT NULL, claims INTEGER NOT NULL DEFAULT 0)""",
        "CREATE INDEX jobs_state ON jobs (state, id)",
        """CREATE TABLE uploads (
            id TEXT PRIMARY KEY, folder TEXT NOT NULL, name TEXT NOT NULL, files INTEGER NOT NULL,
            bytes INTEGER NOT NULL) WITHOUT ROWID""",
    ),
)


class StateFolder:
    """The folder of one page, which no other process uses at the same time.

    Args:
        given: a folder to keep; None for a private one that `close` removes.

    Attributes:
        path: of the folder.
        kept: whether it stays.
        database: its SQLite file.
        uploads: folder of what was dropped.
        results: folder of what jobs wrote.
        unpacked: folder for temporary files.

    Raises:
        InputError: another page uses it, others can read it, or it is not a folder.
        OSError: it cannot be made.
    """

    def __init__(self, given: Path | None = None) -> None:
        self.kept = given is not None
        if given is None:
            _remove_stale()
            given = Path(tempfile.mkdtemp(prefix=_PREFIX))
        else:
            _make_private(given)
        self.path = given.resolve()
        self.database = Database(self.path, _SCHEMA)
        self.uploads, self.results, self.unpacked = (
            self.path / name for name in ("uploads", "results", "unpacked")
        )
        shutil.rmtree(self.unpacked, ignore_errors=True)  # of a process that was killed
        for folder in (self.uploads, self.results, self.unpacked):
            folder.mkdir(mode=0o700, exist_ok=True)
        if os.name == "posix":
            (self.path / _SCHEMA.file).chmod(0o600)

    def require_room(self, need: int, what: str) -> None:
        """Check that the disk has room.

        Args:
            need: bytes.
            what: they are for, for the message.

        Raises:
            StorageError: it has not.
        """
        free = max(0, shutil.disk_usage(self.path).free - _RESERVE)
        if need > free:
            raise StorageError(
                f"{what}: needs {need / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB free; "
                "forget jobs and uploads, or name a folder on another disk with --state"
            )

    def close(self) -> None:
        """Let another process use the folder, or remove it."""
        self.database.close()
        if not self.kept:
            shutil.rmtree(self.path, ignore_errors=True)


def _make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter, or check one that is there."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder to keep jobs in")
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True)
    elif os.name == "posix" and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        if any(folder.iterdir()):
            raise InputError(
                f"{folder}: others on this machine may enter it; run chmod 700 on it, or name a "
                "new folder"
            )
        folder.chmod(0o700)


def _remove_stale() -> None:
    """Remove private folders of pages that were killed: they hold scans."""
    from filelock import FileLock, Timeout

    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = folder / f"{_SCHEMA.owner}.lock"
        try:
            found = folder.lstat()
            mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
            old = time.time() - lock.stat().st_mtime > _FRESH_SECONDS
            if not (mine and old and stat.S_ISDIR(found.st_mode)):
                continue
            with FileLock(lock, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, Timeout):  # it is in use, or has gone
            continue
