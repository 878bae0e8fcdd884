"""Kind of a file by its content, where that is certain, and by its name otherwise."""

from __future__ import annotations

import logging
import os
import re
import stat
import struct
import zlib
from pathlib import Path
from typing import Literal

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.signature import HEAD, has_preamble, may_be_dicom
from restore_rwkv.io.payload import GZIP

_log = logging.getLogger(__name__)
Kind = Literal["nifti", "nrrd", "metaimage", "mgh", "dicom", "image", "array"]

_SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys((".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz"), "nifti"),
    **dict.fromkeys((".nrrd", ".nhdr"), "nrrd"),
    **dict.fromkeys((".mha", ".mhd"), "metaimage"),
    **dict.fromkeys((".mgh", ".mgz", ".mgh.gz"), "mgh"),
    **dict.fromkeys((".dcm", ".dicom", ".ima", ".zip"), "dicom"),
    **dict.fromkeys((".png", ".tif", ".tiff"), "image"),
    ".npy": "array",
}
READABLE = (
    ".nii, .nii.gz, .img, .nrrd, .mha, .mgz, .dcm, .png, .tif, .npy or a folder with a DICOM series"
)
_SIGNATURES: tuple[tuple[bytes, Kind], ...] = (
    (b"NRRD000", "nrrd"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"II*\0", "image"),
    (b"MM\0*", "image"),
    (b"\x93NUMPY", "array"),
)
_OTHERS = (
    (b"\xff\xd8\xff", "a JPEG picture; convert it to a grey PNG"),
    (b"GIF8", "a GIF picture; convert it to a grey PNG"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (also MINC 2, MATLAB 7.3); convert it to NIfTI"),
    (b"CDF", "a NetCDF file (also MINC 1); convert it to NIfTI"),
    (b"MATLAB 5.0", "a MATLAB file; save the image as NIfTI, or with numpy.save"),
    (b"%PDF", "a PDF document; give an image"),
)
_NIFTI_MAGIC = (b"n+1\0", b"ni1\0")
_NIFTI_2_MAGIC = (b"n+2\0", b"ni2\0")
_META = re.compile(rb"(?:^|\n)(?:ObjectType\s*=\s*Image|NDims\s*=)")
_SORTS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_source(path: Path) -> None:
    """Check, before anything is opened, that a path is a folder or a file that can be read.

    Raises:
        InputError: There is nothing, or a pipe, device or socket, which could block for ever; or
            the file is empty or may not be read.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise InputError(f"{path}: a link to a file that is not there; check it") from error
        raise InputError(f"{path}: no such file or folder; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be opened ({reason}); check the path") from error
    for is_sort, sort in _SORTS:
        if is_sort(found.st_mode):
            raise InputError(f"{path}: is {sort}; save the image to a file and give that")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read; correct its permissions")
    if stat.S_ISREG(found.st_mode) and not found.st_size:
        raise InputError(f"{path.name}: the file is empty; copy or export it again")


def kind_of(path: Path) -> Kind:
    """Return the reader for an existing file or folder.

    Raises:
        InputError: It is of a kind that is not read; the message names it where it is known.
    """
    suffix = suffix_of(path.name)
    by_name = _SUFFIXES.get(suffix)
    if path.is_dir():
        if by_name not in (None, "dicom"):
            raise InputError(f"{path.name}: is a folder; give the {suffix} file in it")
        return "dicom"
    by_content = _kind_of_content(path)
    if by_content == "dicom" and by_name == "array":
        raise InputError(f"{path.name}: an .npz archive of arrays; save one with numpy.save")
    if by_content is not None:
        if by_name not in (None, by_content):
            _log.warning(
                "%s: read as %s, which its content is", path.name, _NAMES.get(by_content, "image")
            )
        return by_content
    if by_name is not None:
        return by_name
    raise InputError(f"{path.name}: unknown kind of file; give {READABLE}")


_NAMES: dict[Kind, str] = {
    "nifti": "NIfTI",
    "nrrd": "NRRD",
    "metaimage": "MetaImage",
    "dicom": "DICOM",
    "image": "PNG or TIFF",
    "array": "a NumPy array",
}


def holds_volume(name: str) -> bool:
    """Whether a file, by its name, is an image other than DICOM; of a pair, the header."""
    suffix = suffix_of(name)
    return _SUFFIXES.get(suffix, "dicom") != "dicom" and not suffix.startswith(".img")


def suffix_of(name: str) -> str:
    """Return the suffix of a name in lower case, two parts where the last is .gz."""
    parts = name.lower().split(".")
    if len(parts) > 2 and parts[-1] == "gz":
        return f".{parts[-2]}.gz"
    return f".{parts[-1]}" if len(parts) > 1 else ""


def _kind_of_content(path: Path) -> Kind | None:
    """Return the kind that the first bytes are certain of, None where they are not.

    Raises:
        InputError: They are those of a file of another kind.
    """
    head = _head(path)
    if has_preamble(head):
        return "dicom"
    if is_nifti(head):
        return "nifti"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if _META.search(head[:400]):
        return "metaimage"
    for signature, text in _OTHERS:
        if head.startswith(signature):
            raise InputError(f"{path.name}: {text}")
    if head.startswith(b"PK\x03\x04"):
        if suffix_of(path.name) == ".npz":
            raise InputError(
                f"{path.name}: unknown kind of file, several arrays; save one with numpy.save"
            )
        return "dicom"  # a .zip with a series
    return "dicom" if may_be_dicom(head) else None


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes of a file, uncompressed, are those of NIfTI-1 or NIfTI-2."""
    if len(head) < 348:
        return False
    for order in "<>":
        size = struct.unpack(order + "i", head[:4])[0]
        if (size == 348 and head[344:348] in _NIFTI_MAGIC) or (
            size == 540 and head[4:8] in _NIFTI_2_MAGIC
        ):
            return True
    return False


def _head(path: Path) -> bytes:
    """First bytes of a file, uncompressed; as they are where they cannot be uncompressed."""
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    if head.startswith(GZIP):
        try:
            return zlib.decompressobj(wbits=31).decompress(head, HEAD)
        except zlib.error:
            return head
    return head
