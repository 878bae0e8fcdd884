"""One revision of a series, as the queue knows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from restore_rwkv.apps.node.names import short_hash
from restore_rwkv.apps.node.queueing.database import Run

SUPERSEDED = "superseded: more instances came, and all are restored together"


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


def entry_of(row: Mapping[str, object]) -> Entry:
    """Return a row of the table of series."""
    names = ("id", "series_uid", "revision", "study_uid", "origin", "instances", "bytes")
    values = {name: row[name] for name in (*names, "attempts")}
    return Entry(**values, header=json.loads(str(row["header"])))  # type: ignore[arg-type]


def is_superseded(run: Run, entry: Entry, now: float) -> bool:
    """Whether a later revision exists; this one is then refused."""
    later = run(
        "SELECT 1 FROM series WHERE series_uid = ? AND revision > ?",
        (entry.series_uid, entry.revision),
    ).fetchone()
    if later is not None:
        end(run, entry.id, "refused", SUPERSEDED, now)
    return later is not None


def end(run: Run, series: int, state: str, reason: str, now: float) -> None:
    """End a revision: "done", "refused" or "failed", and why."""
    run(
        "UPDATE series SET state = ?, reason = ?, ended_at = ? WHERE id = ?",
        (state, reason, now, series),
    )
