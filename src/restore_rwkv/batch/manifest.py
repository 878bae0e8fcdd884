"""The manifest of a batch: every scan with its outcome, in one SQLite file.

SQLite, and not Parquet: a row is final as soon as its transaction is, so that a killed batch knows
what it has done; rows change one by one; it needs no library; and every language reads it.
"""

from __future__ import annotations

import datetime
import errno
import json
import platform
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_rwkv.batch.job import Job, Outcome
from restore_rwkv.errors import InputError, StorageError
from restore_rwkv.io.record import program_version

_SECONDS_LOCKED = 60.0  # by a program that reads it, until the batch ends
FORMAT = 1
"""Version of the tables, as `PRAGMA user_version`."""

_TABLES = """
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    started TEXT NOT NULL,        -- UTC, ISO 8601
    ended TEXT,                   -- NULL while it goes on, and after a kill
    settings TEXT NOT NULL,       -- JSON
    software TEXT NOT NULL,
    python TEXT NOT NULL,
    host TEXT NOT NULL
);
CREATE TABLE scans (
    key TEXT PRIMARY KEY,
    place INTEGER NOT NULL,       -- in the order in which they were found
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    series TEXT,
    target TEXT NOT NULL,
    size INTEGER NOT NULL,        -- bytes of the files of the source
    modified INTEGER NOT NULL,    -- newest of their times, ns
    run INTEGER REFERENCES runs,  -- in which the outcome came
    state TEXT NOT NULL,          -- waiting, done, skipped, refused, failed
    kind TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    seconds REAL,
    network_seconds REAL,
    bytes_read INTEGER,
    bytes_written INTEGER,
    attempts INTEGER,
    worker TEXT,
    details TEXT,                 -- traceback of a bug
    finished TEXT,                -- UTC, ISO 8601
    source_sha256 TEXT,
    output_sha256 TEXT,
    weights TEXT,
    weights_sha256 TEXT,
    device TEXT,
    software TEXT,
    torch TEXT,
    record TEXT,                  -- JSON, as beside the output
    thumbnail BLOB                -- PNG
);
CREATE INDEX scans_by_state ON scans (state, place);
"""
_OF_JOB = ("key", "place", "name", "source", "series", "target", "size", "modified")
_OF_OUTCOME = (
    *("state", "kind", "reason", "seconds", "network_seconds", "bytes_read", "bytes_written"),
    *("attempts", "worker", "details", "finished", "record", "thumbnail"),
)
_OF_RECORD = (
    "source_sha256",
    "output_sha256",
    "weights",
    "weights_sha256",
    "device",
    "software",
    "torch",
)


@dataclass(frozen=True)
class Entry:
    """A scan of a manifest.

    Attributes:
        name: for tables.
        source: path or URL.
        target: path or URL.
        outcome: None while it waits.
    """

    name: str
    source: str
    target: str
    outcome: Outcome | None


@dataclass(frozen=True)
class Finished:
    """A scan that is done.

    Attributes:
        source: path or URL of its file or folder then, as `printable` gives it.
        target: that of its output.
        size: bytes of the files of the source then.
        modified: newest of their times then, in ns.
    """

    source: str
    target: str
    size: int
    modified: int


