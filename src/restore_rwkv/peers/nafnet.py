"""NAFNet (Chen et al. 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_rwkv.peers.config import PeerConfig
from restore_rwkv.peers.network import PeerNetwork

_LEVELS = 4


class NAFNet(PeerNetwork):
    """NAFNet (Chen et al., ECCV 2022, arXiv 2204.04676).

    As published: a U of four levels, blocks without non-linear activations (layer norm, simple
    gate, simplified channel attention), convolutions of stride 2 on the way down, pixel shuffles on
    the way up, and the image added at the end. `width` has the channels at full size, `depth` nine
    numbers of blocks: of the encoder from full size, in the middle, and of the decoder up to full
    size. The defaults are sized down to 1,255,537 parameters: width 16, not 32, and blocks
    (1, 1, 1, 2), 1, (1, 1, 1, 1), not (2, 2, 4, 8), 12, (2, 2, 2, 2).
    """

    def __init__(self, config: PeerConfig, *, merged: bool = False) -> None:
        super().__init__(config, merged=merged)
        c, depth = config.width, config.depth
        widths = [c << level for level in range(_LEVELS)]
        self.head = nn.Conv2d(self.channels, c, 3, padding=1)
        self.encoder = nn.ModuleList(map(_blocks, widths, depth[:_LEVELS]))
        self.down = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, stride=2) for w in widths)
        self.middle = _blocks(c << _LEVELS, depth[_LEVELS])
        widths.reverse()
        self.up = nn.ModuleList(nn.Conv2d(2 * w, 4 * w, 1, bias=False) for w in widths)
        self.decoder = nn.ModuleList(map(_blocks, widths, depth[_LEVELS + 1 :]))
        self.output = nn.Conv2d(c, 1, 3, padding=1)

    def predict(self, x: Tensor) -> Tensor:
        """Return the residual (B, 1, H, W)."""
        x = self.head(x)
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = self._level(blocks, x)
            skips.append(x)
            x = down(x)
        x = self._level(self.middle, x)
        for up, blocks in zip(self.up, self.decoder, strict=True):
            x = self._level(blocks, F.pixel_shuffle(up(x), 2) + skips.pop())
        y: Tensor = self.output(x)
        return y

    def _level(self, blocks: nn.Module, x: Tensor) -> Tensor:
        for block in blocks.children():
            x = self.run_block(block, x)
        return x


def _blocks(width: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(_Block(width) for _ in range(count))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = _ChannelNorm(width)
        self.expand1 = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.attention = nn.Conv2d(width, width, 1)
        self.reduce1 = nn.Conv2d(width, width, 1)
        self.scale1 = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.norm2 = _ChannelNorm(width)
        self.expand2 = nn.Conv2d(width, 2 * width, 1)
        self.reduce2 = nn.Conv2d(width, width, 1)
        self.scale2 = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = _gated(self.depthwise(self.expand1(self.norm1(x))))
        y = y * self.attention(y.mean(dim=(2, 3), keepdim=True))
        x = x + self.scale1 * self.reduce1(y)
        y = _gated(self.expand2(self.norm2(x)))
        z: Tensor = self.reduce2(y)
        return x + self.scale2 * z


def _gated(x: Tensor) -> Tensor:
    """The simple gate: one half of the channels times the other."""
    half = x.shape[1] // 2
    return x[:, :half] * x[:, half:]


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel of (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)
