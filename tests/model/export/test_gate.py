"""Networks as ONNX: what is compared with PyTorch, and what is not written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from restore_rwkv.errors import ConfigError, InputError, WeightsError
from restore_rwkv.model import (
    RestoreRWKV,
    RestoreRWKVConfig,
    build_network,
    load_weights,
    read_info,
    save_weights,
)
from restore_rwkv.model.export import ExportedNetwork, export, export_onnx, parity
from restore_rwkv.model.export.file import require_ours
from restore_rwkv.model.export.graph import build_graph, require_exportable
from restore_rwkv.model.export.parity import (
    TOLERANCES,
    peaked,
    relative_difference,
    require_parity,
)
from restore_rwkv.model.export.precision import PRECISIONS, Precision, converted
from restore_rwkv.model.export.runtime import load_exported
from restore_rwkv.model.export.trials import trials
from restore_rwkv.model.header import read_header
from restore_rwkv.ops.cumulative import LARGEST_BONUS, STEEPEST
from restore_rwkv.peers import PeerConfig
from restore_rwkv.tasks import ScalingRule
from tests.helpers.exports import WEIGHTS, golden_model, mutate

SMALL = {"dim": 2, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "hidden_rate": 1}


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """Graph that the export takes in place of tracing the network, which takes half a minute."""
    model = golden_model()
    monkeypatch.setattr(export, "build_graph", lambda network: model)
    return model


def test_the_export_has_the_record_of_the_weights(traced: object, tmp_path: Path) -> None:
    stages: list[str] = []

    class Watch:
        def __call__(self, done: int, total: int) -> None:
            raise AssertionError("stages have no numbers")

        def stage(self, name: str, unit: str = "") -> None:
            stages.append(name)

    path = tmp_path / "model.onnx"
    made = export_onnx(WEIGHTS, path, progress=Watch())
    assert stages == [
        "reading export_a.safetensors",
        "tracing the network",
        "comparing with PyTorch",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    info, exported = read_info(WEIGHTS), read_info(path)
    for name in ("config", "scaling", "training", "sha256", "parameters", "fit", "strength"):
        assert getattr(exported, name) == getattr(info, name)
    assert info.export == {}
    assert exported.export["precision"] == "float32"
    assert exported.export["versions"] == dict(made.versions)
    assert read_header(path).record["notice"].startswith("For research only")
    assert made.sha256 == info.sha256
    assert made.bytes == path.stat().st_size
    assert made.parity.largest < 1e-6  # 1.1e-7 was measured
    assert 0 < made.peaked.largest < 1e-6
    assert json.loads(json.dumps(made.to_dict()))["nodes"] == made.nodes == len(traced.graph.node)  # type: ignore[attr-defined]
    assert str(Path.home()).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "net.output.weight",
        "net.val_850",
        "net.encoder_level1.0.att.omni_shift.conv5x5_reparam.weight",
        "net.up2_1.body.0.weight",
        "net.latent.0.ffn.omni_shift.conv5x5_reparam.weight",
    ],
)
def test_a_mutated_weight_does_not_pass(traced: onnx.ModelProto, tmp_path: Path, name: str) -> None:
    mutate(traced, name)
    with pytest.raises(WeightsError, match=r"differs from PyTorch by .* so nothing is written"):
        export_onnx(WEIGHTS, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_attention_that_fails_with_peaked_keys_only_does_not_pass(
    traced: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the maximum, large keys overflow. Those of a tiny random network are small."""
    monkeypatch.setattr(parity, "PEAK", 64.0)
    for node in traced.graph.node:
        if node.op_type == "Sub" and any("amax" in name for name in node.input):
            node.op_type, node.input[1] = "Sub", "net.nothing"
    traced.graph.initializer.append(numpy_helper.from_array(np.float32(0), "net.nothing"))
    with pytest.raises(WeightsError, match="with peaked keys: ONNX Runtime differs"):
        export_onnx(WEIGHTS, tmp_path / "model.onnx")


def test_a_value_that_is_not_finite_does_not_pass() -> None:
    expected = torch.tensor([0.0, 2.0])
    assert relative_difference(torch.tensor([0.0, 2.2]), expected) == pytest.approx(0.1)
    assert np.isnan(relative_difference(torch.tensor([0.0, torch.nan]), expected))
    assert relative_difference(torch.zeros(2) + 0.25, torch.zeros(2)) == 0.25
    image = trials(read_info(WEIGHTS))[:1]
    with pytest.raises(WeightsError, match="by nan of the range"):
        require_parity("w", lambda x, _: x * torch.nan, lambda x, _: x, image, 1.0)


