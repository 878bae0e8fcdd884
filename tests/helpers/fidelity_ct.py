"""A small CT scan, its truth, and pairs of both: for tests of reports."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from restore_rwkv.evaluation.fidelity import RestoredPair
from restore_rwkv.evaluation.fidelity.ct import CTDetector
from restore_rwkv.io import Volume
from restore_rwkv.physics.ct import CTScanner, scan_noise
from restore_rwkv.tasks import TASKS

SHAPE = (96, 96, 4)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, -2.0, 0, 80], [0, 0, 5.0, -30], [0, 0, 0, 1]])
PHOTONS = 1e4


def disc(row: int, column: int, slice_: int, radius_mm: float = 5.0) -> NDArray[np.bool_]:
    """Return a disc in one slice; pixels are 2 mm."""
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    inside = np.zeros(SHAPE, dtype=bool)
    inside[..., slice_] = np.hypot(rows - row, columns - column) * 2 <= radius_mm
    return inside


@cache
def scans() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A low-dose scan and its truth: soft tissue in air, with a rod of bone and a cavity."""
    truth = np.full(SHAPE, -1000.0)
    for number in range(SHAPE[2]):
        truth[disc(48, 48, number, 75)] = 40.0
        truth[disc(48, 70, number, 12)] = 700.0
        truth[disc(30, 30, number, 10)] = -900.0
    truth = gaussian_filter(truth, (0.8, 0.8, 0))
    slices = torch.from_numpy(np.moveaxis(truth, 2, 0).astype(np.float32))
    generator = torch.Generator().manual_seed(0)
    noise = scan_noise(slices, (2.0, 2.0), scanner=CTScanner(photons=PHOTONS), generator=generator)
    scan = truth + np.moveaxis(noise.numpy().reshape(slices.shape), 0, 2)
    return scan.astype(np.float32), truth.astype(np.float32)


def pair_of(before: NDArray[Any], after: NDArray[Any], **known: Any) -> RestoredPair:
    first, second = (
        Volume(np.asarray(a, dtype=np.float32), AFFINE, "HU", "CT") for a in (before, after)
    )
    return replace(
        RestoredPair(before=first, after=second, task=TASKS["ct-denoise"], axis=2), **known
    )


def without_geometry(pair: RestoredPair) -> RestoredPair:
    return replace(
        pair, before=replace(pair.before, affine=None), after=replace(pair.after, affine=None)
    )


@cache
def detector() -> CTDetector:
    """The detector of the scan and its truth, for the scanner that the scan is from.

    To fit a scanner takes seconds, and is tested with the physics.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("restore_rwkv.physics.ct.calibrated", lambda *_: CTScanner(photons=PHOTONS))
        return CTDetector(pair_of(*scans()))
