"""The network, its configuration, its weight files, and the weights shipped with the package.

Uses ops, io, the scaling rules of tasks, and peers, whose networks it builds and stores as ours;
restoration, training and all rooms above use it. Each name is imported when it is first used:
configurations and the list of the shipped weights need no PyTorch.
"""

from typing import TYPE_CHECKING

from restore_rwkv.lazy import lazy_names

if TYPE_CHECKING:
    from restore_rwkv.model.build import RestorationNetwork, build_network
    from restore_rwkv.model.checkpoint import WeightsInfo, load_weights, read_info, save_weights
    from restore_rwkv.model.config import PRESETS, RestoreRWKVConfig
    from restore_rwkv.model.configs import (
        NetworkConfig,
        name_of,
        named_config,
        network_config,
    )
    from restore_rwkv.model.inference import InferenceNetwork, load_inference
    from restore_rwkv.model.macs import Level, Macs, count_levels
    from restore_rwkv.model.network import RestoreRWKV
    from restore_rwkv.model.profile import Profile, profile_network
    from restore_rwkv.model.published import (
        config_from_published,
        convert_published,
        load_published,
        network_from_published,
        read_published,
    )
    from restore_rwkv.model.shipped import find_weights, sample_scan, shipped_weights

__all__ = [
    "PRESETS",
    "InferenceNetwork",
    "Level",
    "Macs",
    "NetworkConfig",
    "Profile",
    "RestorationNetwork",
    "RestoreRWKV",
    "RestoreRWKVConfig",
    "WeightsInfo",
    "build_network",
    "config_from_published",
    "convert_published",
    "count_levels",
    "find_weights",
    "load_inference",
    "load_published",
    "load_weights",
    "name_of",
    "named_config",
    "network_config",
    "network_from_published",
    "profile_network",
    "read_info",
    "read_published",
    "sample_scan",
    "save_weights",
    "shipped_weights",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "restore_rwkv.model.build": ["RestorationNetwork", "build_network"],
        "restore_rwkv.model.checkpoint": [
            "WeightsInfo",
            "load_weights",
            "read_info",
            "save_weights",
        ],
        "restore_rwkv.model.config": ["PRESETS", "RestoreRWKVConfig"],
        "restore_rwkv.model.inference": ["InferenceNetwork", "load_inference"],
        "restore_rwkv.model.macs": ["Level", "Macs", "count_levels"],
        "restore_rwkv.model.network": ["RestoreRWKV"],
        "restore_rwkv.model.configs": [
            "NetworkConfig",
            "name_of",
            "named_config",
            "network_config",
        ],
        "restore_rwkv.model.profile": ["Profile", "profile_network"],
        "restore_rwkv.model.published": [
            "config_from_published",
            "convert_published",
            "load_published",
            "network_from_published",
            "read_published",
        ],
        "restore_rwkv.model.shipped": ["find_weights", "sample_scan", "shipped_weights"],
    },
)
