"""The reader: every scan that `restore_rwkv.read_volume` reads, as a layer in mm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restore_rwkv.apps.napari.layers import Layer

Reader = Callable[[str | Sequence[str]], "list[Layer]"]


def reader_of(path: str | Sequence[str]) -> Reader | None:
    """Return the function that reads a path; None, so that napari asks others, for what is no scan.

    Args:
        path: file or folder; or several files, which are read one after the other. Several files
            of one DICOM series are a scan each, so give their folder.
    """
    first = path if isinstance(path, str) else next(iter(path), None)
    if first is None or not Path(first).exists():
        return None
    if Path(first).is_dir() and not _has_scans(Path(first)):
        return None
    return read_layers


def read_layers(path: str | Sequence[str]) -> list[Layer]:
    """Return the layers of a file or folder, or of several; one for each volume of a 4-D image.

    Raises:
        InputError: as `restore_rwkv.io.read_volumes`.
    """
    from restore_rwkv.apps.napari.layers import layer_of
    from restore_rwkv.io import read_volumes

    layers = []
    for each in [path] if isinstance(path, str) else path:
        volumes = read_volumes(Path(each))
        for number, volume in enumerate(volumes, start=1):
            name = volume.name if len(volumes) == 1 else f"{volume.name} {number}"
            layers.append(layer_of(volume, name))
    return layers


def _has_scans(folder: Path) -> bool:
    """Whether a folder holds DICOM; others, such as Zarr stores, are for other readers."""
    from restore_rwkv.errors import RestoreError
    from restore_rwkv.io.dicom import find_series

    try:
        return bool(find_series(folder))
    except (RestoreError, OSError):
        return False
