"""Restore-RWKV (arXiv 2407.11087, section 3.1): the four-level U."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from restore_rwkv.errors import OperatorError
from restore_rwkv.model.blocks import (
    Block,
    ChannelMix,
    NeighbourShift,
    OmniShift,
    Resample,
    SpatialMix,
    TokenConv,
    pixel_shuffle,
    pixel_unshuffle,
)
from restore_rwkv.model.config import RestoreRWKVConfig

if TYPE_CHECKING:
    from restore_rwkv.peers import PeerNetwork


class RestoreRWKV(nn.Module):
    """The four-level U that predicts the residual of a low-quality image (section 3.1).

    Example:
        >>> from restore_rwkv.model import PRESETS
        >>> network = RestoreRWKV(PRESETS["light"])
        >>> network(torch.zeros(1, 1, 181, 217)).shape
        torch.Size([1, 1, 181, 217])

    Args:
        config: configuration of the network.
        merged: build the inference form, with one kernel per Omni-Shift and without gradients; the
            method `merged` makes it from a trained network.

    Attributes:
        config: configuration of the network.
        is_merged: whether this is the inference form.
        checkpoint_activations: whether training keeps only the input of each block and recomputes
            the rest in the backward pass: the same gradients with less memory and more time
            (docs/training.md has the figures). False by default.
    """

    def __init__(self, config: RestoreRWKVConfig, *, merged: bool = False) -> None:
        super().__init__()
        self.checkpoint_activations = False
        self.config = config
        self.is_merged = merged
        self._built = 0  # blocks so far, for alternating scans
        c, (n1, n2, n3, n4) = config.dim, config.num_blocks

        channels = config.in_channels + config.noise_level
        self.patch_embed = TokenConv(channels * config.patch**2, c, 3, bias=True)
        self.encoder_level1 = self._blocks(c, n1, size=1)
        self.down1_2 = Resample(c, up=False)
        self.encoder_level2 = self._blocks(2 * c, n2, size=2)
        self.down2_3 = Resample(2 * c, up=False)
        self.encoder_level3 = self._blocks(4 * c, n3, size=4)
        self.down3_4 = Resample(4 * c, up=False)
        self.latent = self._blocks(8 * c, n4, size=8)
        self.up4_3 = Resample(8 * c, up=True)
        self.reduce_chan_level3 = TokenConv(8 * c, 4 * c, 1, bias=True)
        self.decoder_level3 = self._blocks(4 * c, n3, size=4)
        self.up3_2 = Resample(4 * c, up=True)
        self.reduce_chan_level2 = TokenConv(4 * c, 2 * c, 1, bias=True)
        self.decoder_level2 = self._blocks(2 * c, n2, size=2)
        self.up2_1 = Resample(2 * c, up=True)
        self.decoder_level1 = self._blocks(2 * c, n1, size=1)
        self.refinement = self._blocks(2 * c, config.num_refinement_blocks, size=1)
        self.output = TokenConv(2 * c, config.out_channels * config.patch**2, 3, bias=True)
        self.requires_grad_(not merged)

    def forward(self, image: Tensor, noise_level: Tensor | float | None = None) -> Tensor:
        """Restore an image.

        Args:
            image: (B, C, H, W), floating point, H and W at least `config.stride` (8 for a patch of
                1), in the value range of training. Sizes that are not multiples of it are padded by
                reflection at the bottom and right; the output is cropped.
            noise_level: level of the noise to remove, see `restore_rwkv.tasks.AddedNoise.level`:
                one number, or one for each image (B,). None for 0; only with `config.noise_level`.

        Returns:
            (B, C, H, W), `image` plus the predicted residual.

        Raises:
            OperatorError: the shape or data type does not suit the network.
        """
        check_input(self.config, image, noise_level)
        height, width = image.shape[2:]
        stride = self.config.stride
        padding = (0, -width % stride, 0, -height % stride)
        padded = F.pad(image, padding, mode="reflect") if any(padding) else image
        if self.config.noise_level:
            padded = _with_level(padded, noise_level)
        residual = self._residual(padded.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return image + residual[:, :, :height, :width]

    # Keeps no second reference, so that each feature map is freed after its last use.
    def _residual(self, image: Tensor) -> Tensor:
        """(B, P H, P W, C_in) -> (B, P H, P W, C_out), patch P; H and W are multiples of 8."""
        patch = self.config.patch
        x = pixel_unshuffle(image, patch) if patch > 1 else image
        x = self.patch_embed(x)  # (B, H, W, C)
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
        return pixel_shuffle(residual, patch) if patch > 1 else residual

    def _apply_block(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            y: Tensor = checkpoint(block, x, use_reentrant=False)
        else:
            y = block(x)
        return y

    def merged(self) -> RestoreRWKV:
        """Return an inference copy with one depth-wise kernel per Omni-Shift.

        The structural re-parameterisation of section 3.2: the same function with fewer parameters.
        The copy is in evaluation mode, has its own weights and records no gradients; this network
        is not changed.
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

    @torch.no_grad()
    def start_at_identity(self) -> None:
        """Set the last layer to zeros, so that the network returns its input."""
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)

    def copy_from(self, other: RestoreRWKV | PeerNetwork) -> None:
        """Copy the weights of a network of the same configuration, to train it further.

        Where the other is merged and this one not, the largest branch of each Omni-Shift takes what
        the other branches leave of the merged kernel, so that both compute the same function up to
        rounding. Where this network is told the level of the noise and the other not, it starts
        without heeding it.

        Args:
            other: network in either form.

        Raises:
            OperatorError: the configurations differ, or only this network is merged.
        """
        config = other.config
        if isinstance(config, RestoreRWKVConfig) and not config.noise_level:
            config = replace(config, noise_level=self.config.noise_level)
        if config != self.config or (self.is_merged and not other.is_merged):
            raise OperatorError(
                "RestoreRWKV.copy_from: other has another configuration, or is not merged as this "
                "network is; give one of the same configuration, or its merged()"
            )
        weights = dict(other.state_dict())
        new = self.patch_embed.weight.shape[1] - weights["patch_embed.weight"].shape[1]
        weights["patch_embed.weight"] = F.pad(weights["patch_embed.weight"], (0, 0, 0, 0, 0, new))
        if other.is_merged and not self.is_merged:
            for name, module in self.named_modules():
                if isinstance(module, OmniShift):
                    size = module.kernel_size
                    module.split(weights.pop(f"{name}.conv{size}x{size}_reparam.weight"))
        missing, unexpected = self.load_state_dict(weights, strict=False)
        assert not unexpected, unexpected
        assert all("omni_shift" in name for name in missing), missing

    def _blocks(self, channels: int, count: int, size: int) -> nn.Sequential:
        """Blocks of one level, whose tokens stand for `size` times as many pixels per axis."""
        return nn.Sequential(*(self._block(channels, size) for _ in range(count)))

    def _block(self, channels: int, size: int) -> Block:
        config = self.config
        ranges = None
        if config.decay_range is not None:
            shortest, longest = (max(1.0, r / (size * config.patch)) for r in config.decay_range)
            ranges = shortest, longest
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
            ranges=ranges,
        )
        ffn = ChannelMix(channels, self._shift(channels), config.hidden_rate)
        return Block(channels, att, ffn)

    def _shift(self, channels: int) -> nn.Module:
        config = self.config
        if config.shift != "omni":
            return NeighbourShift(channels, config.shift)
        return OmniShift(channels, config.shift_kernel, config.shift_branches, self.is_merged)


