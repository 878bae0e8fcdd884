"""Whether the attention of a trained network does more than average the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore_rwkv.errors import ConfigError
from restore_rwkv.io import Volume
from restore_rwkv.model import InferenceNetwork, RestoreRWKV, name_of
from restore_rwkv.model.blocks import Block, SpatialMix
from restore_rwkv.model.export import ExportedNetwork
from restore_rwkv.restoration import RestoreOptions, Restorer


def diagnose(
    volume: Volume, restorer: Restorer, options: RestoreOptions | None = None
) -> dict[str, float]:
    """Measure `attention_spread` of a restorer's network on the middle slice of a scan.

    Args:
        volume: the low-quality scan, in physical units.
        restorer: restorer that suits it.
        options: how it is restored.

    Raises:
        InputError: the scan does not suit the task.
        WeightsError: the weights cannot be read.
        ConfigError: the network is one of `restore_rwkv.peers`, which have no such attention.
    """
    plan = restorer.plan(volume, options)
    slices = plan.volume.slices(plan.axis)
    image = plan.task.rules.without_padding(slices[len(slices) // 2][None], plan.task)
    scaled = torch.from_numpy(np.ascontiguousarray(plan.scaling.apply(image)))[None]
    network, level = restorer.network(plan.task), plan.refinement.noise_level
    return attention_spread(network, scaled.to(restorer.device), level)


@torch.no_grad()
def attention_spread(
    network: InferenceNetwork, images: Tensor, noise_level: float | None = None
) -> dict[str, float]:
    """Measure how much the output of Re-WKV differs between the places of an image, block by block.

    A block whose attention reaches as far as the image gives nearly the same output everywhere: it
    works as a global average, and its spread is close to 0.

    Args:
        network: in either form.
        images: (B, C, H, W) in network values, on the network's device.
        noise_level: as for the network.

    Returns:
        By name of the block, in the order of the network: standard deviation of the output over the
        places of an image, divided by the root mean square of the output; both are means over
        channels and images.

    Raises:
        ConfigError: the network is one of `restore_rwkv.peers`, which have none.

    Example:
        >>> from restore_rwkv.model import find_weights, load_weights
        >>> network, _ = load_weights(find_weights("light-ct-denoise"))
        >>> len(attention_spread(network, torch.rand(1, 1, 64, 64)))
        11
    """
    if isinstance(network, ExportedNetwork):
        raise ConfigError(
            f"diagnose: {network.name} is an exported network, whose blocks cannot be looked into; "
            "give the weight file it was made from, or leave diagnose out"
        )
    if not isinstance(network, RestoreRWKV):
        raise ConfigError(
            f"diagnose: network {name_of(network.config)!r} has no Re-WKV attention to measure; "
            "leave diagnose out"
        )
    spreads: dict[str, float] = {}

    def hook_for(name: str) -> Any:
        def measure(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(block, Block)
            assert isinstance(block.att, SpatialMix)
            y = block.att.attended(inputs[0], block.ln1)
            spread = y.std(dim=(1, 2), correction=0).mean()
            spreads[name] = float(spread / y.square().mean().sqrt().clamp(min=1e-30))

        return measure

    blocks = [(name, block) for name, block in network.named_modules() if isinstance(block, Block)]
    hooks = [block.register_forward_pre_hook(hook_for(name)) for name, block in blocks]
    try:
        network(images, noise_level)
    finally:
        for hook in hooks:
            hook.remove()
    return spreads
