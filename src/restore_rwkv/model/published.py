"""Checkpoints of the published Restore-RWKV code and of its descendants.

The parameter names are the same as here. Checkpoints differ in wrapping dictionaries, prefixes from
parallel or compiled training, copies of merged kernels, and weights of a layer since deleted.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore_rwkv.errors import ConfigError, WeightsError
from restore_rwkv.model.checkpoint import (
    WeightsInfo,
    require_finite,
    require_fit,
    save_weights,
)
from restore_rwkv.model.config import RestoreRWKVConfig
from restore_rwkv.model.network import RestoreRWKV
from restore_rwkv.tasks import ScalingRule

_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
_PREFIX = re.compile(r"^(?:(?:module|_orig_mod|model|net_g|network)\.)+")
_MERGED = re.compile(r"(.*omni_shift)\.conv(\d)x\2_reparam\.weight")
_WHERE = "published weights"


def read_published(path: str | Path) -> dict[str, Any]:
    """Read a `.pth` checkpoint without executing anything in it.

    Args:
        path: a file written by `torch.save`.

    Returns:
        The dictionary that was saved, its tensors on the CPU; see `load_published`.

    Raises:
        WeightsError: the file is missing or damaged, holds anything but tensors and plain values
            (a pickle can run programs), or is not a dictionary.
    """
    if not Path(path).is_file():
        raise WeightsError(f"{path}: no such file; give the path of a .pth checkpoint")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_scalars()):
            warnings.simplefilter("ignore")  # about pickles that are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch documents no exceptions, and damaged files raise many kinds
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        fault = (
            f"refused, it asks to run {unsafe[1]} and may be malicious"
            if unsafe
            else "refused, not a checkpoint of plain tensors, or a damaged one"
        )
        raise WeightsError(f"{path}: {fault}; ask its author for a plain state dict") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}; save a state dict")
    return content


def _numpy_scalars() -> list[Any]:
    """What a pickled number of NumPy is made of, such as the best score that a checkpoint holds."""
    scalar: Any = np.float64(0).__reduce__()[0]  # its module has moved between versions
    kinds = {type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "u1", "?")}
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((scalar, name) for name in names), np.dtype, *kinds]


def load_published(network: RestoreRWKV, state_dict: Mapping[str, Any]) -> None:
    """Load published weights into a network.

    All known variants are accepted: weights wrapped as {"params": ...}, {"state_dict": ...} and the
    like (an exponential moving average, "params_ema", is preferred), names with the prefixes
    `module.`, `model.`, `net_g.` or `network.`,
    weights of the deleted `dwconv` (ignored), and training branches or merged kernels. If both are
    present, the branches are used; the published code leaves the merged copies stale. Branches load
    into a network of either form, merged kernels only into a merged one, since the branches cannot
    be recovered from them.

    Args:
        network: its data type and device are kept; unchanged if an error is raised.
        state_dict: as `read_published` returns it.

    Raises:
        WeightsError: a weight is missing, unexpected, not finite or of another shape, or merged
            weights meet a network with branches.
    """
    weights = _plain(state_dict)
    if _holds_merged(weights) and not network.is_merged:
        raise WeightsError(
            f"{_WHERE}: hold merged kernels only, the network has branches; "
            "build it with RestoreRWKV(config, merged=True)"
        )
    assembled = _assemble(network.config, weights)
    if network.is_merged and not assembled.is_merged:
        assembled = assembled.merged()
    network.load_state_dict(assembled.state_dict())


def config_from_published(state_dict: Mapping[str, Any]) -> RestoreRWKVConfig:
    """Infer the configuration of published weights from their names and shapes.

    The weights do not record the directions of the scans; they are assumed to alternate from rows.

    Raises:
        WeightsError: the weights are not of a Restore-RWKV network.
    """
    return _config(_plain(state_dict))


def network_from_published(state_dict: Mapping[str, Any]) -> RestoreRWKV:
    """Build the network of published weights, in their form and in evaluation mode.

    Raises:
        WeightsError: as `load_published`.
    """
    weights = _plain(state_dict)
    return _assemble(_config(weights), weights).float().eval()


def convert_published(
    checkpoint: str | Path, path: str | Path, *, scaling: Mapping[str, ScalingRule]
) -> WeightsInfo:
    """Convert a published `.pth` checkpoint to a weight file, keeping its form.

    Args:
        checkpoint: a file written by `torch.save`; nothing in it is executed.
        path: safetensors file to write; an existing one is replaced.
        scaling: how physical values become network values, by task that the checkpoint was
            trained for, as in `save_weights`; published checkpoints do not record it.

    Returns:
        The record that was written with the tensors.

    Raises:
        WeightsError: as `read_published`, `load_published` and `save_weights`, or the output is
            the checkpoint.
    """
    content = read_published(checkpoint)
    if Path(path).exists() and Path(path).samefile(checkpoint):
        raise WeightsError(f"{path}: output and checkpoint are the same file; name another output")
    try:
        network = network_from_published(content)
    except WeightsError as error:
        raise WeightsError(f"{checkpoint}: {error}") from error
    digest = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    training = {"converted_from": Path(checkpoint).name, "sha256": digest}
    return save_weights(path, network, scaling=scaling, training=training)


def _assemble(config: RestoreRWKVConfig, weights: Mapping[str, Tensor]) -> RestoreRWKV:
    """Build a float64 network in the form of the weights; allocates nothing if they do not fit."""
    with torch.device("meta"):
        network = RestoreRWKV(config, merged=_holds_merged(weights))
    require_fit(_WHERE, network.state_dict(), weights)
    require_finite(_WHERE, weights)
    network.load_state_dict({name: w.double() for name, w in weights.items()}, assign=True)
    return network


def _plain(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Unwrap, strip prefixes, and drop the deleted layer and stale copies."""
    wrapped = (state_dict[key] for key in _WRAPPERS if isinstance(state_dict.get(key), Mapping))
    state_dict = next(wrapped, state_dict)
    weights: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        name = _PREFIX.sub("", str(key))
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise WeightsError(f"{_WHERE}: {key} is no tensor of numbers; give a plain state dict")
        if name in weights:
            raise WeightsError(f"{_WHERE}: {name} occurs twice; remove one with or without prefix")
        if "dwconv" not in name.split("."):
            weights[name] = value
    return {name: value for name, value in weights.items() if not _is_stale(name, weights)}


