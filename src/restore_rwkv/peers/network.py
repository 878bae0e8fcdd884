"""What all compared networks share: input, padding, residual, inference form, first weights."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from restore_rwkv.errors import ConfigError, OperatorError
from restore_rwkv.peers.config import PeerConfig

_Network = TypeVar("_Network", bound="PeerNetwork")
_MIXING = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class PeerNetwork(nn.Module, ABC):
    """A network of `PEERS`; `build_peer` makes it. A subclass builds its layers and has `predict`.

    Args:
        config: configuration of the network.
        merged: build the inference form, see `merged`.

    Attributes:
        config: configuration of the network.
        is_merged: whether this is the inference form.
        checkpoint_activations: whether training keeps only the input of each block and recomputes
            the rest in the backward pass; only where `Peer.recomputes`.
        first: name of the layer that reads the image.
        last: name of the layer that gives the output.
        smallest: rows and columns that images are padded to at least.
    """

    first: ClassVar[str] = "head"
    last: ClassVar[str] = "output"
    smallest: ClassVar[int] = 1

    def __init__(self, config: PeerConfig, *, merged: bool = False) -> None:
        super().__init__()
        self.config = config
        self.is_merged = merged
        self.checkpoint_activations = False

    @property
    def channels(self) -> int:
        """Channels that the first layer reads: the image, and the noise level where it is told."""
        return self.config.in_channels + self.config.noise_level

    @abstractmethod
    def predict(self, x: Tensor) -> Tensor:
        """Return residual or image (B, 1, H, W) of (B, channels, H, W), multiples of the stride."""

    def forward(self, image: Tensor, noise_level: Tensor | float | None = None) -> Tensor:
        """Restore an image.

        Args:
            image: (B, 1, H, W), floating point, in the value range of training. Other sizes than
                multiples of the stride are padded by reflection at the bottom and right; the output
                is cropped.
            noise_level: level of the noise to remove: one number, or one for each image (B,).
                None for 0; only with `config.noise_level`.

        Returns:
            (B, 1, H, W).

        Raises:
            OperatorError: the shape or data type does not suit the network.
        """
        self._check(image, noise_level)
        height, width = image.shape[2:]
        x = _reflected(_reflected(image, 2, self._padded(height)), 3, self._padded(width))
        if self.config.noise_level:
            level = torch.as_tensor(0.0 if noise_level is None else noise_level, dtype=x.dtype)
            channel = level.to(x.device).reshape(-1, 1, 1, 1)
            x = torch.cat((x, channel.expand(len(x), 1, *x.shape[2:])), dim=1)
        y = self.predict(x)[:, :, :height, :width]
        return image + y if self.config.residual else y.contiguous()

    def merged(self: _Network) -> _Network:
        """Return an inference copy, such as one with folded batch norms: the same function.

        The copy is in evaluation mode, has its own weights and records no gradients; this network
        is not changed.
        """
        weights = {key: x.detach().clone() for key, x in self.merged_weights().items()}
        with torch.device("meta"):
            network = type(self)(self.config, merged=True)
        network.load_state_dict(weights, assign=True)
        return network.requires_grad_(False).eval()

    def merged_weights(self) -> dict[str, Tensor]:
        """Return the weights of the inference form, in evaluation mode; by default all as it is."""
        return dict(self.state_dict())

    def copy_from(self, other: nn.Module) -> None:
        """Take over the weights of a network of the same configuration.

        One that is told the level of the noise may start from one that is not: it then ignores the
        level at first.

        Args:
            other: network in either form.

        Raises:
            OperatorError: the configurations differ, or `other` is in another form whose weights
                this one cannot hold.
        """
        weights = dict(other.state_dict())
        config = getattr(other, "config", None)
        if isinstance(config, PeerConfig) and not config.noise_level:
            config = replace(config, noise_level=self.config.noise_level)
        if config != self.config or weights.keys() != self.state_dict().keys():
            raise OperatorError(
                f"{self.config.name}: other has another configuration or form; give a network of "
                "the same"
            )
        first = self.get_submodule(self.first)
        assert isinstance(first.weight, Tensor)
        name = f"{self.first}.weight"
        new = first.weight.shape[1] - weights[name].shape[1]
        weights[name] = nn.functional.pad(weights[name], (0, 0, 0, 0, 0, new))
        self.load_state_dict(weights)

    def start_at_identity(self) -> None:
        """Set the last layer to zeros, so that the network returns its input.

        Raises:
            ConfigError: it does not add its input to its output.
        """
        if not self.config.residual:
            raise ConfigError(f"network {self.config.name!r} predicts no residual; give residual")
        for parameter in self.get_submodule(self.last).parameters():
            nn.init.zeros_(parameter)

    def mixing_weights(self) -> set[str]:
        """Return the names of the matrices from hidden channels to others.

        These are the weights of linear layers and convolutions; not the first and last layer of
        the network, depth-wise kernels, or what is for each channel or place.
        """
        return {
            f"{name}.weight"
            for name, module in self.named_modules()
            if isinstance(module, _MIXING)
            and getattr(module, "groups", 1) == 1
            and name not in (self.first, self.last)
        }

    def run_block(self, block: nn.Module, x: Tensor) -> Tensor:
        """Run one block, recomputed in the backward pass where that is asked for."""
        if self.checkpoint_activations and torch.is_grad_enabled():
            y: Tensor = checkpoint(block, x, use_reentrant=False)
        else:
            y = block(x)
        return y

    def _padded(self, length: int) -> int:
        stride = self.config.stride
        return max(self.smallest, math.ceil(length / stride) * stride)

    def _check(self, image: Tensor, noise_level: Tensor | float | None) -> None:
        name, shape = self.config.name, tuple(image.shape)
        if image.ndim != 4 or shape[1] != 1 or min(shape) < 1:
            raise OperatorError(f"{name}: image is {shape}; give (B, 1, H, W)")
        if not image.is_floating_point():
            raise OperatorError(f"{name}: image is {image.dtype}; convert it to a float type")
        if noise_level is None:
            return
        if not self.config.noise_level:
            raise OperatorError(
                f"{name}: noise_level is given to a network without an input for it; leave it out, "
                "or use weights that were trained with it"
            )
        if isinstance(noise_level, Tensor) and noise_level.shape not in ((), (shape[0],)):
            raise OperatorError(
                f"{name}: noise_level is {tuple(noise_level.shape)}; give one number, or one for "
                f"each of the {shape[0]} images"
            )


def build_peer(config: PeerConfig, *, merged: bool = False) -> PeerNetwork:
    """Build a network of `PEERS` with random weights.

    Args:
        config: which one, and its size.
        merged: build the inference form, without gradients.

    Raises:
        ConfigError: it needs a package that is not installed.

    Example:
        >>> network = build_peer(PeerConfig("dncnn", width=16))
        >>> network(torch.zeros(1, 1, 181, 217)).shape
        torch.Size([1, 1, 181, 217])
    """
    module, _, name = config.peer.place.partition(":")
    cls: type[PeerNetwork] = getattr(importlib.import_module(f"restore_rwkv.peers.{module}"), name)
    network = cls(config, merged=merged)
    return network.requires_grad_(False).eval() if merged else network


def need_monai(config: PeerConfig, error: ImportError) -> ConfigError:
    """The error for a network of MONAI where that is not installed."""
    return ConfigError(
        f"network {config.name!r} needs MONAI ({error.name} is not installed); "
        "pip install 'restore-rwkv[peers]'"
    )


def _reflected(image: Tensor, axis: int, length: int) -> Tensor:
    """Continue an image along an axis by reflection, as often as the length needs."""
    size = image.shape[axis]
    if length == size:
        return image
    period = max(1, 2 * (size - 1))
    places = torch.arange(length, device=image.device) % period
    return image.index_select(axis, torch.minimum(places, period - places).clamp(max=size - 1))
