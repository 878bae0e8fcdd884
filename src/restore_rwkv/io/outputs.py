"""Outputs that cannot be written are refused before anything is computed."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Literal

import numpy as np

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.io import metaimage, mgh, nrrd
from restore_rwkv.io.affines import is_sheared
from restore_rwkv.io.dicom.read import DicomSource
from restore_rwkv.io.kinds import suffix_of
from restore_rwkv.io.nifti import NiftiSource
from restore_rwkv.io.nifti_header import SHORTEST_HEADER
from restore_rwkv.io.nifti_write import LONGEST_AXIS
from restore_rwkv.io.volume import Volume

OutputType = Literal["auto", "float32", "source"]

NIFTI = (".nii", ".nii.gz")
MGH = (".mgh", ".mgz")
PLACED = (*NIFTI, ".nrrd", ".mha", *MGH)
"""Suffixes of formats that store where the voxels lie."""
TIFF = (".tif", ".tiff")
_OUTPUTS = (*PLACED, ".png", *TIFF, ".npy")
_WRITABLE = ".nii.gz, .nii, .nrrd, .mha, .mgz, .png, .tif or .npy"
_IN_ONE_FILE = {".nhdr": ".nrrd", ".mhd": ".mha", ".hdr": ".nii.gz", ".img": ".nii.gz"}
_COMPRESSED = (".nii.gz", ".mgz", ".nrrd")
_LEAST_COMPRESSED = 0.25
"""Part of its size that a compressed float32 image takes at least; scans take 0.4 to 0.9."""
_SOURCE_TYPES = {
    ".png": (np.uint8, np.uint16),
    ".tif": (np.uint8, np.uint16, np.float32),
    ".tiff": (np.uint8, np.uint16, np.float32),
}
_HOLDS_TYPE = {
    ".nrrd": nrrd.holds_type,
    ".mha": metaimage.holds_type,
    ".mgh": mgh.holds_type,
    ".mgz": mgh.holds_type,
}
_LONGEST_NAME = 255  # bytes, where the system does not say
_ADDED = 40  # bytes that temporary names and records add to the name


def check_output(
    volume: Volume,
    path: str | Path,
    *,
    dtype: OutputType = "auto",
    overwrite: bool = False,
    volumes: int = 1,
    keep_nan: bool = False,
) -> None:
    """Check before any computation that an output can be written.

    Args:
        volume: The image that was read; the result will have its grid and source.
        path: Path of the result.
        dtype: As for ``write_volume``.
        overwrite: As for ``write_volume``.
        volumes: Number of volumes that the file will hold, for ``write_volumes``.
        keep_nan: As for ``write_volume``.

    Raises:
        InputError: The format cannot store the image, the disk has no room for it, or
            ``check_output_path`` raises.
        ConfigError: ``dtype`` is unknown.
    """
    if names_folder(path, volume):
        raise InputError(f"{path}: is a folder; name a file in it, such as restored.nii.gz")
    path = Path(path)
    source = volume.source
    check_output_path(path, source=source.path if source else None, overwrite=overwrite)
    parts = source.files if isinstance(source, DicomSource) else source.parts if source else ()
    for part in parts:
        _check_not_input(path, part)
    if dtype not in ("auto", "float32", "source"):
        raise ConfigError(f"dtype {dtype!r} is unknown; use auto, float32 or source")
    suffix = suffix_of(path.name)
    _check_grid(volume, path, volumes)
    kind = resolved(dtype, path)
    if kind == "source":
        _check_stored(volume, path)
    elif suffix == ".png":
        raise InputError(f"{path.name}: PNG has no float32; write .tif, or give dtype='auto'")
    if keep_nan and volume.missing is not None:
        stored = volume.source.stored if volume.source and kind == "source" else None
        if stored is not None and stored.dtype.kind != "f":
            raise InputError(f"{path.name}: {stored.dtype} has no NaN; write float32")
    _check_space(volume, path, kind, volumes)


def output_suffix(suffix: str) -> str:
    """Return the suffix of an output in the format of an input, in one file.

    Args:
        suffix: of the input, see ``suffix_of``; NIfTI stands for one that no writer has.
    """
    inner = suffix.removesuffix(".gz")
    return suffix if suffix in _OUTPUTS else _IN_ONE_FILE.get(inner, NIFTI[1])


def names_folder(path: str | Path, volume: Volume) -> bool:
    """Whether an output names a folder for a DICOM series, and not a file.

    Args:
        path: Output as the user gave it.
        volume: The image that was read.
    """
    ends = str(path).endswith(("/", os.sep))
    return ends or (isinstance(volume.source, DicomSource) and not suffix_of(Path(path).name))


def check_output_path(
    path: str | Path, *, source: str | Path | None = None, overwrite: bool = False
) -> None:
    """Check an output path before anything is read. Missing folders will be made.

    Args:
        path: Path of the result.
        source: The input, which is never overwritten.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: The suffix is unknown, the folder is read-only, the name too long, there is
            something that is not a file, the file exists and ``overwrite`` is false, or the output
            is the input.
    """
    path = Path(path)
    if str(path) == "-":
        raise InputError("-: images are not written to the standard output; name a file")
    _check_length(path)
    _check_regular(path, f"name a file in it, such as {path.name}.nii.gz")
    suffix = suffix_of(path.name)
    if suffix not in _OUTPUTS:
        whole = _IN_ONE_FILE.get(suffix.removesuffix(".gz"))
        hint = f"name it {whole}, one file" if whole else f"end the name in {_WRITABLE}"
        raise InputError(f"{path.name}: unknown output format; {hint}")
    check_writable(path, source=source, overwrite=overwrite, make_folders=True)


def check_writable(
    path: Path,
    *,
    source: str | Path | None = None,
    overwrite: bool = False,
    make_folders: bool = False,
) -> None:
    """Refuse an output path of any format.

    Arguments and errors are those of `check_output_path`; unless `make_folders`, a missing folder
    is an error too.
    """
    _check_length(path)
    _check_regular(path, "name a file in it")
    folder = nearest_folder(path)
    if folder != path.parent and not make_folders:
        raise InputError(f"{path.parent}: no such folder; create it first")
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, not a folder; choose another folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: cannot be written to; choose another folder")
    if not os.path.lexists(path):
        return
    if source is not None:
        _check_not_input(path, Path(source))
    if not overwrite:
        raise InputError(f"{path}: exists already; name another file, or give overwrite=True")


def nearest_folder(path: Path) -> Path:
    """Return the nearest folder above an output that exists, or the file in its place.

    Raises:
        InputError: It cannot be looked into.
    """
    return next((folder for folder in path.parents if _mode(folder) is not None), path.parent)


def resolved(dtype: OutputType, path: Path) -> Literal["float32", "source"]:
    """Return what "auto" stands for in the format of a path."""
    if dtype == "auto":
        return "source" if suffix_of(path.name) == ".png" else "float32"
    return dtype


def _check_length(path: Path) -> None:
    folder = Path(os.curdir)
    limit = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else _LONGEST_NAME
    for name in path.parts:
        added = _ADDED if name == path.name else 0
        if len(os.fsencode(name)) + added > limit:
            raise InputError(
                f"{name[:30]}...: the name has {len(os.fsencode(name))} bytes, this system allows "
                f"{limit - added}; shorten it"
            )
    if "\0" in str(path):
        raise InputError("the name of the output holds a zero byte; name another file")


def _check_regular(path: Path, remedy: str) -> None:
    mode = _mode(path)
    if mode is None or stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder; {remedy}")
    raise InputError(f"{path}: is a device or a pipe, not a file; name a file")


def _mode(path: Path) -> int | None:
    """Kind and permissions of what is there, None for nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be used ({error.strerror}); name another file") from error


