"""The authors' release on a small tree of its shape."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from restore_rwkv.data import PreparedSet
from restore_rwkv.data.sources.jobs import natural_key
from restore_rwkv.data.sources.release import prepare_release
from restore_rwkv.errors import InputError
from tests.helpers.source_trees import blob, files_below, save_nifti, save_pickle

NAMES = {
    "MRI": {
        "train": ["IXI002-Guys-0828-T2_58", "IXI002-Guys-0828-T2_9", "IXI012-HH-1211-T2_60"],
        "validation": ["IXI385-HH-2078-T2_58"],
        "test": ["IXI400-Guys-0996-T2_70"],
    },
    "CT": {
        "train": ["L067_2_0", "L067_2_11", "L067_10_0"],
        "validation": ["L109_105_0"],
        "test": ["L506_105_0", "L506_106_0"],
    },
    "PET": {
        "train": ["Patient_4_105_0", "Patient_41_105_0"],
        "validation": ["Patient_5_1_0"],
        "test": ["Patient_6_1_0"],
    },
}
TASKS = {"MRI": "mri-sr", "CT": "ct-denoise", "PET": "pet-synth"}


def image(name: str, quality: str) -> np.ndarray:
    """Rows by columns, another one for each name and quality; PET is not in whole numbers."""
    offset = sum(map(ord, name)) + (0.0 if quality == "HQ" else 3.0)
    return blob(6, 9, seed=int(offset)) + offset + (0.25 if name.startswith("Patient") else 0.0)


def save(root: Path, modality: str, split: str, quality: str, name: str) -> None:
    folder = root / modality / split / quality
    if split == "train":  # arrays with and without the axis of length 1
        array = image(name, quality).astype(np.float32)
        save_pickle(folder / f"{name}.bin", array[None] if modality == "MRI" else array)
    else:  # SimpleITK writes rows by columns as a NIfTI file of columns by rows
        save_nifti(folder / f"{name}.nii", image(name, quality).T, dtype=np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for modality, splits in NAMES.items():
        for split, names in splits.items():
            for name in names:
                for quality in ("LQ", "HQ"):
                    save(tmp_path / "All-in-One", modality, split, quality, name)
    return tmp_path / "All-in-One"


def test_every_image_is_where_the_release_has_it(root, tmp_path):
    done = []
    report = prepare_release(root, tmp_path / "out", progress=lambda *step: done.append(step))
    assert done[-1] == (11, 11)
    assert [one.folder for one in report.sets] == [tmp_path / "out" / t for t in TASKS.values()]
    for prepared, (modality, splits) in zip(report.sets, NAMES.items(), strict=True):
        assert (prepared.task_name, prepared.dataset) == (TASKS[modality], "release")
        for split, names in splits.items():
            count = prepared.counts()[split]
            assert count.slices == len(names)
            for stack in prepared.split(split):
                mine = [
                    n for n in names if n.startswith((f"{stack.patient}-", f"{stack.patient}_"))
                ]
                for quality, letters in (("high", "HQ"), ("low", "LQ")):
                    images = prepared.images(stack, quality)
                    assert isinstance(images, np.memmap)
                    expected = [image(name, letters).T for name in sorted(mine, key=natural_key)]
                    np.testing.assert_array_equal(images, expected)
    assert {stack.patient for stack in report.sets[0].stacks} >= {"IXI002", "IXI385"}
    assert {stack.patient for stack in report.sets[1].split("test")} == {"L506"}
    assert {stack.patient for stack in report.sets[2].split("train")} == {"Patient_4", "Patient_41"}
    assert report.sets[0].images(report.sets[0].stacks[0], "high").dtype == np.int16
    assert report.sets[2].images(report.sets[2].stacks[0], "high").dtype == np.float32


def test_slices_of_other_sizes_are_stacks_of_their_own(root, tmp_path):
    for quality in ("LQ", "HQ"):
        save_pickle(root / f"CT/train/{quality}/L067_3_0.bin", np.ones((4, 5), np.int16))
    prepared = prepare_release(root, tmp_path / "out").sets[1]
    shapes = {stack.name: stack.shape for stack in prepared.split("train")}
    assert shapes == {"L067-9x6": (3, 9, 6), "L067-5x4": (1, 5, 4)}
    assert prepared.split("train")[0].origin == {"images": "_2_0 _2_11 _10_0"}


def test_one_modality_alone_and_files_nobody_asked_for(root, tmp_path):
    (root / "PET").rename(tmp_path / "PET away")
    (root / "CT").rename(root / "CT-old")
    (root / "readme.txt").touch()
    (root / "MRI/val/LQ").mkdir(parents=True)
    (root / "MRI/val/LQ/x.nii").touch()
    (root / "MRI/train/LQ/Thumbs.db").touch()
    report = prepare_release(root, tmp_path / "out")
    assert files_below(tmp_path / "out")[0] == "mri-sr"
    assert [one.task_name for one in report.sets] == ["mri-sr"]
    assert report.others == {
        "All-in-One/CT-old": 12,
        "All-in-One/readme.txt": 1,
        "MRI/val": 1,
        "other files": 1,
    }


def spoil(root: Path) -> dict[str, str]:
    """Faults of every kind, and what is to be said of them."""
    (root / "MRI/train/HQ/IXI002-Guys-0828-T2_58.bin").unlink()
    (root / "CT/test/LQ/L506_106_0.nii").unlink()
    save_pickle(root / "CT/train/LQ/L067_2_0.bin", np.ones((4, 4)))
    save_pickle(root / "CT/train/HQ/L067_2_11.bin", np.full((6, 9), np.nan))
    for quality in ("LQ", "HQ"):
        save_pickle(root / f"CT/train/{quality}/L067_4_0.bin", np.ones((3, 6, 9)))
        save_pickle(root / f"CT/train/{quality}/nobody.bin", np.ones((6, 9)))
        save_pickle(root / f"PET/train/{quality}/Patient_7_1_0.bin", np.ones((6, 9), bool))
    (root / "PET/train/HQ/Patient_4_105_0.bin").write_bytes(pickle.dumps(os.getcwd))
    path = root / "PET/test/HQ/Patient_6_1_0.nii"
    path.write_bytes(path.read_bytes()[:-3])
    return {
        "MRI/train/HQ/IXI002-Guys-0828-T2_58": "is missing, its partner is there",
        "CT/test/LQ/L506_106_0": "is missing, its partner is there",
        "CT/train/L067_2_0": "HQ is 9 x 6 and LQ 4 x 4",
        "CT/train/L067_2_11": "not finite",
        "CT/train/L067_4_0": "holds 3 x 6 x 9 values, not one slice",
        "CT/train/nobody": "has no patient",
        "PET/train/Patient_7_1_0": "holds bool",
        "PET/train/Patient_4_105_0": "getcwd",
        "PET/test/Patient_6_1_0": "truncated",
    }


def test_every_fault_is_named_at_once_and_nothing_is_written(root, tmp_path):
    faults = spoil(root)
    with pytest.raises(InputError) as caught:
        prepare_release(root, tmp_path / "deep/out")
    lines = str(caught.value).splitlines()
    assert "9 problems; nothing was written" in lines[0]
    for name, why in faults.items():
        assert any(line.startswith(f"  {name}: ") and why in line for line in lines), name
    assert not (tmp_path / "deep").exists()


def test_faulty_images_are_left_out_and_listed(root, tmp_path):
    faults = spoil(root)
    report = prepare_release(root, tmp_path / "out", skip=True)
    assert report.left_out.keys() == faults.keys()
    slices = [{s: c.slices for s, c in one.counts().items()} for one in report.sets]
    assert slices == [
        {"train": 2, "validation": 1, "test": 1},
        {"train": 1, "validation": 1, "test": 1},
        {"train": 1, "validation": 1, "test": 0},
    ]
    record = PreparedSet.read(tmp_path / "out/pet-synth").record
    assert record["left_out"].keys() == {name for name in faults if name.startswith("PET/")}


def test_a_patient_in_two_splits_is_refused_even_where_faults_are_skipped(root, tmp_path):
    for quality in ("LQ", "HQ"):
        save(root, "CT", "train", quality, "L506_1_0")
    with pytest.raises(InputError, match=r"CT/L506: in more than one split \(train, test\)"):
        prepare_release(root, tmp_path / "out", skip=True)
    assert not (tmp_path / "out").exists()


def test_missing_folders_and_double_files_are_named(root, tmp_path):
    (root / "MRI/test/HQ").rename(root / "MRI/test/hq away")
    name = "CT/test/HQ/L506_105_0"
    save_pickle(root / f"{name}.bin", image("L506_105_0", "HQ"))
    with pytest.raises(InputError) as caught:
        prepare_release(root, tmp_path / "out")
    assert "MRI/test/HQ: is missing" in str(caught.value)
    assert f"{name}.nii: exists as L506_105_0.bin too" in str(caught.value)
    with pytest.raises(InputError, match="give the folder above"):
        prepare_release(root / "CT", tmp_path / "out")


def test_other_results_beside_are_kept(root, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").touch()
    spoil(root)
    with pytest.raises(InputError):
        prepare_release(root, tmp_path / "out")
    assert files_below(tmp_path / "out") == ["notes.txt"]
