"""Images without geometry: PNG, TIFF and NumPy arrays.

The data keeps the pixel order of the file: axis 0 counts rows from the top, axis 1 columns from the
left, and axis 2 has length 1.
"""

from __future__ import annotations

import os
import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError
from restore_rwkv.io.child import Child, Limits
from restore_rwkv.io.decoding import DECODING_ERRORS
from restore_rwkv.io.sidecar import read_sidecar
from restore_rwkv.io.stored import Float32Array, Stored, encode
from restore_rwkv.io.volume import Source, Volume, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

_PixelType = type[np.uint8] | type[np.int16] | type[np.uint16] | type[np.float32] | type[np.float64]

# TIFF tags, and the values of (bits per sample, sample format) that are read.
_BITS, _PHOTOMETRIC, _SAMPLES, _FORMAT = 258, 262, 277, 339
_BLACK_IS_ZERO = 1
_SPACE, _SECONDS, _PIXELS_PER_SECOND = 1 << 29, 30.0, 100_000  # for the decoder
_TIFF_TYPES: dict[tuple[int, int], _PixelType] = {
    (8, 1): np.uint8,
    (16, 1): np.uint16,
    (16, 2): np.int16,
    (32, 3): np.float32,
    (64, 3): np.float64,  # Pillow gives float32, as volumes have
}
_PNG_TYPES: dict[str, _PixelType] = {
    "L": np.uint8,
    "I;16": np.uint16,
    "I": np.uint16,
}  # "I": Pillow before 11.3
_COLOURS = {"RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"}


def read_image(path: Path) -> Volume:
    """Read a grey PNG (8 or 16 bit) or TIFF (8 bit unsigned, 16 bit, float32 or float64).

    Raises:
        InputError: The image has colours, a palette, transparency, several pages or another pixel
            type, is damaged, or is not an image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with _opened(path) as image:
            dtype = _pixel_type(image, path)
            _require_all_rows(image, path)
            shape = (image.height, image.width)
    except UnidentifiedImageError as error:
        raise InputError(f"{path.name}: not a PNG or TIFF image; export it again") from error
    except (*DECODING_ERRORS, zlib.error, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path.name}: cannot be decoded ({one_line(error)}); export it again"
        ) from error
    size = shape[0] * shape[1]
    limits = Limits(_SPACE + 32 * size, _SECONDS + size / _PIXELS_PER_SECOND, 8 * size)
    with Child("restore_rwkv.io.raster:decode_pixels", "export it again") as child:
        facts, data = child.call(f"{path.name}: the picture", {}, path.read_bytes(), limits)
    pixels = np.frombuffer(data, facts["dtype"]).reshape(shape).astype(dtype)
    source = Source(
        path, pixels.shape, Stored(np.dtype(dtype)), findings=read_sidecar(path).findings
    )
    return Volume(cast(Float32Array, pixels), source=source)  # Volume converts


def decode_pixels(_: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Decode a PNG or TIFF whose header was checked; runs in a child process."""
    with _opened(BytesIO(data)) as image:
        pixels = np.asarray(image)
    return {"dtype": pixels.dtype.str}, pixels.tobytes()


def _opened(source: Path | BytesIO) -> Image:
    from PIL import Image, TiffImagePlugin

    # Pillow unpacks float64, but knows no TIFF by that.
    for order, packed in ((b"II", "F;64F"), (b"MM", "F;64BF")):
        TiffImagePlugin.OPEN_INFO.setdefault((order, 1, (3,), 1, (64,), ()), ("F", packed))
    return Image.open(source, formats=["PNG", "TIFF"])


