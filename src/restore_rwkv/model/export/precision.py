"""Smaller forms of an exported network: weights of half precision, products of whole numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restore_rwkv.model.export.file import needed

if TYPE_CHECKING:
    import onnx

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")

MEANING: dict[Precision, str] = {
    "float32": "stored and computed in float32",
    "float16": "weights stored in float16, computed in float32",
    "int8": "linear layers computed in whole numbers of 8 bits, all else in float32",
}

_FEW = 64  # numbers: fewer are not worth a conversion, and may be no weights


def converted(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """Return a model in another precision; inputs and output stay float32.

    Args:
        model: as `build_graph` returns it; not changed.
        precision: of the result.
    """
    if precision == "float32":
        return model
    return _half(model) if precision == "float16" else _whole_numbers(model)


def _half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the weights in float16; a runtime converts them once, when it opens the model."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    casts = []
    for tensor in smaller.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _FEW:
            continue
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(smaller.graph.node)
    del smaller.graph.node[:]
    smaller.graph.node.extend([*casts, *nodes])
    return smaller


def _whole_numbers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute the linear layers in int8, with scales of each image found as it runs."""
    import onnx

    quantization = needed("onnxruntime.quantization", "int8")
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    # That the model is prepared; it would ask for a step that changes nothing here.
    onnx.helper.set_model_props(prepared, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantization.quantize_dynamic(
            prepared,
            path,
            # Convolutions in whole numbers take four times as long in ONNX Runtime.
            op_types_to_quantize=["MatMul"],
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
        smaller = onnx.load_model(path)
    del smaller.metadata_props[:]
    smaller.producer_name, smaller.producer_version = model.producer_name, ""
    return smaller
