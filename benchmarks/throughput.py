"""How many series of typical size one core restores in an hour, and what a whole archive takes.

    python -m benchmarks.throughput [--kinds MR CT PT] [--slices 4] [--whole MR] [--json FILE]
    python -m benchmarks.throughput --archive 1000000 --mix MR=40 CT=50 PT=10 \
        --machines 100 --cores 8 --price 0.085

A core is one process of one thread, as `restore-rwkv batch` starts them on a CPU; its seconds are
processor time, which other work on the machine changes little. The network is timed on a few slices
of full size, and scaled by their number; reading, planning and writing are timed on a DICOM series
of full size, with a network that changes nothing. `--whole` checks the sum: the command restores
whole series of a kind, one on each core at the same time, from its start to its exit.

A series here is a scan of synthetic discs and noise, since the time does not depend on what an
image shows. A study of several series takes the sum of theirs.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydicom.uid import generate_uid

from benchmarks import timing
from restore_rwkv import Volume
from restore_rwkv.io.progress import Progress
from restore_rwkv.restoration import Plan, Restored, RestoreOptions, Restorer
from restore_rwkv.restoration.recording import Ran, restoration_record
from tests.helpers.derivable_series import Kind as SeriesKind
from tests.helpers.derivable_series import classic, save

_OPTIONS = RestoreOptions(plane="axial", force=True)
_DAY = 24.0


@dataclass(frozen=True)
class Kind:
    """A typical series.

    Attributes:
        modality: as DICOM has it.
        task: that restores it.
        rows: of a slice.
        columns: of a slice.
        slices: number of them.
        spacing: of rows, columns and slices, in mm.
    """

    modality: SeriesKind
    task: str
    rows: int
    columns: int
    slices: int
    spacing: tuple[float, float, float]

    @property
    def size(self) -> int:
        """Bytes of its voxels, two each."""
        return 2 * self.rows * self.columns * self.slices


KINDS = {
    "MR": Kind("MR", "mri-sr", 256, 256, 160, (1.0, 1.0, 1.0)),
    "CT": Kind("CT", "ct-denoise", 512, 512, 300, (0.75, 0.75, 1.0)),
    "PT": Kind("PT", "pet-synth", 192, 192, 250, (4.0, 4.0, 3.0)),
}


@dataclass(frozen=True)
class Cost:
    """What a series of a kind takes, in seconds of one core.

    Attributes:
        slice_seconds: of the network for one slice, in each timed run.
        slices: of the series.
        around: reading, planning and writing.
        bytes_read: by one series.
        bytes_written: by one series.
    """

    slice_seconds: Sequence[float]
    slices: int
    around: float
    bytes_read: int
    bytes_written: int

    @property
    def network(self) -> float:
        """Seconds of the network, scaled from the median slice."""
        return statistics.median(self.slice_seconds) * self.slices

    @property
    def total(self) -> float:
        """Seconds of one core for the whole series."""
        return self.network + self.around


def archive_core_hours(
    number: int, mix: Mapping[str, float], seconds: Mapping[str, float]
) -> float:
    """Core hours of an archive.

    Args:
        number: of series.
        mix: parts of each kind, in any unit.
        seconds: of one core for a series of each kind.
    """
    whole = sum(mix.values())
    return number * sum(part / whole * seconds[kind] for kind, part in mix.items()) / 3600


def days(core_hours: float, machines: int, cores: int) -> float:
    """Days that so many machines of so many cores take, where each core works all the time."""
    return core_hours / (machines * cores) / _DAY


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and the arithmetic where it is asked for."""
    options = _parser().parse_args(arguments)
    with _one_thread():
        print(f"{timing.command('benchmarks.throughput', arguments)}: {timing.machine()}")
        costs = {name: measure(KINDS[name], options.slices) for name in options.kinds}
    cores = options.whole_jobs or os.cpu_count() or 1
    timing.header(
        "series", "slices", "network, s a slice", "network, s", "reading and writing, s",
        "one core, s", "an hour and core", f"an hour on {cores} cores", "read, MB", "written, MB",
    )  # fmt: skip
    for name, cost in costs.items():
        kind = KINDS[name]
        timing.row(
            f"{name} {kind.rows} x {kind.columns} x {kind.slices}", kind.slices,
            timing.figures(list(cost.slice_seconds)), f"{cost.network:.1f} (scaled)",
            f"{cost.around:.1f}", f"{cost.total:.1f}", f"{3600 / cost.total:.0f}",
            f"{cores * 3600 / cost.total:.0f}",
            f"{cost.bytes_read / 1e6:.0f}", f"{cost.bytes_written / 1e6:.0f}",
        )  # fmt: skip
    for name in options.whole:
        number = cores * options.each
        took, spent = whole(KINDS[name], number, cores)
        said = costs[name].total
        print(
            f"whole {name}: {number} series by the command, {cores} jobs, with its start: "
            f"{took:.1f} s, and {spent / number:.1f} s of one core for each, "
            f"{spent / number / said:.2f} times what the table says"
        )
    seconds = {name: cost.total for name, cost in costs.items()}
    if options.json is not None:
        options.json.write_text(json.dumps(_as_json(costs), indent=1))
    if options.archive:
        _print_archive(options, seconds)


