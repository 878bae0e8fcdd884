"""MONAI's Restormer."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from restore_rwkv.peers.config import PeerConfig
from restore_rwkv.peers.network import PeerNetwork, need_monai


class Restormer(PeerNetwork):
    """MONAI's `Restormer` (Zamir et al., CVPR 2022, arXiv 2111.09881).

    As published: a U of four levels, attention across channels, gated feed-forward networks, heads
    (1, 2, 4, 8), expansion 2.66, and the image added at the end, which MONAI leaves to the caller.
    Other than published: MONAI's norms are instance norms. `width` has the channels at full size, a
    multiple of 8, `depth` the blocks of the four levels and of the refinement. The defaults are
    sized down to 1,114,019 parameters: width 16 and blocks (1, 1, 2, 2, 1), as our `light`, not 48
    and (4, 6, 6, 8, 4).
    """

    first: ClassVar[str] = "network.patch_embed.conv"
    last: ClassVar[str] = "network.output.conv"
    smallest: ClassVar[int] = 16  # MONAI wants more than 8

    def __init__(self, config: PeerConfig, *, merged: bool = False) -> None:
        super().__init__(config, merged=merged)
        try:
            import einops  # noqa: F401  (MONAI's Restormer needs it and does not ask for it)
            from monai.networks.nets.restormer import Restormer as MonaiRestormer
        except ImportError as error:
            raise need_monai(config, error) from error
        *blocks, refinement = config.depth
        self.network = MonaiRestormer(
            spatial_dims=2,
            in_channels=self.channels,
            out_channels=1,
            dim=config.width,
            num_blocks=tuple(blocks),
            heads=(1, 2, 4, 8),
            num_refinement_blocks=refinement,
            ffn_expansion_factor=2.66,
            bias=False,
            layer_norm_use_bias=True,
        )

    def predict(self, x: Tensor) -> Tensor:
        """Return the residual (B, 1, H, W)."""
        y: Tensor = self.network(x)
        return y
