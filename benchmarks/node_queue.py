"""The queue of the DICOM node in a busy hospital, and at many times its load: a simulation.

    python -m benchmarks.node_queue [--loads 1 10 100] [--workers 2 0] [--days 1] [--seed 0]
        [--times times.json] [--add-ms 6] [--send-ms 8]

The queue is the real one, in a real database; the clock is simulated. A day brings the series of
`DAY` (node_load.py), times the load, by `HOURS` (a Poisson process); lengths of series vary by a
log-normal factor. What restoring takes is drawn from the times that `benchmarks.throughput --json`
measured (by default those of `TIMES`). One worker is one process of one thread; 0 workers are as
many as the busiest hour needs when 80 % of them are busy. One thread sends. Of a series, one row
stands for all instances; what their number costs is reckoned from `--add-ms`, the time to take one
instance (`benchmarks.queue_rows`), and `--send-ms`, that to send one to a real archive (Orthanc).

The same seed gives the same figures, but for the size of the database and the seconds it took.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import timing
from benchmarks.node_load import (
    DAY,
    HOURS,
    TIMES,
    Arrival,
    Times,
    arrivals,
    enough_workers,
    read_times,
)
from restore_rwkv.apps.node.queueing.database import Database
from restore_rwkv.apps.node.queueing.deliveries import Deliveries
from restore_rwkv.apps.node.queueing.entries import Entry
from restore_rwkv.apps.node.queueing.queue import Queue
from restore_rwkv.apps.node.spooling.spool import Instance

_QUIET = 60.0  # seconds, as is the node's default
_START = 1_800_000_000.0
_DESTINATION = "pacs"


@dataclass
class Outcome:
    """What the simulation of one load found; times in s.

    Attributes:
        workers: number of them.
        waited: for a worker, of each series that one began.
        delivered: from its last instance to its delivery, of each series that was delivered.
        depth: largest number of series that had come and were not delivered.
        left: that number at the end.
        busy: parts of the time that workers and sender had something to do.
        database: bytes of it at the end.
        took: real time of the simulation.
        operations: number of changes of the queue.
    """

    workers: int
    waited: list[float] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)
    depth: int = 0
    left: int = 0
    busy: dict[str, float] = field(default_factory=dict)
    database: int = 0
    took: float = 0.0
    operations: int = 0


class Simulation:
    """One node around the real queue, with a simulated clock.

    Args:
        folder: of the database.
        series: that come, in their order.
        workers: that restore.
        send_seconds: to send one instance.
    """

    def __init__(
        self, folder: Path, series: list[Arrival], workers: int, send_seconds: float
    ) -> None:
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = 0
        self._database = Database(folder)
        self._queue = Queue(self._database, _QUIET, self._clock)
        self._deliveries = Deliveries(self._database, self._clock)
        self._file = folder / "instance.dcm"
        self._file.touch()
        self._series, self._send_seconds = series, send_seconds
        self._free, self._sending, self._open = workers, False, 0
        self._worked = {"workers": 0.0, "sender": 0.0}
        self._known: dict[str, Arrival] = {}
        self._by_row: dict[int, Arrival] = {}
        self.found = Outcome(workers)

    def _clock(self) -> float:
        return _START + self._now

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._events, (self._now + seconds, self._numbers, call))

    def run(self, seconds: float) -> Outcome:
        """Simulate so many seconds.

        Raises:
            AssertionError: the queue has lost a series, or has one twice.
        """
        began = time.perf_counter()
        for number, arrival in enumerate(self._series):
            self._events.append((arrival.at, -len(self._series) + number, self._arriver(number)))
        heapq.heapify(self._events)
        while self._events and self._events[0][0] <= seconds:
            self._now, _, call = heapq.heappop(self._events)
            call()
        found, counts = self.found, self._queue.counts()
        assert sum(counts.values()) == len(self._known), counts
        assert counts["done"] == len(found.delivered) == len(self._known) - self._open, counts
        found.left = self._open
        capacity = {"workers": found.workers * seconds, "sender": seconds}
        found.busy = {name: self._worked[name] / capacity[name] for name in capacity}
        self._database.close()
        found.database = (self._database.folder / "queue.sqlite").stat().st_size
        found.took = time.perf_counter() - began
        return found

    def _arriver(self, number: int) -> Callable[[], None]:
        return lambda: self._arrive(number)

    def _arrive(self, number: int) -> None:
        uid = f"1.2.826.0.1.3680043.8.498.{10**30 + number}"
        arrival = self._known[uid] = self._series[number]
        instance = Instance(
            study_uid=f"{uid}.1",
            series_uid=uid,
            sop_instance_uid=f"{uid}.2",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax="1.2.840.10008.1.2.1",
            origin="dimse:CT1",
            path=self._file,
            size=round(arrival.size),
            sha256=f"{number:064x}",
            header={"Modality": arrival.kind, "StationName": "CT1", "Manufacturer": "Works"},
            announced=None,
        )
        self._queue.add(instance)
        self._open += 1
        self.found.operations += 1
        self.found.depth = max(self.found.depth, self._open)
        self._later(_QUIET, self._complete)

    def _complete(self) -> None:
        self._queue.complete()
        self.found.operations += 1
        self._begin()

    def _begin(self) -> None:
        while self._free:
            entry = self._queue.claim_ready()
            if entry is None:
                return
            arrival = self._known[entry.series_uid]
            self.found.operations += 1
            self.found.waited.append(max(0.0, self._now - arrival.at - _QUIET))
            self._free -= 1
            self._worked["workers"] += arrival.seconds
            self._later(arrival.seconds, self._ender(entry, arrival))

    def _ender(self, entry: Entry, arrival: Arrival) -> Callable[[], None]:
        return lambda: self._restored(entry, arrival)

    def _restored(self, entry: Entry, arrival: Arrival) -> None:
        assert self._queue.finished(entry, arrival.seconds, {_DESTINATION: [self._file]})
        self.found.operations += 1
        self._by_row[entry.id] = arrival
        self._free += 1
        self._begin()
        self._send()

    def _send(self) -> None:
        if self._sending:
            return
        delivery = self._deliveries.next(_DESTINATION)
        if delivery is None:
            return
        self._sending = True
        arrival = self._by_row.pop(delivery.series)
        seconds = arrival.slices * self._send_seconds
        self._worked["sender"] += seconds

        def sent() -> None:
            assert self._deliveries.mark_sent(delivery, delivery.files) == "done"
            self.found.operations += 2
            self.found.delivered.append(self._now - arrival.at)
            self._open -= 1
            self._sending = False
            self._send()

        self._later(seconds, sent)


def simulate(
    load: float, workers: int, options: argparse.Namespace, times: Mapping[str, Times]
) -> Outcome:
    """Simulate one load with so many workers."""
    series = arrivals(load, options.days, times, options.seed)
    # In memory where that is a folder: as the clock is simulated, no disk need be waited for.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        simulation = Simulation(Path(folder, "node"), series, workers, options.send_ms / 1000)
        return simulation.run(86400.0 * options.days)


def main(arguments: list[str] | None = None) -> None:
    """Print what becomes of the queue at each load, and what each part has to do there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loads", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 0])
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=Path, help="measured by benchmarks.throughput --json")
    parser.add_argument("--add-ms", type=float, default=6.0, help="to take one instance")
    parser.add_argument("--send-ms", type=float, default=8.0, help="to send one instance")
    parser.add_argument("--quota", type=float, default=200e9, help="bytes of received files")
    options = parser.parse_args(arguments)
    times = TIMES if options.times is None else read_times(options.times)
    print(timing.command("benchmarks.node_queue", arguments))
    timing.header(
        "load", "series a day", "workers", "workers busy", "sender busy", "most in the queue",
        "at the end",
        "wait for a worker: median, 95 %, most",
        "delivered after: median, 95 %, most",
        "database, MB", "simulated in, s",
    )  # fmt: skip
    for load in options.loads:
        for given in options.workers:
            workers = given or enough_workers(load, times)
            found = simulate(load, workers, options, times)
            timing.row(
                f"{load:g}", f"{load * sum(DAY.values()):,.0f}", workers,
                f"{found.busy['workers']:.0%}", f"{found.busy['sender']:.0%}",
                f"{found.depth:,}", f"{found.left:,}", spread(found.waited),
                spread(found.delivered), f"{found.database / 1e6:.0f}",
                f"{found.took:.0f} ({1e6 * found.took / max(1, found.operations):.0f} us a step)",
            )  # fmt: skip
    print()
    print_parts(options, times)


