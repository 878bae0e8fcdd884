"""DICOM series with slices that are missing, damaged, there twice, or of another kind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from tests.helpers.odd_files.case import Family, Refused, Restored
from tests.helpers.odd_files.images import keeps
from tests.helpers.odd_files.series import CT, affine, make, only, series, setting, write

FAMILY = Family("DICOM slices", "restore {source} -o out.nii.gz -t ct-denoise")

same = Restored(keeps(CT, affine()))


@FAMILY.case(same, source="series")
def a_slice_twice_byte_by_byte(folder: Path) -> None:
    shutil.copy(series(folder / "series") / "slice003.dcm", folder / "series" / "copy (1).dcm")


@FAMILY.case(Refused((3,), "same position|twice|duplicate"), source="series")
def a_slice_twice_with_other_pixels(folder: Path) -> None:
    series(folder / "series")
    d = make(3, CT[..., 0].astype(np.int16), name="series")
    d.SOPInstanceUID += ".1"
    write(d, folder / "series" / "again.dcm")


@FAMILY.case(Refused((3,), "same position|twice|phase"), source="series")
def two_phases_in_one_series(folder: Path) -> None:
    series(folder / "series")
    for k in range(CT.shape[2]):
        d = make(k, (CT[..., k] + 10).astype(np.int16), name="series")
        d.SOPInstanceUID += ".1"
        write(d, folder / "series" / f"phase2-{k}.dcm")


@FAMILY.case(Refused((3,), "missing"), source="series")
def a_slice_missing(folder: Path) -> None:
    (series(folder / "series") / "slice003.dcm").unlink()


@FAMILY.case(Restored(keeps(CT[..., :5], affine())), source="series")
def the_last_slice_missing(folder: Path) -> None:
    (series(folder / "series") / "slice005.dcm").unlink()


_bad_slice = Refused((3,), "missing|slice003|damaged|truncated|empty")


@FAMILY.case(_bad_slice, source="series")
def a_slice_without_bytes(folder: Path) -> None:
    (series(folder / "series") / "slice003.dcm").write_bytes(b"")


@FAMILY.case(_bad_slice, source="series")
def a_slice_that_lost_its_end(folder: Path) -> None:
    file = series(folder / "series") / "slice003.dcm"
    file.write_bytes(file.read_bytes()[:-1000])


@FAMILY.case(_bad_slice, source="series")
def a_slice_that_lost_its_pixels(folder: Path) -> None:
    file = series(folder / "series") / "slice003.dcm"
    file.write_bytes(file.read_bytes()[:600])


@FAMILY.case(_bad_slice, source="series")
def a_slice_cut_after_the_preamble(folder: Path) -> None:
    file = series(folder / "series") / "slice003.dcm"
    file.write_bytes(file.read_bytes()[:132])


@FAMILY.case(_bad_slice, source="series")
def a_slice_of_zeros_on_disk(folder: Path) -> None:
    file = series(folder / "series") / "slice003.dcm"
    file.write_bytes(bytes(file.stat().st_size))


@FAMILY.case(same, source="series")
def a_report_among_the_slices(folder: Path) -> None:
    (series(folder / "series") / "report.pdf").write_bytes(b"%PDF-1.4\n")


@FAMILY.case(Refused((3, 6), "pipe|regular|fifo"), same, source="series")
def a_pipe_among_the_slices(folder: Path) -> None:
    os.mkfifo(series(folder / "series") / "pipe")


@FAMILY.case(same, Refused((3,), "trailing|behind"), source="series")
def text_behind_the_pixels(folder: Path) -> None:
    for file in series(folder / "series").iterdir():
        file.write_bytes(file.read_bytes() + b"text behind the end of the file")


FAMILY.add(
    "a localizer inside",
    lambda f: series(
        f / "series",
        only(
            0,
            setting(
                ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
                ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
            ),
        ),
    ),
    Restored(keeps(CT[..., 1:]), says="localizer"),
    Refused((3, 4), "localizer|orientation"),
    source="series",
)


@FAMILY.case(Refused((3,), "text|DICOM"), source="scan.dcm")
def text_named_dcm(folder: Path) -> None:
    (folder / "scan.dcm").write_text("this is no DICOM\n" * 50)


@FAMILY.case(Refused((3,), "DICOM|damaged|truncated"), source="scan.dcm")
def random_bytes_after_the_signature(folder: Path) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    (folder / "scan.dcm").write_bytes(bytes(128) + b"DICM" + noise)
