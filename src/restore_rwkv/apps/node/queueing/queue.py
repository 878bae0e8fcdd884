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
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.apps.node.names import short_hash
from restore_rwkv.apps.node.queueing.database import Database, Run
from restore_rwkv.apps.node.queueing.entries import (
    SUPERSEDED,
    Entry,
    end,
    entry_of,
    is_superseded,
)
from restore_rwkv.apps.node.rules import HEADER_KEYWORDS
from restore_rwkv.errors import InputError

if TYPE_CHECKING:
    from restore_rwkv.apps.node.spooling.spool import Instance


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
            end(run, last["id"], "refused", SUPERSEDED, now)
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
        return [entry_of(row) for row in rows]

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
        return entry_of(row)

    def files(self, entry: Entry) -> list[Path]:
        """Return the files of exactly the instances of a revision, sorted."""
        rows = self._database.rows(
            "SELECT path FROM instances WHERE series_uid = ? AND revision <= ?",
            *(entry.series_uid, entry.revision),
        )
        return sorted(self._database.located(row["path"]) for row in rows)

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
            if is_superseded(run, entry, now):
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
            if not is_superseded(run, entry, now):
                run(
                    "UPDATE series SET state = 'ready', attempts = attempts + ?, reason = ?, "
                    "due = ? WHERE id = ?",
                    (int(counts), reason, now + wait, entry.id),
                )

    def refuse(self, entry: Entry, reason: str) -> None:
        """End a series that the reason lies in itself, or in the rules."""
        with self._database.transaction() as run:
            end(run, entry.id, "refused", reason, self._clock())

    def fail(self, entry: Entry, reason: str) -> None:
        """End a series that has been tried too often."""
        now = self._clock()
        with self._database.transaction() as run:
            if not is_superseded(run, entry, now):
                end(run, entry.id, "failed", reason, now)

    def counts(self) -> dict[str, int]:
        """Return the number of series in each state."""
        rows = self._database.rows("SELECT state, number FROM counts")
        return {row["state"]: row["number"] for row in rows}

    def oldest(self) -> float:
        """Return how long the oldest open series has been here, in seconds; 0 for none."""
        (row,) = self._database.rows("SELECT min(first_at) FROM series WHERE ended_at IS NULL")
        return 0.0 if row[0] is None else max(0.0, self._clock() - row[0])
