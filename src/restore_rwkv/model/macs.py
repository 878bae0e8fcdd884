"""Parameters and multiply-accumulates of a network, by level, counted without computing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from restore_rwkv.errors import OperatorError
from restore_rwkv.model.blocks import SpatialMix
from restore_rwkv.model.network import RestoreRWKV

COUNTED = {
    "convolutions": "all, those of the token shifts in their one kernel; without biases",
    "products": "linear layers, and products of matrices in attention; without biases",
    "attention": "Bi-WKV: 6 per token, channel and scan, two states from either side and the "
    "token itself, numerator and denominator each (Uni-WKV: 4); its exponential is left out",
    "norms": "layer, group and batch norms: 4 per element, 2 without weights, as the counter "
    "thop that the paper's figure agrees with",
}
"""The kinds of multiply-accumulates, and what each holds; operations on single elements, such as
activations, gates, softmax and additions, are left out."""

_FROM_BOTH_SIDES = 6
_FROM_ONE_SIDE = 4

# Each level of the U has the layer that leaves it downwards or enters it upwards.
_LEVELS = {
    "patch embed": ("patch_embed",),
    "encoder 1": ("encoder_level1", "down1_2"),
    "encoder 2": ("encoder_level2", "down2_3"),
    "encoder 3": ("encoder_level3", "down3_4"),
    "latent": ("latent",),
    "decoder 3": ("up4_3", "reduce_chan_level3", "decoder_level3"),
    "decoder 2": ("up3_2", "reduce_chan_level2", "decoder_level2"),
    "decoder 1": ("up2_1", "decoder_level1"),
    "refinement": ("refinement",),
    "output": ("output",),
}
_REST = "outside these"
_MOST_LEVELS = 16  # a longer list of layers is one level


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one image; `COUNTED` says what each kind holds."""

    convolutions: int = 0
    products: int = 0
    attention: int = 0
    norms: int = 0

    @property
    def total(self) -> int:
        """All kinds together."""
        return self.convolutions + self.products + self.attention + self.norms

    @property
    def as_paper(self) -> int:
        """What the paper's figure holds: all but the attention, which its counter misses."""
        return self.total - self.attention

    def to_dict(self) -> dict[str, int]:
        """Return the numbers by kind, with "total" and "as_paper"."""
        return {**vars(self), "total": self.total, "as_paper": self.as_paper}


@dataclass(frozen=True)
class Level:
    """A part of a network: its name, parameters in the inference form, and their share of work."""

    name: str
    parameters: int
    macs: Macs


def count_levels(network: nn.Module, shape: tuple[int, int]) -> tuple[Level, ...]:
    """Count parameters and multiply-accumulates of each level of a network, without computing.

    Args:
        network: as for `profile_network`; it is counted in the form that it has.
        shape: rows and columns of the image.

    Returns:
        The levels of the U of a `RestoreRWKV`; of other networks the modules of the outermost one
        that has several, up to 16. What belongs to none of them comes last; empty ones are left out

    Raises:
        OperatorError: the network does not take such an image.
    """
    parts = _parts(network)
    counts, attention = _counted(network, shape)
    root = type(network).__name__
    levels = []
    for name, prefixes in parts.items():
        parameters = [
            x
            for key, x in network.named_parameters()
            if any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
        ]
        macs = summed(
            _macs(_below(counts, f"{root}.{prefix}"), _attention_below(attention, prefix))
            for prefix in prefixes
        )
        if parameters or macs.total:
            levels.append(Level(name, number_of(parameters), macs))
    whole = _macs([counts[root]] if root in counts else [], sum(attention.values()))
    inside = summed(level.macs for level in levels)
    left = Level(
        _REST if levels else root,
        number_of(network.parameters()) - sum(level.parameters for level in levels),
        Macs(**{kind: getattr(whole, kind) - getattr(inside, kind) for kind in COUNTED}),
    )
    return (*levels, left) if left.parameters or left.macs.total else tuple(levels)


