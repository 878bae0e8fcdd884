"""Scores of the same images under every protocol, on the sample scan that comes with the package.

python -m benchmarks.protocols

The scan is degraded as `mri-sr` does; its low-quality form and what the shipped weights make of it
are scored slice by slice, or as a volume where the protocol says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from restore_rwkv import Restorer, degrade, read_volume
from restore_rwkv.evaluation.measures.catalogue import measures_named
from restore_rwkv.evaluation.measures.measure import Measure, Setting, Values
from restore_rwkv.evaluation.measures.protocols import PROTOCOLS
from restore_rwkv.model import sample_scan
from restore_rwkv.tasks import Task, get_task, slice_axis

_TASK = "mri-sr"


def main(arguments: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    print("\n".join(rows()))


def rows() -> Iterator[str]:
    """Lines of a Markdown table: the low-quality and the restored scan under each protocol."""
    task = get_task(_TASK)
    truth, images = _images(task)
    yield "| protocol | image | PSNR dB | SSIM | RMSE or NMSE |"
    yield "|---|---|---|---|---|"
    for protocol, names in PROTOCOLS.items():
        for label, image in images.items():
            found = [mean_of(measure, image, truth, task) for measure in measures_named(names)]
            yield f"| {protocol} | {label} | {found[0]:.2f} | {found[1]:.4f} | {found[2]:.4g} |"


def mean_of(measure: Measure, image: Values, truth: Values, task: Task) -> float:
    """Mean over the slices (N, H, W) of a measure, or the measure of the volume."""
    setting = Setting(task=task, pixel_mm=None, peak=float(truth.max()))
    if measure.of == "volume":
        return measure.compute(image, truth, setting)
    pairs = zip(image, truth, strict=True)
    return float(np.mean([measure.compute(x, y, setting) for x, y in pairs]))


def _images(task: Task) -> tuple[Values, dict[str, Values]]:
    pair = degrade(read_volume(sample_scan()), task)
    restored = Restorer(task.name, device="cpu").run(pair.low).volume
    axis = slice_axis(pair.high, task)
    truth, low, made = (
        volume.slices(axis).astype(np.float64) for volume in (pair.high, pair.low, restored)
    )
    return truth, {"low quality": low, "restored": made}


if __name__ == "__main__":
    main()
