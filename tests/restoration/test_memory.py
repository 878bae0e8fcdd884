"""Memory that is predicted for a restoration, against the peak of a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from restore_rwkv.restoration.memory import expected_memory, free_memory
from restore_rwkv.restoration.tiles import Tiling

PEAK = r"""
import json, re, sys
import restore_rwkv.apps.cli.app
from restore_rwkv.restoration import Restorer, RestoreOptions
from restore_rwkv.io import read_volume
source, task, memory = sys.argv[1], sys.argv[2], int(sys.argv[3])
restorer, options = Restorer(task, device="cpu"), RestoreOptions(memory=memory, force=True)
restorer.file(source, source + ".out.nii", options)
# Not `ru_maxrss`, which begins with that of the process that started this one.
peak = 1024 * int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
print(json.dumps([peak, restorer.plan(read_volume(source), options).memory]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("shape", "task", "memory"),
    [
        ((128, 128, 4), "mri-sr", 2 << 30),  # little but the program
        ((704, 704, 1), "ct-denoise", 2 << 30),  # a large slice at once
        ((704, 704, 1), "ct-denoise", 256 << 20),  # in tiles
        ((16, 1024, 7000), "mri-sr", 2 << 30),  # a large volume: the scaling takes the most
    ],
)
def test_the_peak_is_within_a_fifth_of_the_prediction(
    tmp_path: Path, shape: tuple[int, int, int], task: str, memory: int
) -> None:
    program = PEAK
    if shape[0] < 100:  # the network would take minutes
        program = PEAK.replace("restorer.file(", "restorer.plan(read_volume(source), options) or (")
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    disc = np.where(x**2 + y**2 < 0.7, 40.0, -1000.0)[..., None]
    data = (disc + 20 * rng.standard_normal(shape, np.float32)).astype(np.int16)
    path = tmp_path / "scan.nii"
    nibabel.save(nibabel.Nifti1Image(data if task != "mri-sr" else abs(data), np.eye(4)), path)
    done = subprocess.run(
        [sys.executable, "-c", program, path, task, str(memory)],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, predicted = json.loads(done.stdout.splitlines()[-1])
    assert predicted == pytest.approx(peak, rel=0.2)


def test_free_memory_is_that_of_the_machine() -> None:
    assert 1 << 20 < free_memory(torch.device("cpu")) < 1 << 50


def test_more_memory_is_expected_for_more_of_everything() -> None:
    least = expected_memory(0, Tiling(1, (8, 8), 0), 0, robust=False)
    assert expected_memory(1 << 20, Tiling(1, (8, 8), 0), 0, robust=True) == least + (4 << 20)
    assert expected_memory(1 << 20, Tiling(1, (8, 8), 9), 0, robust=False) == least + (2 << 20) + 9
    assert expected_memory(0, Tiling(1, (8, 8), 9), 100, robust=True) == least + 800 + 9