def _parts(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Prefixes of the names of the modules of each level."""
    if isinstance(network, RestoreRWKV):
        return _LEVELS
    names, prefix = [name for name, _ in network.named_children()], ""
    while len(names) == 1:
        below = [name for name, _ in network.get_submodule(prefix + names[0]).named_children()]
        if not 0 < len(below) <= _MOST_LEVELS:
            break
        prefix, names = f"{prefix}{names[0]}.", below
    return {name: (f"{prefix}{name}",) for name in names}


def _counted(
    network: nn.Module, shape: tuple[int, int]
) -> tuple[Mapping[str, Mapping[Any, int]], dict[str, int]]:
    """Count operations on tensors without content, by module, and those of Bi-WKV on their own."""
    channels = getattr(getattr(network, "config", None), "in_channels", 1)
    # Tensors without content: counting takes as long for every size, and needs no memory.
    empty = copy.deepcopy(network).eval().to("meta")
    attention: dict[str, int] = {}

    def scan_of(name: str, each: int) -> Callable[[Tensor, Tensor, bool], Tensor]:
        def scan(k: Tensor, v: Tensor, recorded: bool) -> Tensor:
            attention[name] = attention.get(name, 0) + each * v.numel()
            return v

        return scan

    for name, module in empty.named_modules():
        if isinstance(module, SpatialMix):
            each = _FROM_ONE_SIDE if module.causal else _FROM_BOTH_SIDES
            mix: Any = module
            # Counted by a formula, whatever the operations that a backend has for it.
            mix._scan = scan_of(name, each * len(module.scans))
    counter = FlopCounterMode(display=False, custom_mapping=_norms())
    try:
        with counter, torch.no_grad():
            empty(torch.empty(1, channels, *shape, device="meta"))
    except OperatorError:
        raise
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OperatorError(
            f"{type(network).__name__}: cannot be counted on an image of {shape[0]} x {shape[1]} "
            f"({reason}); give another size"
        ) from error
    return counter.get_flop_counts(), attention


def _norms() -> dict[Any, Any]:
    """Two operations for each multiply-accumulate of a norm, as FlopCounterMode counts."""

    def elements(given: torch.Size, weights: Any) -> int:
        return 2 * (4 if weights is not None else 2) * given.numel()

    def of_layer(given: Any, _: Any, weights: Any = None, *rest: Any, **more: Any) -> int:
        return elements(given, weights)

    def of_group(given: Any, weights: Any = None, *rest: Any, **more: Any) -> int:
        return elements(given, weights)

    aten = torch.ops.aten
    groups = (
        aten.native_group_norm,
        aten.native_batch_norm,
        aten._native_batch_norm_legit,
        aten._native_batch_norm_legit_no_training,
    )
    return {aten.native_layer_norm: of_layer, **dict.fromkeys(groups, of_group)}


def _below(counts: Mapping[str, Mapping[Any, int]], prefix: str) -> list[Mapping[Any, int]]:
    """Counts of the outermost modules of a level, which hold those of the modules inside them."""
    names = [name for name in counts if name == prefix or name.startswith(f"{prefix}.")]
    return [
        counts[name] for name in names if not any(name.startswith(f"{other}.") for other in names)
    ]


def _attention_below(attention: Mapping[str, int], prefix: str) -> int:
    return sum(count for name, count in attention.items() if name.startswith(f"{prefix}."))


def _macs(found: Iterable[Mapping[Any, int]], attention: int) -> Macs:
    kinds = dict.fromkeys(COUNTED, 0) | {"attention": attention}
    for operations in found:
        for operation, flops in operations.items():
            name = str(operation)
            kind = "convolutions" if "conv" in name else "norms" if "norm" in name else "products"
            kinds[kind] += flops // 2
    return Macs(**kinds)


def summed(macs: Iterable[Macs]) -> Macs:
    """Return the sum of all."""
    every = list(macs)
    return Macs(**{kind: sum(getattr(one, kind) for one in every) for kind in COUNTED})


def number_of(parameters: Iterable[Tensor]) -> int:
    """Return the number of values in tensors."""
    return sum(x.numel() for x in parameters)
