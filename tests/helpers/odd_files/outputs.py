"""Outputs that exist, cannot be written, or are the input."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tests.helpers.odd_files.case import OUTPUT, Family, Make, Refused, Restored, record_name
from tests.helpers.odd_files.images import keeps, mri, pet, plain, save_nifti

FAMILY = Family("outputs")

_IN = "restore scan.nii.gz -t mri-sr"
_same = Restored(keeps(mri()))


def _to(
    output: str,
    *right: Restored | Refused,
    make: Make = plain,
    name: str | None = None,
    options: str = "",
    written: tuple[str, ...] | None = None,
) -> None:
    words = f"{_IN} -o {output} {options}".strip()
    plain_name = output.strip("'")
    outputs = written
    if outputs is None:
        outputs = (plain_name, record_name(plain_name)) if "." in plain_name else ()
    FAMILY.add(name or output, make, *right, words=words, outputs=outputs)


def _beside(write: object) -> Make:
    """Return a function that writes the scan, and more by ``write(folder)``."""

    def make(folder: Path) -> None:
        plain(folder)
        write(folder)  # type: ignore[operator]

    return make


def _kept(name: str) -> Restored:
    return Restored(keeps(mri(), name=name))


_to("out.nii", _kept("out.nii"))
_to(
    "new/folder/out.nii.gz",
    Restored(keeps(mri(), name="new/folder/out.nii.gz")),
    Refused((2, 3, 6), "folder"),
    written=("new", "new/folder", "new/folder/out.nii.gz", "new/folder/out.restoration.json"),
)
_folder = Refused((2, 3, 6), "folder|directory")
_to(".", _folder, written=())
_to("'taken'", _folder, make=_beside(lambda f: (f / "taken").mkdir()), name="a folder", written=())
_to(
    "taken.nii.gz",
    _folder,
    make=_beside(lambda f: (f / "taken.nii.gz").mkdir()),
    name="a folder named like a file",
    options="-f",
)
_format = Refused((2, 3), "format|suffix|name|folder|kind|DICOM")
for _name in ("/dev/null", "-", "out", "out.jpg", "out.gz", "out.nii.gz.txt", "''"):
    _to(_name, _format, Refused((2, 3), "."), name=f"to {_name}", written=())
_to("out.png", Refused((2, 3), "slices|volume"))
_to("out.tif", Refused((2, 3), "slices|volume"))
_to("out.npy", Restored())
_to("out.mha", Restored(), Refused((2, 3), "format|suffix"))
_to(
    ".nii.gz",
    Refused((2, 3), "name|suffix|format"),
    Restored(),
    written=(".nii.gz", ".nii.restoration.json"),
)
_to("x" * 250 + ".nii.gz", Refused((2, 3, 6), "long|name"), name="a name of 257 letters")
_to(
    "x" * 200 + ".nii.gz", Restored(), Refused((2, 3, 6), "long|name"), name="a name of 207 letters"
)
_to("'späce & [x].nii.gz'", _kept("späce & [x].nii.gz"))
_to("OUT.NII.GZ", Restored(), written=("OUT.NII.GZ", "OUT.restoration.json"))

_exists = Refused((2, 3), "exists|pipe")
_to(OUTPUT, _exists, make=_beside(lambda f: (f / OUTPUT).write_text("mine")), name="it exists")
_to(
    OUTPUT,
    _exists,
    make=_beside(lambda f: (f / record_name(OUTPUT)).write_text("{}")),
    name="its record exists",
)
_to(
    OUTPUT,
    Refused((2, 3, 6), "folder|exists|directory"),
    make=_beside(lambda f: (f / record_name(OUTPUT)).mkdir()),
    name="a folder in place of its record",
    options="-f",
)
_itself = Refused((2, 3), "same|input")
_to("scan.nii.gz", _itself, options="-f", name="the input", written=())
_to(
    "inner/../scan.nii.gz",
    _itself,
    make=_beside(lambda f: (f / "inner").mkdir()),
    options="-f",
    name="the input by another path",
    written=(),
)
_to(
    "link.nii.gz",
    _itself,
    make=_beside(lambda f: (f / "link.nii.gz").symlink_to("scan.nii.gz")),
    name="a link to the input",
    options="-f",
)
_to(
    "hard.nii.gz",
    _itself,
    make=_beside(lambda f: os.link(f / "scan.nii.gz", f / "hard.nii.gz")),
    name="another name of the input",
    options="-f",
)
_to(
    OUTPUT,
    Refused((2, 3, 6), "exists|link|no such"),
    make=_beside(lambda f: (f / OUTPUT).symlink_to("elsewhere.nii.gz")),
    name="a link to nothing",
)
_to(
    OUTPUT,
    _exists,
    make=_beside(lambda f: os.mkfifo(f / OUTPUT)),
    name="a pipe",
)
_to(
    "scan.nii.gz/out.nii.gz",
    Refused((2, 3, 6), "folder|directory"),
    name="below a file",
    written=(),
)
_to("/proc/out.nii.gz", Refused((2, 3, 6), "written|permission|no such|/proc"), written=())


FAMILY.add(
    "a second output of one input",
    plain,
    _same,
    words=(f"{_IN} -o once.nii.gz", f"{_IN} -o {OUTPUT}"),
)
FAMILY.add("the type of the source", plain, _same, words=f"{_IN} -o {OUTPUT} --dtype source")
FAMILY.add(
    "PNG in float32",
    plain,
    Refused((2, 3), "float32|slices"),
    words=f"{_IN} -o out.png --dtype float32",
)


FAMILY.add(
    "four axes of length 1 behind",
    lambda f: save_nifti(f / "scan.nii.gz", mri()[..., None, None].astype(np.float32)),
    Restored(keeps(mri()[..., None, None])),
)
FAMILY.add(
    "a preview",
    plain,
    Restored(),
    words=f"{_IN} -o {OUTPUT} --dry-run",
    outputs=(),
)
FAMILY.add(
    "a preview of PET",
    lambda f: save_nifti(f / "scan.nii.gz", pet().astype(np.float32)),
    Restored(),
    words=f"restore scan.nii.gz -t pet-synth -o {OUTPUT} --dry-run",
    outputs=(),
)
