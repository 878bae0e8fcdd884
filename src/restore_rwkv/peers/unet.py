"""MONAI's U-Net."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from restore_rwkv.peers.config import PeerConfig
from restore_rwkv.peers.network import PeerNetwork, need_monai


class UNet(PeerNetwork):
    """MONAI's `BasicUNet`, the U-Net of Falk et al. (Nature Methods 16, 67, 2019).

    As there: five levels, two convolutions with instance norms and leaky ReLU at each, transposed
    convolutions on the way up; no residual (`residual = true` adds the image). `width` has the
    channels at full size, w of (w, w, 2 w, 4 w, 8 w, w); `depth` is (). The width is 24, not 32, so
    that it has 1,113,841 parameters; 32 gives 2,635,617.
    """

    first: ClassVar[str] = "network.conv_0.conv_0.conv"
    last: ClassVar[str] = "network.final_conv"
    smallest: ClassVar[int] = 32  # an instance norm needs two values at the lowest level

    def __init__(self, config: PeerConfig, *, merged: bool = False) -> None:
        super().__init__(config, merged=merged)
        try:
            from monai.networks.nets.basic_unet import BasicUNet
        except ImportError as error:
            raise need_monai(config, error) from error
        w = config.width
        self.network = BasicUNet(2, self.channels, 1, features=(w, w, 2 * w, 4 * w, 8 * w, w))

    def predict(self, x: Tensor) -> Tensor:
        """Return the image (B, 1, H, W), or the residual with `config.residual`."""
        y: Tensor = self.network(x)
        return y
