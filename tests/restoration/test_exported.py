"""Restorer with an exported network: the same scan, the same checks, and a record that says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from restore_rwkv.errors import ConfigError, WeightsError
from restore_rwkv.evaluation.diagnosis import diagnose
from restore_rwkv.io import Volume, read_volume
from restore_rwkv.model import read_info
from restore_rwkv.model.measuring import peak_bytes
from restore_rwkv.restoration import RestoreOptions, Restorer, device
from restore_rwkv.restoration.tiles import bytes_per_pixel
from tests.helpers.exports import EXPORT, WEIGHTS, changed_export, mutate

CPU = torch.device("cpu")


def restored(volume: Volume, weights: Path, **options: object) -> np.ndarray:
    result = Restorer("mri-sr", weights).run(volume, RestoreOptions(force=True, **options))  # type: ignore[arg-type]
    return result.volume.data


def test_restores_what_the_weights_restore(scan: Path) -> None:
    volume = read_volume(scan)
    expected, found = (restored(volume, path) for path in (WEIGHTS, EXPORT))
    assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)  # 3e-7 was measured
    assert np.abs(expected - volume.data).max() > 1e-3 * np.ptp(expected)


@pytest.mark.parametrize("ensemble", [False, True])
def test_tiles_and_turns_are_those_of_the_weights(ensemble: bool) -> None:
    volume = Volume(np.random.default_rng(0).uniform(0, 900, (250, 210, 1)))
    images = []
    for path in (WEIGHTS, EXPORT):
        per_pixel = bytes_per_pixel(read_info(path).config, CPU, exported=path == EXPORT)
        options = {"memory": 200 * 216 * per_pixel, "consistency": 0, "ensemble": ensemble}
        plan = Restorer("mri-sr", path).plan(volume, RestoreOptions(force=True, **options))  # type: ignore[arg-type]
        assert plan.tiling.tile == (192, 210)
        images.append(restored(volume, path, **options))
    assert np.abs(images[0] - images[1]).max() < 1e-5 * np.ptp(images[0])


def test_the_record_names_the_runtime(scan: Path, tmp_path: Path) -> None:
    options = RestoreOptions(force=True)
    of_export, of_weights = (
        Restorer("mri-sr", path).file(scan, tmp_path / f"{path.suffix}.nii", options)
        for path in (EXPORT, WEIGHTS)
    )
    assert of_export.record.device.startswith("onnxruntime 1.")
    assert of_export.record.device.endswith(" cpu")
    assert of_export.record.weights == "export_a.onnx"
    assert of_export.record.weights_sha256 == of_weights.record.weights_sha256
    assert of_weights.record.device == "cpu"


def test_more_memory_is_planned_than_onnx_runtime_takes() -> None:
    """A slice of 512 x 512 pixels takes 672 MiB with the shipped network."""
    volume = Volume(np.random.default_rng(0).uniform(0, 900, (256, 256, 1)))
    restorer = Restorer("mri-sr", EXPORT)
    plan = restorer.plan(volume, RestoreOptions(force=True))
    network = restorer.network(plan.task)
    images = torch.rand(1, 1, 256, 256)
    network(images[..., :64, :64])
    taken = peak_bytes(lambda: network(images))
    if taken is None:
        pytest.skip("this system does not report the peak of a process")
    assert taken < plan.tiling.memory < 4 * taken


def test_other_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_device", lambda name: torch.device("meta"))
    with pytest.raises(ConfigError, match=r"'cuda', and export_a\.onnx runs in ONNX Runtime on"):
        Restorer("mri-sr", EXPORT, "cuda")
    assert Restorer("mri-sr", EXPORT).device == CPU
    assert Restorer("mri-sr", WEIGHTS).device == torch.device("meta")


def test_exports_of_other_tasks_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"export_a\.onnx: trained for .*, not pet-synth"):
        Restorer("pet-synth", EXPORT)


def test_an_export_that_was_replaced_is_not_run(scan: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    shutil.copy(EXPORT, path)
    restorer = Restorer("mri-sr", path)
    changed_export(path, lambda model: mutate(model, "net.output.weight"))
    with pytest.raises(WeightsError, match=r"m\.onnx: has changed since its record was read"):
        restorer.run(read_volume(scan), RestoreOptions(force=True))


def test_the_blocks_of_an_export_cannot_be_looked_into(scan: Path) -> None:
    with pytest.raises(ConfigError, match=r"diagnose: export_a\.onnx is an exported network"):
        diagnose(read_volume(scan), Restorer("mri-sr", EXPORT), RestoreOptions(force=True))
