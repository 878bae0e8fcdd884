"""Networks by name, to look at: presets, peers, shipped weights, weight files and recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from restore_rwkv.errors import WeightsError
from restore_rwkv.model import (
    PRESETS,
    NetworkConfig,
    build_network,
    find_weights,
    load_weights,
    named_config,
    shipped_weights,
)
from restore_rwkv.options import nearest
from restore_rwkv.peers import PEERS, PeerConfig
from restore_rwkv.tasks import ScalingRule
from restore_rwkv.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class NamedNetwork:
    """A network, and what it was named by.

    Attributes:
        name: short name, for tables and pictures.
        network: float32 on the CPU, in evaluation mode.
        weights: origin of its weights, in words.
        scaling: how physical values become network values, by task; empty without training.
    """

    name: str
    network: nn.Module
    weights: str
    scaling: Mapping[str, ScalingRule]


def open_network(source: str | Path, seed: int = 0) -> NamedNetwork:
    """Read or build a network.

    Args:
        source: name of a preset, of a network of `PEERS` or of shipped weights, a weight file, or
            a recipe (`*.toml`).
        seed: of weights that no file holds, which are as at the start of training: those of a
            recipe's `init_from` are not read.

    Raises:
        ConfigError: the recipe is not valid, or the network needs a package that is not installed.
        WeightsError: there is no such network, or its file cannot be read.

    Example:
        >>> open_network("light-mri-sr").weights
        'trained'
    """
    name = str(source)
    if name in PRESETS or name in PEERS:
        return NamedNetwork(name, _drawn(named_config(name), seed), _random(seed), {})
    if Path(name).suffix == ".toml":
        recipe = Recipe.read(source)
        scaling = {task.name: recipe.rule(task) for task in recipe.tasks}
        return NamedNetwork(Path(name).stem, _drawn(recipe.network, seed), _random(seed), scaling)
    _require_known(name)
    path = find_weights(source)
    network, info = load_weights(path)
    return NamedNetwork(_short(path), network, "trained", info.scaling)


def network_name(recipe: Recipe) -> str:
    """Return the network of a recipe, and the weights that training starts from.

    Ours is the nearest preset, with what differs from it; a peer is what differs from its defaults.

    Example:
        >>> network_name(Recipe.read("recipes/ablations/table8-k3.toml"))
        'base, shift_kernel=3'
    """
    values = recipe.network.to_dict()

    def changes(name: str) -> list[str]:
        before = named_config(name).to_dict()
        return [f"{key}={value}" for key, value in values.items() if value != before[key]]

    config = recipe.network
    names = [config.name] if isinstance(config, PeerConfig) else list(PRESETS)
    near = min(names, key=lambda name: len(changes(name)))
    start = recipe.training.init_from
    named = shipped_weights()
    origin = start if start in named else _short(Path(start))
    return ", ".join([near, *changes(near), *([f"from {origin}"] if start else [])])


def parameters_of(recipe: Recipe) -> int:
    """Return the number of weights of the inference form of a recipe's network."""
    with torch.device("meta"):
        network = build_network(recipe.network, merged=True)
    return sum(weight.numel() for weight in network.parameters())


def _drawn(config: NetworkConfig, seed: int) -> nn.Module:
    """Build a network with random weights; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(config).eval()


def _random(seed: int) -> str:
    return f"random, seed {seed}"


def _require_known(name: str) -> None:
    known = [*PRESETS, *PEERS, *shipped_weights()]
    if name in known or Path(name).exists():  # `find_weights` says what to give for a folder
        return
    near = nearest(name, known, cutoff=0.4)
    hint = f"did you mean {near}? " if near else ""
    raise WeightsError(
        f"{name}: is not a network, shipped weights or a file; {hint}give one of "
        f"{', '.join(known)}, a weight file or a recipe"
    )


def _short(path: Path) -> str:
    """Return the name of a weight file; of the best of a run that of its folder."""
    generic = path.stem in ("best", "last") and path.resolve().parent.name
    return f"{path.resolve().parent.name}/{path.stem}" if generic else path.stem
