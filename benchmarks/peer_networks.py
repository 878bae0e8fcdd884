"""The compared networks by their names in the documents: ours and some of `restore_rwkv.peers`.

All map (B, 1, H, W) to the same shape. Peers keep their own memory layout, which is the faster one
for them on a CPU.
"""

from __future__ import annotations

from functools import partial

from restore_rwkv.model import PRESETS, NetworkConfig, RestorationNetwork, build_network
from restore_rwkv.peers import PeerConfig

CONFIGS: dict[str, NetworkConfig] = {
    "light": PRESETS["light"],
    "base": PRESETS["base"],
    "Restormer": PeerConfig("restormer", width=48, depth=(4, 6, 6, 8, 4)),
    "Restormer-light": PeerConfig("restormer", width=16, depth=(1, 1, 2, 2, 1)),
    "DnCNN": PeerConfig("dncnn", width=64),
    "U-Net": PeerConfig("unet", width=32),
}
"""`Restormer-light` has the width and blocks of our `light`; the others are as published."""

NETWORKS = {name: partial(build_network, config) for name, config in CONFIGS.items()}
"""In their training form."""


def inference_form(network: RestorationNetwork) -> RestorationNetwork:
    """Return the inference form of a network: merged branches, folded batch norms."""
    return network.eval().merged()
