"""Draw the effective receptive field of weights: which input pixels the centre of the output uses.

    python -m benchmarks.receptive_field OUTPUT.png DATA WEIGHTS...

DATA is a folder of prepared sets. The field is the absolute gradient of the central output pixel
with respect to the input, without the added input itself, averaged over crops of validation slices
(Luo et al. 2016, arXiv 1701.04128). Under each picture stands the share of the gradient within 8,
32 and 64 pixels (rows and columns) of the centre.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

from restore_rwkv.data import PreparedSet
from restore_rwkv.data.slice import slices_of
from restore_rwkv.model import RestoreRWKV, find_weights, load_weights

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SIDE = 160
_SLICES = 6
_DISTANCES = (8, 32, 64)


def main() -> None:
    """Draw one picture for each weight file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", nargs="+")
    arguments = parser.parse_args()
    figure, axes = plt.subplots(
        1, len(arguments.weights), figsize=(3.2 * len(arguments.weights), 3.8), squeeze=False
    )
    for axis, name in zip(axes[0], arguments.weights, strict=True):
        network, info = load_weights(find_weights(name))
        task = next(iter(info.scaling))
        crops = centre_crops(PreparedSet.read(arguments.data / task), info.scaling[task])
        field = receptive_field(network, crops)
        shares = ", ".join(f"{share_within(field, d):.0%} in {d}" for d in _DISTANCES)
        print(f"{name}: {shares} pixels", flush=True)
        axis.imshow(np.log10(field / field.max() + 1e-6), cmap="magma", vmin=-6, vmax=0)
        label = Path(name).parent.name if Path(name).is_file() else name
        axis.set_title(label, fontsize=9)
        axis.set_xlabel(shares, fontsize=7)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(arguments.output, dpi=100)


def centre_crops(prepared: PreparedSet, rule) -> Tensor:
    """Return the centres of validation slices (N, 1, SIDE, SIDE) in network values."""
    crops = []
    for item in slices_of([prepared], "validation", _SLICES):
        image = item.stack.scaling(rule).apply(item.low())
        if min(image.shape) < SIDE:
            raise SystemExit(
                f"{item.name}: is {image.shape[0]} x {image.shape[1]} pixels, smaller than {SIDE} "
                f"x {SIDE}; choose weights of another task"
            )
        row, column = ((length - SIDE) // 2 for length in image.shape)
        crops.append(image[row : row + SIDE, column : column + SIDE])
    return torch.from_numpy(np.stack(crops))[:, None]


def receptive_field(network: RestoreRWKV, images: Tensor) -> np.ndarray:
    """Return the mean absolute gradient (SIDE, SIDE) of the central residual."""
    total = np.zeros(images.shape[2:])
    for image in images[:, None]:
        image = image.requires_grad_()
        residual = network(image) - image
        residual[..., SIDE // 2, SIDE // 2].sum().backward()
        total += image.grad[0, 0].abs().numpy()
    return total / len(images)


def share_within(field: np.ndarray, distance: int) -> float:
    """Return the share of a field within a distance of its centre along both axes."""
    centre = SIDE // 2
    near = slice(max(0, centre - distance), centre + distance + 1)
    return float(field[near, near].sum() / field.sum())


if __name__ == "__main__":
    main()
