"""The queue of the DICOM node with a million series in it: its size, and the time of each step.

    python -m benchmarks.queue_rows [--rows 0 1000000] [--repeats 100] [--folder DIR]

Series that have ended are written straight into the tables, each with one instance, one delivery
and one file. Then every step is timed on new series through the queue itself, as the node takes it:
on a disk, and flushed to it. "take one instance" is the whole of it: a CT slice of 0.5 MB into the
spool and into the queue.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.uid import generate_uid

from benchmarks import timing
from restore_rwkv.apps.node.queueing.database import Database
from restore_rwkv.apps.node.queueing.deliveries import Deliveries
from restore_rwkv.apps.node.queueing.queue import Queue
from restore_rwkv.apps.node.queueing.upkeep import Upkeep
from restore_rwkv.apps.node.spooling.spool import Instance, Spool
from tests.helpers.derivable_series import classic, save

_NOW = 1_800_000_000.0
_HOUR = 3600.0
# In no order, as those of scanners are in none.
_UID = "'1.2.826.0.1.3680043.8.498.' || printf('%030d', n * 2654435761 % 4294967296)"
_HEADER = (
    '{"Modality": "CT", "StationName": "CT1", "SeriesDescription": "Thorax 1.0 B30f", '
    '"ProtocolName": "Thorax", "Manufacturer": "Works"}'
)
# One row of each table for every number n; `counts` is kept by triggers.
_FILL = (
    (
        "series",
        "INSERT INTO series (id, series_uid, revision, study_uid, origin, header, announced, "
        f"instances, bytes, state, first_at, due, ended_at, claims) SELECT n, {_UID}, 1, {_UID}, "
        f"'dimse:CT1', '{_HEADER}', 0, 300, 150000000, 'done', {_NOW} - n, {_NOW} - n, "
        f"{_NOW} - n, 1 FROM numbers",
    ),
    (
        "instances",
        f"INSERT INTO instances SELECT {_UID}, {_UID} || '.1', 1, 'spool/' || hex(zeroblob(16)) || "
        "'/' || hex(zeroblob(16)) || '.dcm', 500000, hex(zeroblob(32)) FROM numbers",
    ),
    (
        "deliveries",
        "INSERT INTO deliveries (id, series, destination, state, created_at, due) "
        f"SELECT n, n, 'pacs', 'done', {_NOW}, {_NOW} FROM numbers",
    ),
    (
        "files",
        "INSERT INTO files SELECT n, 'derived/' || hex(zeroblob(8)) || '-r1/000001.dcm', 1 "
        "FROM numbers",
    ),
)


def main(arguments: list[str] | None = None) -> None:
    """Print the size of the database, and the times of the steps, for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[0, 1_000_000])
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="on the disk that is measured")
    options = parser.parse_args(arguments)
    print(timing.command("benchmarks.queue_rows", arguments))
    found = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found[rows] = Rows(Path(folder), rows).measure(options.repeats)
    names = [f"{rows:,} series" for rows in options.rows]
    timing.header("step, ms: median, 95 %, most", *names)
    for step in found[options.rows[0]]:
        timing.row(step, *(_shown(found[rows][step]) for rows in options.rows))


