"""Scans come out of packages as they were pinned, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from restore_rwkv.data.open_scans import fetch
from restore_rwkv.data.open_scans.convert import check_scans, digest, fetch_scans, read_scan
from restore_rwkv.data.open_scans.table import OPEN_SCANS, Conversion, OpenScan
from restore_rwkv.errors import InputError
from restore_rwkv.io import Volume
from tests.helpers.open_archives import DIAGONAL, OBLIQUE, VALUES, save_packages, series, table


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All archives; no client can be run."""
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    save_packages(tmp_path / "downloads")
    return tmp_path / "downloads"


@pytest.fixture
def scans(tmp_path: Path, downloads: Path) -> Path:
    fetch_scans(tmp_path / "scans", downloads=downloads, table=table())
    return tmp_path / "scans"


def test_each_conversion(scans: Path) -> None:
    expected = {
        "a": (VALUES, DIAGONAL),
        "b": (VALUES, OBLIQUE),
        "d": (np.rint(VALUES * 0.75), DIAGONAL),
        "e": (np.minimum(np.rint(VALUES * 0.8), 3000), DIAGONAL),
    }
    for name, (values, affine) in expected.items():
        image = nib.load(scans / "train" / f"{name}.nii.gz")
        assert image.get_data_dtype() == np.int16
        np.testing.assert_array_equal(np.asarray(image.dataobj), values)
        np.testing.assert_allclose(image.affine, affine, atol=1e-6)
    kept = {path.name: path.read_bytes() for path in (scans / "train" / "c_dicom").iterdir()}
    assert kept == series()


def test_slices_can_be_averaged(tmp_path: Path, downloads: Path) -> None:
    """Pairs lie in the middle of their two slices; values are rounded after the mean."""
    scan = next(scan for scan in table() if scan.name == "b")
    values = np.rint((VALUES[..., 0::2] / 2 + VALUES[..., 1::2] / 2) + 0.3)
    affine = OBLIQUE @ np.diag([1, 1, 2, 1.0])
    affine[:3, 3] += 0.5 * OBLIQUE[:3, 2]
    thick = replace(
        scan, conversion=Conversion("NIfTI", together=2), sha256=digest(Volume(values, affine))
    )
    fetch_scans(tmp_path / "thick", downloads=downloads, table=[thick])
    assert read_scan(thick, tmp_path / "thick").spacing == pytest.approx((1, 1, 5))


def test_slices_left_over_are_dropped(tmp_path: Path, downloads: Path) -> None:
    scan = next(scan for scan in table() if scan.name == "a")
    values = np.rint(VALUES[..., :3].mean(2, keepdims=True))
    affine = DIAGONAL @ np.diag([1, 1, 3, 1.0])
    affine[2, 3] = 3.0  # the middle one of three slices of 3 mm
    thick = replace(
        scan, conversion=Conversion("NRRD", together=3), sha256=digest(Volume(values, affine))
    )
    fetch_scans(tmp_path / "thick", downloads=downloads, table=[thick])


def test_scans_pass_their_own_check(scans: Path) -> None:
    check_scans(scans, table())


def test_nothing_else_is_left(scans: Path, tmp_path: Path, downloads: Path) -> None:
    assert {path.name for path in tmp_path.iterdir()} == {"scans", "downloads"}
    assert len(list(downloads.iterdir())) == 4


def test_progress_counts_archives_twice(tmp_path: Path, downloads: Path) -> None:
    steps: list[tuple[int, int]] = []
    fetch_scans(
        tmp_path / "scans",
        downloads=downloads,
        table=table(),
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(done, 8) for done in range(1, 9)]