def check_input(
    config: RestoreRWKVConfig, image: Tensor, noise_level: Tensor | float | None
) -> None:
    """Raise OperatorError unless `RestoreRWKV.forward` can take these arguments."""
    channels, shape = config.in_channels, tuple(image.shape)
    if image.ndim != 4 or shape[1] != channels or min(shape[2:]) < config.stride:
        raise OperatorError(
            f"RestoreRWKV: image is {shape}; give (B, {channels}, H, W), H and W at least "
            f"{config.stride}"
        )
    if not image.is_floating_point():
        raise OperatorError(f"RestoreRWKV: image is {image.dtype}; convert it to a float type")
    if noise_level is None:
        return
    if not config.noise_level:
        raise OperatorError(
            "RestoreRWKV: noise_level is given to a network without an input for it; leave it "
            "out, or use weights that were trained with it"
        )
    if isinstance(noise_level, Tensor) and noise_level.shape not in ((), (shape[0],)):
        raise OperatorError(
            f"RestoreRWKV: noise_level is {tuple(noise_level.shape)}; give one number, or one "
            f"for each of the {shape[0]} images"
        )


def _with_level(image: Tensor, noise_level: Tensor | float | None) -> Tensor:
    """Append a channel with the noise level to an image (B, C, H, W)."""
    level = torch.as_tensor(0.0 if noise_level is None else noise_level, dtype=image.dtype)
    channel = level.to(image.device).reshape(-1, 1, 1, 1)
    return torch.cat((image, channel.expand(image.shape[0], 1, *image.shape[2:])), dim=1)
