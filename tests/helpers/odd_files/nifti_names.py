"""NIfTI files with odd names, in odd places, or beside odd JSON files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np

from tests.helpers.odd_files.case import Family, Make, Refused, Restored
from tests.helpers.odd_files.images import keeps, mri, pet, plain, save_nifti

FAMILY = Family("names and sidecars")

_same = Restored(keeps(mri()))
_AUTO = "restore scan.nii.gz -o out.nii.gz --consistency 0"


@FAMILY.case(_same, Refused((3,), "kind|suffix|format"), source="scan")
def no_suffix(folder: Path) -> None:
    shutil.move(plain(folder), folder / "scan")


FAMILY.add("capital letters", lambda f: plain(f, "SCAN.NII.GZ"), _same, source="SCAN.NII.GZ")
FAMILY.add(
    "spaces, umlauts and brackets",
    lambda f: plain(f, "näme with späce & [x].nii.gz"),
    _same,
    source="'näme with späce & [x].nii.gz'",
)
FAMILY.add("a name like an option", lambda f: plain(f, "-o.nii.gz"), _same, source="./-o.nii.gz")
FAMILY.add(
    "a line break in the name",
    lambda f: (f / "line\nbreak.nii.gz").write_bytes(b"text"),
    Refused((3,), "gzip|NIfTI"),
    words="restore 'line\nbreak.nii.gz' -o out.nii.gz -t mri-sr",
)
FAMILY.add(
    "escape codes in the name",
    lambda f: (f / "\x1b[31mred.nii.gz").write_bytes(b"text"),
    Refused((3,), "gzip|NIfTI"),
    words="restore '\x1b[31mred.nii.gz' -o out.nii.gz -t mri-sr",
)


@FAMILY.case(_same)
def a_link(folder: Path) -> None:
    plain(folder, "there.nii.gz")
    (folder / "scan.nii.gz").symlink_to("there.nii.gz")


FAMILY.add(
    "a link to nothing",
    lambda f: (f / "scan.nii.gz").symlink_to("nowhere"),
    Refused((3, 6), "no such|link"),
)
FAMILY.add(
    "a link to itself",
    lambda f: (f / "scan.nii.gz").symlink_to("scan.nii.gz"),
    Refused((3, 6), "link|loop|no such"),
)
FAMILY.add("no such file", lambda f: None, Refused((3, 6), "no such file"))
FAMILY.add(
    "a pipe that nobody writes to",
    lambda f: os.mkfifo(f / "scan.nii.gz"),
    Refused((3,), "pipe|fifo|regular|not a file"),
)
FAMILY.add(
    "a device",
    lambda f: (f / "scan.nii.gz").symlink_to("/dev/zero"),
    Refused((3,), "device|regular|not a file|NIfTI|gzip"),
)
FAMILY.add(
    "a folder named like a file",
    lambda f: (f / "scan.nii.gz").mkdir(),
    Refused((3,), "folder|DICOM"),
)
FAMILY.add(
    "a folder without files", lambda f: (f / "scan").mkdir(), Refused((3,), "empty"), source="scan"
)


@FAMILY.case(Refused((3,), "DICOM"), source="scan")
def a_folder_of_text(folder: Path) -> None:
    (folder / "scan").mkdir()
    (folder / "scan" / "notes.txt").write_text("no DICOM\n")


@FAMILY.case(Refused((3,), "DICOM|link|folder"), source="scan")
def a_folder_that_links_to_itself(folder: Path) -> None:
    (folder / "scan").mkdir()
    (folder / "scan" / "again").symlink_to("..", target_is_directory=True)
    (folder / "scan" / "notes.txt").write_text("no DICOM\n")


FAMILY.add("an empty name", plain, Refused((2, 3), "."), words="restore '' -o out.nii.gz -t mri-sr")


def _beside(text: str | bytes, name: str = "scan.json") -> Make:
    """Return a function that writes the MRI, and a JSON file beside it."""

    def make(folder: Path) -> None:
        plain(folder)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


FAMILY.add("MRI without a task", plain, Refused((2, 3, 4), "task|modality"), words=_AUTO)
FAMILY.add("MR in the JSON", _beside('{"Modality": "MR"}'), _same, words=_AUTO)
FAMILY.add("CT in the JSON", _beside('{"Modality": "CT"}'), Refused((2, 3, 4), "CT"))
FAMILY.add(
    "ultrasound in the JSON",
    _beside('{"Modality": "US"}'),
    Refused((2, 3, 4), "US|modality|task"),
    words=_AUTO,
)
_ignored = Restored(keeps(mri()), says=r"scan\.json")
for _name, _text in {
    "half an object": '{"Modality": "MR"',
    "a list": '["MR"]',
    "100000 brackets": "[" * 100_000,
    "bytes": bytes(range(256)),
    "3 MB": json.dumps({"Modality": "MR", "long": "x" * 3_000_000}),
    "nothing": "",
}.items():
    FAMILY.add(f"JSON of {_name}", _beside(_text), _ignored)
FAMILY.add(
    "modality as a number in the JSON",
    _beside('{"Modality": 17}'),
    _same,
    Refused((3,), "Modality"),
)
FAMILY.add(
    "modality as a list in the JSON",
    _beside('{"Modality": ["MR"]}'),
    _same,
    Refused((3,), "Modality"),
)
FAMILY.add(
    "a number of 5000 digits in the JSON",
    _beside(f'{{"Modality": "MR", "EchoTime": {"9" * 5000}}}'),
    _same,
    _ignored,
)


@FAMILY.case(_same)
def a_folder_in_place_of_the_json(folder: Path) -> None:
    plain(folder)
    (folder / "scan.json").mkdir()


@FAMILY.case(_same, _ignored)
def a_pipe_in_place_of_the_json(folder: Path) -> None:
    plain(folder)
    os.mkfifo(folder / "scan.json")


@FAMILY.case(Restored(keeps(pet())), words="restore scan.nii.gz -o out.nii.gz")
def PET_in_Bq_in_the_json(folder: Path) -> None:
    save_nifti(folder / "scan.nii.gz", pet().astype(np.float32))
    (folder / "scan.json").write_text('{"Modality": "PT", "Units": "BQML"}')


@FAMILY.case(
    Restored(keeps(mri())), words="restore sub-01_T1w.nii.gz -o out.nii.gz --consistency 0"
)
def a_BIDS_name_that_says_T1w(folder: Path) -> None:
    plain(folder, "sub-01_T1w.nii.gz")
