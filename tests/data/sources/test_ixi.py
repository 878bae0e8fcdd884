"""IXI T2 on small trees of its shape."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from restore_rwkv.data import PreparedSet
from restore_rwkv.data.sources import ixi
from restore_rwkv.data.sources.ixi import prepare_ixi
from restore_rwkv.data.sources.jobs import split_patients
from restore_rwkv.errors import InputError
from restore_rwkv.io import read_volume
from tests.helpers.source_trees import blob, save_nifti

SITES = ("Guys", "HH", "IOP")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(ixi, "SIZE", 16)
    monkeypatch.setattr(ixi, "SLICES", 6)


def name_of(i: int, kind: str = "T2") -> str:
    return f"IXI{i:03d}-{SITES[i % 3]}-{800 + i}-{kind}.nii.gz"


def tree(folder: Path, count: int = 8) -> Path:
    for i in range(count):
        save_nifti(folder / "IXI-T2" / name_of(i), blob(16, 16, 9, seed=i))
    return folder


def test_the_central_axial_slices_of_full_size(tmp_path):
    data = np.zeros((256, 256, 131), np.int16)
    data[64:192, 100:150] = np.arange(131)
    save_nifti(tmp_path / "IXI/IXI002-Guys-0828-T2.nii.gz", data, np.diag([0.9, 0.9, 1.25, 1]))
    report = prepare_ixi(tmp_path / "IXI", tmp_path / "out")
    (prepared,) = report.sets
    (stack,) = prepared.stacks
    assert (stack.name, stack.patient) == ("IXI002-Guys-0828-T2", "IXI002")
    assert (stack.shape, stack.spacing) == ((100, 256, 256), pytest.approx((1.25, 0.9, 0.9)))
    assert set(stack.files) == {"high"}
    images = prepared.images(stack, "high")
    assert isinstance(images, np.memmap)
    np.testing.assert_array_equal(images, np.moveaxis(data, 2, 0)[15:115])


def test_the_axial_axis_is_taken_from_the_affine(tmp_path, small):
    data = blob(16, 9, 16)  # slices along axis 1, stored from the head down
    affine = np.array([[1, 0, 0, 5], [0, 0, 1, 6], [0, -1.25, 0, 7], [0, 0, 0, 1.0]])
    path = save_nifti(tmp_path / "IXI" / name_of(1), data, affine)
    (prepared,) = prepare_ixi(tmp_path / "IXI", tmp_path / "out").sets
    images = prepared.images(prepared.stacks[0], "high")
    np.testing.assert_array_equal(images, np.moveaxis(read_volume(path).data, 1, 0)[1:7])
    assert prepared.stacks[0].spacing == (1.25, 1.0, 1.0)


def test_split_report_and_progress(tmp_path, small):
    source = tree(tmp_path / "IXI")
    for kind in ("T1", "PD"):
        save_nifti(source / "IXI-other" / name_of(2, kind), blob(4, 4, 4))
    (source / "IXI.xls").touch()
    (source / "IXI-T2" / f"._{name_of(0)}").touch()  # a Mac's
    done = []
    report = prepare_ixi(source, tmp_path / "out", progress=lambda *step: done.append(step))
    assert done == [(i, 8) for i in range(1, 9)]
    assert report.others == {"PD": 1, "T1": 1, "other files": 2}
    counts = report.sets[0].counts()
    assert {split: count.patients for split, count in counts.items()} == {
        "train": 5,
        "validation": 1,
        "test": 2,
    }
    assert any("train: 5 patients, 5 volumes, 30 slices" in line for line in report.lines())
    assert "not asked for: T1: 1 files" in report.lines()
    again = prepare_ixi(source, tmp_path / "again").sets[0]
    assert again.sha256 == report.sets[0].sha256


def test_all_of_ixi_is_split_as_in_the_paper():
    patients = [f"IXI{i:03d}" for i in range(578)]
    splits = split_patients(patients, 59, 114)
    counts = {split: list(splits.values()).count(split) for split in ixi.PAPER_SPLIT}
    assert counts == ixi.PAPER_SPLIT
    assert splits == split_patients(reversed(patients), 59, 114)
    # For ever: what was trained on one machine is tested on another.
    assert [p for p in patients[:12] if splits[p] == "test"] == [
        "IXI003",
        "IXI005",
        "IXI007",
        "IXI011",
    ]


def spoil(source: Path) -> None:
    """Each fault that IXI can have, in a volume of its own."""
    folder = source / "IXI-T2"
    save_nifti(folder / name_of(1), blob(16, 12, 9))
    save_nifti(folder / name_of(2), blob(16, 16, 5))
    content = (folder / name_of(3)).read_bytes()
    (folder / name_of(3)).write_bytes(content[: len(content) // 2])
    (folder / name_of(4)).write_bytes(gzip.compress(b"no NIfTI at all" * 100))
    (source / "more").mkdir()
    (source / "more" / name_of(5)).write_bytes((folder / name_of(5)).read_bytes())


def test_every_fault_is_named_at_once_and_nothing_is_written(tmp_path, small):
    source = tree(tmp_path / "IXI")
    spoil(source)
    with pytest.raises(InputError) as caught:
        prepare_ixi(source, tmp_path / "deep/out")
    message = str(caught.value)
    assert "5 problems; nothing was written" in message
    assert "skip=True" in message
    assert f"{name_of(1)}: axial slices are 16 x 12, not 16 x 16" in message
    assert f"{name_of(2)}: has 5 axial slices, not 6" in message
    assert f"{name_of(3)}: the gzip data is truncated" in message
    assert f"{name_of(4)}: not a NIfTI file" in message
    assert f"{name_of(5)}: is there already as" in message
    assert not (tmp_path / "deep").exists()


def test_faulty_volumes_are_left_out_and_listed(tmp_path, small):
    source = tree(tmp_path / "IXI")
    spoil(source)
    report = prepare_ixi(source, tmp_path / "out", skip=True)
    names = {stack.name for stack in report.sets[0].stacks}
    assert names == {name_of(i).removesuffix(".nii.gz") for i in (0, 5, 6, 7)}
    assert len(report.left_out) == 5
    assert report.left_out == PreparedSet.read(tmp_path / "out").record["left_out"]
    assert sum(line.startswith("left out: ") for line in report.lines()) == 5


def test_folders_without_ixi_are_refused(tmp_path, small):
    with pytest.raises(InputError, match="no such folder"):
        prepare_ixi(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no IXI T2 volumes"):
        prepare_ixi(tmp_path / "empty", tmp_path / "out")
    tree(tmp_path / "IXI", 2)
    prepare_ixi(tmp_path / "IXI", tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        prepare_ixi(tmp_path / "IXI", tmp_path / "out")
    spoil_all = tmp_path / "bad"
    save_nifti(spoil_all / name_of(1), blob(8, 8, 8))
    with pytest.raises(InputError, match="8 x 8, not 16 x 16"):
        prepare_ixi(spoil_all, tmp_path / "out2", skip=True)
