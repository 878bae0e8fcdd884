"""NIfTI files whose bytes are damaged, too few, too many, or compressed in an unusual way."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.helpers.odd_files.case import Family, Refused, Restored
from tests.helpers.odd_files.images import AFFINE, ct, keeps, mri, plain, save_nifti

FAMILY = Family("NIfTI bytes")

_same = Restored(keeps(mri()))


def whole(folder: Path) -> bytes:
    """Return the bytes of an uncompressed NIfTI-1 file of the MRI as int16."""
    path = plain(folder, "whole.nii")
    content = path.read_bytes()
    path.unlink()
    return content


@FAMILY.case(_same)
def a_sound_file(folder: Path) -> None:
    plain(folder)


@FAMILY.case(_same, source="scan.nii")
def not_compressed(folder: Path) -> None:
    plain(folder, "scan.nii")


@FAMILY.case(_same)
def nifti_2(folder: Path) -> None:
    nib.save(nib.Nifti2Image(mri().astype(np.int16), AFFINE), folder / "scan.nii.gz")


@FAMILY.case(_same)
def big_endian(folder: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nib.Nifti1Image(mri().astype(">i2"), AFFINE, header)
    assert image.header.endianness == ">"
    nib.save(image, folder / "scan.nii.gz")


@FAMILY.case(Refused((3,), "gzip|not a NIfTI"))
def text_with_the_suffix_of_gzip(folder: Path) -> None:
    (folder / "scan.nii.gz").write_text("this is no gzip\n" * 50)


@FAMILY.case(Refused((3,), "NIfTI"))
def text_in_gzip(folder: Path) -> None:
    (folder / "scan.nii.gz").write_bytes(gzip.compress(b"this is no nifti\n" * 500))


@FAMILY.case(Refused((3,), "empty|not a NIfTI|gzip|truncated"))
def no_bytes(folder: Path) -> None:
    (folder / "scan.nii.gz").write_bytes(b"")


@FAMILY.case(Refused((3,), "empty|not a NIfTI|truncated"), source="scan.nii")
def no_bytes_not_compressed(folder: Path) -> None:
    (folder / "scan.nii").write_bytes(b"")


@FAMILY.case(Refused((3,), "truncated|less than|damaged"))
def half_of_the_gzip(folder: Path) -> None:
    path = plain(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@FAMILY.case(Refused((3,), "truncated|less than"), source="scan.nii")
def half_of_the_voxels(folder: Path) -> None:
    content = whole(folder)
    (folder / "scan.nii").write_bytes(content[: len(content) // 2])


@FAMILY.case(Refused((3,), "truncated|less than|not a NIfTI"), source="scan.nii")
def half_of_the_header(folder: Path) -> None:
    (folder / "scan.nii").write_bytes(whole(folder)[:170])


@FAMILY.case(Refused((3,), "truncated|less than"), source="scan.nii")
def one_byte_missing(folder: Path) -> None:
    (folder / "scan.nii").write_bytes(whole(folder)[:-1])


@FAMILY.case(_same, source="scan.nii")
def bytes_behind_the_voxels(folder: Path) -> None:
    (folder / "scan.nii").write_bytes(whole(folder) + bytes(512))


@FAMILY.case(_same, Refused((3,), "holds more|behind"))
def bytes_behind_the_voxels_in_gzip(folder: Path) -> None:
    (folder / "scan.nii.gz").write_bytes(gzip.compress(whole(folder) + bytes(512)))


@FAMILY.case(_same, Refused((3,), "gzip|behind|trailing"))
def text_behind_the_gzip(folder: Path) -> None:
    path = plain(folder)
    path.write_bytes(path.read_bytes() + b"text behind the end")


@FAMILY.case(_same)
def two_gzip_members(folder: Path) -> None:
    content = whole(folder)
    parts = gzip.compress(content[:5000]) + gzip.compress(content[5000:])
    (folder / "scan.nii.gz").write_bytes(parts)


@FAMILY.case(_same, source="scan.nii")
def gzip_without_its_suffix(folder: Path) -> None:
    (folder / "scan.nii").write_bytes(gzip.compress(whole(folder)))


@FAMILY.case(_same, Refused((3,), "gzip"))
def the_suffix_of_gzip_without_gzip(folder: Path) -> None:
    (folder / "scan.nii.gz").write_bytes(whole(folder))


@FAMILY.case(Refused((3,), "CRC|damaged|gzip"))
def a_wrong_checksum_of_gzip(folder: Path) -> None:
    path = plain(folder)
    content = bytearray(path.read_bytes())
    content[-8] ^= 255
    path.write_bytes(content)


@FAMILY.case(Refused((3,), "gzip|damaged|truncated"))
def a_flipped_bit_in_the_gzip(folder: Path) -> None:
    path = folder / "scan.nii.gz"
    save_nifti(path, ct().astype(np.int16))  # noise; in zeros a bit may change nothing
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def _claims(folder: Path, *shape: int) -> None:
    """Write a small file whose header claims a large image of int16."""
    header = bytearray(whole(folder)[:352])
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    (folder / "scan.nii.gz").write_bytes(gzip.compress(bytes(header) + bytes(16 << 20)))


_too_large = Refused((3, 6), "truncated|less than|memory|large")
FAMILY.add("claims of 20 GB", lambda f: _claims(f, 2500, 2000, 2000), _too_large)
FAMILY.add("claims of 65 TB", lambda f: _claims(f, 32000, 32000, 32000), _too_large)


@FAMILY.case(_too_large)
def claims_of_some_exabytes(folder: Path) -> None:
    image = nib.Nifti2Image(mri().astype(np.int16), AFFINE)
    nib.save(image, folder / "whole.nii")
    content = bytearray((folder / "whole.nii").read_bytes())
    (folder / "whole.nii").unlink()
    struct.pack_into("<8q", content, 16, 3, 1 << 40, 1 << 40, 1 << 40, 1, 1, 1, 1)
    (folder / "scan.nii.gz").write_bytes(gzip.compress(bytes(content)))


@FAMILY.case(_same, Refused((3,), "extension"))
def an_extension_that_claims_two_gigabytes(folder: Path) -> None:
    content = bytearray(whole(folder))
    extension = struct.pack("<2i", 2_000_000_000, 6) + bytes(8)
    struct.pack_into("<f", content, 108, 352 + len(extension))
    content[348] = 1
    (folder / "scan.nii.gz").write_bytes(
        gzip.compress(bytes(content[:352]) + extension + bytes(content[352:]))
    )


def _keeps_extension(folder: Path) -> None:
    keeps(mri())(folder)
    header = nib.load(folder / "out.nii.gz").header
    assert [e.get_content() for e in header.extensions] == [b"a comment"], "extension lost"


@FAMILY.case(Restored(_keeps_extension))
def a_comment_in_an_extension(folder: Path) -> None:
    image = nib.Nifti1Image(mri().astype(np.int16), AFFINE)
    image.set_qform(AFFINE, 1)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a comment"))
    nib.save(image, folder / "scan.nii.gz")


@FAMILY.case(Refused((3,), "NIfTI|gzip|PNG"))
def another_format_in_gzip(folder: Path) -> None:
    save_nifti(folder / "scan.nii.gz", mri().astype(np.int16))
    (folder / "scan.nii.gz").write_bytes(gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(900)))
