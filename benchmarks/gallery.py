"""Draw one test slice of each task: low quality, restored, full quality and error.

python -m benchmarks.gallery data/open docs/gallery.png [--weights light-all-in-one]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from restore_rwkv import RestoreOptions, Restorer, Volume
from restore_rwkv.data import PreparedSet
from restore_rwkv.data.slice import Slice
from restore_rwkv.evaluation import figures
from restore_rwkv.evaluation.metrics import paper_score

# Slices that show no face, and the window they are drawn in.
SHOWN = {
    "mri-sr": ("mr_t1gd_a", 0.6, None),
    "ct-denoise": ("ct_chest_a", 0.4, (-160.0, 240.0)),
    "pet-synth": ("mr_t1_d", 0.5, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights")
    words = parser.parse_args()
    rows, limits = [], []
    for name, (stack_name, place, window) in SHOWN.items():
        prepared = PreparedSet.read(words.data / name)
        stack = next(item for item in prepared.split("test") if item.name == stack_name)
        one = Slice(prepared, stack, int(place * stack.shape[0]))
        task = prepared.task
        restorer = Restorer(name, words.weights)
        # The whole volume, so that its scaling is that of restoring it.
        low = np.stack([Slice(prepared, stack, i).low() for i in range(stack.shape[0])], axis=2)
        image = Volume(low, unit=task.unit, modality=task.modality)
        volume = restorer.run(image, RestoreOptions(consistency=0, strength=1.0)).volume
        images = [low[..., one.index], volume.data[..., one.index], one.high()]
        gain = [paper_score(image, images[2], task.metric_range).psnr for image in images[:2]]
        print(f"{one.name}: {gain[0]:.2f} dB -> {gain[1]:.2f} dB")
        upright = [image.T[::-1] if name != "ct-denoise" else image.T for image in images]
        title = f"{name}, {gain[0]:.1f} to {gain[1]:.1f} dB"
        rows.append((title, upright[0], upright[1], upright[2]))
        limits.append(window or (0.0, float(np.quantile(images[2], 0.998))))
    figures.picture_grid(rows, limits, words.output)


if __name__ == "__main__":
    main()
