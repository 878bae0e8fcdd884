"""`python -m benchmarks.tiles`: effect of tiles on the sample scan with the shipped weights.

`seam` is the mean jump between the two pixels on either side of a border of a tile, over the mean
of the same jumps in the result of whole slices: 1 means no seam.
"""

from __future__ import annotations

import torch

from restore_rwkv import read_volume
from restore_rwkv.model import RestoreRWKV, find_weights, load_weights, sample_scan
from restore_rwkv.physics.mri.resolution import kspace_crop
from restore_rwkv.restoration.tiles import run, spans
from restore_rwkv.tasks import robust_scaling

_SIDE = 512  # the sample's slices side by side make one of this size
_TILES = (192, 256, 320, 448)


def mosaic() -> torch.Tensor:
    """Slices of the sample, degraded, as images (N, 1, 512, 512) of four slices each."""
    slices = torch.from_numpy(read_volume(sample_scan()).slices(2).copy())
    low = kspace_crop(slices, 4)
    fours = low.unfold(0, 4, 4).permute(0, 3, 1, 2)  # (N, 4, 256, 256)
    rows = torch.cat([fours[:, ::2], fours[:, 1::2]], dim=3)  # (N, 2, 256, 512)
    image = torch.cat([rows[:, 0], rows[:, 1]], dim=1)[:, None]
    return robust_scaling(image.numpy()).apply(image)


def one_by_one(network: RestoreRWKV, images: torch.Tensor, side: int) -> torch.Tensor:
    return torch.cat([run(network, image, (side, side)) for image in images.split(1)])


def main() -> None:
    network = load_weights(find_weights("light-mri-sr"))[0]
    image = mosaic()
    whole = one_by_one(network, image, _SIDE)
    residual = (whole - image).square().mean().sqrt()
    print("| tile | RMS change / RMS of the image | / RMS of the residual | seam |")
    print("|---|---|---|---|")
    for side in _TILES:
        tiled = one_by_one(network, image, side)
        change = (tiled - whole).square().mean().sqrt()
        borders = [edge for span in spans(_SIDE, side) for edge in span if 0 < edge < _SIDE]
        jumps = [
            sum(
                (x.select(axis, edge) - x.select(axis, edge - 1)).abs().mean()
                for edge in borders
                for axis in (2, 3)
            )
            for x in (tiled, whole)
        ]
        print(
            f"| {side} | {change / image.square().mean().sqrt():.4f} | {change / residual:.3f} | "
            f"{jumps[0] / jumps[1]:.3f} |"
        )


if __name__ == "__main__":
    main()