def _require_all_rows(image: Image, path: Path) -> None:
    """Refuse a PNG with fewer rows than its header says, which Pillow fills with black."""
    if image.format != "PNG" or image.info.get("interlace"):
        return
    bits = {"I;16": 16, "I": 16}.get(image.mode, 8)
    expected = image.height * (1 + (image.width * bits + 7) // 8)
    stream = zlib.decompressobj()
    with path.open("rb") as file:
        file.seek(8)
        found = 0
        while found < expected and len(head := file.read(8)) == 8:
            body = file.read(int.from_bytes(head[:4], "big"))
            if head[4:] == b"IDAT":
                found += len(stream.decompress(body, expected + 1))
            file.seek(4, os.SEEK_CUR)
    if found < expected:
        raise ValueError("it has fewer rows than its header says")


def read_array(path: Path) -> Volume:
    """Read a .npy file with a real array of two or three axes. Pickled objects are never loaded.

    Raises:
        InputError: The file is damaged or truncated, or its array has another type or shape.
    """
    try:
        # Mapped, so that a header cannot request more memory than the size of the file.
        array: npt.NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except DECODING_ERRORS as error:
        raise InputError(
            f"{path.name}: not a sound array of numbers ({one_line(error)}); "
            "save it with numpy.save"
        ) from error
    source = Source(path, array.shape, Stored(array.dtype), findings=read_sidecar(path).findings)
    return Volume(cast(Float32Array, np.array(array)), source=source)  # Volume converts


def write_image(
    volume: Volume, data: Float32Array, path: Path, dtype: Literal["float32", "source"]
) -> None:
    """Write a two-dimensional volume with these values as PNG or TIFF; the suffix decides."""
    from PIL import Image

    pixels = _numbers(volume, data, dtype)[..., 0]
    native = pixels.astype(pixels.dtype.newbyteorder("="), order="C")
    Image.fromarray(native).save(path)


def write_array(
    volume: Volume, data: Float32Array, path: Path, dtype: Literal["float32", "source"]
) -> None:
    """Write a volume with these values as .npy, two-dimensional if its source was."""
    shape = volume.source.shape[:3] if volume.source is not None else volume.data.shape
    array = np.ascontiguousarray(_numbers(volume, data, dtype)).reshape(shape)
    with path.open("wb") as file:  # NumPy appends .npy to other names
        np.save(file, array, allow_pickle=False)


def _numbers(
    volume: Volume, data: Float32Array, dtype: Literal["float32", "source"]
) -> npt.NDArray[np.generic]:
    if dtype == "float32" or volume.source is None or volume.source.stored is None:
        return data
    return encode(data, volume.source.stored)


def _pixel_type(image: Image, path: Path) -> _PixelType:
    """Return the type of the stored pixels.

    Raises:
        InputError: The image is not a single grey image of a supported type.
    """
    if getattr(image, "n_frames", 1) > 1:
        raise InputError(f"{path.name}: holds several pages; save one image per file")
    if image.mode in _COLOURS:
        raise InputError(f"{path.name}: a colour image ({image.mode}); convert it to grey")
    if image.mode in {"P", "PA"}:
        raise InputError(f"{path.name}: a palette image; convert it to grey")
    if image.format == "PNG":
        dtype: _PixelType | None = _PNG_TYPES.get(image.mode)
        kinds = "8 or 16 bit grey"
    else:
        dtype = _tiff_type(image, path)
        kinds = "8 or 16 bit, float32 or float64 grey"
    if dtype is None:
        raise InputError(f"{path.name}: pixels of kind {image.mode}; save it as {kinds}")
    return dtype


def _tiff_type(image: Image, path: Path) -> _PixelType | None:
    tags = image.tag_v2  # type: ignore[attr-defined]
    if tags.get(_PHOTOMETRIC) != _BLACK_IS_ZERO:
        raise InputError(f"{path.name}: black is not zero in this TIFF; save it as plain grey")
    if tags.get(_SAMPLES, 1) != 1:
        return None
    dtype = _TIFF_TYPES.get((tags.get(_BITS, (1,))[0], tags.get(_FORMAT, (1,))[0]))
    # Pillow 13 swaps the bytes of these once too often.
    swapped = tags.prefix == b"MM" and image.info.get("compression") != "raw"
    if swapped and dtype not in (None, np.uint8, np.uint16):
        raise InputError(
            f"{path.name}: a compressed big-endian TIFF of {image.mode} pixels; "
            "save it little-endian, or not compressed"
        )
    return dtype
