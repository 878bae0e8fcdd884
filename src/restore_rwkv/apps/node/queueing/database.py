"""The SQLite file of the node: its schema.

It holds, for each series: its UIDs, the origin, the values of the header that rules look at
(`rules.HEADER_KEYWORDS`), sizes, hashes, times, its state and the reason for it. It holds no names,
numbers or dates of patients.
"""

from __future__ import annotations

from pathlib import Path

from restore_rwkv.apps import database
from restore_rwkv.apps.database import Run, Schema

__all__ = ["STATES", "Database", "Run"]

_VERSION = 1
STATES = (
    *("receiving", "ready", "restoring", "restored", "sending"),  # open
    *("done", "refused", "failed"),  # ended
)

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


class Database(database.Database):
    """The queue of the node; arguments and errors as for the class that it extends."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Schema("node", "queue.sqlite", _VERSION, _SCHEMA))
