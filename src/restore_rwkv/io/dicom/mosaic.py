"""Mosaics: the slices of a volume as tiles of one image, as Siemens scanners write fast series."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.decoding import DECODING_ERRORS
from restore_rwkv.io.dicom.files import DicomImage, read_whole_header
from restore_rwkv.io.stored import Float32Array

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SLICES_OF_SIEMENS = 0x0019100A  # NumberOfImagesInMosaic
_TILES_OF_UIH = 0x00651050


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Where the tiles of a mosaic lie.

    Attributes:
        headers: One for each slice, with its own size and position, in the order of the tiles: row
            by row from the upper left.
        side: Number of tiles along each side of the image.
    """

    headers: list[Dataset]
    side: int


def is_mosaic(header: Dataset) -> bool:
    """Whether an image is a mosaic, of any vendor."""
    kinds = header.get("ImageType") or ()
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return "MOSAIC" in kinds or _TILES_OF_UIH in header


def place_tiles(image: DicomImage) -> Mosaic:
    """Find where the slices of a mosaic lie, from the private (CSA) header of Siemens.

    Slice k lies k times SpacingBetweenSlices along SliceNormalVector; the position of the file is
    that of an image as large as the mosaic around the same centre, which nibabel corrects
    (https://nipy.org/nibabel/dicom/dicom_mosaic.html).

    Raises:
        InputError: There is no such header, or it contradicts the image.
    """
    name = image.path.name
    header = read_whole_header(image.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls all of its DICOM readers experimental
        from nibabel.nicom import csareader
        from nibabel.nicom.dicomwrappers import MosaicWrapper, WrapperError
    errors = (AssertionError, WrapperError, csareader.CSAError, *DECODING_ERRORS)
    try:
        wrapper = MosaicWrapper(header)
        certain = csareader.get_slice_normal(wrapper.csa_header) is not None
        distance = float(header.get("SpacingBetweenSlices") or 0)
        first, normal = np.array(wrapper.image_position, float), np.array(wrapper.slice_normal)
        places = first + np.arange(wrapper.n_mosaic)[:, None] * distance * normal
    except errors as error:
        raise InputError(_refusal(name, image.header)) from error
    if not certain or distance <= 0 or not np.isfinite(places).all():
        raise InputError(_refusal(name, image.header))
    side, size = int(wrapper.mosaic_size), (int(header.Rows), int(header.Columns))
    if size[0] % side or size[1] % side:
        raise InputError(
            f"{name}: a mosaic of {side} x {side} tiles cannot have {size[0]} x {size[1]} pixels; "
            "export it again without resizing it"
        )
    return Mosaic([_tile(image.header, place.tolist(), side) for place in places], side)


def cut_tiles(values: Float32Array, mosaic: Mosaic) -> Float32Array:
    """Return the slices (N, rows, columns) of a mosaic (rows x side, columns x side)."""
    side = mosaic.side
    rows, columns = values.shape[0] // side, values.shape[1] // side
    tiles = values.reshape(side, rows, side, columns).swapaxes(1, 2).reshape(-1, rows, columns)
    slices: Float32Array = tiles[: len(mosaic.headers)]
    return slices


def _tile(header: Dataset, place: list[float], side: int) -> Dataset:
    from pydicom.dataset import Dataset

    tile = Dataset()
    for element in header:
        if element.keyword not in ("Rows", "Columns", "ImagePositionPatient"):
            tile[element.tag] = element
    tile.Rows, tile.Columns = header.Rows // side, header.Columns // side
    tile.ImagePositionPatient = [f"{x:.10g}" for x in place]
    return tile


def _refusal(name: str, header: Dataset) -> str:
    element = header.get(_SLICES_OF_SIEMENS)
    count = f"{element.value} slices" if element is not None and element.value else "slices"
    return (
        f"{name}: a mosaic of {count} without the header that says where they lie; convert the "
        "original with dcm2niix"
    )
