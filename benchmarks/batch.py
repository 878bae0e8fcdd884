"""A batch of small volumes beside the network's own time for them.

    python -m benchmarks.batch [--volumes 40] [--jobs 1 2]

The volumes are variants of the sample scan. The network's own time is that of `Restorer.run_plan`
on each, read and planned beforehand, one after the other in one process on all cores: the fastest
of the runs. The batch is timed as a user runs it: the command, from its start to its exit. Both are
repeated by turns, and their outputs are compared bit for bit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

import restore_rwkv
from restore_rwkv.io import read_volume
from restore_rwkv.restoration import RestoreOptions, Restorer

_TASK = "mri-sr"


def main() -> None:
    """Print the times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--volumes", type=int, default=40)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        make_volumes(tree, options.volumes)
        volumes = [read_volume(path) for path in sorted(tree.iterdir())]
        shape = " x ".join(map(str, volumes[0].data.shape))
        print(f"{len(volumes)} volumes of {shape}")
        network: list[float] = []
        batches: dict[int, list[float]] = {jobs: [] for jobs in options.jobs}
        for number in range(options.rounds):
            seconds, restored = run_network(volumes)
            network.append(seconds)
            for jobs, times in batches.items():
                output = Path(folder, f"out-{jobs}-{number}")
                times.append(run_command(tree, output, jobs))
                for path, expected in zip(sorted(tree.iterdir()), restored, strict=True):
                    np.testing.assert_array_equal(read_volume(output / path.name).data, expected)
        own = min(network)
        print(f"network alone: {own:.2f} s (of {_listed(network)})")
        for jobs, times in batches.items():
            ratios = [taken / alone for taken, alone in zip(times, network, strict=True)]
            print(
                f"batch --jobs {jobs}: {min(times):.2f} s (of {_listed(times)}), "
                f"{min(times) / own:.2f} times; by rounds {_listed(ratios)}"
            )


def make_volumes(folder: Path, count: int) -> None:
    """Write variants of the sample scan."""
    folder.mkdir()
    sample = next(Path(restore_rwkv.__file__).parent.glob("samples/*.nii.gz"))
    image = nib.load(sample)
    data = np.asarray(image.dataobj)
    for number in range(count):
        variant = np.roll(data, number, axis=0)
        nib.save(type(image)(variant, image.affine, image.header), folder / f"{number:03}.nii.gz")


def run_network(volumes: list) -> tuple[float, list[np.ndarray]]:
    """Time of the network for all volumes, and their restored values."""
    restorer = Restorer(_TASK)
    plans = [restorer.plan(volume, RestoreOptions(force=True)) for volume in volumes]
    restorer.run_plan(plans[0])
    start = time.perf_counter()
    restored = [restorer.run_plan(plan).volume.data for plan in plans]
    return time.perf_counter() - start, restored


def run_command(tree: Path, output: Path, jobs: int) -> float:
    """Time of the whole command."""
    report = output.with_suffix(".json")
    command = [sys.executable, "-m", "restore_rwkv", "batch", str(tree), "-o", str(output)]
    command += ["--task", _TASK, "--force", "--jobs", str(jobs), "--json", str(report), "--quiet"]
    start = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    summary = json.loads(report.read_text())["summary"]
    assert summary["done"] == len(list(tree.iterdir())), summary
    return seconds


def _listed(numbers: list[float]) -> str:
    return ", ".join(f"{number:.2f}" for number in numbers)


if __name__ == "__main__":
    main()
