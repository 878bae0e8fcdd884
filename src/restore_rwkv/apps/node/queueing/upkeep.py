"""What is done to the queue beside its daily work: after a kill, after faults, and with its age."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from restore_rwkv.apps.node.queueing.database import Database
from restore_rwkv.apps.node.queueing.entries import entry_of, is_superseded
from restore_rwkv.apps.node.retrying import LONGEST, waiting_time

_INTERRUPTIONS = 3  # restorations that the end of the process cut off, before there is a wait


class Upkeep:
    """Keeps the database of the node in order; arguments as for `Queue`."""

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
                if not is_superseded(run, entry_of(row), now):
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

    def follow_clock(self, seconds: float) -> None:
        """Move all times by as much as the clock was set, so that waits and ages stay as they are.

        Args:
            seconds: by which it was set forward.
        """
        with self._database.transaction() as run:
            run(
                "UPDATE series SET first_at = first_at + ?, due = due + ?, ended_at = ended_at + ?",
                (seconds, seconds, seconds),
            )
            run(
                "UPDATE deliveries SET created_at = created_at + ?, due = due + ?",
                (seconds, seconds),
            )

    def file_names(self) -> set[str]:
        """Return the names of the files of all instances."""
        rows = self._database.rows("SELECT path FROM instances")
        return {row["path"].rpartition("/")[2] for row in rows}

    def revive(self, state: Literal["failed", "refused"] = "failed") -> int:
        """Put back the last revisions that were given up, or refused, to be tried again.

        A sender that repeats a series that was refused is told that it is there: a rule that was
        missing then is asked only in this way.

        Returns:
            Number of series.
        """
        now = self._clock()
        with self._database.transaction() as run:
            rows = run(
                "SELECT id, seconds FROM series AS given WHERE state = ? AND NOT EXISTS ("
                "SELECT 1 FROM series WHERE series_uid = given.series_uid "
                "AND revision > given.revision)",
                (state,),
            ).fetchall()
            for row in rows:
                next_state = "ready" if row["seconds"] is None else "restored"
                run(
                    "UPDATE series SET state = ?, attempts = 0, due = ?, ended_at = NULL "
                    "WHERE id = ?",
                    (next_state, now, row["id"]),
                )
                run(
                    "UPDATE deliveries SET state = 'open', attempts = 0, created_at = ?, due = ? "
                    "WHERE series = ? AND state = 'failed'",
                    (now, now, row["id"]),
                )
        return len(rows)

    def purge(
        self,
        seconds: float,
        remove: Callable[[str], None],
        *,
        most: int = 100,
        failed: bool = True,
    ) -> int:
        """Delete series of which all revisions have ended for so long, rows first, then files.

        No instance can be added meanwhile, so that no file of it is removed.

        Args:
            seconds: age of the end of the last revision.
            remove: removes the files of the series with this UID, received and derived.
            most: number of revisions to delete, the oldest first, so that nothing waits for long.
            failed: whether series that were given up are deleted too.

        Returns:
            Number of series deleted.
        """
        before = self._clock() - seconds
        with self._database.exclusive():
            with self._database.transaction() as run:
                uids = [
                    row["series_uid"]
                    for row in run(
                        "SELECT series_uid FROM series AS old WHERE ended_at <= ? AND NOT "
                        "EXISTS (SELECT 1 FROM series WHERE series_uid = old.series_uid AND "
                        "(ended_at IS NULL OR ended_at > ? OR state = ?)) "
                        "ORDER BY ended_at LIMIT ?",
                        (before, before, "" if failed else "failed", most),
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
