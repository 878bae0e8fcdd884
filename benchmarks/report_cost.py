"""Processor time of a restoration with its report, over that without.

    python -m benchmarks.report_cost SCAN=TASK... [--uncertainty turns] [--pairs 2]

Each run is a process of its own, on one thread, and runs with and without a report take turns. The
time is that of the processor, so other work on the machine hardly counts, from the call that
restores to its return: reading, restoring and writing included, starting Python and importing
PyTorch not. Processes that decode DICOM count too. Scans that do not fit are forced. SCAN may be a
prepared set too, of which the low-quality slices of the first test scan are restored.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from restore_rwkv.data.prepared import find_sets
from restore_rwkv.evaluation.challenge.sources import stack_volume
from restore_rwkv.evaluation.fidelity.report import ReportOptions, restore_with_report
from restore_rwkv.io import read_volume, write_volume
from restore_rwkv.restoration import RestoreOptions, Restorer


def spent() -> float:
    """Return the processor time of this process and of those that it has waited for, in s."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


def measure_once(scan: str, task: str, how: str) -> dict[str, object]:
    """Restore a scan, with a report unless `how` is "plain"; return its time in s and its size."""
    import torch

    torch.set_num_threads(1)
    restorer, options = Restorer(task), RestoreOptions(force=True)
    uncertainty = None if how in ("plain", "report") else how
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.nii.gz"
        start, clock = spent(), time.perf_counter()
        if how == "plain":
            restorer.file(scan, target, options)
        else:
            report = ReportOptions(uncertainty=uncertainty)  # type: ignore[arg-type]
            restore_with_report(restorer, scan, target, options, report=report)
        seconds, wall = spent() - start, time.perf_counter() - clock
        shape = read_volume(target).data.shape
    return {"seconds": seconds, "wall": wall, "shape": shape}


def in_a_process(scan: str, task: str, how: str) -> dict[str, object]:
    """Return what `measure_once` gives in a new process."""
    words = [sys.executable, "-m", "benchmarks.report_cost", f"{scan}={task}", "--once", how]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, env=environment)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(scan: str, task: str, how: str, pairs: int) -> str:
    """Return a line of the table: medians over pairs of runs."""
    plain, report, shape = [], [], ""
    for _ in range(pairs):
        for kind, times in (("plain", plain), (how, report)):
            found = in_a_process(scan, task, kind)
            times.append(float(str(found["seconds"])))
            shape = " x ".join(map(str, found["shape"]))  # type: ignore[call-overload]
    ratio = statistics.median(b / a for a, b in zip(plain, report, strict=True))
    words = "--report" if how == "report" else f"--report --uncertainty {how}"
    return (
        f"| `{task}`, {Path(scan).name}, {shape} | `{words}` | {statistics.median(plain):.1f} | "
        f"{statistics.median(report):.1f} | {ratio:.2f} |"
    )


def low_quality(folder: Path, task: str, into: Path) -> str:
    """Write the low-quality slices of the first test scan of a prepared set as NIfTI."""
    (prepared,) = find_sets([folder], (task,))
    stack = prepared.split("test")[0]
    volume = stack_volume(prepared, stack)
    images = np.moveaxis(np.asarray(prepared.images(stack, "low"), dtype=np.float32), 0, 2)
    path = into / f"{stack.name}_low.nii.gz"
    write_volume(volume.with_data(np.ascontiguousarray(images)), path)
    return str(path)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", nargs="+", metavar="SCAN=TASK")
    parser.add_argument("--uncertainty", choices=("turns", "bootstrap"))
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--once", choices=("plain", "report", "turns", "bootstrap"))
    words = parser.parse_args()
    scans = [tuple(each.rpartition("=")[::2]) for each in words.scans]
    if words.once:
        print(json.dumps(measure_once(*scans[0], words.once)))
        return
    print(
        "| task, scan, voxels | report | without, s | with, s | ratio |", "|---" * 5 + "|", sep="\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for scan, task in scans:
            prepared = (Path(scan) / "manifest.json").is_file()
            path = low_quality(Path(scan), task, Path(folder)) if prepared else scan
            print(row(path, task, words.uncertainty or "report", words.pairs), flush=True)


if __name__ == "__main__":
    main()
