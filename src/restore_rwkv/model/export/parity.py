"""The gate before an export is written: ONNX Runtime against PyTorch on the same images."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from restore_rwkv.errors import WeightsError
from restore_rwkv.model.blocks import SpatialMix
from restore_rwkv.model.export.precision import Precision
from restore_rwkv.model.export.runtime import ExportedNetwork
from restore_rwkv.model.export.trials import Trial
from restore_rwkv.model.network import RestoreRWKV

if TYPE_CHECKING:
    import onnx

TOLERANCES: dict[Precision, float] = {"float32": 1e-4, "float16": 1e-3, "int8": 5e-2}
"""Largest difference from PyTorch in float32 that is let through, relative to the range."""

# Keys of the shipped networks then differ by 100 to 450, where most terms underflow. Those that
# differ by thousands are themselves rounded by 1e-4.
PEAK = 16.0
_REPEATS = 5

Compute = Callable[..., Tensor]


@dataclass(frozen=True)
class Parity:
    """How far an exported network is from PyTorch.

    Attributes:
        largest: largest difference of a pixel, relative to the range of the values of its image.
        trial: image that it was found in.
        tolerance: what is let through.
    """

    largest: float
    trial: str
    tolerance: float


def require_parity(
    name: str, exported: Compute, network: Compute, trials: Sequence[Trial], tolerance: float
) -> Parity:
    """Compare an exported network with the one it was made from.

    Args:
        name: start of the message.
        exported: what ONNX Runtime computes.
        network: what PyTorch computes.
        trials: images to compare on.
        tolerance: largest difference relative to the range of the values (0 included) of an image.

    Raises:
        WeightsError: the difference is larger, or a value is not finite.
    """
    worst, where = 0.0, ""
    with torch.inference_mode():
        for trial in trials:
            expected, found = network(*trial.arguments), exported(*trial.arguments)
            difference = relative_difference(found, expected)
            if not difference <= tolerance:
                raise WeightsError(
                    f"{name}: ONNX Runtime differs from PyTorch by {difference:.2g} of the range "
                    f"({trial.name}), more than {tolerance:g}, so nothing is written; use the "
                    "weights with PyTorch, or another version of onnxruntime"
                )
            if difference >= worst:
                worst, where = difference, trial.name
    return Parity(worst, where, tolerance)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the range of the expected values and 0; NaN if not finite.

    A network that gives 0 everywhere has the range 1.
    """
    span = float(expected.max().clamp(min=0) - expected.min().clamp(max=0)) or 1.0
    if not (math.isfinite(span) and bool(found.isfinite().all())):
        return math.nan
    return float((found - expected).abs().max()) / span


def peaked(network: RestoreRWKV, model: onnx.ModelProto) -> tuple[RestoreRWKV, onnx.ModelProto]:
    """Return copies of a network and of its graph whose keys are `PEAK` times as large.

    Attention then reads a few tokens only, and most terms of its sums underflow.
    """
    from onnx import helper

    steep = network.merged()
    for module in steep.modules():
        if isinstance(module, SpatialMix):
            module.key.weight.mul_(PEAK)
    graph = type(model)()
    graph.CopyFrom(model)
    factor = helper.make_tensor("peak", 1, [], [PEAK])
    graph.graph.initializer.append(factor)
    # Only the attention takes a maximum: of its keys, which it then subtracts.
    keys = {node.input[0] for node in graph.graph.node if node.op_type == "ReduceMax"}
    nodes = []
    for node in graph.graph.node:
        if node.op_type in ("ReduceMax", "Sub"):
            node.input[:] = [f"{x}.peaked" if x in keys else x for x in node.input]
        nodes.append(node)
        for key in keys.intersection(node.output):
            nodes.append(helper.make_node("Mul", [key, "peak"], [f"{key}.peaked"]))
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return steep, graph


def psnr_lost(exported: Compute, network: Compute, trials: Iterable[Trial]) -> float:
    """Largest loss in PSNR in dB by what ONNX Runtime computes, on the images with a truth."""
    losses = []
    with torch.inference_mode():
        for trial in trials:
            if trial.truth is None:
                continue
            errors = [
                float((compute(*trial.arguments) - trial.truth).square().mean())
                for compute in (exported, network)
            ]
            losses.append(10 * math.log10(max(errors[0], 1e-30) / max(errors[1], 1e-30)))
    return max(losses)


def seconds_of(networks: Sequence[ExportedNetwork], trial: Trial) -> list[float]:
    """Median time of each network for an image, measured in turns after a first call."""
    times: list[list[float]] = [[] for _ in networks]
    with torch.inference_mode():
        for repeat in range(_REPEATS + 1):
            for network, found in zip(networks, times, strict=True):
                start = time.perf_counter()
                network(*trial.arguments)
                if repeat:
                    found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]
