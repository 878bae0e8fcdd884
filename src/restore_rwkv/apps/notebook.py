"""A viewer in notebooks: before and restored side by side, with one crosshair.

Needs ipyniivue, the extra `notebook`; without it, a notebook still shows a `Restored` as a picture.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.restoration.thumbnail import display_window

if TYPE_CHECKING:
    from restore_rwkv.io import Volume
    from restore_rwkv.restoration import Restored

_LINKED = ("crosshair", "zoom_pan", "slice_type", "3d", "cal_min", "cal_max")


def view(restored: Restored, *, height: int = 360) -> Any:
    """Return a widget with the scan before on the left and the restored scan on the right.

    Each half shows three planes in radiological convention: the patient's right is on the left.
    Crosshair, zoom and window of one half are those of the other. Both begin with the window of the
    picture that a notebook shows of a `Restored`, taken from the whole scan before.

    Args:
        restored: as `Restorer.run` returns it.
        height: of the widget in pixels.

    Returns:
        An `ipywidgets.HBox` of two `ipyniivue.NiiVue`.

    Raises:
        ConfigError: a package of the extra `notebook` is not installed.
        InputError: the scan before was not kept, as by `Restorer.file`.

    Example:
        >>> restored = Restorer("mri-sr").run(read_volume("t1.nii.gz"))  # doctest: +SKIP
        >>> view(restored)  # doctest: +SKIP
    """
    ipywidgets, ipyniivue = _needed("ipywidgets"), _needed("ipyniivue")
    if restored.before is None:
        raise InputError(
            f"{restored.volume.name}: the scan before was not kept; give what Restorer.run returns"
        )
    modality = restored.record.modality
    window = display_window(restored.before.data, modality)
    halves = []
    for name, volume in (("before", restored.before), ("restored", restored.volume)):
        half = ipyniivue.NiiVue(height=height, is_radiological_convention=True)
        half.load_volumes([_shown(ipyniivue, volume, name, window, inverted=modality == "PT")])
        half.layout.width = "50%"
        halves.append(half)
    for half, other in (halves, halves[::-1]):
        half.broadcast_to(other, dict.fromkeys(_LINKED, True))
    return ipywidgets.HBox(halves)


def _shown(
    ipyniivue: Any, volume: Volume, name: str, window: tuple[float, float], *, inverted: bool
) -> Any:
    """Return a volume of ipyniivue, with its values as NIfTI."""
    from nibabel.nifti1 import Nifti1Image

    affine = np.eye(4) if volume.affine is None else volume.affine
    image = Nifti1Image(np.asarray(volume.data, dtype=np.float32), affine)
    image.header.set_xyzt_units("mm")
    shown = ipyniivue.Volume(
        data=image.to_bytes(),
        name=f"{name}.nii",
        colormap="gray",
        cal_min=window[0],
        cal_max=window[1],
    )
    shown.colormap_invert = inverted
    return shown


def _needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ConfigError(f'view: needs {package}; pip install "restore-rwkv[notebook]"') from error
