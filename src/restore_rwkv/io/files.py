"""Reading and writing of any supported file.

Content decides which reader is used where it is certain, and the name otherwise; the name of an
output decides its format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from restore_rwkv.errors import InputError
from restore_rwkv.io.atomic import atomic_files
from restore_rwkv.io.dicom.read import read_dicom, read_files
from restore_rwkv.io.kinds import check_source, kind_of, suffix_of
from restore_rwkv.io.metaimage import read_metaimage, write_metaimage
from restore_rwkv.io.mgh import read_mgh, write_mgh
from restore_rwkv.io.nifti import count_nifti, iterate_nifti, read_nifti
from restore_rwkv.io.nifti_write import write_nifti
from restore_rwkv.io.nrrd import read_nrrd, write_nrrd
from restore_rwkv.io.outputs import (
    MGH,
    NIFTI,
    OutputType,
    check_output,
    check_output_path,
    check_writable,
    resolved,
)
from restore_rwkv.io.raster import read_array, read_image, write_array, write_image
from restore_rwkv.io.stored import Float32Array, count_clipped
from restore_rwkv.io.volume import Volume

__all__ = [
    "OutputType",
    "Volumes",
    "check_output",
    "check_output_path",
    "check_writable",
    "read_volume",
    "read_volumes",
    "write_volume",
    "write_volumes",
]

_READERS: dict[str, Callable[[Path], Volume]] = {
    "nrrd": read_nrrd,
    "metaimage": read_metaimage,
    "mgh": read_mgh,
    "image": read_image,
    "array": read_array,
}


_WRITERS = {
    ".nrrd": write_nrrd,
    ".mha": write_metaimage,
    **dict.fromkeys(MGH, write_mgh),
    ".npy": write_array,
}


@dataclass(frozen=True)
class Volumes:
    """The volumes of a file, read one at a time; each loop reads the file again.

    Attributes:
        path: The file or folder.
        count: Number of volumes; 1 but for 4-D NIfTI.
        series: Which series of a DICOM folder; see ``read_volume``.
        files: Files of that series where they are known; empty to search the folder.
    """

    path: Path
    count: int
    series: int | str | None = None
    files: Sequence[Path] = ()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Volume]:
        if self.count > 1:
            yield from iterate_nifti(self.path)
        elif self.files:
            yield read_files(self.files, self.path)
        else:
            yield read_volume(self.path, series=self.series)


def read_volume(
    path: str | Path, *, series: int | str | None = None, volume: int | None = None
) -> Volume:
    """Read an image: NIfTI, NRRD, MetaImage, MGH, DICOM, PNG, TIFF or NPY.

    The content decides the format where it is certain, otherwise the suffix; a folder is a DICOM
    series.

    Args:
        path: File or folder; of a pair (.hdr and .img) either file.
        series: SeriesNumber or SeriesInstanceUID, for a DICOM folder with several series.
        volume: Which volume of a 4-D NIfTI image, from 0; see ``read_volumes`` for all.

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
    check_source(path)
    path = path.absolute()  # so that even "." has a name for messages
    kind = kind_of(path)
    if kind == "dicom":
        _refuse_index(path, volume)
        return read_dicom(path, series=series)
    if series is not None:
        raise InputError(f"{path.name}: only a DICOM folder has series; leave series out")
    if kind == "nifti":
        return read_nifti(path, volume)
    _refuse_index(path, volume)
    return _READERS[kind](path)


def read_volumes(
    path: str | Path, *, series: int | str | None = None, files: Sequence[Path] = ()
) -> Volumes:
    """Open a file with one or several volumes; each is read when its turn comes.

    Args:
        path: As for ``read_volume``; a 4-D NIfTI image gives one volume for each time point.
        series: As for ``read_volume``.
        files: All files of that series below a DICOM folder, so that it is not searched again.

    Returns:
        Their number, and the volumes in a loop.

    Raises:
        InputError: As for ``read_volume``; damage to the voxels is found in the loop.

    Example:
        >>> volumes = read_volumes("dynamic.nii.gz")  # doctest: +SKIP
        >>> write_volumes(map(smooth, volumes), len(volumes), "out.nii.gz")  # doctest: +SKIP
    """
    path = Path(path)
    check_source(path)
    path = path.absolute()
    return Volumes(path, count_nifti(path) if kind_of(path) == "nifti" else 1, series, files)