def _check_not_input(path: Path, source: Path) -> None:
    if path.exists() and source.exists() and os.path.samefile(path, source):
        raise InputError(f"{path.name}: output and input are the same file; name another output")


def _check_grid(volume: Volume, path: Path, volumes: int) -> None:
    """Check that the output format can store the geometry."""
    suffix = suffix_of(path.name)
    if volumes > 1 and suffix not in NIFTI:
        raise InputError(f"{path.name}: {volumes} volumes fit NIfTI only; write .nii.gz")
    if suffix in PLACED:
        if volume.affine is None:
            name = "NIfTI" if suffix in NIFTI else suffix
            raise InputError(
                f"{path.name}: the image has no geometry for {name}; write .npy or .tif"
            )
        tilt = volume.source.tilt if isinstance(volume.source, DicomSource) else 0.0
        if tilt:
            raise InputError(
                f"{path.name}: the slices are tilted by {tilt:.1f} degrees (gantry tilt), which "
                f"readers of {suffix} get wrong; write DICOM: name a folder as output"
            )
        if suffix not in NIFTI and is_sheared(volume.affine):
            raise InputError(
                f"{path.name}: the axes are not perpendicular, which readers of {suffix} get "
                "wrong; write .nii.gz"
            )
    if suffix in (".png", *TIFF) and volume.data.shape[2] != 1:
        raise InputError(
            f"{path.name}: a volume of {volume.data.shape[2]} slices does not fit one image; "
            "write .nii.gz or .npy"
        )
    longest = max(*volume.data.shape, volumes)
    source = volume.source
    long = isinstance(source, NiftiSource) and len(source.header.binaryblock) > SHORTEST_HEADER
    if suffix in NIFTI and longest > LONGEST_AXIS and not long:
        raise InputError(
            f"{path.name}: an axis of {longest} is longer than NIfTI-1 holds ({LONGEST_AXIS}); "
            "write .nrrd"
        )


def _check_stored(volume: Volume, path: Path) -> None:
    """Check that the output format can store the type of the source."""
    suffix = suffix_of(path.name)
    stored = volume.source.stored if volume.source else None
    if stored is None:
        raise InputError(
            f"{path.name}: no source type to keep; write float32 to .tif, .npy or .nii.gz"
        )
    if suffix in NIFTI:
        return
    if (stored.slope, stored.inter) != (1.0, 0.0):
        raise InputError(
            f"{path.name}: the source's slope and intercept fit NIfTI only; "
            "write .nii.gz, or float32 to .tif or .npy"
        )
    types = _SOURCE_TYPES.get(suffix)
    holds = _HOLDS_TYPE.get(suffix)
    if (types is not None and stored.dtype.newbyteorder("=") not in types) or (
        holds is not None and not holds(stored.dtype)
    ):
        other = "float32 to .tif" if types is not None else "float32"
        raise InputError(
            f"{path.name}: cannot store the source's type {stored.dtype}; write .npy, or {other}"
        )


def _check_space(
    volume: Volume, path: Path, kind: Literal["float32", "source"], volumes: int
) -> None:
    """Check that the disk has room for the voxels."""
    stored = volume.source.stored if volume.source and kind == "source" else None
    need = volume.data.size * volumes * (stored.dtype.itemsize if stored else 4)
    if suffix_of(path.name) in _COMPRESSED:
        need = int(need * _LEAST_COMPRESSED)
    folder = nearest_folder(path.absolute())
    free = shutil.disk_usage(folder).free
    if need > free:
        raise InputError(
            f"{path.name}: needs at least {need / 1e6:,.3g} MB, {folder} has {free / 1e6:,.3g} MB "
            "free; choose another disk"
        )
