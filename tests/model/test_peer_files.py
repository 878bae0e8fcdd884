"""Weight files of peers: what goes in comes out, and nothing damaged or hostile gets through."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from restore_rwkv.errors import ConfigError, WeightsError
from restore_rwkv.model import (
    PRESETS,
    build_network,
    load_weights,
    name_of,
    named_config,
    network_config,
    read_info,
    save_weights,
)
from restore_rwkv.peers import PEERS, PeerConfig
from restore_rwkv.tasks import ScalingRule

RECORDS: dict[str, Any] = {"scaling": {"mri-sr": ScalingRule("robust")}, "training": {}}


def save(path: Path, config: PeerConfig, *, merged: bool = True) -> Path:
    torch.manual_seed(0)
    network = build_network(config)
    save_weights(path, network.merged() if merged else network, **RECORDS)
    return path


def tamper(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    with safe_open(path, framework="pt") as stream:
        record = json.loads(stream.metadata()["restore_rwkv"])
    tensors = {name: x.clone() for name, x in load_file(path).items()}
    change(record)
    save_file(tensors, path, {"restore_rwkv": json.dumps(record)})


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_is_kept_in_a_file(tmp_path: Path, name: str, merged: bool) -> None:
    torch.manual_seed(0)
    network = build_network(PeerConfig(name, PEERS[name].width_step * 2))
    network = network.merged() if merged else network.eval()
    written = save_weights(tmp_path / "w.safetensors", network, **RECORDS)
    loaded, info = load_weights(tmp_path / "w.safetensors")
    assert info == written == read_info(tmp_path / "w.safetensors")
    assert (info.network, info.config, info.merged) == (name, network.config, merged)
    assert loaded.is_merged is merged
    assert not loaded.training
    image = torch.rand(1, 1, 24, 40)
    with torch.inference_mode():
        assert torch.equal(loaded(image), network(image))


def test_half_precision_keeps_batch_norms(tmp_path: Path) -> None:
    network = build_network(PeerConfig("dncnn", 8, (4,)))
    network(1e3 * torch.rand(2, 1, 8, 8))
    save_weights(tmp_path / "w.safetensors", network, dtype=torch.float16, **RECORDS)
    loaded, info = load_weights(tmp_path / "w.safetensors")
    assert not info.merged
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["config"].update(name="net-of-2030"), "network 'net-of-2030'.*update it"),
        (lambda r: r["config"].update(name=["dncnn"]), "network.*does not know"),
        (lambda r: r["config"].update(code="import os"), "unknown key 'code'"),
        (lambda r: r["config"].update(width=4096), "do not fit the network"),
        (lambda r: r["config"].update(width=10**9), "at most 4096"),
        (lambda r: r["config"].update(depth=[900]), "does not fit the tensors"),
        (lambda r: r["config"].update(depth=[5]), "do not fit the network"),
        (lambda r: r["config"].update(noise_level=True), "do not fit the network"),
        (lambda r: r["config"].update(name="edsr"), "does not fit|do not fit the network"),
        (lambda r: r["config"].update(name="restore-rwkv"), "restore-rwkv"),
        (lambda r: r.update(config={"dim": 8}), "fit the"),
        (lambda r: r.update(config={"hidden_rate": 10**12}), "hidden_rate is 10{12}; give at most"),
        (lambda r: r.update(config={"in_channels": 10**19}), "in_channels is 10{19}; give at most"),
        (lambda r: r.update(config={"num_blocks": [10**9] * 4}), "blocks is 40+4; give at most"),
        (lambda r: r.update(config={"scans": ["rows"] * 2000}), "scans is 2000; give at most"),
        (lambda r: r.update(merged=False), "do not fit the network"),
        (lambda r: r.update(config="name"), "damaged"),
    ],
)
def test_hostile_records_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = save(tmp_path / "w.safetensors", PeerConfig("dncnn", 8, (4,)))
    tamper(path, change)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_monai_without_monai_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "w.safetensors", PeerConfig("unet", 4))
    monkeypatch.setitem(sys.modules, "monai.networks.nets.basic_unet", None)
    assert read_info(path).network == "unet"
    with pytest.raises(ConfigError, match=r"'unet' needs MONAI"):
        load_weights(path)


def test_names_and_configurations_of_all_networks() -> None:
    assert [name_of(named_config(name)) for name in ("light", "unet")] == ["restore-rwkv", "unet"]
    for name in (*PRESETS, *PEERS):
        assert network_config(named_config(name).to_dict()) == named_config(name)
    with pytest.raises(ConfigError, match=r"network 'lite' is unknown; .*light.*unet"):
        named_config("lite")