def write_volume(
    volume: Volume,
    path: str | Path,
    *,
    dtype: OutputType = "auto",
    overwrite: bool = False,
    keep_nan: bool = False,
) -> None:
    """Write an image in the format of the suffix.

    These are .nii, .nii.gz, .nrrd, .mha, .mgh, .mgz, .png, .tif and .npy. The file appears complete
    or not at all, in a folder that is made where it is missing. NIfTI from NIfTI keeps the header:
    both affines bit for bit, codes, units, dimensions, description, intent and extensions.

    Args:
        volume: The image, in physical units.
        path: Where to write.
        dtype: "float32"; "source" for the type of the source file with its slope and intercept,
            rounded and clipped; "auto" is "source" for PNG and "float32" for all others.
        overwrite: Replace an existing file.
        keep_nan: Write NaN where the source had it (``Volume.missing``), not what filled it.

    Raises:
        InputError: As for ``check_output``.
        OSError: The disk is full, or the folder cannot be written to.
    """
    check_output(volume, path, dtype=dtype, overwrite=overwrite, keep_nan=keep_nan)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_files(path, overwrite=overwrite) as (temporary,):
        encode_volumes([volume], 1, temporary, dtype=dtype, keep_nan=keep_nan)


def write_volumes(
    volumes: Iterable[Volume],
    count: int,
    path: str | Path,
    *,
    dtype: OutputType = "auto",
    overwrite: bool = False,
    keep_nan: bool = False,
) -> None:
    """Write volumes of one grid as a 4-D NIfTI image, each as soon as it comes.

    The header is that of the first volume's source, as for ``write_volume``; the file appears
    complete or not at all.

    Args:
        volumes: In the order of the fourth axis.
        count: Their number; with 1 the image has three axes.
        path: Where to write, .nii or .nii.gz.
        dtype: As for ``write_volume``.
        overwrite: As for ``write_volume``.
        keep_nan: As for ``write_volume``.

    Raises:
        InputError: As for ``check_output``, or the volumes have different grids, or there are not
            `count` of them.
        OSError: The disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    stream = iter(volumes)
    first = next(stream, None)
    if first is None:
        raise InputError(f"{path.name}: there are no volumes to write; give at least one")
    check_output(first, path, dtype=dtype, overwrite=overwrite, volumes=count, keep_nan=keep_nan)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_files(path, overwrite=overwrite) as (temporary,):
        encode_volumes(chain([first], stream), count, temporary, dtype=dtype, keep_nan=keep_nan)


def encode_volumes(
    volumes: Iterable[Volume], count: int, path: Path, *, dtype: OutputType, keep_nan: bool
) -> int:
    """Write volumes to an existing file in the format of its suffix, without any checks.

    Args:
        volumes: Of one grid, at least one.
        count: Their number; above 1 for NIfTI only.
        path: Where to write.
        dtype: As for ``write_volume``.
        keep_nan: As for ``write_volume``.

    Returns:
        Number of voxels whose value was clipped, as the format cannot hold it.

    Raises:
        InputError: The volumes have different grids, or there are not `count` of them.
        OSError: The disk is full.
    """
    stream = iter(volumes)
    first = next(stream)
    kind = resolved(dtype, path)
    clipped = 0

    def values() -> Iterator[Float32Array]:
        nonlocal clipped
        for data in _same_grid(first, stream, count, first.name, keep_nan=keep_nan):
            if kind == "source" and first.source is not None and first.source.stored is not None:
                clipped += count_clipped(data, first.source.stored)
            yield data

    suffix = suffix_of(path.name)
    if suffix in NIFTI:
        write_nifti(first, values(), path, kind, count)
    else:
        for data in values():
            _WRITERS.get(suffix, write_image)(first, data, path, kind)
    return clipped


def _same_grid(
    first: Volume, others: Iterator[Volume], count: int, name: str, *, keep_nan: bool
) -> Iterator[Float32Array]:
    """Give the values of volumes, and check that they belong together."""
    yield first.with_missing() if keep_nan else first.data
    found = 1
    for volume in others:
        found += 1
        same = volume.data.shape == first.data.shape
        if not same or (volume.affine is not None) != (first.affine is not None):
            raise InputError(f"{name}: volume {found} has another grid; write files of their own")
        if found > count:
            break
        yield volume.with_missing() if keep_nan else volume.data
    if found != count:
        raise InputError(f"{name}: {count} volumes were announced, but others came; count them")


def _refuse_index(path: Path, volume: int | None) -> None:
    if volume not in (None, 0):
        raise InputError(f"{path.name}: has one volume; leave volume out")
