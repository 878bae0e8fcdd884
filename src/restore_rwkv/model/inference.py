"""Any network that restores: of PyTorch in its inference form, or an export by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias, Union

from restore_rwkv.errors import WeightsError
from restore_rwkv.model.build import RestorationNetwork
from restore_rwkv.model.checkpoint import WeightsInfo, load_weights, read_info
from restore_rwkv.model.config import RestoreRWKVConfig
from restore_rwkv.model.export.runtime import ExportedNetwork, load_exported
from restore_rwkv.model.header import is_exported

InferenceNetwork: TypeAlias = Union[RestorationNetwork, ExportedNetwork]  # noqa: UP007
"""A network that maps (B, 1, H, W) to the same shape, `forward(image, noise_level=None)`."""


def load_inference(path: str | Path) -> tuple[InferenceNetwork, WeightsInfo]:
    """Read a weight file or an exported network (`.onnx`) for inference, on the CPU.

    Returns:
        The network in its inference form, and its record.

    Raises:
        WeightsError: as `load_weights` for a weight file; for an export if it is missing, damaged
            or foreign, or ONNX Runtime cannot run it.
        ConfigError: a package is not installed.
    """
    if not is_exported(path):
        network, info = load_weights(path)
        return (network if network.is_merged else network.merged()), info
    info = read_info(path)
    if not isinstance(info.config, RestoreRWKVConfig):
        raise WeightsError(f"{path}: of network {info.network!r}, not exported; export it again")
    return load_exported(path, info.config), info
