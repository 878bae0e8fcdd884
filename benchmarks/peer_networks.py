"""The compared networks: ours, MONAI's, and DnCNN.

All map (B, 1, H, W) to the same shape. MONAI's keep their own memory layout, which is the faster
one for them on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from restore_rwkv.model import PRESETS, RestoreRWKV


class DnCNN(nn.Module):
    """DnCNN: 17 layers of 64 channels that predict the noise (Zhang et al. 2017)."""

    def __init__(self, depth: int = 17, channels: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        return image - self.body(image)


def restormer(dim: int, num_blocks: tuple[int, ...], num_refinement_blocks: int) -> nn.Module:
    """MONAI's Restormer with the paper's heads and widths (its norms are instance norms)."""
    from monai.networks.nets.restormer import Restormer

    return Restormer(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        dim=dim,
        num_blocks=num_blocks,
        heads=(1, 2, 4, 8),
        num_refinement_blocks=num_refinement_blocks,
        ffn_expansion_factor=2.66,
        bias=False,
        layer_norm_use_bias=True,
    )


def unet() -> nn.Module:
    """MONAI's BasicUNet with its own widths."""
    from monai.networks.nets.basic_unet import BasicUNet

    return BasicUNet(2, 1, 1, features=(32, 32, 64, 128, 256, 32))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "light": partial(RestoreRWKV, PRESETS["light"]),
    "base": partial(RestoreRWKV, PRESETS["base"]),
    "Restormer": partial(restormer, 48, (4, 6, 6, 8), 4),
    "Restormer-light": partial(restormer, 16, (1, 1, 2, 2), 1),
    "DnCNN": DnCNN,
    "U-Net": unet,
}
"""In their training form; `Restormer-light` has the width and blocks of our `light`."""


def inference_form(network: nn.Module) -> nn.Module:
    """Return the inference form of a network: merged branches, folded batch norms."""
    network.eval()
    if isinstance(network, RestoreRWKV):
        return network.merged()
    if isinstance(network, DnCNN):
        _fold(network)
    return network.requires_grad_(False)


def _fold(network: DnCNN) -> None:
    layers = list(network.body)
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.BatchNorm2d):
            layers[i - 1] = fuse_conv_bn_eval(layers[i - 1], layer)
    network.body = nn.Sequential(*(x for x in layers if not isinstance(x, nn.BatchNorm2d)))