def test_the_images_are_real_ones_of_odd_sizes_and_synthetic_ones() -> None:
    found = trials(read_info(WEIGHTS))
    assert {trial.name.split(",")[0] for trial in found} == {
        *("mri-sr", "ct-denoise", "noise", "a step", "bright points"),
    }
    assert all(trial.level is not None for trial in found)
    odd = [trial for trial in found if any(side % 8 for side in trial.image.shape[2:])]
    assert len(odd) >= 6
    for trial in found:
        assert trial.image.isfinite().all()
        if trial.truth is not None:
            assert 0.02 < relative_difference(trial.image, trial.truth) < 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_keeps_what_it_promises(
    traced: object, tmp_path: Path, precision: Precision
) -> None:
    path = tmp_path / "model.onnx"
    made = export_onnx(WEIGHTS, path, precision=precision)
    assert made.parity.tolerance == TOLERANCES[precision]
    assert load_exported(path, read_info(path).config)(torch.zeros(1, 1, 9, 9)).shape == (  # type: ignore[arg-type]
        *(1, 1, 9, 9),
    )
    text = "\n".join(made.lines())
    if precision == "float32":
        assert made.cost is None
        assert "PSNR" not in text
        return
    assert made.cost is not None
    assert abs(made.cost.psnr_lost) < 0.5
    assert f"loss in PSNR: {made.cost.psnr_lost:.3f} dB" in text
    assert ("no time is saved" in text) is (made.cost.seconds >= 0.9 * made.cost.seconds_float32)
    assert read_info(path).export["cost"]["psnr_lost"] == made.cost.psnr_lost


def test_float16_halves_the_weights_and_loses_nothing_of_float16_weights() -> None:
    """Shipped weights are stored in float16."""
    model = golden_model()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            exact = values.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(exact, tensor.name))
    half = converted(model, "float16")
    config = read_info(WEIGHTS).config
    assert isinstance(config, RestoreRWKVConfig)
    image = trials(read_info(WEIGHTS))[0].image
    y, z = (ExportedNetwork(m, config, "m")(image, 0.5) for m in (model, half))
    assert torch.equal(y, z)
    stored = [x for x in half.graph.initializer if x.data_type == onnx.TensorProto.FLOAT16]
    bytes_of = sum(len(x.raw_data) for x in model.graph.initializer)
    saved = bytes_of - sum(len(x.raw_data) for x in half.graph.initializer)
    assert saved == sum(len(x.raw_data) for x in stored) > 0.4 * bytes_of


@pytest.mark.parametrize(
    ("layer", "value", "words"),
    [
        ("spatial_decay", STEEPEST * 1.01, "decays by 40.4, beyond what the exported form"),
        ("spatial_decay", -STEEPEST * 1.01, "decays by 40.4"),
        ("spatial_first", LARGEST_BONUS * 1.01, "has a bonus of 60.6"),
        ("spatial_decay", torch.nan, "decays by nan"),
    ],
)
def test_steep_weights_are_refused_by_name(layer: str, value: float, words: str) -> None:
    network, _ = load_weights(WEIGHTS)
    assert isinstance(network, RestoreRWKV)
    assert require_exportable("w", network) is network
    getattr(network.latent[0].att, layer)[0, 3] = value
    with pytest.raises(WeightsError, match=rf"^w: layer latent\.0\.att {words}.*with PyTorch$"):
        require_exportable("w", network)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention": "uni-wkv"}, "of a network with uni-wkv, not exported"),
        ({"decay_range": (2.0, 30.0)}, "of a network with decay_range, not exported"),
    ],
)
def test_networks_of_other_attention_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        require_exportable("w", RestoreRWKV(RestoreRWKVConfig(**SMALL, **change)))


def test_other_networks_are_refused() -> None:
    network = build_network(PeerConfig("dncnn", width=4, depth=(3,)))
    with pytest.raises(WeightsError, match="w: of network 'dncnn', not exported"):
        require_exportable("w", network)


