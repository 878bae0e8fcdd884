"""What has to be sent: one delivery for each restored series and destination."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from restore_rwkv.apps.node.names import short_hash
from restore_rwkv.apps.node.queueing.database import Database, Run


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The files of one derived series that a destination has not accepted yet.

    Attributes:
        id: of the row.
        series: id of the series' row.
        key: name of the series for logs.
        destination: name of the destination.
        files: still to be sent, sorted.
        attempts: how often sending has failed.
        age: seconds since the series was restored.
    """

    id: int
    series: int
    key: str
    destination: str
    files: tuple[Path, ...]
    attempts: int
    age: float


class Deliveries:
    """The deliveries in the database of the node.

    A series is done when every destination has all its files, and failed when none is still to be
    tried and one has given up.

    Args:
        database: of the node.
        clock: seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def next(self, destination: str) -> Delivery | None:
        """Return the delivery to a destination that has waited longest; None where none is due.

        Its series is then `sending`.
        """
        now = self._clock()
        with self._database.transaction() as run:
            row = run(
                "SELECT * FROM deliveries WHERE destination = ? AND state = 'open' AND due <= ? "
                "ORDER BY due, id LIMIT 1",
                (destination, now),
            ).fetchone()
            if row is None:
                return None
            run("UPDATE series SET state = 'sending' WHERE id = ?", (row["series"],))
            files = run(
                "SELECT path FROM files WHERE delivery = ? AND NOT sent ORDER BY path", (row["id"],)
            ).fetchall()
            series = run("SELECT * FROM series WHERE id = ?", (row["series"],)).fetchone()
        return Delivery(
            id=row["id"],
            series=row["series"],
            key=f"{short_hash(series['series_uid'])}-r{series['revision']}",
            destination=destination,
            files=tuple(self._database.located(file["path"]) for file in files),
            attempts=row["attempts"],
            age=max(0.0, now - row["created_at"]),
        )

    def mark_sent(self, delivery: Delivery, files: Iterable[Path]) -> str:
        """Note that the destination has accepted files.

        Returns:
            State of the series: "done" where this was the last file of its last delivery.
        """
        with self._database.transaction() as run:
            for file in files:
                run(
                    "UPDATE files SET sent = 1 WHERE delivery = ? AND path = ?",
                    (delivery.id, self._database.stored(file)),
                )
            left = run(
                "SELECT 1 FROM files WHERE delivery = ? AND NOT sent LIMIT 1", (delivery.id,)
            ).fetchone()
            if left is None:
                run("UPDATE deliveries SET state = 'done' WHERE id = ?", (delivery.id,))
            return self._settle(run, delivery.series)

    def retry(self, delivery: Delivery, reason: str, wait: float) -> None:
        """Put a delivery back, to be tried in `wait` seconds."""
        with self._database.transaction() as run:
            run(
                "UPDATE deliveries SET attempts = attempts + 1, reason = ?, due = ? WHERE id = ?",
                (_named(delivery, reason), self._clock() + wait, delivery.id),
            )
            run("UPDATE series SET state = 'restored' WHERE id = ?", (delivery.series,))

    def fail(self, delivery: Delivery, reason: str) -> str:
        """Give a delivery up; return the state of the series."""
        with self._database.transaction() as run:
            run(
                "UPDATE deliveries SET state = 'failed', reason = ? WHERE id = ?",
                (_named(delivery, reason), delivery.id),
            )
            return self._settle(run, delivery.series)

    def drop_unknown(self, known: Iterable[str]) -> int:
        """Give up what is for destinations that are not configured any more; return how many."""
        names = tuple(known)
        marks = ", ".join("?" * len(names))
        with self._database.transaction() as run:
            rows = run(
                "SELECT id, series, destination FROM deliveries WHERE state = 'open' AND "
                f"destination NOT IN ({marks})",
                names,
            ).fetchall()
            for row in rows:
                run(
                    "UPDATE deliveries SET state = 'failed', reason = ? WHERE id = ?",
                    (f"{row['destination']}: not in the configuration any more", row["id"]),
                )
                self._settle(run, row["series"])
        return len(rows)

    def waiting(self) -> dict[str, int]:
        """Return the number of open deliveries of each destination that has some."""
        rows = self._database.rows(
            "SELECT destination, count(*) AS number FROM deliveries WHERE state = 'open' "
            "GROUP BY destination"
        )
        return {row["destination"]: row["number"] for row in rows}

    def _settle(self, run: Run, series: int) -> str:
        """End a series that has no open delivery left; return its state."""
        rows = run("SELECT state, reason FROM deliveries WHERE series = ?", (series,)).fetchall()
        states = {row["state"] for row in rows}
        if "open" in states:
            return "sending"
        state = "failed" if "failed" in states else "done"
        reason = "; ".join(row["reason"] for row in rows if row["state"] == "failed")
        run(
            "UPDATE series SET state = ?, reason = ?, ended_at = ? WHERE id = ?",
            (state, reason, self._clock(), series),
        )
        return state


def _named(delivery: Delivery, reason: str) -> str:
    """Return a reason that begins with the name of the destination, as those of senders do."""
    name = f"{delivery.destination}: "
    return reason if reason.startswith(name) else name + reason
