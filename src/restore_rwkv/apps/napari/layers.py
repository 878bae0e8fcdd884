"""Volumes as layers of napari and back.

napari shows the last two axes of an array, rows downwards. So the axes of a layer are those of the
volume in reverse, (Z, Y, X), and its world has the axes superior, posterior and left in mm: axial
slices then look as radiologists expect them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.report.images import COLD, WARM, limit_of
from restore_rwkv.io import Volume, record_values
from restore_rwkv.restoration.thumbnail import display_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.restoration import Restored

Layer = tuple[Any, dict[str, Any], str]
"""Values, keyword arguments and kind of a layer, as napari takes them from readers."""

KEY = "restore_rwkv"
"""Name in a layer's metadata of the `Volume` that it shows."""

# From RAS+ (right, anterior, superior) to the world of a layer (superior, posterior, left).
_WORLD = np.array([[0, 0, 1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
_REVERSED = np.eye(4)[[2, 1, 0, 3]]
_LABELS = ("superior", "posterior", "left")
_SAMPLES = 1 << 20  # voxels from which the window is
_DIFFERENCE = {
    "name": "lower-same-higher",
    "colors": np.array([COLD, (0, 0, 0), WARM]) / 255,
    "controls": [0.0, 0.5, 1.0],
}


def layer_of(volume: Volume, name: str) -> Layer:
    """Return a volume as a layer of the same memory.

    Args:
        volume: the volume; it is kept in the layer's metadata as `KEY`.
        name: of the layer.
    """
    step = max(1, round((volume.data.size / _SAMPLES) ** (1 / 3)))
    window = display_window(volume.data[::step, ::step, ::step], volume.modality)
    metadata = {KEY: volume, "unit": volume.unit, "modality": volume.modality}
    how: dict[str, Any] = {
        "name": name,
        "contrast_limits": window,
        "colormap": "gray_r" if volume.modality == "PT" else "gray",
        "metadata": metadata,
    }
    if volume.affine is not None:
        how["affine"] = _WORLD @ volume.affine @ _REVERSED
        how["units"] = ("mm",) * 3
        how["axis_labels"] = _LABELS
    return volume.data.T, how, "image"


def volume_of(
    data: Any,
    to_world: NDArray[np.float64] | None,
    metadata: Mapping[str, Any],
    name: str,
) -> Volume:
    """Return the volume that a layer shows.

    Args:
        data: values (Z, Y, X) or (Y, X) of the layer.
        to_world: (4, 4), indices of the layer to its world in mm; None where the world has no mm.
        metadata: of the layer. That of `layer_of` gives unit, modality, geometry and source.
        name: of the layer, for messages.

    Raises:
        InputError: the values have another number of axes, are complex, or not finite.
    """
    values = np.asarray(data)
    if values.ndim not in (2, 3):
        raise InputError(
            f"layer {name}: has {values.ndim} axes; give an image of 2 or 3 axes, split the others"
        )
    known = metadata.get(KEY)
    if isinstance(known, Volume) and known.data.T.shape == values.shape:
        return known if np.shares_memory(known.data, values) else known.with_data(values.T)
    affine = None
    if to_world is not None and values.ndim == 3:
        affine = _WORLD.T @ to_world @ _REVERSED
    return Volume(np.ascontiguousarray(values.T), affine)


def layers_of(
    restored: Restored, shape: tuple[int, ...], placed: Mapping[str, Any], name: str
) -> tuple[Layer, Layer]:
    """Return the restored scan and its difference from the scan before, the latter hidden.

    Args:
        restored: as `Restorer.run` returns it, on the grid of the scan.
        shape: of the layer that was restored.
        placed: keyword arguments that place a layer as that one, its `contrast_limits` and
            `colormap`.
        name: of that layer.
    """
    assert restored.before is not None
    after, before = restored.volume, restored.before
    difference = after.data - before.data
    low, high = placed["contrast_limits"]
    limit = limit_of([difference], [(float(low), float(high))])
    record = record_values(restored.record)
    image = {
        **placed,
        "name": f"{name} restored",
        "metadata": {KEY: after, "unit": after.unit, "modality": after.modality, "record": record},
    }
    change = {
        **placed,
        "name": f"{name} restored minus before",
        "colormap": _DIFFERENCE,
        "contrast_limits": (-limit, limit),
        "visible": False,
        "metadata": {"unit": after.unit, "notice": restored.record.notice},
    }
    return (
        (after.data.T.reshape(shape), image, "image"),
        (difference.T.reshape(shape), change, "image"),
    )


def matrix_of(at: Any, axes: int, millimetres: Sequence[float] | None) -> NDArray[np.float64]:
    """Return the matrix of a function that is affine.

    Args:
        at: gives the world coordinates of indices.
        axes: number of indices.
        millimetres: of one unit of each world axis; None for 1.
    """
    origin = np.asarray(at(np.zeros(axes)), dtype=float)
    matrix = np.eye(axes + 1)
    matrix[:axes, axes] = origin
    for axis in range(axes):
        matrix[:axes, axis] = np.asarray(at(np.eye(axes)[axis]), dtype=float) - origin
    if millimetres is not None:
        matrix[:axes] *= np.asarray(millimetres, dtype=float)[:, None]
    return matrix
