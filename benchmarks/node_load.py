"""What a busy hospital sends to the DICOM node in a day, and what restoring it takes."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# A busy hospital: what one receives in a working day is an assumption, to be replaced.
DAY: Mapping[str, int] = {"CT": 300, "MR": 200, "PT": 50}
# Parts of a day's series in each hour from midnight.
HOURS = (1, 1, 1, 1, 1, 1, 2, 4, 8, 10, 10, 10, 9, 9, 10, 10, 8, 5, 3, 2, 2, 1, 1, 1)
_SPREAD = 0.4  # of the logarithm of the number of slices
_BUSY = 0.8


@dataclass(frozen=True)
class Times:
    """What a series of one kind takes; see `benchmarks.throughput`.

    Attributes:
        slice_seconds: of the network, one for each timed run.
        around_seconds: reading and writing of a series of so many slices.
        slices: of a typical series.
        bytes_read: its size.
        bytes_written: size of the derived series.
    """

    slice_seconds: tuple[float, ...]
    around_seconds: float
    slices: int
    bytes_read: int
    bytes_written: int

    @property
    def seconds(self) -> float:
        """Of one core, for a typical series."""
        return statistics.mean(self.slice_seconds) * self.slices + self.around_seconds


# `python -m benchmarks.throughput --json times.json` on the machine of docs/deployment.md.
TIMES: Mapping[str, Times] = {
    "MR": Times((0.127, 0.125, 0.140), 1.9, 160, 21_200_000, 21_400_000),
    "CT": Times((0.660, 0.635, 0.705), 5.7, 300, 157_800_000, 158_200_000),
    "PT": Times((0.0600, 0.0575, 0.0625), 2.8, 250, 19_000_000, 19_300_000),
}


@dataclass(frozen=True)
class Arrival:
    """A series that has come.

    Attributes:
        at: when its last instance came, in s from the start.
        kind: modality.
        slices: of it.
        seconds: that a worker will take.
        size: bytes.
    """

    at: float
    kind: str
    slices: int
    seconds: float
    size: float


def arrivals(load: float, days: int, times: Mapping[str, Times], seed: int) -> list[Arrival]:
    """Draw the series of some days, in the order of their arrival."""
    generator = np.random.default_rng(seed)
    shares = np.array(HOURS) / sum(HOURS)
    found = []
    for day in range(days):
        for kind, number in DAY.items():
            its = times[kind]
            for hour, share in enumerate(shares):
                for _ in range(generator.poisson(load * number * share)):
                    at = 86400 * day + 3600 * (hour + generator.random())
                    # Of mean 1.
                    longer = math.exp(_SPREAD * generator.standard_normal() - _SPREAD**2 / 2)
                    slices = max(1, round(its.slices * longer))
                    each = float(generator.choice(its.slice_seconds))
                    part = slices / its.slices
                    seconds = slices * each + part * its.around_seconds
                    found.append(Arrival(at, kind, slices, seconds, part * its.bytes_read))
    return sorted(found, key=lambda arrival: arrival.at)


def enough_workers(load: float, times: Mapping[str, Times]) -> int:
    """Number of workers of which the busiest hour keeps 80 % busy."""
    work = sum(load * number * times[kind].seconds for kind, number in DAY.items())
    return max(1, math.ceil(work * max(HOURS) / sum(HOURS) / 3600 / _BUSY))


def read_times(path: Path) -> dict[str, Times]:
    """Read what `benchmarks.throughput --json` wrote."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {
        kind: Times(**{**row, "slice_seconds": tuple(row["slice_seconds"])})
        for kind, row in rows.items()
    }
