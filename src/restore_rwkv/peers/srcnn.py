"""SRCNN (Dong et al. 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from restore_rwkv.peers.config import PeerConfig
from restore_rwkv.peers.network import PeerNetwork


class SRCNN(PeerNetwork):
    """SRCNN, 9-5-5 (Dong et al., IEEE Transactions on Pattern Analysis 38, 295, 2016).

    As published: three convolutions of 9, 5 and 5 pixels with ReLU between them, on an image that
    is already on the full grid; no residual. Borders are padded with zeros, so that the output has
    the size of the input. `width` has the channels after the first layer, the second has half of
    them; `depth` is (). The width is 304, not 64, so that it has 1,184,081 parameters; 64 gives the
    published 57,281 (with biases).
    """

    def __init__(self, config: PeerConfig, *, merged: bool = False) -> None:
        super().__init__(config, merged=merged)
        width = config.width
        self.head = nn.Conv2d(self.channels, width, 9, padding=4)
        self.middle = nn.Conv2d(width, width // 2, 5, padding=2)
        self.output = nn.Conv2d(width // 2, 1, 5, padding=2)

    def predict(self, x: Tensor) -> Tensor:
        """Return the image (B, 1, H, W)."""
        x = F.relu(self.head(x), inplace=True)
        y: Tensor = self.output(F.relu(self.middle(x), inplace=True))
        return y
