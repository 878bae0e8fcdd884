"""Tiny packages of every kind, with a tiny table of the scans in them."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from restore_rwkv.data.open_scans.convert import digest
from restore_rwkv.data.open_scans.table import Conversion, OpenScan, Package
from restore_rwkv.io import Volume

SHAPE = (6, 5, 4)
VALUES = np.random.default_rng(3).integers(0, 5000, SHAPE).astype(np.int16)
SPACING = (0.75, 0.5, 3.0)
DIAGONAL = np.diag([-0.75, -0.5, 3.0, 1.0])
OBLIQUE = np.array([[0.6, -0.8, 0, 5], [0.8, 0.6, 0, -7], [0, 0, 2.5, 9], [0, 0, 0, 1.0]])

_PAR_GENERAL = """\
# CLINICAL TRYOUT             Research image export tool     V4.1
.    Max. number of slices/locations    :   {slices}
.    Max. number of dynamics            :   1
.    Angulation midslice(ap,fh,rl)[degr]:   0.000  0.000  0.000
.    Off Centre midslice(ap,fh,rl) [mm] :   0.000  0.000  0.000
.    Diffusion         <0=no 1=yes> ?   :   0
# === IMAGE INFORMATION ===
"""
_PAR_SLICE = (
    "{slice}   1    1  1 0 2     {index}  16    80  {x}  {y}   0.00000   0.50000 2.58928e-003   "
    "427   743   0.00   0.00   0.00   0.00  {at}  0.00  3.000  0.000 0 1 0 2  0.750  0.500   "
    "4.60    0.00     0.00    0.00   0   8.00     0    0    0   105 900.0  1   1  8   0   "
    "0.00  0.00  0.00\n"
)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def folder_sha(files: Mapping[str, bytes]) -> str:
    """What `sha256sum * | sha256sum` prints."""
    return sha("".join(f"{sha(files[name])}  {name}\n" for name in sorted(files)).encode())


def tar(files: Mapping[str, bytes | tarfile.TarInfo], kind: str = "gz") -> bytes:
    """An archive of files; a TarInfo goes in as it is."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{kind}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def wheel(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@functools.cache  # gzip notes the time
def nrrd() -> bytes:
    header = (
        "NRRD0004\n# a comment: with a colon\ntype: short\ndimension: 3\n"
        f"sizes: {' '.join(map(str, SHAPE))}\n"
        "space directions: (0.75,0,0) (0,-0.5,0) (0,0,3)\n"
        "endian: little\nencoding: gzip\nspace origin: (1,2,3)\n\n"
    )
    return header.encode() + gzip.compress(VALUES.tobytes(order="F"))


@functools.cache
def nifti() -> bytes:
    """Values that are not whole, in float64."""
    image = nib.Nifti1Image(VALUES + 0.3, OBLIQUE)
    return gzip.compress(image.to_bytes())


@functools.cache
def frames() -> bytes:
    """A multi-frame file whose stored values are 16 times as high, and rescaled besides."""
    dataset = _dicom(VALUES.shape[1], VALUES.shape[0])
    dataset.NumberOfFrames = SHAPE[2]
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    groups = Dataset()
    groups.PixelMeasuresSequence = [measures]
    dataset.SharedFunctionalGroupsSequence = [groups]
    dataset.RescaleSlope, dataset.RescaleIntercept = 0.03, -135
    dataset.PixelRepresentation = 0
    dataset.PixelData = (VALUES.transpose(2, 1, 0).astype(np.uint16) * 12).tobytes()
    return _bytes(dataset)


@functools.cache
def series() -> dict[str, bytes]:
    """A series of axial slices, as files by name."""
    files = {}
    for k in range(SHAPE[2]):
        dataset = _dicom(SHAPE[1], SHAPE[0])
        dataset.SeriesInstanceUID = "1.2.3.4"
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, 3 * k]
        dataset.PixelSpacing = [SPACING[1], SPACING[0]]
        dataset.PixelRepresentation = 1
        dataset.PixelData = VALUES[..., k].T.tobytes()
        files[f"CT.{k:03}"] = _bytes(dataset)
    return files


@functools.cache
def par_rec() -> tuple[bytes, bytes]:
    """The PAR file and the gzipped REC file; the console shows half the stored values."""
    text = _PAR_GENERAL.format(slices=SHAPE[2])
    for k in range(SHAPE[2]):
        text += _PAR_SLICE.format(slice=k + 1, index=k, x=SHAPE[0], y=SHAPE[1], at=3 * k)
    return text.encode(), gzip.compress(VALUES.astype("<u2").tobytes(order="F"), mtime=0)


@functools.cache
def packages() -> dict[Package, bytes]:
    """One package of each kind, with its archive."""
    par, rec = par_rec()
    contents = {
        ("PyPI sdist", "tiny", "tiny-1.0.tar.gz"): tar({"tiny-1.0/a.nrrd": nrrd()}),
        ("PyPI wheel", "flat", "flat-1.0-py3-none-any.whl"): wheel({"flat/b.nii.gz": nifti()}),
        ("npm", "files", "files-1.0.tgz"): tar(
            {f"package/volume/{name}": content for name, content in series().items()}
            | {"package/volume/below/README": b"not wanted", "package/index.js": b""}
        ),
        ("Debian source", "toolkit", "toolkit_1.0.orig.tar.xz"): tar(
            {"Tool-1/MD5/dcm": frames(), "Tool-1/MD5/par": par, "Tool-1/MD5/rec": rec}, "xz"
        ),
    }
    return {
        Package(ecosystem, name, "1.0", "MIT", archive, sha(content)): content  # type: ignore[arg-type]
        for (ecosystem, name, archive), content in contents.items()
    }


@functools.cache
def table() -> tuple[OpenScan, ...]:
    """A scan of each conversion."""
    sdist, flat, files, toolkit = packages()
    par, rec = par_rec()

    def scan(
        name: str,
        package: Package,
        found: Mapping[str, str],
        conversion: Conversion,
        values: np.ndarray,
        affine: np.ndarray = DIAGONAL,
    ) -> OpenScan:
        whole = digest(Volume(values, affine))
        return OpenScan(
            name, "train", "MR", package, tuple(found), tuple(found.values()), conversion, whole
        )

    sixteenth = Conversion("frames", factor=1 / 16)
    console = Conversion("PAR/REC", factor=1.6, ceiling=3000.0)
    shown = np.rint(np.minimum(VALUES / 2 * 1.6, 3000))
    dicom = sha(frames())
    return (
        scan("a", sdist, {"tiny-1.0/a.nrrd": sha(nrrd())}, Conversion("NRRD"), VALUES),
        scan("b", flat, {"flat/b.nii.gz": sha(nifti())}, Conversion("NIfTI"), VALUES, OBLIQUE),
        scan("c", files, {"package/volume/": folder_sha(series())}, Conversion("series"), VALUES),
        scan("d", toolkit, {"Tool-1/MD5/dcm": dicom}, sixteenth, np.rint(VALUES * 0.75)),
        scan(
            "e", toolkit, {"Tool-1/MD5/par": sha(par), "Tool-1/MD5/rec": sha(rec)}, console, shown
        ),
    )


def save_packages(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for package, content in packages().items():
        (folder / package.archive).write_bytes(content)


def _dicom(rows: int, columns: int) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = "1.2.3.9"
    dataset.StudyInstanceUID = "1.2.3"
    dataset.Modality = "MR"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    return dataset


def _bytes(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.9"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
