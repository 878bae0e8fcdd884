"""The manifest, and the widget in a viewer; skipped where napari or a Qt is absent.

In an environment with napari, without a screen:

    xvfb-run -a python -m pytest --disable-plugin-autoload tests/apps/napari
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore_rwkv.io import read_volume
from restore_rwkv.restoration import Restorer

# napari, vispy and magicgui warn on their own account.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    napari = pytest.importorskip("napari", reason="napari is absent")
    pytest.importorskip("qtpy.QtWidgets", reason="a Qt is absent", exc_type=ImportError)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
SECONDS = 120


@pytest.fixture
def viewer() -> Iterator[Any]:
    found = napari.Viewer(show=False)
    yield found
    found.close()


@pytest.fixture
def widget(viewer: Any, scan: Path, tiny_weights: Path) -> Any:
    """The widget, docked, of a viewer that shows a scan as the reader reads it."""
    from restore_rwkv.apps.napari.reader import read_layers
    from restore_rwkv.apps.napari.widget import RestoreWidget

    for data, how, _ in read_layers(str(scan)):
        viewer.add_image(data, **how)
    made = RestoreWidget(viewer)
    viewer.window.add_dock_widget(made, name="Restore a scan")
    made.weights.value, made.file.value, made.task.value = "a file", tiny_weights, "mri-sr"
    return made


def until(ended: Callable[[], bool]) -> None:
    """Run the event loop until something holds."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + SECONDS
    while not ended():
        assert time.monotonic() < end
        QApplication.processEvents()
        time.sleep(0.01)


def test_napari_finds_the_plugin(scan: Path) -> None:
    from npe2 import PluginManager

    manager = PluginManager()
    manager.discover()
    assert "restore-rwkv" in {found.name for found in manager.iter_manifests()}
    readers = [r.plugin_name for r in manager.iter_compatible_readers([str(scan)])]
    assert "restore-rwkv" in readers
    widgets = {w.display_name for w in manager.iter_widgets()}
    assert "Restore a scan" in widgets


def test_a_file_opens_as_a_layer_in_mm(viewer: Any, scan: Path) -> None:
    (layer,) = viewer.open(str(scan), plugin="restore-rwkv")
    volume = read_volume(scan)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    right, front, up = (volume.affine @ [3, 2, 1, 1])[:3]
    assert layer.data_to_world((1, 2, 3)) == pytest.approx((up, -front, -right))


def test_it_restores_the_layer_and_shows_what_changed(
    viewer: Any, widget: Any, scan: Path, tiny_weights: Path
) -> None:
    scanned = viewer.layers[0]
    widget.restore.changed.emit(True)
    assert (widget.restore.enabled, widget.cancel.enabled) == (False, True)
    until(lambda: widget.restore.enabled)
    names = ["scan.nii.gz", "scan.nii.gz restored", "scan.nii.gz restored minus before"]
    assert [layer.name for layer in viewer.layers] == names
    _, restored, change = viewer.layers
    expected = Restorer("mri-sr", tiny_weights, "cpu").run(read_volume(scan)).volume
    assert np.allclose(restored.data, expected.data.T, atol=1e-3)
    assert np.allclose(change.data, restored.data - scanned.data)
    for layer in (restored, change):
        assert np.allclose(layer.affine.affine_matrix, scanned.affine.affine_matrix)
        assert layer.units == scanned.units
    assert restored.contrast_limits == scanned.contrast_limits
    assert (restored.visible, change.visible) == (True, False)
    colours = change.colormap.map(np.array([0.0, 0.5, 1.0]))
    assert colours[0][2] > colours[0][0]  # blue is lower
    assert colours[1][:3].max() == 0
    assert colours[2][0] > colours[2][2]  # orange is higher
    assert widget.line.value.startswith("Restored for mri-sr")


def test_a_layer_that_is_changed_or_removed_meanwhile_is_restored_as_it_was(
    viewer: Any, widget: Any
) -> None:
    (scanned,) = viewer.layers
    placed, window = scanned.affine.affine_matrix.copy(), tuple(scanned.contrast_limits)
    widget.restore.changed.emit(True)
    scanned.name, scanned.translate, scanned.contrast_limits = "other", (9, 9, 9), (0, 1)
    values = scanned.data.copy()
    scanned.data[:] = 0
    scanned.data = scanned.data[1:]
    viewer.layers.remove(scanned)
    until(lambda: widget.restore.enabled)
    restored, change = viewer.layers
    assert (restored.name, change.name) == (
        *("scan.nii.gz restored", "scan.nii.gz restored minus before"),
    )
    assert np.allclose(restored.affine.affine_matrix, placed)
    assert np.allclose(restored.translate, 0)
    assert np.allclose(restored.data - change.data, values, atol=1e-3)
    assert tuple(restored.contrast_limits) == window


def test_an_error_is_one_line_and_the_widget_goes_on(viewer: Any, widget: Any) -> None:
    widget.weights.value, widget.task.value = "the task's own", "ct-denoise"
    widget.calibrated.value, widget.strength.value = False, 0.5
    widget.restore.changed.emit(True)
    until(lambda: widget.restore.enabled)
    assert widget.line.value.startswith("error: ")
    assert "\n" not in widget.line.value
    assert len(viewer.layers) == 1
    viewer.layers.clear()
    widget.restore.changed.emit(True)
    assert widget.line.value.startswith("error: no image")


def test_layers_of_colours_are_refused(viewer: Any, widget: Any) -> None:
    widget.layer.value = viewer.add_image(np.zeros((8, 8, 3), np.uint8), rgb=True, name="photo")
    widget.restore.changed.emit(True)
    assert widget.line.value == (
        "error: layer photo: has colours; give an image of one value a voxel"
    )


def test_a_cancel_ends_it(viewer: Any, widget: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run_plan = Restorer.run_plan

    def waits(self: Any, plan: Any, progress: Any) -> Any:
        until_cancelled = time.monotonic() + SECONDS
        while not progress.cancelled.is_set() and time.monotonic() < until_cancelled:
            time.sleep(0.01)
        return run_plan(self, plan, progress)

    monkeypatch.setattr(Restorer, "run_plan", waits)
    widget.restore.changed.emit(True)
    widget.cancel.changed.emit(True)
    until(lambda: widget.restore.enabled)
    assert widget.line.value == "cancelled"
    assert len(viewer.layers) == 1


def test_layers_of_other_units_have_their_own_geometry(viewer: Any) -> None:
    from restore_rwkv.apps.napari.widget import volume_from

    data = np.random.default_rng(0).normal(size=(4, 5, 6))
    placed = viewer.add_image(data, scale=(0.003, 0.001, 0.001), units=("m", "m", "m"))
    assert volume_from(placed).spacing == pytest.approx((1, 1, 3))
    assert volume_from(viewer.add_image(data)).affine is None