def print_parts(options: argparse.Namespace, times: Mapping[str, Times]) -> None:
    """Print for each load how busy each part is in the busiest hour."""
    loads = [f"load {load:g}" for load in options.loads]
    timing.header("in the busiest hour", *loads)
    peak = max(HOURS) / sum(HOURS) / 3600  # part of a day's series in a second
    slices = sum(number * times[kind].slices for kind, number in DAY.items())
    work = sum(number * times[kind].seconds for kind, number in DAY.items())
    size = sum(number * times[kind].bytes_read for kind, number in DAY.items())

    def row(name: str, value: Callable[[float], str]) -> None:
        timing.row(name, *(value(load) for load in options.loads))

    row("cores that restore", lambda load: f"{load * work * peak:.1f}")
    row("instances a second", lambda load: f"{load * slices * peak:.1f}")
    row("taking instances one after the other, of what the disk can",
        lambda load: f"{load * slices * peak * options.add_ms / 1000:.0%}")  # fmt: skip
    row("sending, of what one thread can",
        lambda load: f"{load * slices * peak * options.send_ms / 1000:.0%}")  # fmt: skip
    row("received in a day, GB", lambda load: f"{load * size / 1e9:,.0f}")
    row(f"hours until {options.quota / 1e9:g} GB are full, if nothing is deleted",
        lambda load: f"{24 * options.quota / (load * size):,.1f}")  # fmt: skip
    row("ended series deleted, of 100 a minute",
        lambda load: f"{load * sum(DAY.values()) / (100 * 1440):.0%}")  # fmt: skip


def spread(seconds: list[float]) -> str:
    """Format the median, the 95th percentile and the largest of some times."""
    if not seconds:
        return "none"
    return ", ".join(_in_words(float(x)) for x in np.quantile(seconds, (0.5, 0.95, 1)))


def _in_words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main()
