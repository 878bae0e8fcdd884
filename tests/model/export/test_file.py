"""Exported networks are read whole, checked before they run, and compute what PyTorch computes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from restore_rwkv.errors import ConfigError, OperatorError, WeightsError
from restore_rwkv.model import (
    RestoreRWKVConfig,
    load_inference,
    load_weights,
    read_info,
)
from restore_rwkv.model.checkpoint import save_fit
from restore_rwkv.model.export import ExportedNetwork
from restore_rwkv.model.export.file import read_model
from restore_rwkv.model.export.parity import relative_difference
from tests.helpers.exports import EXPORT, WEIGHTS, changed_export, changed_record, golden_model


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 15), (2, 40, 24), (1, 61, 87)])
def test_computes_what_pytorch_computes(shape: tuple[int, int, int]) -> None:
    (network, info), (exported, told) = (load_inference(path) for path in (WEIGHTS, EXPORT))
    assert (info.config, info.sha256) == (told.config, told.sha256)
    assert isinstance(exported, ExportedNetwork)
    assert exported.runtime.startswith("onnxruntime 1.")
    images, rows, columns = shape
    generator = torch.Generator().manual_seed(0)
    image = 10 * torch.rand(images, 1, rows, columns, generator=generator)
    with torch.inference_mode():
        for level in (None, -1.0, torch.linspace(-2, 2, images)):
            expected, found = network(image, level), exported(image, level)
            assert (found.shape, found.dtype) == (image.shape, image.dtype)
            assert relative_difference(found, expected) < 1e-6  # 1.1e-7 was measured
        told_more = network(image, 2.0)
        assert relative_difference(exported(image, 2.0), told_more) < 1e-6
        assert relative_difference(exported(image, -2.0), told_more) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(1, 2, 9, 9),), r"image is \(1, 2, 9, 9\)"),
        ((torch.zeros(1, 1, 7, 9),), "H and W at least 8"),
        ((torch.zeros(1, 1, 9, 9, dtype=torch.int32),), "image is torch.int32"),
        ((torch.zeros(2, 1, 9, 9), torch.zeros(3)), r"noise_level is \(3,\)"),
    ],
)
def test_images_that_do_not_suit_are_refused_as_by_pytorch(arguments: Any, words: str) -> None:
    exported, _ = load_inference(EXPORT)
    with pytest.raises(OperatorError, match=words):
        exported(*arguments)


def _external(model: onnx.ModelProto) -> None:
    """Let a weight lie in a file of the system."""
    tensor = model.graph.initializer[2]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _external_constant(model: onnx.ModelProto) -> None:
    value = helper.make_tensor("c", onnx.TensorProto.FLOAT, [1], [0.0])
    value.ClearField("float_data")
    value.external_data.add(key="location", value="../secret")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=value))


def _custom(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Call", ["image"], ["other"], domain="evil"))


def _loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["image"], [], then_branch=body))


def _hidden_graph(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Add", ["image", "image"], ["x"], then_branch=body))


def _function(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function("f", "f", ["x"], ["y"], [], [helper.make_opsetid("", 18)])
    )


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_external, "tensors that lie in another file"),
        (_external_constant, "tensors that lie in another file"),
        (_custom, "the operator 'evil.Call'"),
        (_loop, "the operator 'If'"),
        (_hidden_graph, "graphs within a node"),
        (_function, "functions or sparse tensors"),
        (_sparse, "functions or sparse tensors"),
    ],
)
def test_what_no_export_holds_is_refused(
    change: Callable[[onnx.ModelProto], None], words: str, tmp_path: Path
) -> None:
    """The digest in the file is right: whoever changes the one can change the other."""
    path = changed_export(tmp_path / "m.onnx", change)
    with pytest.raises(WeightsError, match=rf"m\.onnx: holds {words}, as no exported network"):
        read_model(path)
    with pytest.raises(WeightsError, match=words):
        read_info(path)


def _of_another_release(record: dict[str, Any]) -> None:
    record["format"] = 99


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_of_another_release, "weight format 99; this release reads"),
        (lambda record: record.pop("export"), "the restore_rwkv record is damaged"),
        (lambda record: record.pop("scaling"), "the restore_rwkv record is damaged"),
        (lambda record: record["config"].update(dim=-2), "the restore_rwkv record is damaged"),
        (lambda record: record["export"].update(graph_sha256="0"), "does not match its SHA-256"),
        (lambda record: record.update(export=[]), "the restore_rwkv record is damaged"),
        (lambda record: record.update(config={"name": "unet"}), "of network 'unet', not exported"),
        (lambda record: record["config"].update(noise_level=False), "its inputs do not suit"),
    ],
)
def test_records_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Any]], object], words: str, tmp_path: Path
) -> None:
    model = onnx.load_model(EXPORT)
    changed_record(model, change)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=rf"m\.onnx: .*{words}"):
        load_inference(path)


def test_a_changed_weight_is_found(tmp_path: Path) -> None:
    content = bytearray(EXPORT.read_bytes())
    weight = onnx.load_model(EXPORT).graph.initializer[2].raw_data
    content[content.index(weight)] ^= 1
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match="the graph does not match its SHA-256"):
        read_info(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"not a model at all",
        EXPORT.read_bytes()[:60_000],
        EXPORT.read_bytes()[60_000:],
        WEIGHTS.read_bytes(),
        onnx.ModelProto(ir_version=8).SerializeToString(),
    ],
    ids=["empty", "zeros", "text", "first half", "second half", "safetensors", "no graph"],
)
def test_damaged_files_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"m\.onnx: ") as error:
        read_info(path)
    assert "\n" not in str(error.value)


def test_the_models_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(golden_model().SerializeToString())
    with pytest.raises(WeightsError, match="holds no restore_rwkv record, so it is not an export"):
        read_info(path)


def test_what_onnx_runtime_cannot_run_is_refused(tmp_path: Path) -> None:
    def break_it(model: onnx.ModelProto) -> None:
        model.graph.node[3].input[0] = "nowhere"

    path = changed_export(tmp_path / "m.onnx", break_it)
    with pytest.raises(WeightsError, match=r"m\.onnx: onnxruntime .* cannot run it \(.*nowhere"):
        load_inference(path)


def test_a_graph_that_fails_while_it_runs_is_refused(tmp_path: Path) -> None:
    def other_size(model: onnx.ModelProto) -> None:
        (ends,) = (x for x in model.graph.initializer if x.name == "pad.none")
        ends.CopyFrom(numpy_helper.from_array(np.array([0, 0, 5, 0, 0, 0]), "pad.none"))

    path = changed_export(tmp_path / "m.onnx", other_size)
    network, _ = load_inference(path)
    with pytest.raises(WeightsError, match=r"m\.onnx: onnxruntime"):
        network(torch.zeros(1, 1, 16, 16))


def test_too_little_memory_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    exported, _ = load_inference(EXPORT)

    class Session:
        def run(self, *_: object) -> None:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 9")

    monkeypatch.setattr(exported, "_session", Session())
    with pytest.raises(MemoryError, match="Failed to allocate"):
        exported(torch.zeros(1, 1, 16, 16))


def test_an_export_is_not_taken_for_a_weight_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="an exported network only restores; give the weight"):
        load_weights(EXPORT)
    copy = tmp_path / "m.onnx"
    copy.write_bytes(EXPORT.read_bytes())
    with pytest.raises(WeightsError, match="an exported network only restores"):
        save_fit(copy, {"mri-sr": {}})
    assert copy.read_bytes() == EXPORT.read_bytes()
    with pytest.raises(WeightsError, match="no such file"):
        read_info(tmp_path / "none.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"export_a\.onnx: ONNX needs {package}, which is not"):
        load_inference(EXPORT)


def test_the_record_is_readable_for_others() -> None:
    """Programs in other languages take the scaling from the metadata."""
    (entry,) = onnx.load_model(EXPORT).metadata_props
    record = json.loads(entry.value)
    assert entry.key == "restore_rwkv"
    assert record["scaling"]["ct-denoise"] == {"kind": "fixed", "offset": 0.0, "scale": 40.0}
    assert record["scaling"]["mri-sr"] == {"kind": "robust"}
    config = RestoreRWKVConfig.from_dict(record["config"])
    assert (config.noise_level, config.stride) == (True, 8)
