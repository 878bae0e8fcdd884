"""The configuration of any network: ours or one that it is compared with; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, Union

from restore_rwkv.errors import ConfigError
from restore_rwkv.model.config import PRESETS, RestoreRWKVConfig
from restore_rwkv.options import nearest
from restore_rwkv.peers import PEERS, PeerConfig

NetworkConfig: TypeAlias = Union[RestoreRWKVConfig, PeerConfig]  # noqa: UP007
"""Configuration of a network; that of a peer has a `name`."""

OURS = "restore-rwkv"
"""Name of our network beside those of `PEERS`."""


def network_config(values: Mapping[str, Any]) -> NetworkConfig:
    """Build a configuration from plain values, such as JSON: of a peer if they have a "name".

    Raises:
        ConfigError: the name or a key is unknown (the message names the nearest), or a value is out
            of range.
    """
    return (PeerConfig if "name" in values else RestoreRWKVConfig).from_dict(values)


def named_config(name: str) -> NetworkConfig:
    """Return the configuration of a preset, or the default one of a peer.

    Raises:
        ConfigError: the name is unknown.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name in PEERS:
        return PeerConfig(name)
    known = (*PRESETS, *PEERS)
    near = nearest(name.lower(), known, cutoff=0.5)
    hint = f"did you mean {near!r}? " if near else ""
    raise ConfigError(
        f"network {name!r} is unknown; {hint}give a table or one of {', '.join(known)}"
    )


def name_of(config: NetworkConfig) -> str:
    """Return the name of a network: "restore-rwkv", or a key of `PEERS`."""
    return config.name if isinstance(config, PeerConfig) else OURS
