"""What is in the queue and why, read from outside while the node runs, or after it has ended."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from restore_rwkv.apps.node.names import short_hash
from restore_rwkv.apps.node.queueing.database import STATES
from restore_rwkv.errors import InputError

_SHOWN = tuple(state for state in STATES if state != "done")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One revision of a series.

    Attributes:
        key: name of it in the log.
        series_uid: SeriesInstanceUID.
        state: such as "refused".
        origin: "dimse:AETITLE" or "web:NAME".
        instances: how many.
        seconds: since it first came; of one that has ended, since it did.
        attempts: that failed, to restore it and to send it.
        wait: seconds until it is due; 0 where it is, or has ended.
        reason: of its end, or why the last attempt failed.
    """

    key: str
    series_uid: str
    state: str
    origin: str
    instances: int
    seconds: float
    attempts: int
    wait: float
    reason: str


def listed(folder: Path, now: float, most: int = 100) -> tuple[dict[str, int], list[Listed]]:
    """Return what is in the queue of a node.

    Args:
        folder: of the node.
        now: seconds since 1970.
        most: of each state, the last that came.

    Returns:
        Number of series in each state, and the series that are open, refused or failed, in the
        order of the states.

    Raises:
        InputError: there is no queue, or it cannot be read.
    """
    path = folder / "queue.sqlite"
    if not path.is_file():
        raise InputError(f"{folder}: holds no queue; start the node first, or check folder")
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            counts = {row[0]: row[1] for row in connection.execute("SELECT * FROM counts")}
            found = [
                _listed(connection, row, now)
                for state in _SHOWN
                for row in connection.execute(
                    "SELECT * FROM series WHERE state = ? ORDER BY id DESC LIMIT ?", (state, most)
                )
            ]
    except sqlite3.Error as error:
        raise InputError(
            f"{path}: cannot be read ({error}); run it as the user of the node"
        ) from error
    return {state: counts.get(state, 0) for state in STATES}, found


def _listed(connection: sqlite3.Connection, row: sqlite3.Row, now: float) -> Listed:
    deliveries = connection.execute(
        "SELECT * FROM deliveries WHERE series = ? AND state = 'open' ORDER BY due", (row["id"],)
    ).fetchall()
    reasons = [d["reason"] for d in deliveries if d["reason"]]
    due = min((d["due"] for d in deliveries), default=row["due"])
    ended = row["ended_at"]
    return Listed(
        key=f"{short_hash(row['series_uid'])}-r{row['revision']}",
        series_uid=row["series_uid"],
        state=row["state"],
        origin=row["origin"],
        instances=row["instances"],
        seconds=max(0.0, now - (row["first_at"] if ended is None else ended)),
        attempts=row["attempts"] + sum(d["attempts"] for d in deliveries),
        wait=max(0.0, due - now) if ended is None and row["state"] != "restoring" else 0.0,
        reason="; ".join(reasons) or row["reason"],
    )
