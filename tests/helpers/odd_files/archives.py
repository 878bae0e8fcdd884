"""Zip files with a series, without one, and with malice."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

from tests.helpers.odd_files.case import Family, Refused, Restored
from tests.helpers.odd_files.dicom_folders import disc
from tests.helpers.odd_files.images import keeps
from tests.helpers.odd_files.series import CT, affine, series

FAMILY = Family("archives", "restore scan.zip -o out.nii.gz -t ct-denoise")

_same = Restored(keeps(CT, affine()))


def slices(folder: Path) -> dict[str, bytes]:
    """Return the files of a series by name, and leave nothing behind."""
    files = sorted(series(folder / "series").iterdir())
    content = {f"series/{file.name}": file.read_bytes() for file in files}
    for file in files:
        file.unlink()
    (folder / "series").rmdir()
    return content


def pack(
    path: Path | io.BytesIO, content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED
) -> None:
    """Write a zip file."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


@FAMILY.case(_same)
def a_series(folder: Path) -> None:
    pack(folder / "scan.zip", slices(folder))


@FAMILY.case(_same)
def a_series_not_compressed(folder: Path) -> None:
    pack(folder / "scan.zip", slices(folder), zipfile.ZIP_STORED)


@FAMILY.case(_same, Refused((3,), "compress|LZMA|packed|method"))
def a_series_in_LZMA(folder: Path) -> None:
    pack(folder / "scan.zip", slices(folder), zipfile.ZIP_LZMA)


@FAMILY.case(_same)
def a_disc_with_its_DICOMDIR(folder: Path) -> None:
    disc(folder)
    files = sorted(path for path in (folder / "disc").rglob("*") if path.is_file())
    pack(
        folder / "scan.zip",
        {str(path.relative_to(folder / "disc")): path.read_bytes() for path in files},
    )
    for path in files:
        path.unlink()


@FAMILY.case(Refused((2, 3), "series"))
def two_series(folder: Path) -> None:
    content = slices(folder)
    more = {file.name: file.read_bytes() for file in series(folder / "other").iterdir()}
    pack(folder / "scan.zip", content | more)


_outside = Refused((3,), "outside|leads out|link|packed|method|name")


def _add_named(title: str, name: str) -> None:
    FAMILY.add(
        title,
        lambda folder: pack(folder / "scan.zip", {**slices(folder), name: b"PWNED"}),
        _same,
        _outside,
    )


_add_named("a name that leaves the folder", "../../../PWNED")
_add_named("an absolute name", "/tmp/PWNED")
_add_named("a name of Windows", "C:\\PWNED")
_add_named("a very long name", "x" * 3000)
_add_named("a name with a line break", "a\nb")


@FAMILY.case(_same, _outside)
def slices_whose_names_leave_the_folder(folder: Path) -> None:
    content = {f"../../{name}-PWNED": data for name, data in slices(folder).items()}
    pack(folder / "scan.zip", content)


@FAMILY.case(_same, _outside)
def a_link_inside(folder: Path) -> None:
    pack(folder / "scan.zip", slices(folder))
    with zipfile.ZipFile(folder / "scan.zip", "a") as archive:
        link = zipfile.ZipInfo("series/link.dcm")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")


@FAMILY.case(_same, _outside)
def every_name_twice(folder: Path) -> None:
    content = slices(folder)
    with zipfile.ZipFile(folder / "scan.zip", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
            archive.writestr(name.upper(), data)


@FAMILY.case(_same, Refused((3,), "zip|name|UTF|decode|damaged"))
def a_name_that_is_not_UTF_8(folder: Path) -> None:
    pack(folder / "scan.zip", {"ä.txt": b"text", **slices(folder)})
    content = (folder / "scan.zip").read_bytes()
    (folder / "scan.zip").write_bytes(content.replace("ä".encode(), b"\xff\xfe"))


_bomb = Refused((3,), "large|bytes|bomb|unpack|compress|memory")


@FAMILY.case(_bomb)
def a_bomb_of_four_gigabytes(folder: Path) -> None:
    with zipfile.ZipFile(
        folder / "scan.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as archive:
        for k in range(4):
            with archive.open(f"{k}.dcm", "w", force_zip64=True) as member:
                member.write(bytes(128) + b"DICM")
                for _ in range(64):
                    member.write(bytes(1 << 24))


@FAMILY.case(_bomb, _same)
def a_bomb_beside_the_slices(folder: Path) -> None:
    pack(folder / "scan.zip", slices(folder))
    with (
        zipfile.ZipFile(folder / "scan.zip", "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros.bin", "w", force_zip64=True) as member,
    ):
        for _ in range(128):
            member.write(bytes(1 << 24))


@FAMILY.case(Refused((3,), "files|large|many|DICOM|zip"))
def a_hundred_thousand_empty_files(folder: Path) -> None:
    pack(folder / "scan.zip", {f"{k}": b"" for k in range(100_000)}, zipfile.ZIP_STORED)


@FAMILY.case(_same, Refused((3,), "zip|DICOM"))
def a_zip_in_a_zip(folder: Path) -> None:
    inner = io.BytesIO()
    pack(inner, slices(folder))
    pack(folder / "scan.zip", {"inner.zip": inner.getvalue()})


@FAMILY.case(Refused((3,), "encrypt|password"))
def encrypted(folder: Path) -> None:
    pack(folder / "scan.zip", slices(folder))
    content = bytearray((folder / "scan.zip").read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + place] |= 1  # the flag; the content would need a password
            start = content.find(signature, start + 1)
    (folder / "scan.zip").write_bytes(content)


_no_zip = Refused((3,), "zip|damaged|truncated|CRC")


@FAMILY.case(_no_zip)
def half_a_zip(folder: Path) -> None:
    pack(folder / "scan.zip", slices(folder))
    content = (folder / "scan.zip").read_bytes()
    (folder / "scan.zip").write_bytes(content[: len(content) // 2])


@FAMILY.case(_no_zip)
def a_wrong_checksum(folder: Path) -> None:
    pack(folder / "scan.zip", slices(folder), zipfile.ZIP_STORED)
    content = bytearray((folder / "scan.zip").read_bytes())
    content[3000] ^= 255
    (folder / "scan.zip").write_bytes(content)


@FAMILY.case(_no_zip, _bomb)
def a_size_that_lies(folder: Path) -> None:
    pack(folder / "scan.zip", slices(folder))
    content = bytearray((folder / "scan.zip").read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 4_000_000_000)
    (folder / "scan.zip").write_bytes(content)


FAMILY.add("no files", lambda f: pack(f / "scan.zip", {}), Refused((3,), "zip|DICOM|empty"))
FAMILY.add(
    "text only", lambda f: pack(f / "scan.zip", {"a.txt": b"no DICOM"}), Refused((3,), "DICOM")
)
FAMILY.add(
    "text named zip",
    lambda f: (f / "scan.zip").write_text("this is no archive"),
    Refused((3,), "zip|DICOM"),
)
FAMILY.add(
    "a NIfTI in a zip",
    lambda f: pack(f / "scan.zip", {"scan.nii": b"\x5c\x01\x00\x00" + bytes(400)}),
    Refused((3,), "DICOM|NIfTI|zip"),
)