class Rows:
    """A queue with so many ended series.

    Args:
        folder: for the database and the spool.
        number: of series.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._now, self._number = _NOW, number
        self._database = Database(folder / "node")
        self._queue = Queue(self._database, 60.0, self._clock)
        self._deliveries = Deliveries(self._database, self._clock)
        self._spool = Spool(folder / "node" / "spool", 10**12)
        self._file = folder / "node" / "instance.dcm"
        self._file.touch()
        if number:
            self._fill(folder / "node" / "queue.sqlite")

    def _clock(self) -> float:
        return self._now

    def _fill(self, path: Path) -> None:
        sizes = []
        began = time.perf_counter()
        for table, statement in _FILL:
            with self._database.transaction() as run:
                run(
                    "CREATE TEMP VIEW IF NOT EXISTS numbers AS WITH RECURSIVE x(n) AS (SELECT 1 "
                    f"UNION ALL SELECT n + 1 FROM x WHERE n < {self._number}) SELECT n FROM x"
                )
                run(statement)
            self._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
            before = sum(size for _, size in sizes)
            sizes.append((table, path.stat().st_size - before))
        each = ", ".join(f"{size / self._number:.0f} for {table}" for table, size in sizes)
        print(
            f"{self._number:,} series, filled in {time.perf_counter() - began:.0f} s: "
            f"{path.stat().st_size / 1e9:.2f} GB; bytes a row: {each}"
        )

    def measure(self, repeats: int) -> dict[str, list[float]]:
        """Time every step so many times; seconds, by name."""
        found: dict[str, list[float]] = {}

        def timed(name: str, call: Callable[[], object]) -> object:
            began = time.perf_counter()
            result = call()
            found.setdefault(name, []).append(time.perf_counter() - began)
            return result

        uids = [f"1.2.826.0.1.3680043.9.{10**30 + number}" for number in range(repeats)]
        for uid in uids:
            timed("add the first instance of a series", lambda: self._add(uid, 1))
            timed("add another one", lambda: self._add(uid, 2))
        for _ in range(repeats):
            timed("complete, nothing due", self._queue.complete)
        self._now += 61
        timed(f"complete, {repeats} series due", self._queue.complete)
        for _ in uids:
            entry = timed("claim the next series", self._queue.claim_ready)
            timed("list its files", lambda: self._queue.files(entry))
            timed("note that it is restored", lambda: self._finish(entry))
        for _ in uids:
            delivery = timed("next delivery", lambda: self._deliveries.next("pacs"))
            timed("note that it is sent", lambda: self._sent(delivery))
        for _ in range(repeats):
            timed(
                "counts and oldest, for metrics",
                lambda: (self._queue.counts(), self._queue.oldest()),
            )
        for image in _slices(min(repeats, 50)):
            timed("take one instance", lambda: self._take(image))
        upkeep = Upkeep(self._database, 60.0, self._clock)
        timed("recover at the start", lambda: upkeep.recover(30.0))
        timed("delete 100 ended series", lambda: upkeep.purge(_HOUR, lambda uid: None))
        self._database.close()
        return found

    def _finish(self, entry: object) -> None:
        assert self._queue.finished(entry, 1.0, {"pacs": [self._file]})

    def _sent(self, delivery: object) -> None:
        assert self._deliveries.mark_sent(delivery, delivery.files) == "done"

    def _take(self, image: bytes) -> None:
        instance, new = self._spool.add(image, "dimse:CT1")
        assert self._queue.add(instance)
        assert new

    def _add(self, uid: str, number: int) -> None:
        instance = Instance(
            study_uid=f"{uid}.9",
            series_uid=uid,
            sop_instance_uid=f"{uid}.{number}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax="1.2.840.10008.1.2.1",
            origin="dimse:CT1",
            path=self._file,
            size=500_000,
            sha256="0" * 64,
            header={"Modality": "CT"},
            announced=None,
        )
        assert self._queue.add(instance)


def _slices(number: int) -> list[bytes]:
    """Files of a CT series of 512 x 512."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for k in range(number):
            image = classic("CT", k)
            image.SOPInstanceUID = generate_uid()
            image.Rows = image.Columns = 512
            image.PixelData = np.full((512, 512), k, np.int16).tobytes()
            save(image, Path(folder, "slice.dcm"))
            found.append(Path(folder, "slice.dcm").read_bytes())
    return found


def _shown(seconds: list[float]) -> str:
    if len(seconds) == 1:
        return f"{1000 * seconds[0]:.1f} (once)"
    values = (statistics.median(seconds), float(np.quantile(seconds, 0.95)), max(seconds))
    return ", ".join(f"{1000 * value:.2f}" for value in values)


if __name__ == "__main__":
    main()
