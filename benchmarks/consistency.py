"""Gain and time of data consistency and of the ensemble, with the shipped MRI weights.

python -m benchmarks.consistency SCAN [--weights NAME] [--every 1]

SCAN is a scan of full quality, which `degrade` makes low. To choose by, take a validation subject.
With `--coarse` it is stored on its native coarse grid instead and restored with `scale`. Rows of 8
turns show what the turns would add that an even block of k-space does not allow.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from pathlib import Path

import numpy as np
import torch

from restore_rwkv import RestoreOptions, Restorer, Volume, degrade, load_weights, read_volume
from restore_rwkv.evaluation.metrics import MeanScore, mean_score
from restore_rwkv.evaluation.scores import slice_scores
from restore_rwkv.model import find_weights
from restore_rwkv.physics.mri import low_resolution
from restore_rwkv.restoration import restore_slices
from restore_rwkv.tasks import TURNS, get_task, slice_axis

STEPS = (0, 1, 2, 5, 10, 15)
_TASK = get_task("mri-sr")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--weights", default=_TASK.weights)
    parser.add_argument("--every", type=int, default=1, help="take every n-th slice")
    parser.add_argument("--coarse", action="store_true", help="on the native coarse grid")
    words = parser.parse_args(arguments)
    scan = read_volume(words.scan)
    axis = slice_axis(scan, _TASK)
    # Without an affine, whose slice distance would be wrong: slices lie across the last axis.
    slices = np.moveaxis(scan.slices(axis)[:: words.every], 0, 2)
    high = Volume(slices, unit=_TASK.unit, modality="MR")
    low, scale = (coarse(high), _TASK.factor) if words.coarse else (degrade(high, _TASK).low, None)
    options = RestoreOptions(ensemble=True, scale=scale)
    plan = Restorer(_TASK.name, words.weights, "cpu").plan(low, options)
    network = load_weights(find_weights(words.weights))[0]
    before = scored(plan.volume, high, words.coarse)
    print(
        f"{slices.shape[2]} slices, {torch.get_num_threads()} threads, input {before.psnr:.3f} dB"
    )
    print("| turns | steps | PSNR dB | SSIM | gain dB | seconds per slice |")
    print("|---|---|---|---|---|---|")
    allowed = plan.refinement.turns
    rows = [(turns, steps) for turns in (TURNS[:1], allowed) for steps in STEPS]
    rows += [(TURNS, steps) for steps in (0, _TASK.consistency) if allowed != TURNS]
    plain = None
    for turns, steps in rows:
        refinement = dataclasses.replace(plan.refinement, turns=turns, steps=steps)
        restored = np.empty_like(plan.volume.slices(2))
        start = time.perf_counter()
        for index, image in enumerate(plan.volume.slices(2)):
            restored[index] = restore_slices(
                network, image[None], _TASK, plan.scaling, plan.tiling.tile, 0.0, refinement
            )[0]
        seconds = (time.perf_counter() - start) / len(restored)
        score = scored(plan.volume.with_slices(restored, 2), high, words.coarse)
        plain = plain or score.psnr
        print(
            f"| {len(turns)} | {steps} | {score.psnr:.3f} | {score.ssim:.4f} "
            f"| {score.psnr - plain:+.3f} | {seconds:.3f} |",
            flush=True,
        )


def coarse(high: Volume) -> Volume:
    images = torch.from_numpy(np.ascontiguousarray(high.slices(2)))
    low = low_resolution(images, _TASK.factor).numpy()
    return Volume(np.moveaxis(low, 0, 2), unit=high.unit, modality="MR")


def scored(restored: Volume, high: Volume, moved: bool) -> MeanScore:
    """Score by the paper's protocol; `moved` where a finer grid keeps outer edges."""
    if moved:
        images = torch.from_numpy(np.ascontiguousarray(restored.slices(2)))
        for axis in (-2, -1):
            size = images.shape[axis]
            bins = torch.fft.rfftfreq(size, dtype=images.dtype)
            # Voxel j of this grid lies (factor - 1) / 2 of its voxels before that of the truth.
            phase = torch.polar(torch.ones_like(bins), math.pi * (_TASK.factor - 1) * bins)
            spectrum = torch.fft.rfft(images, dim=axis)
            spectrum = spectrum * (phase[:, None] if axis == -2 else phase)
            images = torch.fft.irfft(spectrum, size, dim=axis)
        restored = restored.with_slices(images.numpy(), 2)
    return mean_score(slice_scores(restored, high, 2, _TASK.metric_range))


if __name__ == "__main__":
    main()
