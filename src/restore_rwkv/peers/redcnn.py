"""RED-CNN (Chen et al. 2017)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from restore_rwkv.peers.config import PeerConfig
from restore_rwkv.peers.network import PeerNetwork


class REDCNN(PeerNetwork):
    """RED-CNN (Chen et al., IEEE Transactions on Medical Imaging 36, 2524, 2017).

    As published: convolutions and as many deconvolutions of 5 x 5 with ReLU; every second one of
    the former is added to its deconvolution, and the image to the last. Other than published:
    borders are padded, so that small images keep their size, and there is no ReLU at the end, since
    values here may be negative. `width` has the channels, `depth` (convolutions,): 5 as published.
    The width is 80, not 96, so that it has 1,284,721 parameters; 96 gives 1,848,865.
    """

    def __init__(self, config: PeerConfig, *, merged: bool = False) -> None:
        super().__init__(config, merged=merged)
        width, (layers,) = config.width, config.depth
        self.head = nn.Conv2d(self.channels, width, 5, padding=2)
        self.encoder = nn.ModuleList(
            nn.Conv2d(width, width, 5, padding=2) for _ in range(layers - 1)
        )
        self.decoder = nn.ModuleList(
            nn.ConvTranspose2d(width, width, 5, padding=2) for _ in range(layers - 1)
        )
        self.output = nn.ConvTranspose2d(width, 1, 5, padding=2)

    def predict(self, x: Tensor) -> Tensor:
        """Return the residual (B, 1, H, W)."""
        x = F.relu(self.head(x))
        skips = {}
        for i, convolution in enumerate(self.encoder, start=1):
            if i % 2 == 0:
                skips[i] = x
            x = F.relu(convolution(x))
        for i, deconvolution in zip(range(len(self.decoder), 0, -1), self.decoder, strict=True):
            y = deconvolution(x)
            x = F.relu(y + skips.pop(i) if i in skips else y)
        residual: Tensor = self.output(x)
        return residual
