"""NaN outside the body is filled, remembered and put back; NaN inside it is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from restore_rwkv.errors import InputError
from restore_rwkv.io import Volume, read_volume, same_field_of_view, write_volume

SHAPE = (24, 20, 12)
OUTSIDE = np.sum((np.indices(SHAPE).T / np.array(SHAPE) - 0.45) ** 2, axis=-1).T > 0.12


def brain(low: float = 40.0) -> np.ndarray:
    """A brain-like ball with noise, without values around it."""
    values = np.random.default_rng(0).uniform(low, low + 100, SHAPE).astype(np.float32)
    values[OUTSIDE] = np.nan
    return values


def save(path: Path, values: np.ndarray) -> Path:
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    if path.suffix in (".nrrd", ".mha"):
        image = SimpleITK.GetImageFromArray(values.transpose())
        SimpleITK.WriteImage(image, path)
    else:
        kind = nibabel.MGHImage if path.suffix == ".mgz" else nibabel.Nifti1Image
        nibabel.save(kind(values, affine), path)
    return path


@pytest.mark.parametrize("name", ["in.nii", "in.nii.gz", "in.mgz", "in.nrrd", "in.mha"])
@pytest.mark.parametrize(("low", "filled"), [(40.0, None), (-50.0, 0.0)])
def test_nan_around_the_body_is_filled_and_can_be_put_back(
    tmp_path: Path, name: str, low: float, filled: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    values = brain(low)
    volume = read_volume(save(tmp_path / name, values))
    assert volume.missing is not None
    np.testing.assert_array_equal(volume.missing, OUTSIDE)
    np.testing.assert_array_equal(volume.data[~OUTSIDE], values[~OUTSIDE])
    expected = np.nanmin(values) if filled is None else filled
    assert set(np.unique(volume.data[OUTSIDE]).tolist()) == {float(expected)}
    assert caplog.text.count("without a value") == 1
    assert f"{name}: {OUTSIDE.sum()} voxels without a value" in caplog.text
    restored = volume.with_data(volume.data + 1)
    write_volume(restored, tmp_path / f"out-{name}", keep_nan=True)
    again = read_volume(tmp_path / f"out-{name}")
    assert again.missing is not None
    np.testing.assert_array_equal(again.missing, OUTSIDE)
    np.testing.assert_array_equal(again.data[~OUTSIDE], values[~OUTSIDE] + 1)
    write_volume(restored, tmp_path / f"filled-{name}")
    assert read_volume(tmp_path / f"filled-{name}").missing is None


def test_images_of_python_are_filled_too() -> None:
    volume = Volume.from_nibabel(nibabel.Nifti1Image(brain(), np.eye(4)))
    other = Volume.from_sitk(SimpleITK.GetImageFromArray(brain().transpose()))
    for one in (volume, other):
        np.testing.assert_array_equal(one.missing, OUTSIDE)


def test_a_scan_with_all_values_has_no_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "in.nii", np.nan_to_num(brain()))
    assert read_volume(path).missing is None


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda v: v.__setitem__((10, 9, 5), np.nan), r"inside.*the first at \(10, 9, 5\)"),
        (lambda v: v.__setitem__((slice(9, 11), 9, 5), np.nan), r"inside.*the first at \(9, 9, 5"),
        (lambda v: v.__setitem__((10, 9, 5), np.inf), "are not finite"),
        (lambda v: v.__setitem__((0, 0, 0), -np.inf), "are not finite"),
        (lambda v: v.__setitem__(..., np.nan), "are not finite, the first at"),
    ],
)
def test_other_voxels_that_are_not_numbers_are_refused(
    tmp_path: Path, edit: object, reason: str
) -> None:
    values = brain()
    edit(values)
    with pytest.raises(InputError, match=rf"in\.nii: .*{reason}"):
        read_volume(save(tmp_path / "in.nii", values))


@pytest.mark.parametrize("slices", [1, 2, 5])
def test_a_thin_stack_has_an_inside(tmp_path: Path, slices: int) -> None:
    values = np.ones((24, 20, slices), np.float32)
    values[12, 10, 0] = np.nan
    with pytest.raises(InputError, match=r"inside.*\(12, 10, 0\)"):
        read_volume(save(tmp_path / "in.nii", values))
    values[12, 10:, 0] = np.nan
    assert read_volume(save(tmp_path / "in.nii", values)).missing.sum() == 10


def test_nan_in_a_type_without_nan_is_refused(tmp_path: Path) -> None:
    volume = Volume(np.zeros(SHAPE), np.eye(4), missing=OUTSIDE)
    with_type = read_volume(save(tmp_path / "in.nii", np.zeros(SHAPE, np.int16)))
    volume = Volume(volume.data, volume.affine, source=with_type.source, missing=OUTSIDE)
    with pytest.raises(InputError, match="int16 has no NaN; write float32"):
        write_volume(volume, tmp_path / "out.nii", dtype="source", keep_nan=True)
    assert not (tmp_path / "out.nii").exists()


def test_a_mask_has_the_shape_of_the_data() -> None:
    with pytest.raises(InputError, match="missing is bool of shape"):
        Volume(np.zeros((2, 3, 4)), missing=np.zeros((2, 3, 3), bool))
    with pytest.raises(InputError, match="missing is uint8"):
        Volume(np.zeros((2, 3, 4)), missing=np.zeros((2, 3, 4), np.uint8))


@pytest.mark.parametrize("affine", [np.diag([2.0, 2.0, 3.0, 1.0]), None])
def test_the_mask_goes_to_a_finer_grid_with_the_data(affine: np.ndarray | None) -> None:
    volume = Volume(np.zeros(SHAPE), affine, missing=OUTSIDE)
    finer = (48, 60, 12)
    moved = None if affine is None else same_field_of_view(affine, SHAPE, finer)
    other = volume.resampled(np.zeros(finer), moved)
    np.testing.assert_array_equal(other.missing, OUTSIDE.repeat(2, 0).repeat(3, 1))
    assert np.isnan(other.with_missing()[other.missing]).all()
    assert np.isfinite(other.data).all()
