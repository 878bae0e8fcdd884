"""Our weight files: what goes in comes out, and nothing damaged or hostile gets through."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from restore_rwkv.errors import ConfigError, WeightsError
from restore_rwkv.model import RestoreRWKV, RestoreRWKVConfig
from restore_rwkv.model.checkpoint import (
    load_weights,
    read_info,
    save_fit,
    save_report,
    save_weights,
)
from restore_rwkv.tasks import (
    Intervals,
    PlaceThreshold,
    ReportCalibration,
    ScalingRule,
    Strength,
)
from tests.helpers.golden_network import GoldenNetwork

RECORDS: dict[str, Any] = {
    "scaling": {"mri-sr": ScalingRule("robust"), "ct-denoise": ScalingRule("fixed", -5.0, 40.0)},
    "training": {"iterations": 100, "data": ["IXI"]},
}


RANGES = {"ct-denoise": {"noise": (8.0, 48.5)}, "mri-sr": {"power_outside": (1e-5, 8e-4)}}
CURVE = Strength(9.0, ((0.0, 0.0), (0.5, 0.25), (1.0, 0.75)))


@pytest.fixture
def saved(golden: GoldenNetwork, tmp_path: Path) -> Path:
    path = tmp_path / "network.safetensors"
    save_weights(path, golden.network(), **RECORDS)
    return path


def record_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as stream:
        record: dict[str, Any] = json.loads(stream.metadata()["restore_rwkv"])
    return record


def tamper(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
    """Rewrite a weight file with other tensors or another record."""
    tensors, record = load_file(path), record_of(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors, record)
    save_file(tensors, path, {"restore_rwkv": json.dumps(record)})


@pytest.mark.parametrize("merged", [False, True])
def test_round_trip(golden: GoldenNetwork, tmp_path: Path, merged: bool) -> None:
    network = golden.network(torch.float32)
    network = network.merged() if merged else network
    path = tmp_path / "network.safetensors"
    written = save_weights(path, network, **RECORDS)
    loaded, info = load_weights(path)
    assert info == written == read_info(path)
    assert info.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert (info.config, info.merged) == (golden.config, merged)
    assert (info.scaling, info.training) == (RECORDS["scaling"], RECORDS["training"])
    assert not loaded.training
    assert loaded.is_merged is merged
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert "Not a medical device" in record_of(path)["notice"]


def test_a_calibrated_strength_is_kept_and_may_be_absent(
    golden: GoldenNetwork, saved: Path, tmp_path: Path
) -> None:
    """Without one the file is that of a release that knew none."""
    assert read_info(saved).strength == {}
    assert "strength" not in record_of(saved)
    path, strength = tmp_path / "calibrated.safetensors", {"ct-denoise": CURVE}
    written = save_weights(path, golden.network(), **RECORDS, strength=strength)
    assert written == read_info(path)
    assert written.strength == strength
    assert written.sha256 == read_info(saved).sha256
    with pytest.raises(WeightsError, match="strength names pet-synth"):
        save_weights(path, golden.network(), **RECORDS, strength={"pet-synth": CURVE})


def test_ranges_are_kept_and_written_into_a_file_whose_tensors_stay(
    golden: GoldenNetwork, saved: Path, tmp_path: Path
) -> None:
    assert read_info(saved).fit == {}
    assert "fit" not in record_of(saved)
    path = tmp_path / "ranges.safetensors"
    written = save_weights(path, golden.network(), **RECORDS, fit=RANGES)
    assert written == read_info(path)
    assert written.fit == RANGES
    before, tensors, length = read_info(saved), load_file(saved), saved.stat().st_size
    changed = save_fit(saved, RANGES)
    loaded, info = load_weights(saved)  # compares the digest
    assert info == changed == dataclasses.replace(before, fit=RANGES)
    assert info.sha256 == before.sha256
    assert all(torch.equal(tensor, load_file(saved)[name]) for name, tensor in tensors.items())
    assert torch.equal(loaded.state_dict()["output.bias"], tensors["output.bias"])
    assert (saved.stat().st_size - length) % 8 == 0  # so that the tensors stay aligned
    assert record_of(saved) == record_of(path)
    assert save_fit(saved, {}).fit == read_info(saved).fit == {}
    assert not list(tmp_path.glob(".*"))


def test_ranges_that_cannot_be_are_refused(saved: Path) -> None:
    content = saved.read_bytes()
    with pytest.raises(WeightsError, match="fit names pet-synth, which scaling does not"):
        save_fit(saved, {"pet-synth": {"noise": (0.0, 1.0)}})
    with pytest.raises(WeightsError, match="fit: noise of ct-denoise is 2 to 1; give two finite"):
        save_fit(saved, {"ct-denoise": {"noise": (2.0, 1.0)}})
    assert saved.read_bytes() == content
    with pytest.raises(WeightsError, match="no such file"):
        save_fit(saved.with_name("none"), RANGES)


def test_a_calibration_of_reports_is_kept_beside_the_weights(
    golden: GoldenNetwork, saved: Path, tmp_path: Path
) -> None:
    intervals = Intervals(
        method="turns",
        level=0.9,
        factors={"air": 2.0, "water": 5.1},
        floor=0.01,
        subjects=2,
        pixels=100,
        coverage=0.89,
    )
    places = PlaceThreshold(threshold=2.5, false_alarms=0.1, slices=20)
    report = {"ct-denoise": ReportCalibration(intervals=(intervals,), places=places)}
    path = tmp_path / "calibrated.safetensors"
    written = save_weights(path, golden.network(), **RECORDS, report=report)
    before = read_info(saved)
    assert written == read_info(path)
    assert save_report(saved, report) == dataclasses.replace(before, report=report)
    assert record_of(saved) == record_of(path)
    assert save_report(saved, {}) == before
    with pytest.raises(WeightsError, match="report names pet-synth, which scaling does not"):
        save_report(saved, {"pet-synth": report["ct-denoise"]})
    with pytest.raises(ConfigError, match=r"coverage 1\.2; give shares between 0 and 1"):
        dataclasses.replace(intervals, coverage=1.2)
    with pytest.raises(ConfigError, match="factors are not finite numbers above 0"):
        dataclasses.replace(intervals, factors={"air": 0.0})
    with pytest.raises(ConfigError):
        ReportCalibration.from_dict({"places": {"threshold": -1}})


def test_float16_halves_the_file_and_loads_as_float32(
    golden: GoldenNetwork, saved: Path, tmp_path: Path
) -> None:
    path = tmp_path / "half.safetensors"
    save_weights(path, golden.network(), dtype=torch.float16, **RECORDS)
    loaded, _ = load_weights(path)
    for name, tensor in golden.weights.items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float()), name
    tensor_bytes = 4 * sum(tensor.numel() for tensor in golden.weights.values())
    assert path.stat().st_size == pytest.approx(saved.stat().st_size - tensor_bytes / 2, abs=1000)


def test_the_same_network_gives_the_same_bytes(golden: GoldenNetwork, saved: Path) -> None:
    first = saved.read_bytes()
    save_weights(saved, golden.network(), **RECORDS)
    assert saved.read_bytes() == first


def test_loaded_branches_can_be_trained_further(saved: Path) -> None:
    network, _ = load_weights(saved)
    network(torch.rand(1, 1, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"training": {"loss": float("nan")}}, "no JSON"),
        ({"training": {"range": torch.zeros(2)}}, "no JSON"),
        ({"dtype": torch.bfloat16}, "stored as torch.bfloat16"),
    ],
    ids=["nan", "tensor", "dtype"],
)
def test_saving_refuses(
    golden: GoldenNetwork, tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    with pytest.raises(WeightsError, match=fault):
        save_weights(tmp_path / "x.safetensors", golden.network(), **{**RECORDS, **changes})
    assert not list(tmp_path.iterdir())


def test_saving_refuses_weights_too_large_for_float16(
    golden: GoldenNetwork, tmp_path: Path
) -> None:
    network = golden.network()
    with torch.no_grad():
        network.output.weight[0, 0, 0, 0] = 1e5
    with pytest.raises(WeightsError, match=r"output\.weight as torch\.float16 is not finite"):
        save_weights(tmp_path / "x.safetensors", network, dtype=torch.float16, **RECORDS)


def test_saving_into_a_missing_folder(golden: GoldenNetwork, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be written"):
        save_weights(tmp_path / "absent" / "x.safetensors", golden.network(), **RECORDS)


def _rename(tensors: dict[str, Tensor]) -> None:
    tensors["output.wieght"] = tensors.pop("output.weight")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["output.bias"].add_(1e-6),
        lambda t: t.update({"output.bias": t["output.bias"].half()}),
        lambda t: t.update({"patch_embed.bias": t["patch_embed.bias"].reshape(2, 4)}),
        _rename,
        lambda t: t.pop("output.bias"),
    ],
    ids=["value", "dtype", "shape", "name", "missing"],
)
def test_any_change_of_the_tensors_breaks_the_hash(
    saved: Path, change: Callable[[dict[str, Tensor]], object]
) -> None:
    tamper(saved, lambda tensors, record: change(tensors) and None)
    with pytest.raises(WeightsError, match="do not match their SHA-256"):
        load_weights(saved)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("format", 1, "weight format 1; this release reads 2"),
        ("scaling", {}, "scaling names no task"),
        ("scaling", {"mri-sr": {"kind": "odd"}}, "scaling rule 'odd' is unknown"),
        ("scaling", {"mri-sr": {"sort": 1}}, "scaling rule"),
        ("merged", 1, "merged is not a bool"),
        ("strength", [], "record is damaged"),
        ("strength", {"ct-denoise": {"reference": 9.0}}, "strength: 'points' is missing"),
        ("strength", {"ct-denoise": {"reference": 9.0, "points": [[0, 1]]}}, "start with"),
        ("strength", {"pet-synth": CURVE.to_dict()}, "strength names pet-synth, which scaling"),
        ("fit", [], "record is damaged"),
        ("fit", {"mri-sr": {"noise": [1]}}, "record is damaged"),
        ("fit", {"mri-sr": {"noise": ["a", "b"]}}, "record is damaged"),
        ("fit", {"mri-sr": {"noise": [1, float("nan")]}}, "give two finite numbers"),
        ("fit", {"pet-synth": {}}, "fit names pet-synth"),
        ("config", [], "record is damaged"),
        ("config", {"dims": 8}, "unknown key 'dims'; did you mean 'dim'"),
        ("config", {"dim": 8, "num_blocks": [1, 1, 1, 10**9]}, "give at most 1024"),
        ("config", {"dim": 8, "num_blocks": [1, 1, 1, 900]}, "does not fit the tensors"),
        ("config", {"dim": 16, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}, "shape"),
        ("config", {"dim": 8, "num_blocks": [1, 1, 1, 2], "num_refinement_blocks": 1}, "missing"),
        ("config", {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 10**9}, "most"),
        ("merged", True, r"missing \(.*conv5x5_reparam.*unexpected \(.*alpha"),
    ],
)
def test_a_wrong_record_is_refused(saved: Path, key: str, value: object, fault: str) -> None:
    tamper(saved, lambda tensors, record: record.update({key: value}))
    with pytest.raises(WeightsError, match=fault):
        load_weights(saved)


def test_whole_numbers_are_no_weights(saved: Path) -> None:
    tamper(saved, lambda tensors, record: tensors.update(x=torch.zeros(1, dtype=torch.int64)))
    with pytest.raises(WeightsError, match=r"x is torch\.int64"):
        load_weights(saved)


def test_a_record_may_not_lack_an_entry(saved: Path) -> None:
    tamper(saved, lambda tensors, record: record.pop("training") and None)
    with pytest.raises(WeightsError, match="record is damaged \\('training'\\)"):
        load_weights(saved)


def _header(length: int, text: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 4,
        b"no weights at all",
        _header(2**63),
        _header(10**6, b"{}"),
        _header(2, b"[]"),
        _header(60, b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,1600000]}}'),
        _header(61, b'{"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_o'),
        b"\x80\x04\x95",
    ],
    ids=["empty", "short", "text", "huge", "header", "list", "offsets", "cut", "pickle"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.safetensors: .*; fetch it again"):
        load_weights(path)


def test_a_truncated_file_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for length in (7, 100, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(WeightsError, match="damaged"):
            load_weights(saved)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="holds no restore_rwkv record"):
        load_weights(path)


def test_infinite_weights_are_refused(
    golden: GoldenNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, path = golden.network(), tmp_path / "x.safetensors"
    with torch.no_grad():
        network.output.bias[0] = float("inf")
    with monkeypatch.context() as patched:  # write what saving refuses
        patched.setattr("restore_rwkv.model.checkpoint.require_finite", lambda *arguments: None)
        save_weights(path, network, **RECORDS)
    with pytest.raises(WeightsError, match=r"output\.bias .* is not finite"):
        load_weights(path)


def test_a_failed_save_keeps_the_file_that_was_there(
    saved: Path, golden: GoldenNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half a file")
        raise OSError("disk full")

    before = saved.read_bytes()
    monkeypatch.setattr("restore_rwkv.model.checkpoint.save_file", fail)
    with pytest.raises(WeightsError, match="disk full"):
        save_weights(saved, golden.network(), **RECORDS)
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 1


def test_config_with_defaults_only_is_saved_in_full(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    config = RestoreRWKVConfig(dim=2, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1)
    save_weights(path, RestoreRWKV(config), **RECORDS)
    assert record_of(path)["config"] == config.to_dict()


@pytest.mark.parametrize("metadata", ["null", "5", "true", '{"restore_rwkv": 1}'])
def test_metadata_that_is_no_table_of_text_is_refused(tmp_path: Path, metadata: str) -> None:
    tensor = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    header = f'{{"__metadata__": {metadata}, {tensor}}}'.encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(WeightsError, match="metadata is not a table of text"):
        read_info(path)


def test_provenance_that_is_not_plain_json_names_the_file(
    tiny_network: RestoreRWKV, tmp_path: Path
) -> None:
    rules = {"mri-sr": ScalingRule("robust")}
    with pytest.raises(WeightsError, match=r"w\.safetensors: "):
        save_weights(tmp_path / "w.safetensors", tiny_network, scaling=rules, training={1: 2})