class Manifest:
    """Scans and outcomes of a batch on disk. One process writes it at a time.

    Args:
        path: SQLite file; made where it is missing.

    Raises:
        InputError: the file is something else, or of a newer version of this program.
        OSError: it cannot be written.
        StorageError: another program holds it locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._database = sqlite3.connect(path, timeout=_SECONDS_LOCKED)
            self._database.execute("PRAGMA synchronous = FULL")
            found = int(self._database.execute("PRAGMA user_version").fetchone()[0])
            empty = not self._database.execute("SELECT name FROM sqlite_master").fetchone()
            if empty:
                with self._database:
                    self._database.executescript(f"BEGIN; {_TABLES}")
                    self._database.execute(f"PRAGMA user_version = {FORMAT}")
        except sqlite3.OperationalError as error:
            raise _of_the_system(path, error) from error
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{path}: cannot be read as the manifest of a batch ({error}); name another folder"
            ) from error
        if not empty and found != FORMAT:
            self.close()
            raise InputError(
                f"{path}: is a manifest of version {found}, and this program knows {FORMAT}; use "
                "the version of restore-rwkv that began the batch, or name another folder"
            )
        self._run = 0

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def settings(self) -> Mapping[str, Any] | None:
        """Return the settings of the last run; None before the first."""
        row = self._database.execute("SELECT settings FROM runs ORDER BY run DESC").fetchone()
        return None if row is None else json.loads(row[0])

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin a run with some settings."""
        row = (_now(), json.dumps(settings), program_version(), platform.python_version())
        with self._writing() as database:
            cursor = database.execute(
                "INSERT INTO runs (started, settings, software, python, host) "
                "VALUES (?, ?, ?, ?, ?)",
                (*row, platform.node()),
            )
        self._run = int(cursor.lastrowid or 0)

    def end(self) -> None:
        """End the run."""
        with self._writing() as database:
            database.execute("UPDATE runs SET ended = ? WHERE run = ?", (_now(), self._run))

    def add(self, jobs: Iterable[tuple[int, Job, int]], again: Iterable[str] = ()) -> None:
        """Add all jobs that were found; outcomes of those that are known are kept.

        Scans without a result that are not found any more are forgotten.

        Args:
            jobs: place in the order of all, job, and newest time of its files in ns.
            again: keys of scans whose outcome is forgotten, as they are to be restored again.
        """
        with self._writing() as database:
            database.executemany("DELETE FROM scans WHERE key = ?", ((key,) for key in again))
            database.execute("UPDATE scans SET place = -1")
            database.executemany(
                "INSERT INTO scans (key, place, name, source, series, target, size, modified,"
                " state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting') ON CONFLICT (key) DO UPDATE"
                " SET place = excluded.place, source = excluded.source, target = excluded.target,"
                " size = excluded.size, modified = excluded.modified",
                (
                    (
                        *(job.key, place, printable(job.name), printable(job.source), job.series),
                        *(printable(job.target), job.size, modified),
                    )
                    for place, job, modified in jobs
                ),
            )
            database.execute(
                "DELETE FROM scans WHERE place = -1 AND state NOT IN ('done', 'skipped')"
            )

    def take_over(self, other: Manifest) -> None:
        """Copy the finished scans of another manifest that are not finished here."""
        columns = ", ".join((*_OF_JOB, *_OF_OUTCOME, *_OF_RECORD))
        known = self.finished()
        rows = other._database.execute(
            f"SELECT {columns} FROM scans WHERE state IN ('done', 'skipped')"
        )
        marks = ", ".join("?" for _ in columns.split(","))
        with self._writing() as database:
            database.executemany(
                f"INSERT OR REPLACE INTO scans ({columns}, run) VALUES ({marks}, {self._run})",
                (row for row in rows if row[0] not in known),
            )

    def finished(self) -> dict[str, Finished]:
        """Return the scans that are done, by their keys."""
        rows = self._database.execute(
            "SELECT key, source, target, size, modified FROM scans"
            " WHERE state IN ('done', 'skipped')"
        )
        return {key: Finished(*values) for key, *values in rows}

    def keep(self, outcome: Outcome) -> None:
        """Store the outcome of a scan; it survives a power cut from then on."""
        record = outcome.record or {}
        columns = {
            "run": self._run,
            "state": outcome.state,
            "kind": outcome.kind,
            "reason": printable(outcome.reason),
            "seconds": outcome.seconds,
            "network_seconds": outcome.network_seconds,
            "bytes_read": outcome.bytes_read,
            "bytes_written": outcome.bytes_written,
            "attempts": outcome.attempts,
            "worker": outcome.worker,
            "details": printable(outcome.details),
            "finished": _now(),
            "record": json.dumps(record) if record else None,
            "thumbnail": outcome.thumbnail,
            **{name: record.get(name) for name in _OF_RECORD},
        }
        names = ", ".join(f"{name} = ?" for name in columns)
        with self._writing() as database:
            database.execute(
                f"UPDATE scans SET {names} WHERE key = ?", (*columns.values(), outcome.key)
            )

    def entries(self, *, faults: bool | None = None, pictures: bool = True) -> Iterator[Entry]:
        """Give the scans in the order in which they were found.

        Args:
            faults: only those without a restored scan, or only the others; None for all.
            pictures: whether outcomes have their thumbnails.
        """
        chosen = {
            None: "",
            True: "WHERE state IN ('refused', 'failed')",
            False: "WHERE state NOT IN ('refused', 'failed')",
        }[faults]
        # Failed before refused; last what is done and was not found again.
        order = "state, place" if faults else "place < 0, place"
        rows = self._database.execute(
            "SELECT name, source, target, key, state, kind, reason, seconds, network_seconds, "
            "bytes_read, bytes_written, record, attempts, worker, "
            f"{'thumbnail' if pictures else 'NULL'} FROM scans {chosen} ORDER BY {order}"
        )
        for name, source, target, key, state, *others in rows:
            outcome = None if state == "waiting" else _outcome(key, state, *others)
            yield Entry(name, source, target, outcome)

    def counts(self) -> dict[str, int]:
        """Return the number of scans by their state, "waiting" too."""
        return dict(self._database.execute("SELECT state, count(*) FROM scans GROUP BY state"))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block writes, or none of it."""
        try:
            with self._database:
                yield self._database
        except sqlite3.OperationalError as error:
            raise _of_the_system(self.path, error) from error


def _outcome(key: str, state: Any, *values: Any) -> Outcome:
    kind, reason, seconds, network, read, written, record, attempts, worker, image = values
    return Outcome(
        key=key,
        state=state,
        kind=kind,
        reason=reason,
        seconds=seconds,
        network_seconds=network,
        bytes_read=read,
        bytes_written=written,
        record=None if record is None else json.loads(record),
        thumbnail=image,
        attempts=attempts,
        worker=worker,
    )


def _of_the_system(path: Path, error: sqlite3.OperationalError) -> OSError | StorageError:
    """A full disk, a folder that may not be written to, ..., as other files have it."""
    if "locked" in str(error):
        return StorageError(
            f"{path}: another program holds it open in the middle of reading or writing; end that, "
            "and go on with resume=True"
        )
    return OSError(errno.EIO, str(error), str(path))


def printable(text: str) -> str:
    r"""Return a text that SQLite holds: names of files may have bytes that are not Unicode."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
