"""EDSR (Lim et al. 2017)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from restore_rwkv.peers.config import PeerConfig
from restore_rwkv.peers.network import PeerNetwork


class EDSR(PeerNetwork):
    """EDSR, the baseline of its paper (Lim et al., CVPR workshops 2017, arXiv 1707.02921).

    As published: residual blocks of two 3 x 3 convolutions without norms, and a connection around
    all of them. Other than published: no up-sampling, as the input is on the full grid; the values
    of the image are not shifted by a mean. `width` has the channels, `depth` (blocks,): 64 and 16,
    as the published baseline, with 1,219,841 parameters.
    """

    def __init__(self, config: PeerConfig, *, merged: bool = False) -> None:
        super().__init__(config, merged=merged)
        width, (blocks,) = config.width, config.depth
        self.head = nn.Conv2d(self.channels, width, 3, padding=1)
        self.body = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.tail = nn.Conv2d(width, width, 3, padding=1)
        self.output = nn.Conv2d(width, 1, 3, padding=1)

    def predict(self, x: Tensor) -> Tensor:
        """Return the image (B, 1, H, W)."""
        x = skip = self.head(x)
        for block in self.body:
            x = self.run_block(block, x)
        y: Tensor = self.output(self.tail(x) + skip)
        return y


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(x), inplace=True))
        return x + y
