from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset

import restore_rwkv
from restore_rwkv import RestoreOptions, Restorer, Volume
from restore_rwkv.errors import ConfigError, InputError, WeightsError
from restore_rwkv.model import RestoreRWKV, load_inference, save_weights
from restore_rwkv.restoration.restorer import record_of
from restore_rwkv.restoration.tiles import bytes_per_pixel
from restore_rwkv.tasks import TASKS, PlaneChoice, ScalingRule
from tests.helpers.synthetic_series import SeriesWriter

CPU = torch.device("cpu")
ROBUST = ScalingRule("robust")
HU = TASKS["ct-denoise"].scaling
PAPER = TASKS["mri-sr"].paper_scaling
restore = partial(restore_rwkv.restore, task="mri-sr")


def test_a_restored_nifti_keeps_grid_header_and_source(
    scan: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    before = scan.read_bytes()
    output = tmp_path / "restored.nii.gz"
    restore(scan, output, weights=tiny_weights)
    source, result = nib.load(scan), nib.load(output)
    assert scan.read_bytes() == before
    assert result.shape == source.shape
    assert np.array_equal(result.affine, source.affine)
    for key in ("sform_code", "qform_code", "xyzt_units", "pixdim", "quatern_b", "qoffset_x"):
        assert np.array_equal(result.header[key], source.header[key]), key
    assert result.get_data_dtype() == np.float32
    assert not np.allclose(result.get_fdata(), source.get_fdata(), atol=1)


def test_the_record_says_what_made_the_image(
    scan: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    restore(scan, tmp_path / "out.nii.gz", weights=tiny_weights)
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    assert "Not a medical device" in record["notice"]
    assert record["source"] == "scan.nii.gz"
    assert len(record["weights_sha256"]) == 64
    assert record["slice_axis"] == 2
    assert record["scaling"]["scale"] > 0
    assert str(tmp_path) not in json.dumps(record)


def test_a_scan_times_1000_restores_to_the_image_times_1000(scan: Path, tiny_weights: Path) -> None:
    restorer = Restorer("mri-sr", tiny_weights)
    volume = restore_rwkv.read_volume(scan)
    once = restorer.run(volume).volume.data
    loud = restorer.run(volume.with_data(volume.data * 1000)).volume.data
    error = np.sqrt(np.mean((loud / 1000 - once) ** 2) / np.mean(once**2))
    assert error < 1e-6


def test_an_image_without_negative_values_stays_so(scan: Path, tiny_weights: Path) -> None:
    restored = Restorer("mri-sr", tiny_weights).run(restore_rwkv.read_volume(scan))
    assert restored.volume.data.min() >= 0


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_are_restored_in_the_plane_asked_for(
    tiny_network: RestoreRWKV, tmp_path: Path, plane: str
) -> None:
    weights = tmp_path / "w.safetensors"
    save_weights(weights, tiny_network, scaling={"mri-sr": PAPER}, training={})
    data = np.random.default_rng(0).uniform(0, 4095, (16, 17, 18))
    axis = {"axial": 1, "coronal": 2, "sagittal": 0}[plane]
    affine = np.eye(4)[[0, 2, 1, 3]]  # the second axis runs to the head, the third to the front
    restorer, options = Restorer("mri-sr", weights), RestoreOptions(plane=plane)
    restored = restorer.run(Volume(data, affine), options).volume.data
    data[(slice(None),) * axis + (3,)] = 0  # another slice does not change this one
    again = restorer.run(Volume(data, affine), options).volume.data
    same = np.isclose(restored, again, rtol=1e-5, atol=1e-2).all(
        axis=tuple(a for a in range(3) if a != axis)
    )
    assert same.tolist() == [index != 3 for index in range(data.shape[axis])]


def test_paper_scaling_is_the_papers_range(scan: Path, tiny_weights: Path) -> None:
    restored = Restorer("mri-sr", tiny_weights).run(
        restore_rwkv.read_volume(scan), RestoreOptions(scaling="paper")
    )
    assert restored.record.scaling == {"offset": 0.0, "scale": 4095.0}


def test_existing_outputs_are_kept_unless_asked(
    scan: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    for name in ("out.nii.gz", "out.restoration.json"):
        taken = tmp_path / name
        taken.write_text("mine")
        with pytest.raises(InputError, match=f"{name}: exists already"):
            restore(scan, tmp_path / "out.nii.gz", weights=tiny_weights)
        assert taken.read_text() == "mine"
        restore(scan, tmp_path / "out.nii.gz", weights=tiny_weights, overwrite=True)
        for path in (tmp_path / "out.nii.gz", tmp_path / "out.restoration.json"):
            path.unlink()


def test_wrong_uses_are_refused_before_anything_is_written(
    scan: Path, tiny_network: RestoreRWKV, tiny_weights: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    save_weights(other, tiny_network, scaling={"ct-denoise": HU}, training={})
    small = Volume(np.ones((40, 33, 5)), np.diag([1.0, 1, 2, 1]))
    restorer = Restorer("mri-sr", tiny_weights)
    for error, match, call in (
        (InputError, "no such file", lambda: run("nowhere.nii.gz")),
        (ConfigError, "task 'mri' is unknown; did you mean 'mri-sr'", lambda: run(task="mri")),
        (WeightsError, "trained for ct-denoise, not mri-sr", lambda: run(weights=other)),
        (WeightsError, "no such file or shipped weights", lambda: run(weights="light-mri")),
        (ConfigError, "device 'gpu' is unknown", lambda: run(device="gpu")),
        (ConfigError, "plane 'axal' is unknown", lambda: RestoreOptions(plane="axal")),
        (ConfigError, "scaling 'max' is unknown", lambda: RestoreOptions(scaling="max")),
        (ConfigError, "allow at least", lambda: restorer.run(small, RestoreOptions(memory=1000))),
        (
            InputError,
            "slices are 33 x 5",
            lambda: restorer.run(small, RestoreOptions(plane="sagittal")),
        ),
        (
            ConfigError,
            "no geometry",
            lambda: restorer.run(Volume(small.data), RestoreOptions(plane="axial")),
        ),
        (InputError, "is CT, and mri-sr", lambda: restorer.run(Volume(small.data, modality="CT"))),
        (InputError, "unknown output format", lambda: run(output="out.jpg")),
    ):

        def run(source: str | Path = scan, output: str = "out.nii.gz", **words: object) -> None:
            restore(source, tmp_path / output, **{"weights": tiny_weights, **words})

        with pytest.raises(error, match=match):
            call()
    assert not list(tmp_path.glob("out*"))
    assert not list(tmp_path.glob(".*partial*"))


def test_tiles_are_told_and_recorded(
    tiny_network: RestoreRWKV, tiny_weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = Volume(np.random.default_rng(0).uniform(0, 9, (300, 250, 1)))
    memory = 192 * 192 * bytes_per_pixel(tiny_network.config, CPU)
    restored = Restorer("mri-sr", tiny_weights).run(volume, RestoreOptions(memory=memory))
    assert restored.volume.data.shape == volume.data.shape
    assert restored.record.tile == (192, 192)
    assert "restored in tiles of 192 x 192" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("plane", ["auto", "axial", "coronal", "sagittal"])
@pytest.mark.parametrize("pixels", [1 << 22, 192 * 208])  # whole slices, tiles
def test_a_network_that_adds_nothing_gives_the_image_back(
    tiny_network: RestoreRWKV, tmp_path: Path, plane: PlaneChoice, pixels: int
) -> None:
    """No plane, odd size or tile may shift, mirror or rescale anything."""
    for parameter in tiny_network.parameters():
        parameter.data.zero_()
    weights = tmp_path / "zero.safetensors"
    save_weights(weights, tiny_network, scaling={"mri-sr": ROBUST}, training={})
    data = np.random.default_rng(0).integers(-500, 3000, (209, 21, 203)).astype(np.int16)
    affine = np.array([[0, 0, 2.5, -10], [-0.7, 0.1, 0, 3], [0.1, 0.7, 0, 78], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "in.nii")
    memory = pixels * bytes_per_pixel(tiny_network.config, CPU)
    options = RestoreOptions(plane=plane, memory=memory)
    output = tmp_path / "out.nii"
    restore(tmp_path / "in.nii", output, weights=weights, options=options, dtype="source")
    assert np.array_equal(np.asarray(nib.load(output).dataobj), data)


def test_values_that_overflow_are_the_fault_of_the_image(tiny_weights: Path) -> None:
    image = Volume(np.full((16, 16), 1.0))
    image.data[3, 3] = 3e38
    with pytest.raises(InputError, match=r"array: its values, up to 3e\+38, overflow"):
        Restorer("mri-sr", tiny_weights).run(image)


@pytest.mark.parametrize("name", ["a.b.nii.gz", "a.b.NII.GZ", "a.b.png"])
def test_the_record_is_named_after_the_output(tmp_path: Path, name: str) -> None:
    assert record_of(tmp_path / name) == tmp_path / "a.b.restoration.json"


def test_a_record_of_a_series_names_its_files_and_uids(
    write_series: SeriesWriter, tiny_weights: Path, tmp_path: Path
) -> None:
    def change(k: int, dataset: Dataset) -> None:
        dataset.Modality, dataset.SeriesNumber = "MR", 7

    folder = write_series(change)
    options = RestoreOptions(scale=2)  # its slices are small
    restore(folder, tmp_path / "out.nii.gz", weights=tiny_weights, task="auto", options=options)
    record = json.loads((tmp_path / "out.restoration.json").read_text())
    assert record["format"] == "restore-rwkv record 1"
    assert len(record["source_sha256"]) == 64
    assert sorted(record["source_files"]) == sorted(path.name for path in folder.iterdir())
    assert record["series_number"] == "7"
    assert record["series_instance_uid"]
    assert len(set(record["sop_instance_uids"])) == len(record["source_files"])


def test_a_restored_array_claims_no_source(scan: Path, tiny_weights: Path) -> None:
    """The values may have been changed since they were read."""
    volume = restore_rwkv.read_volume(scan)
    restored = Restorer("mri-sr", tiny_weights).run(volume.with_data(volume.data + 1))
    assert restored.record.source is None


def test_one_restorer_takes_each_scan_for_its_modality(
    tiny_network: RestoreRWKV, tmp_path: Path
) -> None:
    scaling = {"mri-sr": ROBUST, "ct-denoise": HU}
    save_weights(tmp_path / "w.safetensors", tiny_network, scaling=scaling, training={})
    restorer = Restorer(weights=tmp_path / "w.safetensors")
    values = np.random.default_rng(0).uniform(-90, 90, (16, 16, 2))
    for modality, task in (("MR", "mri-sr"), ("CT", "ct-denoise")):
        assert restorer.run(Volume(values, modality=modality)).record.task == task
    with pytest.raises(WeightsError, match="trained for ct-denoise or mri-sr, not pet-synth"):
        restorer.run(Volume(values, modality="PT"))


def test_a_preview_shows_the_plan_and_everything_that_is_refused(
    scan: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    restorer, output = Restorer("mri-sr", tiny_weights), tmp_path / "out.nii.gz"
    preview = restorer.preview(scan, output)
    assert preview.refusals == ()
    assert preview.plan is not None
    restored = restorer.file(scan, output)
    assert preview.plan.axis == restored.record.slice_axis
    assert preview.plan.scaling.to_dict() == restored.record.scaling
    assert preview.plan.tiling.tile == restored.record.tile
    again = restorer.preview(scan, output, RestoreOptions(plane="axial"))
    assert len(again.refusals) == 2
    assert "out.nii.gz: exists already" in again.refusals[0]
    assert "out.restoration.json: exists already" in again.refusals[1]
    assert again.plan is not None
    lines = "\n".join(again.plan.lines())
    for word in ("task: mri-sr", "slices: 5 of 40 x 33 across axis 2, whole", "memory: about"):
        assert word in lines
    nothing = restorer.preview(tmp_path / "nowhere.nii", tmp_path / "other.jpg")
    assert nothing.plan is None
    assert len(nothing.refusals) == 2


def test_a_plan_is_made_before_the_weights_are_read(
    scan: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("restore_rwkv.restoration.restorer.load_inference", fail)
    restorer = Restorer("mri-sr", tiny_weights)
    assert restorer.plan(restore_rwkv.read_volume(scan)).task.name == "mri-sr"
    with pytest.raises(ConfigError, match="allow at least"):
        restorer.file(scan, tmp_path / "out.nii.gz", RestoreOptions(memory=1000))


def test_weights_that_are_replaced_or_moved_change_nothing_for_a_restorer(
    scan: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    restorer, volume = Restorer("mri-sr", tiny_weights.name), restore_rwkv.read_volume(scan)
    first = restorer.run(volume)
    tiny_weights.unlink()
    monkeypatch.chdir("/")
    again = restorer.run(volume)
    np.testing.assert_array_equal(first.volume.data, again.volume.data)
    assert first.record.weights_sha256 == again.record.weights_sha256


def test_weights_that_change_between_plan_and_run_are_refused(
    scan: Path, tiny_network: RestoreRWKV, tiny_weights: Path
) -> None:
    restorer = Restorer("mri-sr", tiny_weights)
    tiny_network.output.bias.data += 1
    save_weights(tiny_weights, tiny_network, scaling={"mri-sr": ROBUST}, training={})
    with pytest.raises(WeightsError, match="has changed since its record was read"):
        restorer.run(restore_rwkv.read_volume(scan))


def test_a_preview_finds_damaged_weights(scan: Path, tiny_weights: Path, tmp_path: Path) -> None:
    content = bytearray(tiny_weights.read_bytes())
    content[-1] ^= 1
    tiny_weights.write_bytes(content)
    preview = Restorer("mri-sr", tiny_weights).preview(scan, tmp_path / "out.nii.gz")
    assert [("do not match their SHA-256" in text) for text in preview.refusals] == [True]


def test_the_identity_is_that_of_what_was_read(
    scan: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256(scan.read_bytes()).hexdigest()
    restorer = Restorer("mri-sr", tiny_weights)
    restored = restorer.file(scan, tmp_path / "o.nii", progress=lambda *_: scan.unlink(True))
    assert restored.record.source is not None
    assert restored.record.source.source_sha256 == digest


def test_threads_share_one_network(
    scan: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []

    def load(path: Path) -> object:
        loads.append(path)
        return load_inference(path)

    monkeypatch.setattr("restore_rwkv.restoration.restorer.load_inference", load)
    restorer, volume = Restorer("mri-sr", tiny_weights), restore_rwkv.read_volume(scan)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(restorer.run, [volume] * 4))
    assert len(loads) == 1


def test_progress_ends_at_all_slices(tiny_network: RestoreRWKV, tiny_weights: Path) -> None:
    calls: list[tuple[int, int]] = []
    volume = Volume(np.random.default_rng(0).uniform(0, 9, (16, 16, 5)))
    memory = 2 * 16 * 16 * bytes_per_pixel(tiny_network.config, CPU)
    restorer, options = Restorer("mri-sr", tiny_weights, "cpu"), RestoreOptions(memory=memory)
    restorer.run(volume, options, lambda *call: calls.append(call))
    assert calls == [(2, 5), (4, 5), (5, 5)]