def test_a_folder_that_exists_is_left_alone(scans: Path, downloads: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        fetch_scans(scans, downloads=downloads, table=table())


def test_a_missing_archive_without_client_says_what_to_do(tmp_path: Path, downloads: Path) -> None:
    (downloads / "files-1.0.tgz").unlink()
    with pytest.raises(InputError, match=r"npm files 1\.0: npm is missing; install it, or give"):
        fetch_scans(tmp_path / "scans", downloads=downloads, table=table())
    assert {path.name for path in tmp_path.iterdir()} == {"downloads"}


def test_a_conversion_that_gives_another_scan_leaves_nothing(
    tmp_path: Path, downloads: Path
) -> None:
    changed = [replace(scan, sha256="0" * 64) if scan.name == "d" else scan for scan in table()]
    with pytest.raises(InputError, match=r"d\.nii\.gz: voxels or geometry differ"):
        fetch_scans(tmp_path / "scans", downloads=downloads, table=changed)
    assert {path.name for path in tmp_path.iterdir()} == {"downloads"}


def test_missing_scans_are_all_named(scans: Path) -> None:
    for name in ("a", "d"):
        (scans / "train" / f"{name}.nii.gz").unlink()
    with pytest.raises(InputError, match=r"lacks train.a\.nii\.gz, train.d\.nii\.gz"):
        check_scans(scans, table())


@pytest.mark.parametrize("change", ["voxel", "affine", "slice"])
def test_a_changed_scan_is_refused(scans: Path, change: str) -> None:
    path = scans / "train" / "a.nii.gz"
    if change == "slice":
        path = scans / "train" / "c_dicom" / "CT.001"
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)
    else:
        values, affine = VALUES.copy(), DIAGONAL.copy()
        values[1, 2, 3] += change == "voxel"
        affine[0, 3] += 0.01 * (change == "affine")
        nib.save(nib.Nifti1Image(values, affine), path)
    with pytest.raises(InputError, match="voxels or geometry differ"):
        check_scans(scans, table())


def test_compression_does_not_matter(scans: Path) -> None:
    nib.save(nib.Nifti1Image(VALUES.astype(np.float32), DIAGONAL), scans / "train" / "a.nii.gz")
    check_scans(scans, table())


def test_axes_correct_the_directions(scans: Path) -> None:
    volume = read_scan(replace(table()[0], axes="PIL"), scans)
    assert nib.aff2axcodes(volume.affine) == ("P", "I", "L")
    assert volume.spacing == pytest.approx((0.75, 0.5, 3.0))
    centre = volume.affine @ [2.5, 2, 1.5, 1]
    np.testing.assert_allclose(centre, [0, 0, 0, 1], atol=1e-12)
    assert (volume.modality, volume.unit) == ("MR", "a.u.")


def test_digest_tells_shapes_apart_and_needs_a_geometry() -> None:
    values = np.zeros((2, 3, 4))
    assert digest(Volume(values, np.eye(4))) != digest(Volume(values.reshape(3, 2, 4), np.eye(4)))
    with pytest.raises(InputError, match="no geometry"):
        digest(Volume(values))


def test_the_table_of_open_scans() -> None:
    assert len({scan.name for scan in OPEN_SCANS}) == len(OPEN_SCANS) == 12
    assert sum(scan.split == "test" for scan in OPEN_SCANS) == 3
    for scan in OPEN_SCANS:
        assert_pinned(scan)
    assert str(OPEN_SCANS[0].file.as_posix()) == "train/ct_chest_b.nii.gz"
    assert str(OPEN_SCANS[2].file.as_posix()) == "train/ct_abdomen_a_dicom"


def assert_pinned(scan: OpenScan) -> None:
    assert len(scan.paths) == len(scan.digests) >= 1
    digests = (*scan.digests, scan.sha256, scan.package.sha256)
    assert all(len(bytes.fromhex(each)) == 32 for each in digests)
    assert scan.package.version in scan.package.archive
    assert scan.package.licence in ("BSD-3-Clause", "MIT", "Apache-2.0", "MIT AND Apache-2.0")
    assert scan.package.ecosystem in fetch._CLIENTS
    assert scan.axes is None or len(scan.axes) == 3
