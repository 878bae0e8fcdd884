"""Restore-RWKV (arXiv 2407.11087, section 3.1): its configuration and the four-level U."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from restore_rwkv.errors import ConfigError, OperatorError
from restore_rwkv.model.blocks import (
    Block,
    ChannelMix,
    NeighbourShift,
    OmniShift,
    Resample,
    SpatialMix,
    TokenConv,
)

STRIDE = 8
"""Pixels of the input per token of the latent level, and the least height and width."""

_CHOICES = {
    "scan_mixing": ("recurrent", "alternating", "sum"),
    "attention": ("bi-wkv", "uni-wkv"),
    "shift": ("omni", "quad", "uni"),
    "shift_kernel": (1, 3, 5, 7, 9),
    "shift_branches": (True, False),
}


@dataclasses.dataclass(frozen=True)
class RestoreRWKVConfig:
    """What defines a network; the defaults are the published `base` network.

    Attributes:
        in_channels: channels of the input image.
        out_channels: channels of the output; the same, as the network adds its input (residual).
        dim: C, channels at full size; doubled at each of the three levels below; even.
        num_blocks: blocks at the four levels, from full size to the latent.
        num_refinement_blocks: blocks after the last decoder level.
        hidden_rate: width of the channel mix in units of its channels.
        scans: directions of Re-WKV, "rows" or "columns"; M = len(scans) (table 6).
        scan_mixing: "recurrent", each scan reads the one before; "sum", a block adds up its scans;
            "alternating", successive blocks take one scan each in turn (table 7).
        attention: "bi-wkv", or the causal "uni-wkv"; with scans=("rows",) RWKV's (table 5).
        shift: "omni", "quad" (four neighbours) or "uni" (previous token) (table 5).
        shift_kernel: context of Omni-Shift in pixels: 1, 3, 5, 7 or 9 (table 8).
        shift_branches: False leaves the largest kernel of Omni-Shift alone (table 8).

    Raises:
        ConfigError: a value is out of range.
    """

    in_channels: int = 1
    out_channels: int = 1
    dim: int = 48
    num_blocks: tuple[int, ...] = (4, 6, 6, 8)
    num_refinement_blocks: int = 4
    hidden_rate: int = 4
    scans: tuple[str, ...] = ("rows", "columns")
    scan_mixing: str = "recurrent"
    attention: str = "bi-wkv"
    shift: str = "omni"
    shift_kernel: int = 5
    shift_branches: bool = True

    def __post_init__(self) -> None:
        for name in ("num_blocks", "scans"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)):
                raise ConfigError(f"config: {name} is {value!r}; give a list")
            object.__setattr__(self, name, tuple(value))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            counts = value if isinstance(value, tuple) else (value,)
            if "int" in str(field.type) and any(type(n) is not int or n < 1 for n in counts):
                raise ConfigError(f"config: {field.name} is {value!r}; give whole numbers from 1")
        if len(self.num_blocks) != 4 or self.dim % 2:
            raise ConfigError("config: num_blocks must have 4 entries and dim be even; mend them")
        if self.in_channels != self.out_channels:
            raise ConfigError(
                f"config: in_channels is {self.in_channels} and out_channels {self.out_channels}; "
                "give equal numbers, the network adds its input to its output"
            )
        if not self.scans or any(scan not in ("rows", "columns") for scan in self.scans):
            raise ConfigError(f"config: scans is {self.scans}; list 'rows' and 'columns'")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices or type(value) is not type(choices[0]):
                raise ConfigError(f"config: {name} is {value!r}; choose from {choices}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RestoreRWKVConfig:
        """Build a configuration from plain values, as of JSON; absent keys keep their defaults.

        Raises:
            ConfigError: a key is unknown (the message names the nearest) or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
                raise ConfigError(f"config: unknown key {key!r}; did you mean {nearest!r}?")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; `from_dict` restores them."""
        values = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


PRESETS = {
    "base": RestoreRWKVConfig(),
    "light": RestoreRWKVConfig(dim=16, num_blocks=(1, 1, 2, 2), num_refinement_blocks=1),
}
"""`base` is the paper's network; `light` is our own, at the size of the paper's small variant."""


class RestoreRWKV(nn.Module):
    """The four-level U that predicts what to add to a low-quality image (section 3.1).

    Example:
        >>> network = RestoreRWKV(PRESETS["light"])
        >>> network(torch.zeros(1, 1, 181, 217)).shape
        torch.Size([1, 1, 181, 217])

    Args:
        config: what to build.
        merged: build the inference form, with one kernel per Omni-Shift and without gradients; the
            method `merged` makes it from a trained network, `is_merged` tells.

    Attributes:
        checkpoint_activations: whether training keeps the input of each block alone and computes
            the rest of it again in the backward pass: the same gradients in less memory and more
            time (docs/training.md has the figures). False at first.
    """

    def __init__(self, config: RestoreRWKVConfig, *, merged: bool = False) -> None:
        super().__init__()
        self.checkpoint_activations = False
        self.config = config
        self.is_merged = merged
        self._built = 0  # blocks so far, for alternating scans
        c, (n1, n2, n3, n4) = config.dim, config.num_blocks

        self.patch_embed = TokenConv(config.in_channels, c, 3, bias=True)
        self.encoder_level1 = self._blocks(c, n1)
        self.down1_2 = Resample(c, up=False)
        self.encoder_level2 = self._blocks(2 * c, n2)
        self.down2_3 = Resample(2 * c, up=False)
        self.encoder_level3 = self._blocks(4 * c, n3)
        self.down3_4 = Resample(4 * c, up=False)
        self.latent = self._blocks(8 * c, n4)
        self.up4_3 = Resample(8 * c, up=True)
        self.reduce_chan_level3 = TokenConv(8 * c, 4 * c, 1, bias=True)
        self.decoder_level3 = self._blocks(4 * c, n3)
        self.up3_2 = Resample(4 * c, up=True)
        self.reduce_chan_level2 = TokenConv(4 * c, 2 * c, 1, bias=True)
        self.decoder_level2 = self._blocks(2 * c, n2)
        self.up2_1 = Resample(2 * c, up=True)
        self.decoder_level1 = self._blocks(2 * c, n1)
        self.refinement = self._blocks(2 * c, config.num_refinement_blocks)
        self.output = TokenConv(2 * c, config.out_channels, 3, bias=True)
        self.requires_grad_(not merged)

    def forward(self, image: Tensor) -> Tensor:
        """Restore an image.

        Args:
            image: (B, C, H, W), floating point, H and W at least 8, in the range of the training.
                Sizes that are no multiple of 8 are reflected at the bottom and right, and cropped.

        Returns:
            (B, C, H, W), `image` plus the predicted residual.

        Raises:
            OperatorError: the shape or data type does not suit the network.
        """
        self._check(image)
        height, width = image.shape[2:]
        padding = (0, -width % STRIDE, 0, -height % STRIDE)
        padded = F.pad(image, padding, mode="reflect") if any(padding) else image
        residual = self._residual(padded.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return image + residual[:, :, :height, :width]

    # Written so that each map of features is let go as soon as it has served: it has no second
    # name, and no call holds on to its argument until all blocks of a level are done.
    def _residual(self, image: Tensor) -> Tensor:
        """(B, H, W, C_in) -> (B, H, W, C_in); H and W are multiples of 8."""
        x = self.patch_embed(image)  # (B, H, W, C)
        skips = []
        for blocks, down in (
            (self.encoder_level1, self.down1_2),  # (B, H/2, W/2, 2C)
            (self.encoder_level2, self.down2_3),  # (B, H/4, W/4, 4C)
            (self.encoder_level3, self.down3_4),  # (B, H/8, W/8, 8C)
        ):
            for block in blocks:
                x = self._apply_block(block, x)
            skips.append(x)
            x = down(x)
        for block in self.latent:
            x = self._apply_block(block, x)
        last = (*self.decoder_level1, *self.refinement)
        for up, reduce, level in (
            (self.up4_3, self.reduce_chan_level3, self.decoder_level3),  # (B, H/4, W/4, 4C)
            (self.up3_2, self.reduce_chan_level2, self.decoder_level2),  # (B, H/2, W/2, 2C)
            (self.up2_1, nn.Identity(), last),  # (B, H, W, 2C)
        ):
            x = reduce(torch.cat([up(x), skips.pop()], dim=-1))
            for block in level:
                x = self._apply_block(block, x)
        residual: Tensor = self.output(x)
        return residual

    def _apply_block(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            y: Tensor = checkpoint(block, x, use_reentrant=False)
        else:
            y = block(x)
        return y

    def merged(self) -> RestoreRWKV:
        """Return an inference copy with one depth-wise kernel per Omni-Shift.

        The structural re-parameterisation of section 3.2: the same function with fewer parameters.
        The copy is in evaluation mode, holds its own weights and records no gradients; this network
        is left as it is.
        """
        weights = {key: value.detach().clone() for key, value in self.state_dict().items()}
        for name, module in self.named_modules():
            if isinstance(module, OmniShift):
                for key in module.state_dict():
                    del weights[f"{name}.{key}"]
                size = module.kernel_size
                key = f"{name}.conv{size}x{size}_reparam.weight"
                weights[key] = module.kernel().detach().clone()
        with torch.device("meta"):
            network = RestoreRWKV(self.config, merged=True)
        network.load_state_dict(weights, assign=True)
        return network.eval()

    def _check(self, image: Tensor) -> None:
        channels, shape = self.config.in_channels, tuple(image.shape)
        if image.ndim != 4 or shape[1] != channels or min(shape[2:]) < STRIDE:
            raise OperatorError(
                f"RestoreRWKV: image is {shape}; give (B, {channels}, H, W), H and W at least 8"
            )
        if not image.is_floating_point():
            raise OperatorError(f"RestoreRWKV: image is {image.dtype}; convert it to a float type")

    def _blocks(self, channels: int, count: int) -> nn.Sequential:
        return nn.Sequential(*(self._block(channels) for _ in range(count)))

    def _block(self, channels: int) -> Block:
        config = self.config
        scans = config.scans
        if config.scan_mixing == "alternating":
            scans = (scans[self._built % len(scans)],)
        self._built += 1
        att = SpatialMix(
            channels,
            self._shift(channels),
            scans,
            summed=config.scan_mixing == "sum",
            causal=config.attention == "uni-wkv",
        )
        ffn = ChannelMix(channels, self._shift(channels), config.hidden_rate)
        return Block(channels, att, ffn)

    def _shift(self, channels: int) -> nn.Module:
        config = self.config
        if config.shift != "omni":
            return NeighbourShift(channels, config.shift)
        return OmniShift(channels, config.shift_kernel, config.shift_branches, self.is_merged)
