"""From a network to an ONNX graph for images of any size, without notes for debugging."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from restore_rwkv.errors import WeightsError
from restore_rwkv.model.blocks import SpatialMix
from restore_rwkv.model.build import RestorationNetwork
from restore_rwkv.model.network import RestoreRWKV
from restore_rwkv.ops import cumulative

if TYPE_CHECKING:
    import onnx

OPSET, _IR_VERSION = 18, 8  # of ONNX 1.13, which every runtime of today reads
IMAGE, NOISE_LEVEL, RESTORED = "image", "noise_level", "restored"
"""Names of the inputs and of the output of an exported network."""

_MOST = 1 << 15  # rows and columns of an image; only the exporter wants to know
# Sides are padded as `RestoreRWKV.forward` pads them, to multiples of the stride.
_PADDED = """<ir_version: 8, opset_import: ["": 18]>
padding (float[images, {channels}, rows, columns] image)
    => (float[images, {channels}, padded_rows, padded_columns] padded, int64[2] size)
<int64[1] stride = {{{stride}}}, int64[6] none = {{0, 0, 0, 0, 0, 0}}>
{{
    size = Shape<start = 2, end = 4>(image)
    short = Neg(size)
    missing = Mod(short, stride)
    pads = Concat<axis = 0>(none, missing)
    padded = Pad<mode = "reflect">(image, pads)
}}"""
_CROPPED = """<ir_version: 8, opset_import: ["": 18]>
cropping (float[images, {channels}, padded_rows, padded_columns] whole, int64[2] size)
    => (float[images, {channels}, rows, columns] restored)
<int64[2] zeros = {{0, 0}}, int64[2] axes = {{2, 3}}>
{{
    restored = Slice(whole, zeros, size, axes)
}}"""


def require_exportable(name: str, network: RestorationNetwork) -> RestoreRWKV:
    """Return a network that ONNX can hold in the form of `ops.cumulative`.

    Raises:
        WeightsError: it is another network, or its attention is causal or too steep; `name` starts
            the message.
    """
    remedy = "use them with PyTorch"
    if not isinstance(network, RestoreRWKV):
        raise WeightsError(f"{name}: of network {network.config.name!r}, not exported; {remedy}")
    config = network.config
    if config.attention != "bi-wkv" or config.decay_range is not None:
        setting = "decay_range" if config.decay_range is not None else config.attention
        raise WeightsError(f"{name}: of a network with {setting}, not exported; {remedy}")
    for layer, module in network.named_modules():
        if not isinstance(module, SpatialMix):
            continue
        for words, value, most in (
            ("decays by", module.spatial_decay, cumulative.STEEPEST),
            ("has a bonus of", module.spatial_first, cumulative.LARGEST_BONUS),
        ):
            largest = float(value.detach().abs().max())
            if not largest <= most:
                raise WeightsError(
                    f"{name}: layer {layer} {words} {largest:.4g}, beyond what the exported form "
                    f"computes in float32 ({most:g}); {remedy}"
                )
    return network


def build_graph(network: RestoreRWKV) -> onnx.ModelProto:
    """Return the ONNX model of a network.

    Its inputs are `image` (N, C, H, W), any N, H and W, H and W at least the stride of the
    network, and, for a network that is told the level of the noise, `noise_level` (N,). Its output
    is `restored`, like `image`. All are float32.

    Args:
        network: one that `require_exportable` has returned; not changed.
    """
    import onnx
    from onnx import compose, parser

    inner = _traced(network.merged())
    facts = {"stride": network.config.stride, "channels": network.config.in_channels}
    padding = parser.parse_model(_PADDED.format(**facts))
    cropping = parser.parse_model(_CROPPED.format(**facts))
    inner.ir_version = _IR_VERSION
    inputs = [value.name for value in inner.graph.input]
    whole = compose.merge_models(
        compose.add_prefix(padding, "pad.", rename_inputs=False, rename_outputs=False),
        compose.add_prefix(inner, "net."),
        io_map=[("padded", f"net.{IMAGE}")],
        outputs=["size", f"net.{RESTORED}"],
    )
    whole = compose.merge_models(
        whole,
        compose.add_prefix(cropping, "crop.", rename_inputs=False, rename_outputs=False),
        io_map=[(f"net.{RESTORED}", "whole"), ("size", "size")],
    )
    if NOISE_LEVEL in inputs:
        _rename_input(whole, f"net.{NOISE_LEVEL}", NOISE_LEVEL)
    _strip(whole)
    onnx.checker.check_model(whole, full_check=True)
    return whole


def _traced(network: RestoreRWKV) -> onnx.ModelProto:
    """Model of a network for sides that are multiples of its stride."""
    stride, config = network.config.stride, network.config
    images, rows, columns = (
        torch.export.Dim(name, min=1, max=_MOST) for name in ("images", "row_steps", "column_steps")
    )
    values: tuple[Tensor, ...] = (torch.zeros(2, config.in_channels, 3 * stride, 4 * stride),)
    shapes: list[dict[int, Any]] = [{0: images, 2: stride * rows, 3: stride * columns}]
    names = [IMAGE]
    if config.noise_level:
        values, names = (*values, torch.zeros(2)), [*names, NOISE_LEVEL]
        shapes.append({0: images})
    with torch.no_grad(), cumulative.recorded(), _silenced():
        program = torch.onnx.export(
            network,
            values,
            dynamo=True,
            verbose=False,
            external_data=False,
            opset_version=OPSET,
            input_names=names,
            output_names=[RESTORED],
            dynamic_shapes=tuple(shapes),
            custom_translation_table=TRANSLATIONS,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def sums_beside_in_onnx(x: Any, after: bool) -> Any:
    """`ops.cumulative.sums_beside` in ONNX."""
    from onnxscript import opset18

    op: Any = opset18
    either = {"exclusive": 1, "reverse": int(after)}
    rows = op.CumSum(x, op.Constant(value_int=2), **either)
    totals = op.ReduceSum(x, op.Constant(value_ints=[2]), keepdims=1)
    return op.Add(rows, op.CumSum(totals, op.Constant(value_int=1), **either))


TRANSLATIONS: dict[Any, Any] = {torch.ops.restore_rwkv.sums_beside.default: sums_beside_in_onnx}
"""Operators of this package in ONNX, for PyTorch's exporter."""


@contextmanager
def _silenced() -> Iterator[None]:
    """Within the block, the exporter says nothing of what it lacks or will change."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _rename_input(model: onnx.ModelProto, old: str, new: str) -> None:
    for value in model.graph.input:
        value.name = new if value.name == old else value.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes for debugging, a quarter of the file, with paths in it."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("doc_string")
        del value.metadata_props[:]
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    model.graph.ClearField("doc_string")
    model.ClearField("doc_string")
    model.graph.name = "restore-rwkv"
    model.ir_version = _IR_VERSION
    del model.opset_import[:]  # once for each part
    model.opset_import.add(domain="", version=OPSET)
    model.producer_name, model.producer_version = "restore-rwkv", ""
