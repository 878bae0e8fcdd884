"""The configuration of a network that ours is compared with; needs no PyTorch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any

from restore_rwkv.errors import ConfigError
from restore_rwkv.options import Count, Expected, Whole, from_mapping, nearest, validated
from restore_rwkv.peers.table import PEERS, Peer

_WIDEST = 4096  # channels
_DEEPEST = 1024  # layers or blocks in all


@validated("config")
@dataclasses.dataclass(frozen=True)
class PeerConfig:
    """Configuration of a network of `PEERS`.

    What is left out has the default of the network, and is filled in.

    Attributes:
        name: of the network, a key of `PEERS`.
        width: channels of its (first) level; 0 for its default.
        depth: numbers of its layers or blocks, as its class says; () for its default.
        residual: whether the input is added to the output; None for what its paper has.
        noise_level: whether the network is told how much of the noise of an image it is to remove,
            in one more input channel of that constant value (as `RestoreRWKVConfig` has it).

    Raises:
        ConfigError: a value is out of range.
    """

    name: str
    width: Whole = 0
    depth: Annotated[tuple[Count, ...], Expected("a list of whole numbers from 1")] = ()
    residual: bool | None = None
    noise_level: bool = False

    def __post_init__(self) -> None:
        if self.name not in PEERS:
            near = nearest(self.name, PEERS, cutoff=0.5)
            hint = f"did you mean {near!r}? " if near else ""
            raise ConfigError(
                f"config: network {self.name!r} is unknown; {hint}choose from {', '.join(PEERS)}"
            )
        peer = self.peer
        object.__setattr__(self, "width", self.width or peer.width)
        object.__setattr__(self, "depth", self.depth or peer.depth)
        if self.residual is None:
            object.__setattr__(self, "residual", peer.residual)
        if self.width % peer.width_step or self.width > _WIDEST:
            step = f"a multiple of {peer.width_step}, " if peer.width_step > 1 else ""
            raise ConfigError(
                f"config: width is {self.width}; give {step}at most {_WIDEST}, for network "
                f"{self.name!r}"
            )
        self._check_depth()

    def _check_depth(self) -> None:
        peer, count = self.peer, len(self.peer.depth)
        if len(self.depth) != count or sum(self.depth) > _DEEPEST:
            remedy = f"give {count} number{'s' * (count > 1)}, with a sum of at most {_DEEPEST}"
            raise ConfigError(
                f"config: depth is {list(self.depth)}; {remedy if count else 'leave it out'}, for "
                f"network {self.name!r}"
            )
        if min(self.depth, default=peer.least_depth) < peer.least_depth:
            raise ConfigError(
                f"config: depth is {list(self.depth)}; give at least {peer.least_depth}, for "
                f"network {self.name!r}"
            )

    @property
    def peer(self) -> Peer:
        """The entry of `PEERS`."""
        return PEERS[self.name]

    @property
    def in_channels(self) -> int:
        """Channels of the input image: 1."""
        return 1

    @property
    def stride(self) -> int:
        """Height and width are padded to multiples of it."""
        return self.peer.stride

    @property
    def bytes_per_pixel(self) -> int:
        """Peak memory of the activations of the inference form per pixel of the input, in bytes."""
        return math.ceil(self.peer.bytes_per_channel * self.width)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PeerConfig:
        """Build a configuration from plain values, such as JSON; absent keys keep their defaults.

        Raises:
            ConfigError: a key is unknown (the message names the nearest) or a value out of range.
        """
        return from_mapping(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; `from_dict` restores them."""
        return {**dataclasses.asdict(self), "depth": list(self.depth)}
