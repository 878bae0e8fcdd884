"""Reading of exported networks: their record, and every check before anything of them runs."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_rwkv.errors import ConfigError, WeightsError
from restore_rwkv.model.header import EXPORT, FORMAT, KEY, Header, damaged_record

if TYPE_CHECKING:
    import onnx

_LARGEST = 2**31  # bytes; protobuf holds no more
# What exported networks are made of: nothing that branches, loops, calls or reads a file.
OPERATORS = frozenset(
    [
        *("Add", "Cast", "Concat", "Constant", "Conv", "CumSum", "Div", "DynamicQuantizeLinear"),
        *("Exp", "Expand", "Identity", "LayerNormalization", "MatMul", "MatMulInteger", "Mod"),
        *("Mul", "Neg", "Pad", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceSum", "Relu"),
        *("Reshape", "Shape", "Sigmoid", "Slice", "Split", "Squeeze", "Sub", "Tile"),
        *("Transpose", "Unsqueeze", "Where"),
    ]
)


def needed(package: str, where: str) -> Any:
    """Return a package of the extra `onnx`.

    Raises:
        ConfigError: it is not installed; `where` starts the message.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"{where}: ONNX needs {error.name or package}, which is not installed; "
            "`pip install 'restore-rwkv[onnx]'`"
        ) from error


def read_exported(path: str | Path) -> Header:
    """Read the record of an exported network; errors as for `read_model`."""
    return _header(Path(path), read_model(path))


def read_model(path: str | Path) -> onnx.ModelProto:
    """Read an exported network, and check all of it.

    Raises:
        WeightsError: it is missing, damaged, not of this program, or of a later release, or it has
            a part that exported networks have not, such as a path to a file.
        ConfigError: the package `onnx` is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the path of an exported network")
    package = needed("onnx", path.name)
    if path.stat().st_size >= _LARGEST:
        raise WeightsError(f"{path}: has 2 GiB or more, as no exported network has; give another")
    try:
        model: onnx.ModelProto = package.load_model_from_string(path.read_bytes())
    except OSError:
        raise
    except Exception as error:  # of protobuf, which has several kinds
        raise _damaged(path, str(error) or type(error).__name__) from error
    header = _header(path, model)
    require_ours(path, model)
    if digest(model) != header.record[EXPORT].get("graph_sha256"):
        raise WeightsError(f"{path}: the graph does not match its SHA-256; fetch the file again")
    return model


def digest(model: onnx.ModelProto) -> str:
    """SHA-256 of a model without its metadata, hex."""
    bare = type(model)()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _header(path: Path, model: onnx.ModelProto) -> Header:
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if not model.HasField("graph") or not model.graph.node:
        raise _damaged(path, "it holds no graph")
    if KEY not in metadata:
        raise WeightsError(
            f"{path}: holds no {KEY} record, so it is not an export of this program; give a file "
            "written by `restore-rwkv export`"
        )
    try:
        record = json.loads(metadata[KEY])
        version, parameters = record["format"], int(record[EXPORT]["parameters"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise damaged_record(path, error) from error
    if version != FORMAT:
        raise WeightsError(
            f"{path}: weight format {version!r}; this release reads {FORMAT}, update it"
        )
    return Header(record, parameters)


def require_ours(path: Path, model: onnx.ModelProto) -> None:
    """Raise WeightsError if a model holds what no export does, such as paths to other files."""
    if model.functions or model.training_info or model.graph.sparse_initializer:
        raise _foreign(path, "functions or sparse tensors")
    for node in model.graph.node:
        if node.domain or node.op_type not in OPERATORS:
            name = f"{node.domain}.{node.op_type}".lstrip(".")
            raise _foreign(path, f"the operator {name[:60]!r}")
    for tensor in _tensors(path, model):
        if tensor.external_data or tensor.data_location:
            raise _foreign(path, "tensors that lie in another file")


def _tensors(path: Path, model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs or attribute.sparse_tensors:
                raise _foreign(path, "graphs within a node")
            if attribute.HasField("sparse_tensor") or attribute.HasField("tp"):
                raise _foreign(path, "sparse tensors or types in a node")
            yield attribute.t
            yield from attribute.tensors


def _foreign(path: Path, what: str) -> WeightsError:
    return WeightsError(f"{path}: holds {what}, as no exported network does; export it again")


def _damaged(path: Path, reason: str) -> WeightsError:
    lines = reason.splitlines() or ["unreadable"]
    return WeightsError(
        f"{path}: not an ONNX file, or a damaged one ({lines[0][:200]}); fetch or export it again"
    )
