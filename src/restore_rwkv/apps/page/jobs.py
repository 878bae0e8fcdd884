"""The queue of jobs: what is to be restored, and what came of it. It survives a restart."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from restore_rwkv.apps.database import Database
from restore_rwkv.apps.words import safe_name
from restore_rwkv.errors import ConfigError
from restore_rwkv.io.kinds import suffix_of
from restore_rwkv.options import validated

State = Literal["waiting", "running", "done", "failed", "cancelled"]
_MOST_JOBS = 200
_MOST_CLAIMS = 2
_ENDED_PROGRAM = (
    "the program ended twice while it restored this scan, most likely because the machine ran out "
    "of memory; close other programs, or restore it on a larger machine"
)


@validated("job")
@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What a job is asked to do.

    Attributes:
        scan: id of the scan.
        task: as for `Restorer`.
        weights: name of shipped weights; None for those of the task.
        plane: as for `RestoreOptions`.
        device: as for `Restorer`; "auto" for that of the page.
        strength: as for `RestoreOptions`.
        report: whether a report of the fidelity is made as well.
        uncertainty: how the intervals of the report are found; None for none.

    Raises:
        ConfigError: a value is unknown or out of range, or intervals are asked for without a
            report.
    """

    scan: str
    task: str = "auto"
    weights: str | None = None
    plane: Literal["auto", "axial", "coronal", "sagittal"] = "auto"
    device: str = "auto"
    strength: float | None = None
    report: bool = False
    uncertainty: Literal["none", "turns", "bootstrap"] | None = None

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise ConfigError(f"strength is {self.strength:g}; give a number from 0 to 1")
        if self.uncertainty not in (None, "none") and not self.report:
            raise ConfigError("uncertainty: is part of the report; ask for the report as well")


@dataclass(frozen=True, kw_only=True)
class JobSource:
    """Where the scan of a job lies.

    Attributes:
        path: file or folder.
        series: SeriesInstanceUID; None for other formats than DICOM.
        placed: whether the scan has a geometry.
        flat: whether it is one slice.
        voxels: of all its volumes.
    """

    path: Path
    series: str | None
    placed: bool
    flat: bool
    voxels: int

    @property
    def room(self) -> int:
        """Bytes that the results take at most: three images for the viewer, and two forms."""
        return 5 * 4 * self.voxels


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job; the fields are those of the interface where they have its names.

    Attributes:
        id: number, never used again.
        scan: id of the scan.
        name: of the scan.
        source: where it lies.
        upload: id of the upload that it is from; None for the folder.
        options: what is asked for.
        state: of the job.
        error: why it failed; empty otherwise.
        outputs: what was written, see `restoring.restore_scan`.
        made: seconds since 1970.
    """

    id: int
    scan: str
    name: str
    source: JobSource
    upload: str | None
    options: JobOptions
    state: State
    error: str
    outputs: dict[str, Any]
    made: float

    @property
    def made_at(self) -> str:
        """Time in UTC, ISO 8601."""
        return datetime.fromtimestamp(self.made, timezone.utc).isoformat(timespec="seconds")


class Jobs:
    """The jobs in the database of the page; any thread may call its methods.

    Args:
        database: of the page.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def recover(self) -> None:
        """Queue again what ran when the last process died; give up what ended it twice."""
        with self._database.transaction() as run:
            run(
                "UPDATE jobs SET state = 'failed', error = ? WHERE state = 'running' AND "
                "claims >= ?",
                (_ENDED_PROGRAM, _MOST_CLAIMS),
            )
            run("UPDATE jobs SET state = 'waiting' WHERE state = 'running'")

    def add(self, options: JobOptions, name: str, source: JobSource, upload: str | None) -> Job:
        """Queue a job.

        Raises:
            ConfigError: there are too many.
            OSError: the disk does not work.
        """
        place = dataclasses.asdict(source) | {"path": self._database.stored(source.path)}
        asked = json.dumps(dataclasses.asdict(options))
        with self._database.transaction() as run:
            (count,) = run("SELECT count(*) FROM jobs").fetchone()
            if count >= _MOST_JOBS:
                raise ConfigError(f"{count} jobs are kept, which is the most; forget some first")
            row = run(
                "INSERT INTO jobs (scan, name, source, upload, options, state, made) "
                "VALUES (?, ?, ?, ?, ?, 'waiting', ?)",
                (options.scan, name, json.dumps(place), upload, asked, time.time()),
            )
        job = self.get(int(row.lastrowid or 0))
        assert job is not None
        return job

    def claim(self) -> Job | None:
        """Take the job that has waited longest; it is then running. None where none waits."""
        with self._database.transaction() as run:
            row = run("SELECT * FROM jobs WHERE state = 'waiting' ORDER BY id LIMIT 1").fetchone()
            if row is None:
                return None
            run("UPDATE jobs SET state = 'running', claims = claims + 1 WHERE id = ?", (row["id"],))
        return self.get(row["id"])

    def settle(
        self, number: int, state: State, error: str = "", outputs: dict[str, Any] | None = None
    ) -> None:
        """Note what came of a job that was running."""
        with self._database.transaction() as run:
            run(
                "UPDATE jobs SET state = ?, error = ?, outputs = ? WHERE id = ?",
                (state, error, json.dumps(outputs or {}), number),
            )

    def put_back(self, number: int) -> None:
        """Queue a job again that was stopped with the program, as if it had never begun."""
        with self._database.transaction() as run:
            run(
                "UPDATE jobs SET state = 'waiting', claims = claims - 1 WHERE id = ?",
                (number,),
            )

    def cancel_waiting(self, number: int) -> bool:
        """Cancel a job that waits; return whether it did."""
        with self._database.transaction() as run:
            found = run(
                "UPDATE jobs SET state = 'cancelled' WHERE id = ? AND state = 'waiting'", (number,)
            )
        return found.rowcount > 0

    def forget(self, number: int) -> bool:
        """Delete a job that has ended; return whether it had."""
        with self._database.transaction() as run:
            found = run(
                "DELETE FROM jobs WHERE id = ? AND state NOT IN ('waiting', 'running')", (number,)
            )
        return found.rowcount > 0

    def get(self, number: int) -> Job | None:
        """Return a job; None where there is none of that number."""
        rows = self._database.rows("SELECT * FROM jobs WHERE id = ?", number)
        return self._job(rows[0]) if rows else None

    def all(self) -> list[Job]:
        """Return all jobs, the first that was made first."""
        return [self._job(row) for row in self._database.rows("SELECT * FROM jobs ORDER BY id")]

    def needs(self, upload: str) -> bool:
        """Return whether a job that waits or runs is of this upload."""
        statement = "SELECT 1 FROM jobs WHERE upload = ? AND state IN ('waiting', 'running')"
        return bool(self._database.rows(statement, upload))

    def _job(self, row: sqlite3.Row) -> Job:
        place = json.loads(row["source"])
        return Job(
            **{name: row[name] for name in ("id", "scan", "name", "upload", "state", "error")},
            source=JobSource(**place | {"path": self._database.located(place["path"])}),
            options=JobOptions(**json.loads(row["options"])),
            outputs=json.loads(row["outputs"]),
            made=row["made"],
        )


def stem_of(job: Job) -> str:
    """Return the name of the results of a job, without a suffix."""
    last = job.name.rpartition("/")[2]
    suffix = suffix_of(last)
    known = suffix if job.source.series is None and suffix != "." else ""
    return f"{safe_name(last[: len(last) - len(known)])}-restored"
