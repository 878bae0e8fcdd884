"""The durable queue of the node: what has come, and how far each series is.

    receiving -> ready -> restoring -> restored -> sending -> done
                               |                      +-----> failed
                               +-> refused, failed

A series is taken as a whole. When an instance comes after its series was first given to the
network, all instances together become the next revision of the series, which goes through the same
states on its own; an earlier revision that has not been restored yet is then refused as superseded.
Every change is one transaction, so that a process that is killed leaves either the state before or
the one after it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.apps.node.database import Database, Run
from restore_rwkv.apps.node.retrying import LONGEST, waiting_time
from restore_rwkv.apps.node.rules import HEADER_KEYWORDS
from restore_rwkv.errors import InputError

if TYPE_CHECKING:
    from restore_rwkv.apps.node.spool import Instance

_INTERRUPTIONS = 3  # restorations that the end of the process cut off, before there is a wait
_SUPERSEDED = "superseded: more instances came, and all are restored together"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One revision of a series in the queue.

    Attributes:
        id: of the row.
        series_uid: SeriesInstanceUID.
        revision: from 1.
        study_uid: StudyInstanceUID.
        origin: "dimse:AETITLE" or "web:NAME".
        header: values that rules look at.
        instances: how many.
        bytes: size of their files.
        attempts: how often restoring has failed.
    """

    id: int
    series_uid: str
    revision: int
    study_uid: str
    origin: str
    header: Mapping[str, str]
    instances: int
    bytes: int
    attempts: int

    @property
    def key(self) -> str:
        """Name for logs, files and jobs: 16 hex digits for the series, then the revision."""
        return f"{short_hash(self.series_uid)}-r{self.revision}"


def short_hash(uid: str) -> str:
    """Return 16 hex digits that stand for a UID where patient data may not be."""
    return hashlib.sha256(uid.encode()).hexdigest()[:16]


