"""The network, its configuration, its weight files, and the weights that come with the package.

Uses ops, io and the scaling rules of tasks; restoration, training and all rooms above use it.
"""

from restore_rwkv.model.checkpoint import WeightsInfo, load_weights, read_info, save_weights
from restore_rwkv.model.network import PRESETS, RestoreRWKV, RestoreRWKVConfig
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
    "RestoreRWKV",
    "RestoreRWKVConfig",
    "WeightsInfo",
    "config_from_published",
    "convert_published",
    "find_weights",
    "load_published",
    "load_weights",
    "network_from_published",
    "read_info",
    "read_published",
    "sample_scan",
    "save_weights",
    "shipped_weights",
]
