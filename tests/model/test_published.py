"""Checkpoints of the published code in all their variants, made from the golden weights."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import WeightsError
from restore_rwkv.model import PRESETS, RestoreRWKV
from restore_rwkv.model.checkpoint import load_weights
from restore_rwkv.model.published import (
    config_from_published,
    convert_published,
    load_published,
    network_from_published,
    read_published,
)
from restore_rwkv.tasks import ScalingRule
from tests.helpers.golden_network import GoldenNetwork

Weights = dict[str, Tensor]
SCALING = {"mri-sr": ScalingRule("fixed", 0.0, 4095.0)}


def float32(golden: GoldenNetwork) -> Weights:
    return {name: tensor.float() for name, tensor in golden.weights.items()}


def with_merged_copies(weights: Weights) -> Weights:
    """Add the copies that the published code saves, here stale ones."""
    copies = {
        name.replace("conv5x5", "conv5x5_reparam"): torch.zeros_like(tensor)
        for name, tensor in weights.items()
        if name.endswith("conv5x5.weight")
    }
    return {**weights, **copies}


def with_deleted_layer(weights: Weights) -> Weights:
    layer = {
        name.replace("ln1.weight", "att.dwconv.weight"): torch.ones(len(tensor), 1, 3, 3)
        for name, tensor in weights.items()
        if name.endswith("ln1.weight")
    }
    return {**weights, **layer}


def prefixed(weights: Weights) -> Weights:
    return {f"module.{name}": tensor for name, tensor in weights.items()}


VARIANTS: dict[str, Callable[[Weights], dict[str, Any]]] = {
    "plain": lambda w: w,
    "module": prefixed,
    "compiled": lambda w: {f"_orig_mod.{name}": tensor for name, tensor in prefixed(w).items()},
    "params": lambda w: {"params": w},
    "state_dict": lambda w: {"epoch": 3, "state_dict": prefixed(w), "optimizer": {"lr": 1e-4}},
    "lightning": lambda w: {"state_dict": {f"model.{name}": x for name, x in w.items()}},
    "basicsr": lambda w: {"params": {f"net_g.{name}": x for name, x in w.items()}},
    "scores": lambda w: {"best_psnr": np.float64(33.5), "ssim": np.float32(0.9), "params": w},
    "average": lambda w: {"params": {}, "params_ema": w},
    "copies": with_merged_copies,
    "dwconv": with_deleted_layer,
    "everything": lambda w: {"params": prefixed(with_deleted_layer(with_merged_copies(w)))},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_loads_from_a_file(
    golden: GoldenNetwork, tmp_path: Path, variant: str
) -> None:
    branches = float32(golden)
    merged = golden.network(torch.float32).merged().state_dict()
    for is_merged, weights in ((False, branches), (True, merged)):
        path = tmp_path / "published.pth"
        torch.save(VARIANTS[variant](weights), path)
        state_dict = read_published(path)
        assert config_from_published(state_dict) == golden.config
        network = network_from_published(state_dict)
        assert (network.is_merged, network.training) == (is_merged, False)
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, weights[name]), name
        with torch.no_grad():
            output = network(golden.image.float())
        assert (output - golden.output).abs().max() < 1e-5


def test_conversion_writes_a_weight_file(golden: GoldenNetwork, tmp_path: Path) -> None:
    source, path = tmp_path / "published.pth", tmp_path / "converted.safetensors"
    torch.save({"params": prefixed(with_merged_copies(float32(golden)))}, source)
    written = convert_published(source, path, scaling=SCALING)
    network, info = load_weights(path)
    assert info == written
    assert (info.scaling, info.merged) == (SCALING, False)
    assert info.training["converted_from"] == "published.pth"
    with torch.no_grad():
        assert (network(golden.image.float()) - golden.output).abs().max() < 1e-5


def test_conversion_of_other_weights_names_the_file(tmp_path: Path) -> None:
    source = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, source)
    with pytest.raises(WeightsError, match=r"other\.pth: .*not of a Restore-RWKV network"):
        convert_published(source, tmp_path / "x.safetensors", scaling=SCALING)
    assert not (tmp_path / "x.safetensors").exists()


def test_branches_load_into_a_merged_network(golden: GoldenNetwork) -> None:
    network = RestoreRWKV(golden.config, merged=True).double()
    load_published(network, with_merged_copies(golden.weights))
    assert (network(golden.image) - golden.output).abs().max() < 1e-12


def test_weights_are_copied_and_keep_the_networks_type(golden: GoldenNetwork) -> None:
    network = RestoreRWKV(golden.config)
    weights = {name: tensor.clone() for name, tensor in golden.weights.items()}
    load_published(network, weights)
    weights["output.bias"].fill_(7)
    assert torch.equal(network.output.bias.double(), golden.weights["output.bias"])
    assert network.output.bias.dtype == torch.float32
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_merged_weights_do_not_load_into_branches(golden: GoldenNetwork) -> None:
    with pytest.raises(WeightsError, match=r"build it with RestoreRWKV\(config, merged=True\)"):
        load_published(RestoreRWKV(golden.config), golden.network().merged().state_dict())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda w: w.pop("output.bias"), r"1 missing \(output\.bias\)"),
        (lambda w: w.pop("latent.0.att.omni_shift.alpha"), "1 missing .*alpha"),
        (lambda w: w.update({"output.bais": w.pop("output.bias")}), r"nearest: output\.bias"),
        (lambda w: w.update({"output.bias": torch.zeros(3)}), r"output\.bias is \(3,\) for \(1,\)"),
        (lambda w: w["output.bias"].fill_(torch.nan), r"output\.bias .* not finite"),
        (lambda w: w.update({"epoch": 3}), "epoch is no tensor"),
        (lambda w: w.update({"module.output.bias": torch.zeros(1)}), "occurs twice"),
    ],
)
def test_unfit_weights_change_nothing(
    golden: GoldenNetwork, change: Callable[[dict[str, Any]], object], fault: str
) -> None:
    network = RestoreRWKV(golden.config)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights: dict[str, Any] = {name: tensor.clone() for name, tensor in golden.weights.items()}
    change(weights)
    with pytest.raises(WeightsError, match=fault):
        load_published(network, weights)
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 4, "num_blocks": (1, 2, 3, 1), "num_refinement_blocks": 2},
        {"in_channels": 3, "out_channels": 3, "hidden_rate": 2},
        {"scans": ("rows",)},
        {"scans": ("rows", "columns", "rows")},
        {"shift_kernel": 7},
        {"shift_branches": False},
    ],
    ids=str,
)
def test_config_is_inferred(golden: GoldenNetwork, changes: dict[str, Any]) -> None:
    config = dataclasses.replace(golden.config, **changes)
    assert config_from_published(RestoreRWKV(config).state_dict()) == config


@pytest.mark.parametrize("name", ["base", "light"])
def test_presets_are_inferred_in_both_forms(name: str) -> None:
    for merged in (False, True):
        with torch.device("meta"):
            weights = RestoreRWKV(PRESETS[name], merged=merged).state_dict()
        assert config_from_published(weights) == PRESETS[name]


@pytest.mark.parametrize(
    "state_dict",
    [{}, {"weight": torch.zeros(3, 3)}, {"patch_embed.weight": torch.zeros(0)}],
    ids=["empty", "other", "scalar"],
)
def test_weights_of_another_network_are_refused(state_dict: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="not of a Restore-RWKV network"):
        network_from_published(state_dict)


class Malicious:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_a_malicious_checkpoint_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    content = {"params": {"output.bias": torch.zeros(1)}, "more": Malicious(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(WeightsError, match=r"evil\.pth: refused, it asks to run \S*open") as caught:
        read_published(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Malicious(trace), protocol=protocol))
    with pytest.raises(WeightsError, match=r"evil\.pth: refused") as caught:
        read_published(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    pickle.loads(path.read_bytes()).close()  # where it is trusted, this file does harm
    assert trace.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"plain text", b"\x80\x02."])
def test_nonsense_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pth: .*damaged"):
        read_published(path)


def test_truncated_archives_are_refused(golden: GoldenNetwork, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for zipped in (True, False):
        torch.save(golden.weights, path, _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[:-5000])
        with pytest.raises(WeightsError, match="damaged"):
            read_published(path)


def test_missing_files_and_other_contents_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with pytest.raises(WeightsError, match="no such file"):
        read_published(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match="holds a list"):
        read_published(path)


def test_a_checkpoint_is_not_written_over(golden: GoldenNetwork, tmp_path: Path) -> None:
    source = tmp_path / "net.pth"
    torch.save(golden.weights, source)
    before = source.read_bytes()
    with pytest.raises(WeightsError, match="are the same file"):
        convert_published(source, source, scaling=SCALING)
    assert source.read_bytes() == before