class Queue:
    """Series and their states, in the database of the node.

    Args:
        database: of the node.
        quiet: a series is complete when nothing has come for so many seconds.
        clock: seconds since 1970, as they have to hold across restarts.
    """

    def __init__(
        self, database: Database, quiet: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._quiet = quiet
        self._clock = clock

    def recover(self, retry_seconds: float) -> int:
        """Put what the last process left unfinished back to its last safe state.

        Quiet times begin anew, since nothing could come while no process ran. A series whose
        restoration was cut off several times waits, as it may be what ends the process.

        Args:
            retry_seconds: first wait of a series that waits.

        Returns:
            Number of series that are open.
        """
        now = self._clock()
        with self._database.transaction() as run:
            for row in run("SELECT * FROM series WHERE state = 'restoring'").fetchall():
                if not _superseded(run, _entry(row), now):
                    again = row["claims"] - _INTERRUPTIONS
                    due = now + (waiting_time(again, retry_seconds) if again > 0 else 0)
                    run("UPDATE series SET state = 'ready', due = ? WHERE id = ?", (due, row["id"]))
            run("UPDATE series SET state = 'restored' WHERE state = 'sending'")
            run("UPDATE series SET due = ? WHERE state = 'receiving'", (now + self._quiet,))
            for table in ("series", "deliveries"):  # of a clock that has been set back
                limit = now + 2 * LONGEST
                run(
                    f"UPDATE {table} SET due = ? WHERE due > ?",
                    (now, max(limit, now + self._quiet)),
                )
            (number,) = run("SELECT count(*) FROM series WHERE ended_at IS NULL").fetchone()
        return int(number)

    def add(self, instance: Instance) -> bool:
        """Register an instance that lies in the spool; it is on the disk when this returns.

        Returns:
            False where it was registered before, which changes nothing.

        Raises:
            InputError: an instance of the same UID and other content was registered before.
            OSError: its file has gone, or the database cannot be written.
        """
        key = (instance.series_uid, instance.sop_instance_uid)
        with self._database.transaction() as run:
            known = run(
                "SELECT sha256 FROM instances WHERE series_uid = ? AND sop_instance_uid = ?", key
            ).fetchone()
            if known is not None and known["sha256"] != instance.sha256:
                raise InputError(
                    f"instance {short_hash(instance.sop_instance_uid)}: has come before with other "
                    "content; send it with another SOPInstanceUID"
                )
            if known is not None:
                return False
            if not instance.path.exists():  # its series was removed in this very moment
                raise OSError(errno.ENOENT, "no file in the spool; send it again")
            revision = self._place(run, instance)
            stored = self._database.stored(instance.path)
            run(
                "INSERT INTO instances VALUES (?, ?, ?, ?, ?, ?)",
                (*key, revision, stored, instance.size, instance.sha256),
            )
        return True

    def _place(self, run: Run, instance: Instance) -> int:
        """Count an instance to the revision that is being received; return that revision."""
        last = run(
            "SELECT * FROM series WHERE series_uid = ? ORDER BY revision DESC LIMIT 1",
            (instance.series_uid,),
        ).fetchone()
        now = self._clock()
        if last is not None and last["state"] in ("receiving", "ready") and not last["claims"]:
            announced = max(instance.announced or 0, last["announced"] or 0)
            count = last["instances"] + 1
            run(
                "UPDATE series SET instances = ?, bytes = bytes + ?, announced = ?, state = ?, "
                "due = ? WHERE id = ?",
                (count, instance.size, announced, *self._state(count, announced), last["id"]),
            )
            return int(last["revision"])
        if last is not None and last["state"] == "ready":
            _end(run, last["id"], "refused", _SUPERSEDED, now)
        count, size = (0, 0) if last is None else (last["instances"], last["bytes"])
        revision = 1 if last is None else last["revision"] + 1
        announced = instance.announced or 0
        header = {name: instance.header.get(name, "") for name in HEADER_KEYWORDS.values()}
        run(
            "INSERT INTO series (series_uid, revision, study_uid, origin, header, announced, "
            "instances, bytes, state, due, first_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(instance.series_uid, revision, instance.study_uid, instance.origin),
                *(json.dumps(header), announced, count + 1, size + instance.size),
                *(*self._state(count + 1, announced), now),
            ),
        )
        return int(revision)

    def _state(self, count: int, announced: int) -> tuple[str, float]:
        """State and due time of a series that an instance has just come for."""
        if count == announced:  # more than that: the number was wrong
            return "ready", self._clock()
        return "receiving", self._clock() + self._quiet

    def complete(self) -> list[Entry]:
        """Make series ready that have been quiet for long enough, and return them."""
        now = self._clock()
        with self._database.transaction() as run:
            # After a clock was set back, nothing waits longer than it would have.
            late = now + self._quiet
            run("UPDATE series SET due = ? WHERE state = 'receiving' AND due > ?", (late, late + 1))
            rows = run(
                "SELECT * FROM series WHERE state = 'receiving' AND due <= ?", (now,)
            ).fetchall()
            run(
                "UPDATE series SET state = 'ready', due = ? WHERE state = 'receiving' AND due <= ?",
                (now, now),
            )
        return [_entry(row) for row in rows]

    def claim_ready(self) -> Entry | None:
        """Take the series that has been ready for longest; it is then `restoring`."""
        with self._database.transaction() as run:
            row = run(
                "SELECT * FROM series WHERE state = 'ready' AND due <= ? ORDER BY due, id LIMIT 1",
                (self._clock(),),
            ).fetchone()
            if row is None:
                return None
            run(
                "UPDATE series SET state = 'restoring', claims = claims + 1 WHERE id = ?",
                (row["id"],),
            )
        return _entry(row)

    def files(self, entry: Entry) -> list[Path]:
        """Return the files of exactly the instances of a revision, sorted."""
        rows = self._database.rows(
            "SELECT path FROM instances WHERE series_uid = ? AND revision <= ?",
            *(entry.series_uid, entry.revision),
        )
        return sorted(self._database.located(row["path"]) for row in rows)

    def file_names(self) -> set[str]:
        """Return the names of the files of all instances."""
        rows = self._database.rows("SELECT path FROM instances")
        return {row["path"].rpartition("/")[2] for row in rows}

    def finished(self, entry: Entry, seconds: float, outputs: Mapping[str, list[Path]]) -> bool:
        """Note that a series is restored, and what has to be sent where.

        Args:
            entry: a series that is `restoring`.
            seconds: that it took.
            outputs: files of the derived series, by name of the destination.

        Returns:
            False where more instances have come: this revision is not sent, the next one will be.
        """
        now = self._clock()
        with self._database.transaction() as run:
            if _superseded(run, entry, now):
                return False
            run(
                "UPDATE series SET state = 'restored', reason = '', seconds = ? WHERE id = ?",
                (seconds, entry.id),
            )
            for destination, files in outputs.items():
                delivery = run(
                    "INSERT INTO deliveries (series, destination, state, created_at, due) "
                    "VALUES (?, ?, 'open', ?, ?)",
                    (entry.id, destination, now, now),
                ).lastrowid
                for file in files:
                    stored = self._database.stored(file)
                    run("INSERT INTO files (delivery, path) VALUES (?, ?)", (delivery, stored))
        return True

    def retry(self, entry: Entry, reason: str, wait: float, *, counts: bool = True) -> None:
        """Put a series whose restoring failed back, to be tried in `wait` seconds.

        Args:
            entry: a series that is `restoring`.
            reason: of the failure.
            wait: in seconds.
            counts: whether this is one of the attempts after which it is given up.
        """
        now = self._clock()
        with self._database.transaction() as run:
            if not _superseded(run, entry, now):
                run(
                    "UPDATE series SET state = 'ready', attempts = attempts + ?, reason = ?, "
                    "due = ? WHERE id = ?",
                    (int(counts), reason, now + wait, entry.id),
                )

    def refuse(self, entry: Entry, reason: str) -> None:
        """End a series that the reason lies in itself, or in the rules."""
        with self._database.transaction() as run:
            _end(run, entry.id, "refused", reason, self._clock())

    def fail(self, entry: Entry, reason: str) -> None:
        """End a series that has been tried too often."""
        now = self._clock()
        with self._database.transaction() as run:
            if not _superseded(run, entry, now):
                _end(run, entry.id, "failed", reason, now)

    def revive(self) -> int:
        """Put back the last revisions that were given up, to be restored or sent again.

        Returns:
            Number of series.
        """
        now = self._clock()
        with self._database.transaction() as run:
            rows = run(
                "SELECT id, seconds FROM series AS given WHERE state = 'failed' AND NOT EXISTS ("
                "SELECT 1 FROM series WHERE series_uid = given.series_uid "
                "AND revision > given.revision)"
            ).fetchall()
            for row in rows:
                state = "ready" if row["seconds"] is None else "restored"
                run(
                    "UPDATE series SET state = ?, attempts = 0, due = ?, ended_at = NULL "
                    "WHERE id = ?",
                    (state, now, row["id"]),
                )
                run(
                    "UPDATE deliveries SET state = 'open', attempts = 0, created_at = ?, due = ? "
                    "WHERE series = ? AND state = 'failed'",
                    (now, now, row["id"]),
                )
        return len(rows)

    def purge(self, seconds: float, remove: Callable[[str], None]) -> int:
        """Delete series of which all revisions have ended for so long, rows first, then files.

        No instance can be added meanwhile, so that no file of it is removed.

        Args:
            seconds: age of the end of the last revision.
            remove: removes the files of the series with this UID, received and derived.

        Returns:
            Number of series deleted: a hundred at most, so that nothing waits for long.
        """
        before = self._clock() - seconds
        with self._database.exclusive():
            with self._database.transaction() as run:
                uids = [
                    row["series_uid"]
                    for row in run(
                        "SELECT series_uid FROM series AS old WHERE ended_at <= ? AND NOT "
                        "EXISTS (SELECT 1 FROM series WHERE series_uid = old.series_uid AND "
                        "(ended_at IS NULL OR ended_at > ?)) ORDER BY ended_at LIMIT 100",
                        (before, before),
                    ).fetchall()
                ]
                for uid in set(uids):
                    run("INSERT OR IGNORE INTO trash VALUES (?)", (uid,))
                    run("DELETE FROM series WHERE series_uid = ?", (uid,))
                    run("DELETE FROM instances WHERE series_uid = ?", (uid,))
            for row in self._database.rows(
                # Not one that could not be removed before, and came again meanwhile.
                "SELECT series_uid FROM trash WHERE NOT EXISTS "
                "(SELECT 1 FROM series WHERE series_uid = trash.series_uid)"
            ):
                remove(row["series_uid"])
                with self._database.transaction() as run:
                    run("DELETE FROM trash WHERE series_uid = ?", (row["series_uid"],))
        return len(set(uids))

    def counts(self) -> dict[str, int]:
        """Return the number of series in each state."""
        rows = self._database.rows("SELECT state, number FROM counts")
        return {row["state"]: row["number"] for row in rows}

    def oldest(self) -> float:
        """Return how long the oldest open series has been here, in seconds; 0 for none."""
        (row,) = self._database.rows("SELECT min(first_at) FROM series WHERE ended_at IS NULL")
        return 0.0 if row[0] is None else max(0.0, self._clock() - row[0])


def _entry(row: Mapping[str, object]) -> Entry:
    """Return a row of the table of series."""
    names = ("id", "series_uid", "revision", "study_uid", "origin", "instances", "bytes")
    values = {name: row[name] for name in (*names, "attempts")}
    return Entry(**values, header=json.loads(str(row["header"])))  # type: ignore[arg-type]


def _superseded(run: Run, entry: Entry, now: float) -> bool:
    """Whether a later revision exists; this one is then refused."""
    later = run(
        "SELECT 1 FROM series WHERE series_uid = ? AND revision > ?",
        (entry.series_uid, entry.revision),
    ).fetchone()
    if later is not None:
        _end(run, entry.id, "refused", _SUPERSEDED, now)
    return later is not None


def _end(run: Run, series: int, state: str, reason: str, now: float) -> None:
    run(
        "UPDATE series SET state = ?, reason = ?, ended_at = ? WHERE id = ?",
        (state, reason, now, series),
    )
