"""Any network by its configuration: ours or one that it is compared with."""

from __future__ import annotations

from typing import TypeAlias, Union

from restore_rwkv.model.config import RestoreRWKVConfig
from restore_rwkv.model.configs import NetworkConfig
from restore_rwkv.model.network import RestoreRWKV
from restore_rwkv.peers import PeerNetwork, build_peer

RestorationNetwork: TypeAlias = Union[RestoreRWKV, PeerNetwork]  # noqa: UP007
"""A network that training and restoration can use.

All have `config`, `is_merged`, `merged()`, `checkpoint_activations`, `copy_from` and
`start_at_identity`, and map (B, 1, H, W) to the same shape, `forward(image, noise_level=None)`.
"""


def build_network(config: NetworkConfig, *, merged: bool = False) -> RestorationNetwork:
    """Build a network with random weights.

    Args:
        config: which one, and its size.
        merged: build the inference form, without gradients.

    Raises:
        ConfigError: it needs a package that is not installed.

    Example:
        >>> network = build_network(RestoreRWKVConfig(dim=4, num_blocks=(1, 1, 1, 1)))
        >>> network(torch.zeros(1, 1, 181, 217)).shape
        torch.Size([1, 1, 181, 217])
    """
    if isinstance(config, RestoreRWKVConfig):
        return RestoreRWKV(config, merged=merged)
    return build_peer(config, merged=merged)
