"""Reading and writing of any supported file; the name decides the format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io.atomic import atomic_file
from restore_rwkv.io.dicom.read import read_dicom
from restore_rwkv.io.nifti import read_nifti, write_nifti
from restore_rwkv.io.raster import read_array, read_image, write_array, write_image
from restore_rwkv.io.volume import Volume

OutputType = Literal["auto", "float32", "source"]

_NIFTI = (".nii", ".nii.gz")
_TIFF = (".tif", ".tiff")
_OUTPUTS = (*_NIFTI, ".png", *_TIFF, ".npy")
_SOURCE_TYPES = {
    ".png": (np.uint8, np.uint16),
    ".tif": (np.uint8, np.uint16, np.float32),
    ".tiff": (np.uint8, np.uint16, np.float32),
}
_DICOM = (".dcm", ".dicom", ".ima")
_READABLE = ".nii, .nii.gz, .dcm, .png, .tif, .npy or a folder with a DICOM series"


def read_volume(path: str | Path, *, series: int | str | None = None) -> Volume:
    """Read an image: NIfTI, a DICOM series folder or file, PNG, TIFF or NPY.

    The suffix decides the format; a folder is a DICOM series.

    Args:
        path: File or folder.
        series: SeriesNumber or SeriesInstanceUID, for a DICOM folder with several series.

    Returns:
        The image in physical units, float32, in the voxel order of the file.

    Raises:
        InputError: The path does not exist, or the image cannot be used; the message says why,
            and the remedy.

    Example:
        >>> volume = read_volume("scan.nii.gz")  # doctest: +SKIP
        >>> volume.data.shape, volume.spacing  # doctest: +SKIP
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the path")
    path = path.absolute()  # so that even "." has a name for messages
    name = path.name.lower()
    if path.is_dir() or name.endswith(_DICOM):
        return read_dicom(path, series=series)
    if series is not None:
        raise InputError(f"{path.name}: only a DICOM folder has series; leave series out")
    if name.endswith(_NIFTI):
        return read_nifti(path)
    if name.endswith((".png", *_TIFF)):
        return read_image(path)
    if name.endswith(".npy"):
        return read_array(path)
    raise InputError(f"{path.name}: unknown kind of file; give {_READABLE}")


def write_volume(
    volume: Volume, path: str | Path, *, dtype: OutputType = "auto", overwrite: bool = False
) -> None:
    """Write an image in the format of the suffix: .nii, .nii.gz, .png, .tif or .npy.

    The file appears complete or not at all. NIfTI from NIfTI keeps the header: both affines bit for
    bit, codes, units, dimensions, description, intent and extensions.

    Args:
        volume: The image, in physical units.
        path: Where to write.
        dtype: "float32"; "source" for the type of the source file with its slope and intercept,
            rounded and clipped; "auto" is "source" for PNG and "float32" for all others.
        overwrite: Replace an existing file.

    Raises:
        InputError: As for ``check_output``.
        OSError: The disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    check_output(volume, path, dtype=dtype, overwrite=overwrite)
    name = path.name.lower()
    kind = _resolved(dtype, name)
    with atomic_file(path) as temporary:
        if name.endswith(_NIFTI):
            write_nifti(volume, temporary, kind)
        elif name.endswith(".npy"):
            write_array(volume, temporary, kind)
        else:
            write_image(volume, temporary, kind)


def check_output(
    volume: Volume, path: str | Path, *, dtype: OutputType = "auto", overwrite: bool = False
) -> None:
    """Check before any computation that ``write_volume`` can write an output.

    Args:
        volume: The image that was read; the result will have its grid and source.
        path: Path of the result.
        dtype: As for ``write_volume``.
        overwrite: As for ``write_volume``.

    Raises:
        InputError: The format cannot store the image, or ``check_output_path`` raises.
        ConfigError: ``dtype`` is unknown.
    """
    path = Path(path)
    source = volume.source.path if volume.source else None
    check_output_path(path, source=source, overwrite=overwrite)
    if dtype not in ("auto", "float32", "source"):
        raise ConfigError(f"dtype {dtype!r} is unknown; use auto, float32 or source")
    name = path.name.lower()
    if name.endswith(_NIFTI) and volume.affine is None:
        raise InputError(f"{path.name}: the image has no geometry for NIfTI; write .npy or .tif")
    if name.endswith((".png", *_TIFF)) and volume.data.shape[2] != 1:
        raise InputError(
            f"{path.name}: a volume of {volume.data.shape[2]} slices does not fit one image; "
            "write .nii.gz or .npy"
        )
    if _resolved(dtype, name) == "source":
        _check_stored(volume, path)
    elif name.endswith(".png"):
        raise InputError(f"{path.name}: PNG has no float32; write .tif, or give dtype='auto'")


def check_output_path(
    path: str | Path, *, source: str | Path | None = None, overwrite: bool = False
) -> None:
    """Check an output path before anything is read.

    Args:
        path: Path of the result.
        source: The input, which is never overwritten.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: The suffix is unknown, the folder is missing or read-only, the file exists and
            ``overwrite`` is false, or the output is the input.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it, such as {path.name}.nii.gz")
    if not path.name.lower().endswith(_OUTPUTS):
        raise InputError(
            f"{path.name}: unknown output format; end the name in .nii.gz, .nii, .png, .tif or .npy"
        )
    check_writable(path, source=source, overwrite=overwrite)


def check_writable(
    path: Path, *, source: str | Path | None = None, overwrite: bool = False
) -> None:
    """Refuse an output path of any format; arguments and errors as for `check_output_path`."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; create it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent}: cannot be written to; choose another folder")
    if not path.exists():
        return
    if source is not None and Path(source).exists() and os.path.samefile(path, source):
        raise InputError(f"{path.name}: output and input are the same file; name another output")
    if not overwrite:
        raise InputError(f"{path}: exists already; name another file, or give overwrite=True")


def _resolved(dtype: OutputType, name: str) -> Literal["float32", "source"]:
    if dtype == "auto":
        return "source" if name.endswith(".png") else "float32"
    return dtype


def _check_stored(volume: Volume, path: Path) -> None:
    """Check that the output format can store the type of the source."""
    name = path.name.lower()
    stored = volume.source.stored if volume.source else None
    if stored is None:
        raise InputError(
            f"{path.name}: no source type to keep; write float32 to .tif, .npy or .nii.gz"
        )
    if name.endswith(_NIFTI):
        return
    if (stored.slope, stored.inter) != (1.0, 0.0):
        raise InputError(
            f"{path.name}: the source's slope and intercept fit NIfTI only; "
            "write .nii.gz, or float32 to .tif or .npy"
        )
    types = _SOURCE_TYPES.get(path.suffix.lower())
    if types is not None and stored.dtype.newbyteorder("=") not in types:
        raise InputError(
            f"{path.name}: cannot store the source's type {stored.dtype}; "
            "write .npy, or float32 to .tif"
        )