def test_what_would_fail_later_is_refused_first(tmp_path: Path) -> None:
    existing = tmp_path / "there.onnx"
    existing.write_text("kept")
    with pytest.raises(InputError, match=r"there\.onnx: exists already"):
        export_onnx(WEIGHTS, existing)
    assert existing.read_text() == "kept"
    with pytest.raises(InputError, match=r"give a name that ends with \.onnx"):
        export_onnx(WEIGHTS, tmp_path / "model.pt")
    with pytest.raises(InputError, match="no such folder"):
        export_onnx(WEIGHTS, tmp_path / "none" / "model.onnx")
    with pytest.raises(ConfigError, match="'fp16' is unknown; did you mean 'float16'"):
        export_onnx(WEIGHTS, tmp_path / "model.onnx", precision="fp16")  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="no such file or shipped weights"):
        export_onnx(tmp_path / "no.safetensors", tmp_path / "model.onnx")


def test_an_existing_file_is_replaced_when_asked(traced: object, tmp_path: Path) -> None:
    path = tmp_path / "there.onnx"
    path.write_text("old")
    export_onnx(WEIGHTS, path, overwrite=True)
    assert read_info(path).parameters == read_info(WEIGHTS).parameters


def test_an_export_cannot_be_exported(traced: object, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(WEIGHTS, path)
    with pytest.raises(WeightsError, match=r"model\.onnx: an exported network only restores"):
        export_onnx(path, tmp_path / "again.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs {package}, which is not.*restore-rwkv\[onnx\]"):
        export_onnx(WEIGHTS, tmp_path / "model.onnx")


VARIANTS = [
    pytest.param({"noise_level": True, "shift_branches": False}, id="noise level"),
    pytest.param(
        {"patch": 2, "scan_mixing": "sum", "in_channels": 2, "out_channels": 2}, id="patches"
    ),
    pytest.param(
        {"scan_mixing": "alternating", "shift": "quad", "shift_kernel": 3}, id="alternating"
    ),
    pytest.param({"scans": ("rows",), "shift": "uni"}, id="rows"),
]
"""Networks whose graphs differ."""


@pytest.mark.slow
@pytest.mark.parametrize("change", VARIANTS)
def test_every_kind_of_network_is_exported_for_any_size(change: dict[str, Any]) -> None:
    torch.manual_seed(3)
    network = RestoreRWKV(RestoreRWKVConfig(**SMALL, **change))
    config, merged = network.config, network.merged()
    graph = build_graph(network)
    require_ours(Path("m.onnx"), graph)
    exported = ExportedNetwork(graph, config, "m")
    least = config.stride
    for images, rows, columns in [(1, least, least), (3, least + 1, 2 * least), (1, 45, 77)]:
        image = 8 * torch.rand(images, config.in_channels, rows, columns)
        arguments: tuple[Tensor, ...] = (image,)
        if config.noise_level:
            arguments = (image, torch.linspace(-2, 2, images))
        with torch.inference_mode():
            expected = merged(*arguments)
        assert relative_difference(exported(*arguments), expected) < 2e-6  # 4e-7 measured


@pytest.mark.slow
def test_tracing_gives_the_golden_graph_up_to_names() -> None:
    network, _ = load_weights(WEIGHTS)
    assert isinstance(network, RestoreRWKV)
    kinds = [
        sorted(node.op_type for node in model.graph.node)
        for model in (build_graph(network), golden_model())
    ]
    assert set(kinds[0]) == set(kinds[1])
    assert len(kinds[0]) < 1.2 * len(kinds[1])
    steep, graph = peaked(network, golden_model())
    image = trials(read_info(WEIGHTS))[0]
    with torch.inference_mode():
        difference = relative_difference(
            ExportedNetwork(graph, network.config, "m")(*image.arguments), steep(*image.arguments)
        )
        plain = relative_difference(network(*image.arguments), steep(*image.arguments))
    assert difference < 1e-6 < plain


def test_weights_in_training_form_are_exported_too(traced: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = RestoreRWKV(RestoreRWKVConfig(**SMALL, noise_level=True))
    scaling = {"mri-sr": ScalingRule("robust")}
    save_weights(tmp_path / "w.safetensors", network, scaling=scaling, training={})
    made = export_onnx(tmp_path / "w.safetensors", tmp_path / "model.onnx")
    assert made.parity.largest < 1e-6
