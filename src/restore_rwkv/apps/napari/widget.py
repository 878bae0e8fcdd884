"""The widget: restores a layer in a thread, and adds the result and its difference as layers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pint
from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Container,
    FileEdit,
    FloatSlider,
    Label,
    ProgressBar,
    PushButton,
)
from napari.layers import Image
from napari.qt.threading import create_worker
from qtpy.QtCore import QTimer

from restore_rwkv.apps.napari.layers import layers_of, matrix_of, volume_of
from restore_rwkv.apps.napari.restoring import Choice, Outcome, restore_volume
from restore_rwkv.apps.progress import JobProgress
from restore_rwkv.apps.words import Words
from restore_rwkv.errors import InputError
from restore_rwkv.model.shipped import shipped_weights
from restore_rwkv.tasks import AUTO, NOTICE, TASKS

if TYPE_CHECKING:
    from napari import Viewer

    from restore_rwkv.io import Volume

_OWN, _FILE = "the task's own", "a file"
_MILLISECONDS = 100  # between two looks at the progress
_PLACED = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


class RestoreWidget(Container):  # type: ignore[misc]
    """Choices, a button to restore the layer, one to cancel, and a line about what came of it.

    Args:
        napari_viewer: whose layers are offered, and that gets the new ones.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        self._viewer = napari_viewer
        self._progress: JobProgress | None = None
        self.layer = ComboBox(label="scan", choices=self._images)
        self.task = ComboBox(
            label="task", choices=[("of the scan's modality", AUTO), *((n, n) for n in TASKS)]
        )
        self.weights = ComboBox(label="weights", choices=[_OWN, *shipped_weights(), _FILE])
        self.file = FileEdit(label="weight file", filter="*.safetensors *.onnx", nullable=True)
        self.calibrated = CheckBox(
            label="", text="strength follows from the noise", value=True, tooltip="CT and PET"
        )
        self.strength = FloatSlider(label="strength", value=1.0, min=0.0, max=1.0, step=0.05)
        self.restore = PushButton(text="Restore")
        self.cancel = PushButton(text="Cancel", enabled=False)
        self.bar = ProgressBar(label="", value=0, min=0, max=1)
        self.line = Label(value=NOTICE)
        self.line.native.setWordWrap(True)
        super().__init__(
            widgets=[
                *(self.layer, self.task, self.weights, self.file, self.calibrated, self.strength),
                *(self.restore, self.cancel, self.bar, self.line),
            ]
        )
        self._timer = QTimer(self.native)
        self._timer.setInterval(_MILLISECONDS)
        self._timer.timeout.connect(self._show_progress)
        self._connect()

    def _connect(self) -> None:
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            event.connect(self._refresh)
        self.weights.changed.connect(self._show_choices)
        self.calibrated.changed.connect(self._show_choices)
        self.restore.changed.connect(self._start)
        self.cancel.changed.connect(self._cancel)
        self.native.destroyed.connect(lambda *_: self._cancel())
        self._show_choices()

    def _images(self, *_: Any) -> list[Image]:
        return [layer for layer in self._viewer.layers if isinstance(layer, Image)]

    def _refresh(self, *_: Any) -> None:
        self.layer.reset_choices()

    def _show_choices(self, *_: Any) -> None:
        self.file.enabled = self.weights.value == _FILE
        self.strength.enabled = not self.calibrated.value

    def _start(self, *_: Any) -> None:
        layer = self.layer.value
        if self._progress is not None:
            return
        if layer is None:
            self.line.value = "error: no image; open a scan, or drop one on the window"
            return
        try:
            volume, choice = volume_from(layer), self._choice()
            # As the layer is now: it may be changed or removed meanwhile.
            volume = volume.with_data(volume.data.copy())
            shape, name, placed = tuple(layer.data.shape), layer.name, _placed(layer)
        except Exception as error:
            self.line.value = f"error: {Words().error(error)}"
            return
        self._progress = JobProgress(lambda: None)
        self._set_running(True)
        worker = create_worker(restore_volume, volume, choice, self._progress, _start_thread=False)
        worker.returned.connect(lambda outcome: self._finish(outcome, shape, placed, name))
        worker.start()

    def _choice(self) -> Choice:
        weights: str | None = self.weights.value
        if weights == _OWN:
            weights = None
        elif weights == _FILE:
            # An empty field is the folder "."; its error names the remedy.
            weights = str(self.file.value or Path())
        strength = None if self.calibrated.value else float(self.strength.value)
        return Choice(self.task.value, weights, strength)

    def _cancel(self, *_: Any) -> None:
        if self._progress is not None:
            self._progress.cancelled.set()

    def _finish(
        self, outcome: Outcome, shape: tuple[int, ...], placed: dict[str, Any], name: str
    ) -> None:
        self._progress = None
        self._set_running(False)
        self.line.value = outcome.line
        if outcome.restored is not None:
            for data, how, _ in layers_of(outcome.restored, shape, placed, name):
                self._viewer.add_image(data, **how)

    def _set_running(self, running: bool) -> None:
        self.restore.enabled, self.cancel.enabled = not running, running
        self.bar.value = 0
        if running:
            self.line.value = "restoring"
            self._timer.start()
        else:
            self._timer.stop()

    def _show_progress(self) -> None:
        if self._progress is None:
            return
        values = self._progress.values()
        done, every = int(values["done"] or 0), int(values["all"] or 0)
        self.bar.max, self.bar.value = max(every, 1), done
        if self._progress.cancelled.is_set():
            self.line.value = "cancelling, after the slices that are being computed"
        elif every:
            self.line.value = f"restoring: {done} of {every} slices"


def _placed(layer: Image) -> dict[str, Any]:
    """Return the arguments that give another layer the place and look of this one."""
    return {
        **{name: copy.copy(getattr(layer, name)) for name in _PLACED},
        "contrast_limits": tuple(layer.contrast_limits),
        "colormap": layer.colormap.name,
    }


def volume_from(layer: Image) -> Volume:
    """Return the volume that an image layer shows, see `volume_of`.

    Raises:
        InputError: as `volume_of`, or it is a layer of colours or of several resolutions.
    """
    if layer.rgb or layer.multiscale:
        kind = "colours" if layer.rgb else "several resolutions"
        raise InputError(f"layer {layer.name}: has {kind}; give an image of one value a voxel")
    data = layer.data
    matrix = None
    millimetres = _millimetres(layer.units)
    if millimetres is not None and np.ndim(data) == len(millimetres):
        matrix = matrix_of(layer.data_to_world, np.ndim(data), millimetres)
    return volume_of(data, matrix, layer.metadata, layer.name)


def _millimetres(units: Any) -> list[float] | None:
    """Return the length of a unit of each axis in mm; None where an axis has no length."""
    registry = pint.get_application_registry()
    try:
        return [float(registry.Quantity(1, unit).to("mm").magnitude) for unit in units]
    except pint.DimensionalityError:
        return None
