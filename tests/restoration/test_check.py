"""What `restore` would do with every scan below a path."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset

from restore_rwkv.errors import InputError
from restore_rwkv.io import find_scans
from restore_rwkv.restoration import Checked, Checker, RestoreOptions, Restorer
from tests.helpers.synthetic_series import SeriesWriter


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.diag([1.0, 1, 3, 1])), path)
    return path


def low_resolution(shape: tuple[int, int, int] = (96, 96, 2)) -> np.ndarray:
    """Noise of the central quarter of k-space over a bright disc, as the weights for MRI know."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    rng = np.random.default_rng(0)
    image = np.where(x**2 + y**2 < 0.6, 900.0, 20.0)[..., None] + rng.normal(0, 150, shape)
    spectrum = np.fft.fftshift(np.fft.fft2(image, axes=(0, 1)), axes=(0, 1))
    keep = [slice(n // 2 - n // 8, n // 2 + n // 8) for n in shape[:2]]
    kept = np.zeros_like(spectrum)
    kept[keep[0], keep[1]] = spectrum[keep[0], keep[1]]
    return np.abs(np.fft.ifft2(np.fft.ifftshift(kept, axes=(0, 1)), axes=(0, 1)))


def by_name(path: Path, checker: Checker) -> dict[str, Checked]:
    return {Path(scan.name).name: scan for scan in checker.scans(path)}


@pytest.fixture
def archive(tmp_path: Path, write_series: SeriesWriter) -> Path:
    root = tmp_path / "archive"
    save(root / "a" / "good_T1w.nii.gz", low_resolution())
    save(root / "a" / "full_T1w.nii.gz", low_resolution() + np.eye(96)[..., None] * 900)
    save(root / "b" / "unknown.nii.gz", low_resolution())
    save(root / "b" / "empty_T2w.nii.gz", np.zeros((96, 96, 2)))
    (root / "b" / "broken.nii.gz").write_bytes(b"no gzip")
    (root / "b" / "good_T1w.restoration.json").write_text("{}")
    (root / "notes.txt").write_text("no scan")
    shutil.copytree(write_series(), root / "c" / "deep" / "series")
    damaged = root / "c" / "deep" / "damaged.dcm"
    damaged.write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL" + b"\xff" * 40)
    return root


def test_every_scan_is_found_and_no_fault_stops_the_others(archive: Path) -> None:
    checked = by_name(archive, Checker(device="cpu"))
    assert len(checked) == 7
    good = checked["good_T1w.nii.gz"]
    assert good.refusals == ()
    assert good.fit == {"light-mri-sr": "fit", "light-all-in-one": "fit"}
    assert (good.modality, good.shape, good.task) == ("MR", (96, 96, 2), "mri-sr")
    assert good.spacing == (1, 1, 3)
    assert good.tile == (96, 96)
    assert good.memory is not None
    assert good.free is not None
    assert 100 << 20 < good.memory < good.free
    assert good.seconds is not None
    assert 0 < good.seconds < 60
    full = checked["full_T1w.nii.gz"]
    assert full.fit["light-mri-sr"] == "unfit"
    assert "more resolution than the weights know" in full.refusals[0]
    assert "give task=" in checked["unknown.nii.gz"].refusals[0]
    assert "nothing to restore" in checked["empty_T2w.nii.gz"].refusals[0]
    assert "gzip" in checked["broken.nii.gz"].refusals[0]
    assert "damaged" in checked["damaged.dcm"].refusals[0]
    (series,) = (scan for scan in checked.values() if scan.series)
    assert series.encoding == "Explicit VR Little Endian"
    assert "5 x 4 pixels" in series.refusals[0]
    assert not any(path.suffix == ".json" for path in archive.rglob("*restored*"))


def test_a_check_says_what_restore_says(archive: Path, tmp_path: Path) -> None:
    options = RestoreOptions(strict=True)
    checked = by_name(archive / "a", Checker("mri-sr", device="cpu", options=options))
    for name, scan in checked.items():
        path, output = archive / "a" / name, tmp_path / "out" / name
        preview = Restorer("mri-sr", device="cpu").preview(path, output, options)
        assert preview.refusals == scan.refusals


def test_weights_of_the_user_are_the_only_ones_told_of(archive: Path, tiny_weights: Path) -> None:
    (scan,) = Checker("mri-sr", tiny_weights, "cpu").scans(archive / "a" / "good_T1w.nii.gz")
    assert scan.fit == {tiny_weights.stem: "fit"}


def test_a_path_without_scans_gives_none_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no scan")
    assert list(find_scans(tmp_path)) == []
    with pytest.raises(InputError, match="no such file"):
        list(find_scans(tmp_path / "nowhere"))


def test_volumes_of_a_4d_image_are_counted(tmp_path: Path) -> None:
    save(tmp_path / "run_bold.nii.gz", np.stack([low_resolution()] * 3, -1))
    (scan,) = Checker(device="cpu").scans(tmp_path)
    assert (scan.volumes, scan.shape) == (3, (96, 96, 2))


def test_series_in_one_folder_are_checked_one_by_one(write_series: SeriesWriter) -> None:
    def second(_: int, dataset: Dataset) -> None:
        dataset.SeriesInstanceUID, dataset.SeriesNumber = "1.2.9", 8

    folder = write_series(second)
    for file in list(folder.iterdir()):
        file.rename(folder / f"second_{file.name}")
    write_series()
    names = [scan.name for scan in Checker(device="cpu").scans(folder)]
    assert [name.partition(": ")[2] for name in names] == ["series 7 oblique", "series 8 oblique"]


def test_what_is_found_is_plain_json(archive: Path) -> None:
    for scan in Checker(device="cpu").scans(archive):
        assert json.loads(json.dumps(dataclasses.asdict(scan)))["name"] == scan.name


def test_hidden_files_and_what_killed_runs_left_are_no_scans(
    tmp_path: Path, write_series: SeriesWriter
) -> None:
    folder = write_series()
    save(folder / "good_T1w.nii.gz", low_resolution())
    shutil.copy(folder / "good_T1w.nii.gz", folder / "._good_T1w.nii.gz")
    (folder / ".out-01234567.partial.nii.gz").touch()
    shutil.copytree(folder, folder / ".derived-01234567.partial")
    (folder / "link.nii.gz").symlink_to(folder / "good_T1w.nii.gz")
    names = [Path(scan.name).name for scan in Checker(device="cpu").scans(folder)]
    assert len(names) == 2
    assert names[1] == "good_T1w.nii.gz"


def test_what_was_not_compared_is_told(tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(0, 9, (48, 24, 48))
    affine = np.diag([4.07, 4.07, 3, 1])
    nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), tmp_path / "a_pet.nii.gz")
    (scan,) = Checker(device="cpu").scans(tmp_path)
    assert "4.07 mm" in scan.unjudged["light-pet-synth"]


def test_a_volume_in_the_middle_is_checked_too(tmp_path: Path) -> None:
    values = np.stack([low_resolution()] * 3, -1)
    values[..., 1] = 7
    save(tmp_path / "run_bold.nii.gz", values)
    (scan,) = Checker(device="cpu").scans(tmp_path)
    assert scan.refusals[0].startswith("volume 2 of 3: run_bold.nii.gz: all values are 7")