def measure(kind: Kind, slices: int) -> Cost:
    """Time a few slices in the network, and a whole series around it."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "series"), Path(folder, "derived")
        write_series(kind, source)
        first = Path(folder, "first")
        write_series(replace(kind, slices=8), first)
        still = _Still(kind.task, device="cpu")
        # A worker imports packages and reads weights once, for all its series.
        still.file(first, Path(folder, "first-derived"), _OPTIONS, format="dicom")
        around = core_seconds(lambda: still.file(source, target, _OPTIONS, format="dicom"))
        read, written = _size(source), _size(target)
    return Cost(network_seconds(kind, slices), kind.slices, around, read, written)


def network_seconds(kind: Kind, slices: int, repeats: int = 3) -> list[float]:
    """Seconds of one slice in the network, of several runs of a few slices."""
    values = np.stack([_pixels(kind, k) for k in range(slices)], axis=-1).astype(np.float32)
    affine = np.diag([*kind.spacing, 1.0])
    unit = {"CT": "HU", "PT": "BQML"}.get(kind.modality)
    offset = -1024.0 if kind.modality == "CT" else 0.0
    volume = Volume(values + offset, affine=affine, modality=kind.modality, unit=unit)
    restorer = Restorer(kind.task, device="cpu")
    plan = restorer.plan(volume, _OPTIONS)
    restorer.run_plan(plan)
    return [core_seconds(lambda: restorer.run_plan(plan)) / slices for _ in range(repeats)]


def core_seconds(call: Callable[[], object]) -> float:
    """Processor time of a call, with that of processes that it starts and waits for."""
    before = os.times()
    call()
    return sum(os.times()[:4]) - sum(before[:4])


def write_series(kind: Kind, folder: Path) -> None:
    """Write a classic DICOM series of full size."""
    folder.mkdir(parents=True)
    series = generate_uid()
    for k in range(kind.slices):
        image = classic(kind.modality, k)
        pixels = _pixels(kind, k)
        image.Rows, image.Columns = pixels.shape
        image.SeriesInstanceUID = series
        image.PixelSpacing = list(kind.spacing[:2])
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.ImagePositionPatient = [0, 0, k * kind.spacing[2]]
        image.SliceThickness = kind.spacing[2]
        image.SmallestImagePixelValue = int(pixels.min())
        image.LargestImagePixelValue = int(pixels.max())
        if kind.modality == "PT":
            image.NumberOfSlices = kind.slices
            image.RescaleSlope = 1.0
        if kind.modality == "MR":
            image.AcquisitionMatrix = [0, kind.rows, kind.columns, 0]
            image.SpacingBetweenSlices = kind.spacing[2]
        image.PixelData = pixels.tobytes()
        save(image, folder / f"{k:04}.dcm")


def whole(kind: Kind, number: int, jobs: int) -> tuple[float, float]:
    """Seconds of the command for whole series, and processor time of all its processes."""
    with tempfile.TemporaryDirectory() as folder:
        tree, output = Path(folder, "tree"), Path(folder, "out")
        for study in range(number):
            write_series(kind, tree / f"study-{study}")
        command = [sys.executable, "-m", "restore_rwkv", "batch", str(tree), "-o", str(output)]
        command += ["--task", kind.task, "--plane", "axial", "--force"]
        command += ["--jobs", str(jobs), "--quiet"]
        started = time.perf_counter()
        spent = core_seconds(lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL))
        return time.perf_counter() - started, spent


class _Still(Restorer):
    """A restorer whose network changes nothing and takes no time."""

    def run_plan(self, plan: Plan, progress: Progress | None = None) -> Restored:
        """Return what was given."""
        ran = Ran("none", "0" * 64, str(self.device), 0.0)
        return Restored(plan.volume, restoration_record(plan, plan.volume, ran))


def _pixels(kind: Kind, k: int) -> np.ndarray:
    """Stored values of a slice: a disc with noise."""
    y, x = np.mgrid[: kind.rows, : kind.columns]
    middle = np.hypot(y - kind.rows / 2, x - kind.columns / 2) < 0.4 * kind.rows
    noise = np.random.default_rng(k).normal(0, 20, middle.shape)
    values = np.where(middle, 1064.0, 40.0) + noise
    return np.clip(values, 0, None).astype(np.int16 if kind.modality == "CT" else np.uint16)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, and do not log that discs are no patients."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        logging.disable(logging.NOTSET)


def _as_json(costs: Mapping[str, Cost]) -> dict[str, object]:
    """What `benchmarks.node_queue --times` reads."""
    return {
        name: {
            "slice_seconds": list(cost.slice_seconds),
            "around_seconds": cost.around,
            "slices": cost.slices,
            "bytes_read": cost.bytes_read,
            "bytes_written": cost.bytes_written,
        }
        for name, cost in costs.items()
    }


def _print_archive(options: argparse.Namespace, seconds: Mapping[str, float]) -> None:
    mix = dict(options.mix)
    hours = archive_core_hours(options.archive, mix, seconds)
    took = days(hours, options.machines, options.cores)
    parts = ", ".join(f"{part:g} {kind}" for kind, part in mix.items())
    print(
        f"{options.archive:,} series ({parts}): {hours:,.0f} core hours; "
        f"{took:,.1f} days on {options.machines} machines of {options.cores} cores; "
        f"{hours * options.price:,.0f} at {options.price:g} a core hour"
    )


def _part(text: str) -> tuple[str, float]:
    kind, _, part = text.partition("=")
    if kind not in KINDS or not math.isfinite(float(part)) or float(part) < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: write MR=40")
    return kind, float(part)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add: Callable[..., object] = parser.add_argument
    add("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    add("--slices", type=int, default=4, help="that the network is timed on")
    add("--whole", nargs="*", choices=list(KINDS), default=[], help="checked with whole series")
    add("--each", type=int, default=1, help="whole series for each job")
    add("--whole-jobs", type=int, default=0, help="at the same time; 0 for one a core")
    add("--json", type=Path, help="file for the measured times")
    add("--archive", type=int, default=0, help="number of series of an archive")
    add("--mix", nargs="+", type=_part, default=[("MR", 40.0), ("CT", 50.0), ("PT", 10.0)])
    add("--machines", type=int, default=100)
    add("--cores", type=int, default=8, help="of a machine")
    add("--price", type=float, default=0.0, help="of a core hour")
    return parser


if __name__ == "__main__":
    main()
