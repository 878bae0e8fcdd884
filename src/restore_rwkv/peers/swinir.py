"""SwinIR (Liang et al. 2021)."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_rwkv.peers.config import PeerConfig
from restore_rwkv.peers.network import PeerNetwork

_WINDOW = 8  # pixels
_HEAD = 16  # channels
_APART = -100.0  # added to the attention between pixels that are not neighbours


class SwinIR(PeerNetwork):
    """SwinIR, its lightweight variant (Liang et al., ICCV workshops 2021, arXiv 2108.10257).

    As published: groups of transformer blocks on windows of 8 x 8 pixels, every second one shifted
    by half a window, with relative position biases; a 3 x 3 convolution and a connection around
    each group and around all of them; MLPs twice as wide; and the image added at the end, as for
    denoising. Other than published: no stochastic depth, and no layer norm before the first group,
    which the authors' program has. `width` has the channels, a multiple of 16, `depth` the blocks
    of the four groups. Width 64 with heads of 16 channels, not 60 of 10, is twice as fast on a CPU;
    the blocks are (4, 4, 4, 4), not (6, 6, 6, 6), also for speed: 735,937 parameters.
    """

    def __init__(self, config: PeerConfig, *, merged: bool = False) -> None:
        super().__init__(config, merged=merged)
        width = config.width
        self.head = nn.Conv2d(self.channels, width, 3, padding=1)
        self.groups = nn.ModuleList(_Group(width, count) for count in config.depth)
        self.norm = nn.LayerNorm(width)
        self.tail = nn.Conv2d(width, width, 3, padding=1)
        self.output = nn.Conv2d(width, 1, 3, padding=1)

    def predict(self, x: Tensor) -> Tensor:
        """Return the residual (B, 1, H, W)."""
        first = self.head(x)
        x = first.permute(0, 2, 3, 1)
        for group in self.groups:
            assert isinstance(group, _Group)
            y = x
            for block in group.blocks:
                y = self.run_block(block, y)
            x = x + _convolved(group.tail, y)
        y = first + _convolved(self.tail, self.norm(x)).permute(0, 3, 1, 2)
        residual: Tensor = self.output(y)
        return residual


class _Group(nn.Module):
    """Blocks and the convolution after them; `SwinIR.predict` runs them."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, shifted=i % 2 == 1) for i in range(count))
        self.tail = nn.Conv2d(width, width, 3, padding=1)


class _Block(nn.Module):
    """(B, H, W, C) -> (B, H, W, C), H and W multiples of the window."""

    def __init__(self, width: int, *, shifted: bool) -> None:
        super().__init__()
        self.shift = _WINDOW // 2 if shifted else 0
        self.heads = width // _HEAD
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.position = nn.Parameter(torch.zeros((2 * _WINDOW - 1) ** 2, self.heads))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.shift:
            y = y.roll((-self.shift, -self.shift), dims=(1, 2))
        y = _joined(self._attention(_windows(y), x.shape[1:3]), x.shape)
        if self.shift:
            y = y.roll((self.shift, self.shift), dims=(1, 2))
        x = x + y
        z: Tensor = self.mlp(self.norm2(x))
        return x + z

    def _attention(self, x: Tensor, size: torch.Size) -> Tensor:
        """(B, windows, N, C) -> the same, N pixels of a window."""
        batch, count, pixels, width = x.shape
        qkv = self.qkv(x).view(batch, count, pixels, 3, self.heads, _HEAD)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)  # (B, windows, heads, N, C/heads)
        scores = (q * _HEAD**-0.5) @ k.transpose(-2, -1)
        bias = self.position[_offsets(x.device)].permute(2, 0, 1)  # (heads, N, N)
        if self.shift:
            bias = bias + _apart(size[0], size[1], x.device)[:, None]
        scores += bias.to(scores.dtype)
        y = F.softmax(scores, dim=-1) @ v
        z: Tensor = self.projection(y.transpose(2, 3).reshape(batch, count, pixels, width))
        return z


def _convolved(convolution: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = convolution(x.permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1)


def _windows(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, windows, pixels of a window, C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // _WINDOW, _WINDOW, width // _WINDOW, _WINDOW, channels)
    return x.transpose(2, 3).reshape(batch, -1, _WINDOW**2, channels)


def _joined(x: Tensor, shape: torch.Size) -> Tensor:
    """Reverse `_windows`."""
    batch, height, width, channels = shape
    x = x.view(batch, height // _WINDOW, width // _WINDOW, _WINDOW, _WINDOW, channels)
    return x.transpose(2, 3).reshape(shape)


# Computed, not stored: networks are built without memory, on the "meta" device, and then loaded.
@lru_cache(maxsize=4)
@torch.inference_mode(False)  # else they could not be used in training afterwards
def _offsets(device: torch.device) -> Tensor:
    """Row of the position biases for each pair of pixels of a window, (N, N)."""
    place = torch.arange(_WINDOW, device=device)
    rows, columns = (x.flatten() for x in torch.meshgrid(place, place, indexing="ij"))
    down, right = (x[:, None] - x + _WINDOW - 1 for x in (rows, columns))
    return down * (2 * _WINDOW - 1) + right


@lru_cache(maxsize=1)  # 256 bytes a pixel
@torch.inference_mode(False)
def _apart(height: int, width: int, device: torch.device) -> Tensor:
    """Added to the attention in shifted windows, (windows, N, N): nothing between neighbours.

    A shifted window at the border of an image holds pixels of its opposite border.
    """
    strips = []
    for length in (height, width):
        place = torch.arange(length, device=device)
        strips.append((place >= length - _WINDOW).int() + (place >= length - _WINDOW // 2).int())
    regions = 3 * strips[0][:, None] + strips[1]
    region = _windows(regions[None, ..., None])[0, ..., 0]  # (windows, N)
    return (region[:, :, None] != region[:, None]).float() * _APART
