"""The networks that ours is compared with, by name, in plain PyTorch or from MONAI.

Uses options and errors; model builds and stores these networks beside ours. A new network is one
file with a subclass of `PeerNetwork`, and its entry in `PEERS`. Each name is imported when it is
first used: names and configurations need no PyTorch.
"""

from typing import TYPE_CHECKING

from restore_rwkv.lazy import lazy_names

if TYPE_CHECKING:
    from restore_rwkv.peers.config import PeerConfig
    from restore_rwkv.peers.network import PeerNetwork, build_peer
    from restore_rwkv.peers.table import PEERS, Peer

__all__ = ["PEERS", "Peer", "PeerConfig", "PeerNetwork", "build_peer"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "restore_rwkv.peers.config": ["PeerConfig"],
        "restore_rwkv.peers.network": ["PeerNetwork", "build_peer"],
        "restore_rwkv.peers.table": ["PEERS", "Peer"],
    },
)
