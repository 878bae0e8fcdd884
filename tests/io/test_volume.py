"""The volume: checks at the door, anatomical planes, and rounding for writers."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore_rwkv.errors import InputError
from restore_rwkv.io import Source, Stored, Volume, affine_of_axes, plane_axis, same_field_of_view
from restore_rwkv.io.stored import encode


def test_from_an_array_and_an_affine_alone() -> None:
    affine = np.diag([-2.0, 3.0, 0.5, 1.0])
    volume = Volume(np.arange(24).reshape(2, 3, 4), affine)
    assert volume.data.dtype == np.float32
    assert volume.spacing == (2.0, 3.0, 0.5)
    assert volume.unit is volume.modality is volume.source is None


def test_two_dimensional_array_gets_a_third_axis() -> None:
    volume = Volume(np.zeros((4, 5)))
    assert volume.data.shape == (4, 5, 1)
    assert volume.spacing is None


def test_with_data_keeps_all_else_and_refuses_another_shape() -> None:
    volume = Volume(np.zeros((2, 3, 4)), np.eye(4), unit="HU", modality="CT")
    other = volume.with_data(np.ones((2, 3, 4)))
    assert (other.unit, other.modality) == ("HU", "CT")
    assert other.data.sum() == 24
    with pytest.raises(InputError, match=r"shape is \(2, 3, 5\)"):
        volume.with_data(np.ones((2, 3, 5)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.zeros(3), "is not an image"),
        (np.zeros((2, 0, 3)), "no voxels"),
        (np.zeros((2, 3, 4, 5)), "4 axes"),
        (np.zeros((2, 3), complex), "complex128"),
        (np.zeros((2, 3), bool), "bool"),
        (np.array([[1.0, 2.0], [np.nan, np.inf]]), r"2 voxels are not finite.*\(1, 0, 0\)"),
        (np.full((2, 2), 1e300), "4 voxels are not finite"),
    ],
)
def test_unusable_data_is_refused(data: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Volume(data)


@pytest.mark.parametrize(
    ("affine", "reason"),
    [
        (np.eye(3), "4 x 4"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "4 x 4"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), "NaN"),
        (np.diag([1.0, np.inf, 1.0, 1.0]), "infinity"),
        (np.diag([1.0, 0.0, 1.0, 1.0]), "singular"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
    ],
)
def test_unusable_affine_is_refused(affine: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Volume(np.zeros((2, 2, 2)), affine)


def test_micrometre_voxels_are_not_taken_for_flat_ones() -> None:
    assert Volume(np.zeros((2, 2, 2)), np.diag([1e-4, 1e-4, 1e-4, 1])).spacing is not None


def test_data_must_fit_its_source() -> None:
    source = Source(Path("scan.nii"), (2, 3, 4, 1), None)
    assert Volume(np.zeros((2, 3, 4)), source=source).source is source
    with pytest.raises(InputError, match=r"scan\.nii"):
        Volume(np.zeros((4, 6, 8)), source=source)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_plane_axis_of_every_axis_order(axes: tuple[int, int, int]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.diag([1.0, -2.0, 3.0])[:, axes]
    found = tuple(plane_axis(affine, plane) for plane in ("sagittal", "coronal", "axial"))
    assert found == tuple(axes.index(world) for world in range(3))


@given(st.integers(0, 2**32 - 1))
def test_planes_of_any_oblique_scan_use_each_axis_once(seed: int) -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation
    found = {plane_axis(affine, plane) for plane in ("sagittal", "coronal", "axial")}
    assert found == {0, 1, 2}
    code = nibabel.aff2axcodes(affine)[plane_axis(affine, "axial")]
    assert code in "SI"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("letters", ["RAS", "LPI", "LAS", "RPS"])
def test_affine_of_axes_has_their_directions(order: tuple[int, int, int], letters: str) -> None:
    axes = "".join(letters[world] for world in order)
    shape, spacing = (6, 5, 4), (0.75, 0.5, 3.0)
    volume = Volume(np.zeros(shape), affine_of_axes(axes, shape, spacing))
    assert volume.affine is not None
    assert "".join(nibabel.aff2axcodes(volume.affine)) == axes
    assert volume.spacing == spacing
    np.testing.assert_allclose(volume.affine @ [2.5, 2, 1.5, 1], [0, 0, 0, 1], atol=1e-12)


@pytest.mark.parametrize("axes", ["", "PI", "PIRS", "PIP", "PAR", "PIX", "pir"])
def test_wrong_axes_are_refused(axes: str) -> None:
    with pytest.raises(InputError, match=f"axes is {axes!r}; give one of R L"):
        affine_of_axes(axes, (2, 2, 2), (1.0, 1.0, 1.0))


def test_unknown_plane_is_refused() -> None:
    with pytest.raises(InputError, match="oblique"):
        plane_axis(np.eye(4), "oblique")


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", ">i2", "i4", "u4", "i8", "u8", "f2"])
def test_encode_clips_and_never_wraps(kind: str) -> None:
    dtype = np.dtype(kind)
    values = np.array([[[-3e38, -0.4, 0.6, 3e38]]], np.float32)
    out = encode(values, Stored(dtype))
    limits = np.finfo(dtype.name) if dtype.kind == "f" else np.iinfo(dtype.name)
    assert out.dtype == dtype
    assert out[0, 0, 0] == limits.min
    # The largest float64 below 2**64 is 2048 less; 64-bit limits are met to that.
    assert float(out[0, 0, 3]) == pytest.approx(float(limits.max), rel=1e-12)
    if dtype.kind != "f":
        assert out[0, 0, 1:3].tolist() == [0, 1]


@given(
    stored=st.integers(-32768, 32767),
    slope=st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3),
    inter=st.floats(-1e3, 1e3),
)
def test_encode_inverts_slope_and_intercept(stored: int, slope: float, inter: float) -> None:
    value = np.array([[[stored * slope + inter]]], np.float32)
    out = encode(value, Stored(np.dtype(np.int16), slope, inter))
    # float32 values carry 24 bits: the error in stored steps that this leaves, and the rounding.
    error = 0.5 + abs(float(value[0, 0, 0])) * 2.0**-24 / abs(slope)
    assert abs(int(out[0, 0, 0]) - stored) <= error


def test_import_loads_no_file_library() -> None:
    program = (
        "import sys, restore_rwkv.io\n"
        "print([m for m in ('nibabel', 'pydicom', 'highdicom', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@given(
    shape=st.tuples(*[st.integers(1, 300)] * 3),
    matrix=st.tuples(*[st.integers(1, 300)] * 3),
    seed=st.integers(0, 99),
)
def test_another_matrix_keeps_the_outer_edges(
    shape: tuple[int, int, int], matrix: tuple[int, int, int], seed: int
) -> None:
    affine = np.eye(4)
    affine[:3] = np.random.default_rng(seed).normal(size=(3, 4))
    other = same_field_of_view(affine, shape, matrix)
    for corner in itertools.product((0, 1), repeat=3):  # half a voxel outside the centres
        before = affine @ [*(np.array(corner) * shape - 0.5), 1]
        after = other @ [*(np.array(corner) * matrix - 0.5), 1]
        np.testing.assert_allclose(after, before, atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "array", "expected"),
    [
        ((2, 3, 4), (8, 12, 4), (8, 12, 4)),
        ((2, 3, 4, 1), (8, 12, 4), (8, 12, 4, 1)),
        ((2, 3), (8, 12, 1), (8, 12)),
    ],
)
def test_a_resampled_volume_keeps_its_source(
    shape: tuple[int, ...], array: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    source = Source(Path("scan.nii"), shape, Stored(np.dtype(np.int16)))
    volume = Volume(np.zeros((*shape, 1)[:3]), np.eye(4), "a.u.", "MR", source)
    other = volume.resampled(np.ones(array), np.diag([0.25, 0.25, 1, 1]))
    assert other.source is not None
    assert (other.source.path, other.source.shape) == (source.path, expected)
    assert (other.unit, other.modality, other.spacing) == ("a.u.", "MR", (0.25, 0.25, 1.0))


def test_slices_are_a_view_and_go_back_where_they_were() -> None:
    data = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    volume = Volume(data, np.diag([1.0, 2, 3, 1]))
    for axis in range(3):
        stack = volume.slices(axis)
        assert stack.shape == (data.shape[axis], *np.delete(data.shape, axis))
        assert np.shares_memory(stack, volume.data)
        np.testing.assert_array_equal(stack[1], np.take(data, 1, axis))
        np.testing.assert_array_equal(volume.with_slices(stack + 1, axis).data, data + 1)
    with pytest.raises(InputError, match="one value for each voxel"):
        volume.with_slices(np.zeros((3, 4, 4)), 0)
