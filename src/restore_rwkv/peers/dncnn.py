"""DnCNN (Zhang et al. 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from restore_rwkv.peers.config import PeerConfig
from restore_rwkv.peers.network import PeerNetwork

_MOMENTUM, _EPSILON = 0.1, 1e-5


class DnCNN(PeerNetwork):
    """DnCNN (Zhang et al., IEEE Transactions on Image Processing 26, 3142, 2017).

    As published: 3 x 3 convolutions, batch norms and ReLU; the network predicts the residual (its
    sign is that of the correction, not of the noise, which changes nothing in training). `width`
    has the channels of all layers, `depth` (layers,): 17 as published. The width is 96, not 64, so
    that it has 1,248,865 parameters; 64 gives 556,097.

    The inference form has the batch norms folded into the convolutions.
    """

    def __init__(self, config: PeerConfig, *, merged: bool = False) -> None:
        super().__init__(config, merged=merged)
        width, (layers,) = config.width, config.depth
        self.head = nn.Conv2d(self.channels, width, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=merged) for _ in range(layers - 2)
        )
        norms = 0 if merged else layers - 2
        self.norms = nn.ModuleList(_BatchNorm(width) for _ in range(norms))
        self.output = nn.Conv2d(width, 1, 3, padding=1)

    def predict(self, x: Tensor) -> Tensor:
        """Return the residual (B, 1, H, W)."""
        x = F.relu(self.head(x), inplace=True)
        for i, convolution in enumerate(self.body):
            x = convolution(x)
            x = F.relu(x if self.is_merged else self.norms[i](x), inplace=True)
        y: Tensor = self.output(x)
        return y

    def merged_weights(self) -> dict[str, Tensor]:
        """Return the weights with folded batch norms."""
        weights = {k: x for k, x in self.state_dict().items() if not k.startswith("norms.")}
        for i, (convolution, norm) in enumerate(zip(self.body, self.norms, strict=False)):
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, _BatchNorm)
            weights[f"body.{i}.weight"], weights[f"body.{i}.bias"] = fuse_conv_bn_weights(
                *(convolution.weight, convolution.bias, norm.running_mean, norm.running_var),
                *(_EPSILON, norm.weight, norm.bias),
            )
        return weights


class _BatchNorm(nn.Module):
    """As PyTorch's, without its count of batches: weight files hold floating point only."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        mean, var, learns = self.running_mean, self.running_var, self.training
        return F.batch_norm(x, mean, var, self.weight, self.bias, learns, _MOMENTUM, _EPSILON)
