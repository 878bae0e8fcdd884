"""Weight files of peers restore scans as ours do."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation import diagnose
from restore_rwkv.io import Volume, read_volume
from restore_rwkv.model import build_network, save_weights
from restore_rwkv.peers import PEERS, PeerConfig
from restore_rwkv.restoration import RestoreOptions, Restorer, choose_tiling
from restore_rwkv.tasks import TASKS

CPU = torch.device("cpu")


def weights(folder: Path, config: PeerConfig) -> Path:
    torch.manual_seed(0)
    network = build_network(config)
    if config.residual:
        network.start_at_identity()
    path = folder / f"{config.name}.safetensors"
    scaling = {"ct-denoise": TASKS["ct-denoise"].scaling}
    save_weights(path, network.merged(), scaling=scaling, training={})
    return path


def ct(*shape: int) -> Volume:
    noise = np.random.default_rng(0).normal(40, 20, shape)
    return Volume(noise.astype(np.float32), unit="HU", modality="CT")


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_restores_a_volume(tmp_path: Path, name: str) -> None:
    config = PeerConfig(name, PEERS[name].width_step * 2, residual=True)
    path = weights(tmp_path, config)
    volume = ct(37, 51, 2)
    restored = Restorer("ct-denoise", path).run(volume, RestoreOptions(force=True))
    np.testing.assert_allclose(restored.volume.data, volume.data, atol=1e-3)
    assert restored.record.weights == path.name
    assert restored.record.tile == (37, 51)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nafnet", "swinir-light", "dncnn"])
def test_a_peer_in_tiles_stays_within_the_memory(tmp_path: Path, name: str) -> None:
    config = PeerConfig(name, PEERS[name].width_step * 2)
    allowed = config.bytes_per_pixel * 210 * 210
    volume = ct(300, 200, 1)
    restorer = Restorer("ct-denoise", weights(tmp_path, config))
    plan = restorer.plan(volume, RestoreOptions(memory=allowed, force=True))
    rows, _ = plan.tiling.tile
    assert rows < 300
    assert rows % config.stride == 0
    assert plan.tiling.memory <= allowed
    restored = restorer.run_plan(plan)
    np.testing.assert_allclose(restored.volume.data, volume.data, atol=1e-3)


@pytest.mark.parametrize("name", PEERS)
def test_memory_grows_with_the_width(name: str) -> None:
    step = PEERS[name].width_step
    memory = [
        choose_tiling(PeerConfig(name, n * step), CPU, (1, 256, 256), 8 << 30).memory
        for n in (2, 4)
    ]
    assert memory[1] == pytest.approx(2 * memory[0], rel=0.01)


def test_slices_below_the_stride_are_refused(tmp_path: Path) -> None:
    restorer = Restorer("ct-denoise", weights(tmp_path, PeerConfig("nafnet", 2)))
    with pytest.raises(InputError, match="at least 16 x 16"):
        restorer.plan(ct(12, 40, 1), RestoreOptions(force=True))


def test_a_peer_is_told_the_level_of_the_noise(tmp_path: Path) -> None:
    config = PeerConfig("dncnn", 8, (4,), noise_level=True)
    torch.manual_seed(0)
    network = build_network(config)
    path = tmp_path / "told.safetensors"
    save_weights(
        path, network.merged(), scaling={"ct-denoise": TASKS["ct-denoise"].scaling}, training={}
    )
    restorer = Restorer("ct-denoise", path)
    assert restorer.uses_factor(TASKS["ct-denoise"], RestoreOptions())
    restored = restorer.run(ct(40, 40, 2), RestoreOptions(factor=4.0, force=True))
    assert restored.record.noise_level is not None
    assert restored.record.noise_level > 0


def test_a_file_is_restored_by_a_peer_with_its_record(tmp_path: Path) -> None:
    path, source = weights(tmp_path, PeerConfig("edsr", 8, (1,), True)), tmp_path / "ct.nii"
    nibabel.save(nibabel.Nifti1Image(ct(40, 40, 2).data, np.eye(4)), source)
    options = RestoreOptions(force=True)
    restored = Restorer("ct-denoise", path).file(source, tmp_path / "out.nii", options)
    assert restored.record.weights == "edsr.safetensors"
    assert (tmp_path / "out.restoration.json").exists()
    np.testing.assert_allclose(
        read_volume(tmp_path / "out.nii").data, read_volume(source).data, atol=1e-3
    )


def test_a_peer_has_no_attention_to_diagnose(tmp_path: Path) -> None:
    restorer = Restorer("ct-denoise", weights(tmp_path, PeerConfig("redcnn", 4)))
    with pytest.raises(ConfigError, match="diagnose: network 'redcnn' has no Re-WKV attention"):
        diagnose(ct(40, 40, 2), restorer, RestoreOptions(force=True))
