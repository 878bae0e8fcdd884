"""DICOM files and folders as scanners, archives and discs leave them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from tests.helpers.odd_files.case import Family, Refused, Restored
from tests.helpers.odd_files.images import keeps
from tests.helpers.odd_files.series import (
    CT,
    MR,
    affine,
    make,
    series,
    setting,
    write,
)

FAMILY = Family("DICOM folders", "restore {source} -o out.nii.gz -t ct-denoise")

same = Restored(keeps(CT, affine()))
_AUTO = "restore {} -o out.nii.gz"


@FAMILY.case(same, source="series")
def a_sound_series(folder: Path) -> None:
    series(folder / "series")


@FAMILY.case(same, words=_AUTO.format("series"))
def a_sound_series_without_a_task(folder: Path) -> None:
    series(folder / "series")


@FAMILY.case(
    Restored(keeps(MR, affine())), words=_AUTO.format("series") + " -t mri-sr --consistency 0"
)
def a_sound_series_of_MR(folder: Path) -> None:
    series(folder / "series", modality="MR")


@FAMILY.case(same, source="series")
def names_in_another_order_than_positions(folder: Path) -> None:
    for k, file in enumerate(sorted(series(folder / "series").iterdir())):
        file.rename(file.with_name(f"{(5 * k + 2) % 7}.dcm"))


FAMILY.add(
    "instance numbers against the positions",
    lambda f: series(f / "series", lambda d, k: setattr(d, "InstanceNumber", 99 - k)),
    same,
    source="series",
)


@FAMILY.case(same, source="series")
def no_suffixes(folder: Path) -> None:
    for file in list(series(folder / "series").iterdir()):
        file.rename(file.with_suffix(""))


def _without_preamble(folder: Path, *, implicit: bool) -> None:
    for file in series(folder / "series").iterdir():
        d = dcmread(file)
        del d.file_meta
        d.preamble = None
        d.save_as(file, implicit_vr=implicit, little_endian=True, enforce_file_format=False)


FAMILY.add(
    "no preamble, implicit",
    lambda f: _without_preamble(f, implicit=True),
    same,
    source="series",
)
FAMILY.add(
    "no preamble, explicit",
    lambda f: _without_preamble(f, implicit=False),
    same,
    source="series",
)


@FAMILY.case(same, source="series")
def neither_preamble_nor_suffixes(folder: Path) -> None:
    _without_preamble(folder, implicit=True)
    for file in list((folder / "series").iterdir()):
        file.rename(file.with_suffix(""))


def _encoded(folder: Path, syntax: str) -> None:
    def edit(d: Dataset, k: int) -> None:
        d.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            d.PixelData = np.frombuffer(d.PixelData, "<i2").astype(">i2").tobytes()

    series(folder / "series", edit)


for _name, _syntax in {
    "implicit": ImplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
}.items():
    FAMILY.add(_name, lambda f, s=_syntax: _encoded(f, s), same, source="series")

FAMILY.add(
    "one file of the series",
    lambda f: series(f / "series"),
    Restored(says="slice|file|series"),
    Refused((3, 4), "slice|series"),
    source="series/slice003.dcm",
)
FAMILY.add(
    "one slice and no more",
    lambda f: series(f / "series", values=CT[..., :1]),
    Restored(keeps(CT[..., :1], affine())),
    source="series",
)


def disc(folder: Path) -> None:
    files = FileSet()
    for file in sorted(series(folder / "series").iterdir()):
        files.add(dcmread(file))
    files.write(folder / "disc")
    shutil.rmtree(folder / "series")


FAMILY.add("DICOMDIR", disc, same, source="disc/DICOMDIR")
FAMILY.add("the folder of a DICOMDIR", disc, same, source="disc")


@FAMILY.case(Refused((3,), "DICOMDIR|no such|missing"), source="disc/DICOMDIR")
def a_DICOMDIR_whose_files_are_gone(folder: Path) -> None:
    disc(folder)
    for path in list((folder / "disc").iterdir()):
        if path.is_dir():
            shutil.rmtree(path)


@FAMILY.case(Refused((3,), "DICOMDIR|outside|no such|missing"), same, source="disc/DICOMDIR")
def a_DICOMDIR_that_points_outside(folder: Path) -> None:
    disc(folder)
    d = dcmread(folder / "disc" / "DICOMDIR")
    for record in d.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            record.ReferencedFileID = ["..", "..", *record.ReferencedFileID]
    d.save_as(folder / "disc" / "DICOMDIR")


@FAMILY.case(same, source="patient")
def a_series_three_folders_down(folder: Path) -> None:
    series(folder / "patient" / "study" / "series" / "images")


@FAMILY.case(same, source="patient")
def a_series_spread_over_folders(folder: Path) -> None:
    series(folder / "patient" / "images")
    for k, file in enumerate(sorted((folder / "patient" / "images").iterdir())):
        (folder / "patient" / str(k)).mkdir()
        file.rename(folder / "patient" / str(k) / "IM0001")
    (folder / "patient" / "images").rmdir()


_several = Refused((2, 3), "series")


@FAMILY.case(_several, source="patient")
def three_series_in_folders(folder: Path) -> None:
    for name in ("first/a", "first/b", "second/c"):
        series(folder / "patient" / name)


@FAMILY.case(_several, source="series")
def two_series_in_one_folder(folder: Path) -> None:
    series(folder / "series")
    for file in list(series(folder / "more").iterdir()):
        file.rename(folder / "series" / f"more-{file.name}")
    (folder / "more").rmdir()


@FAMILY.case(same, words=_AUTO.format("patient") + " --series 8")
def one_of_two_series_by_its_number(folder: Path) -> None:
    series(folder / "patient" / "wanted", setting(SeriesNumber=8))
    series(folder / "patient" / "other")


FAMILY.add(
    "a number of no series",
    lambda f: series(f / "series"),
    Refused((2, 3), "series"),
    words=_AUTO.format("series") + " --series 99",
)


@FAMILY.case(_several, source="patient")
def two_hundred_series(folder: Path) -> None:
    for k in range(200):
        d = make(0, CT[..., 0].astype(np.int16), name=f"series {k}")
        d.SeriesNumber, d.SeriesDescription = k, "a description of some length " * 2
        write(d, folder / "patient" / f"{k:03d}.dcm")