def _is_stale(name: str, weights: Mapping[str, Tensor]) -> bool:
    match = _MERGED.fullmatch(name)
    return match is not None and f"{match[1]}.conv{match[2]}x{match[2]}.weight" in weights


def _holds_merged(weights: Mapping[str, Tensor]) -> bool:
    return any(_MERGED.fullmatch(name) for name in weights)


def _config(weights: Mapping[str, Tensor]) -> RestoreRWKVConfig:
    shift = "encoder_level1.0.att.omni_shift"
    try:
        dim, in_channels = weights["patch_embed.weight"].shape[:2]
        sides = [int(m[1]) for m in map(re.compile(rf"{shift}\.conv(\d)x").match, weights) if m]
        return RestoreRWKVConfig(
            in_channels=in_channels,
            out_channels=weights["output.weight"].shape[0],
            dim=dim,
            num_blocks=tuple(
                _count(weights, stage)
                for stage in ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
            ),
            num_refinement_blocks=_count(weights, "refinement"),
            hidden_rate=weights["encoder_level1.0.ffn.key.weight"].shape[0] // dim,
            scans=tuple(
                ("rows", "columns")[index % 2]
                for index in range(weights["encoder_level1.0.att.spatial_decay"].shape[0])
            ),
            shift_kernel=max(sides, default=0),
            # Unknown from merged kernels; the paper trains branches.
            shift_branches=_holds_merged(weights) or f"{shift}.alpha" in weights,
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        fault = str(error) if isinstance(error, ConfigError) else f"unexpected {error}"
        raise WeightsError(
            f"{_WHERE}: not of a Restore-RWKV network ({fault}); give its state dict"
        ) from error


def _count(weights: Mapping[str, Tensor], stage: str) -> int:
    """Return the number of blocks of a stage."""
    return len({name.split(".")[1] for name in weights if name.startswith(f"{stage}.")})
