"""An export of a tiny network with its weight file, and variants of its graph.

`tests/golden/export_a.onnx` was written by `export_onnx("export_a.safetensors", "export_a.onnx")`
of version 0.1.0; later releases have to read and run it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from restore_rwkv.model.export.file import digest
from tests.helpers import GOLDEN

EXPORT = GOLDEN / "export_a.onnx"
WEIGHTS = GOLDEN / "export_a.safetensors"


def golden_model() -> onnx.ModelProto:
    """The graph as it comes from the network, without a record."""
    model = onnx.load_model(EXPORT)
    del model.metadata_props[:]
    return model


def changed_export(path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """Write the export after ``change(model)``, with the digest of what it has become."""
    model = onnx.load_model(EXPORT)
    change(model)
    changed_record(model, lambda record: record["export"].update(graph_sha256=digest(model)))
    path.write_bytes(model.SerializeToString())
    return path


def changed_record(model: onnx.ModelProto, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the record of a model."""
    (entry,) = model.metadata_props
    record = json.loads(entry.value)
    change(record)
    entry.value = json.dumps(record)


def mutate(model: onnx.ModelProto, name: str) -> None:
    """Change the sign of the largest number of a tensor."""
    (tensor,) = (x for x in model.graph.initializer if x.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[np.abs(values).argmax()] *= -1
    tensor.CopyFrom(numpy_helper.from_array(values, name))
