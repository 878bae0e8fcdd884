"""The noise that an image of CT has at the dose of its own scan, drawn several times."""

from __future__ import annotations

import torch
from torch import Tensor

from restore_rwkv.physics.ct.dose import SLICES_TOGETHER, check_scan, own_noise
from restore_rwkv.physics.ct.projected import ProjectedSlices
from restore_rwkv.physics.ct.scanner import CTScanner
from restore_rwkv.physics.slices import batches

_KEPT = 256  # slices whose projections are kept: half a GiB for 512 x 512


class OwnNoise:
    """Draws what `scan_noise` draws; slices are projected once, which takes most of its time."""

    def __init__(self, hu: Tensor, spacing: tuple[float, float], scanner: CTScanner):
        """Project the slices.

        Args:
            hu: (N, H, W), float32 or float64, HU, free of noise.
            spacing: distance between rows and between columns in mm.
            scanner: `calibrated` to the noise of the scan.

        Raises:
            OperatorError: as `scan_noise`.
        """
        check_scan(hu, spacing)
        self._hu, self._spacing, self._scanner = hu, spacing, scanner
        self._parts = batches(len(hu), SLICES_TOGETHER)
        self._kept = [self._projected(part) for part in self._parts if part.stop <= _KEPT]

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw the noise of a scan, (N, H, W) in HU."""
        return self.draw_several(generator, 1)[0]

    @torch.no_grad()
    def draw_several(self, generator: torch.Generator, count: int) -> Tensor:
        """Draw the noise of `count` scans, (count, N, H, W) in HU, in a fraction of their time.

        They are not those that as many single draws give, since a batch of slices draws all its
        scans before the next one does.
        """
        images = self._hu.new_empty(count, *self._hu.shape)
        for place, part in enumerate(self._parts):
            known = place < len(self._kept)
            projected = self._kept[place] if known else self._projected(part)
            images[:, part] = projected.noise(
                [self._scanner] * count,
                lambda counts, scanner: torch.stack(
                    [own_noise(one, scanner, generator) for one in counts]
                ),
            )
        return images

    @torch.no_grad()
    def _projected(self, part: slice) -> ProjectedSlices:
        return ProjectedSlices(self._hu[part], self._spacing, self._scanner)
