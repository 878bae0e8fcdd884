"""Volumes as layers and back, and what the widget runs; without napari."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from restore_rwkv.apps.napari.layers import KEY, layer_of, layers_of, matrix_of, volume_of
from restore_rwkv.apps.napari.reader import read_layers, reader_of
from restore_rwkv.apps.napari.restoring import Choice, restore_volume
from restore_rwkv.apps.progress import JobProgress
from restore_rwkv.errors import InputError
from restore_rwkv.io import Volume, read_volume
from restore_rwkv.restoration import Restorer
from tests.helpers.synthetic_series import SeriesWriter

OBLIQUE = np.array([[-0.8, 0.1, 0.2, 5], [0.1, 0.7, -0.3, -9], [0, 0.2, 3, 40], [0, 0, 0, 1.0]])
NOISE = np.random.default_rng(0)


def volume(modality: str | None = "MR") -> Volume:
    return Volume(NOISE.normal(100, 10, (5, 4, 3)).astype(np.float32), OBLIQUE, modality=modality)


def quiet() -> JobProgress:
    return JobProgress(lambda: None)


def test_each_voxel_lies_where_it_lay() -> None:
    scan = volume()
    data, how, kind = layer_of(scan, "t1")
    assert kind == "image"
    assert (how["units"], how["axis_labels"]) == (("mm",) * 3, ("superior", "posterior", "left"))
    assert np.shares_memory(data, scan.data)
    for index in ((0, 0, 0), (4, 1, 2), (2, 3, 0)):
        right, front, up = (OBLIQUE @ [*index, 1])[:3]
        at = (how["affine"] @ [*index[::-1], 1])[:3]
        assert at == pytest.approx([up, -front, -right])
        assert data[index[::-1]] == scan.data[index]


def test_rows_run_to_the_back_and_columns_to_the_left_of_axial_slices() -> None:
    _, how, _ = layer_of(Volume(np.zeros((5, 4, 3)), np.diag([2.0, 3.0, 4.0, 1.0])), "scan")
    # RAS+ of the file: its columns run to the right and its rows to the front, so both turn.
    assert np.allclose(how["affine"][:3, :3], np.diag([4.0, -3.0, -2.0]))


@pytest.mark.parametrize(
    ("modality", "colormap"), [("MR", "gray"), ("PT", "gray_r"), ("CT", "gray"), (None, "gray")]
)
def test_the_window_is_that_of_other_pictures(modality: str | None, colormap: str) -> None:
    _, how, _ = layer_of(volume(modality), "scan")
    assert how["colormap"] == colormap
    low, high = how["contrast_limits"]
    assert low < high
    if modality == "CT":
        assert (low, high) == (-160, 240)


def test_the_window_is_of_all_slices() -> None:
    """Also where the first and the middle one are empty."""
    scan = volume("MR")
    data = np.zeros((*scan.data.shape[:2], 9), np.float32)
    data[..., 6] = np.linspace(0, 700, data[..., 6].size).reshape(data.shape[:2])
    _, how, _ = layer_of(Volume(data, scan.affine, modality="MR"), "scan")
    assert how["contrast_limits"][1] > 300


def test_a_layer_becomes_the_volume_that_it_was_made_from() -> None:
    scan = volume()
    data, how, _ = layer_of(scan, "t1")
    assert volume_of(data, None, how["metadata"], "t1") is scan
    changed = volume_of(data * 2, None, how["metadata"], "t1")
    assert np.array_equal(changed.data, scan.data * 2)
    assert np.array_equal(changed.affine, scan.affine)


def test_a_layer_of_something_else_becomes_a_volume_of_its_own_geometry() -> None:
    scan = volume()
    data, how, _ = layer_of(scan, "t1")
    found = volume_of(data.copy(), how["affine"], {}, "t1")
    assert np.array_equal(found.data, scan.data)
    assert found.affine == pytest.approx(scan.affine)
    assert volume_of(data, None, {}, "t1").affine is None
    assert volume_of(data[0], how["affine"], {}, "t1").data.shape == (5, 4, 1)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (7,)])
def test_other_numbers_of_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"layer x: has \d axes; give an image of 2 or 3"):
        volume_of(np.zeros(shape), None, {}, "x")


def test_the_matrix_of_an_affine_function_is_found() -> None:
    matrix = matrix_of(lambda index: OBLIQUE[:3, :3] @ index + OBLIQUE[:3, 3], 3, [1, 1, 1])
    assert matrix == pytest.approx(OBLIQUE)
    in_metres = matrix_of(lambda index: index, 2, [1000, 1000])
    assert in_metres == pytest.approx(np.diag([1000.0, 1000, 1]))


def test_what_is_restored_lies_on_the_scan_with_its_window(scan: Path, tiny_weights: Path) -> None:
    before = read_volume(scan)
    outcome = restore_volume(before, Choice("mri-sr", str(tiny_weights), None, "cpu"), quiet())
    assert outcome.restored is not None
    assert outcome.line.startswith("Restored for mri-sr with ")
    assert "Not a medical device" in outcome.line
    data, how, _ = layer_of(before, "t1")
    placed = {"affine": how["affine"], "contrast_limits": (0, 900), "colormap": "gray"}
    image, change = layers_of(outcome.restored, data.shape, placed, "t1")
    assert np.array_equal(image[0] - data, change[0])
    assert image[1]["affine"] is change[1]["affine"] is how["affine"]
    assert (image[1]["contrast_limits"], change[1]["visible"]) == ((0, 900), False)
    low, high = change[1]["contrast_limits"]
    assert low == -high < 0
    assert image[1]["metadata"][KEY] is outcome.restored.volume
    assert image[1]["metadata"]["record"]["task"] == "mri-sr"
    expected = Restorer("mri-sr", tiny_weights, "cpu").run(before)
    assert np.array_equal(image[0], expected.volume.data.T)


def test_errors_and_a_cancel_are_one_line(scan: Path, tiny_weights: Path) -> None:
    before = read_volume(scan)
    unknown = restore_volume(before, Choice("mri-st"), quiet())
    assert unknown.restored is None
    assert unknown.line.startswith("error: task 'mri-st' is unknown; did you mean 'mri-sr'?")
    stopped = quiet()
    stopped.cancelled.set()
    choice = Choice("mri-sr", str(tiny_weights), None, "cpu")
    assert restore_volume(before, choice, stopped).line == "cancelled"
    bug = restore_volume(None, choice, quiet()).line  # type: ignore[arg-type]
    assert "\n" not in bug
    assert bug.startswith("error: ")


def test_the_reader_reads_files_and_series(
    scan: Path, write_series: SeriesWriter, tmp_path: Path
) -> None:
    series = write_series()
    read = reader_of([str(scan), str(series)])
    assert read is not None
    first, second = read([str(scan), str(series)])
    assert first[1]["name"] == "scan.nii.gz"
    assert np.array_equal(first[0], read_volume(scan).data.T)
    assert np.array_equal(second[0], read_volume(series).data.T)
    assert second[1]["units"] == ("mm",) * 3


def test_each_volume_of_a_series_of_volumes_is_a_layer(tmp_path: Path) -> None:
    path = tmp_path / "four.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 2), np.float32), np.eye(4)), path)
    assert [how["name"] for _, how, _ in read_layers(str(path))] == [
        "four.nii.gz 1",
        "four.nii.gz 2",
    ]


def test_other_folders_are_left_to_other_readers(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert reader_of(str(tmp_path)) is None
    assert reader_of(str(tmp_path / "none.nii")) is None
    assert reader_of([]) is None


def test_none_of_this_imports_napari() -> None:
    names = ("layers", "reader", "restoring")
    code = "; ".join(f"import restore_rwkv.apps.napari.{name}" for name in names)
    code += "; import sys; sys.exit('napari' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
