"""Volumes in a folder, and the patients that they belong to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from restore_rwkv.data.sources.jobs import Faults, folders_with_files
from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.files import is_dicom, patient_id
from restore_rwkv.io.record import file_sha256, joint_sha256

_NIFTI = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_BIDS = re.compile(r"(?:^|/)sub-([A-Za-z0-9]+)")


def find_volumes(
    folder: Path, faults: Faults, others: Counter[str], title: str = ""
) -> dict[str, Path]:
    """Find NIfTI files, and folders that directly contain DICOM files, at any depth.

    Args:
        folder: folder to search.
        faults: receives names that occur twice.
        others: receives the number of files of other kinds.
        title: prefix of names in faults.

    Returns:
        Path of each volume by name, sorted by name. The name is the path inside the folder, of
        NIfTI without the suffix.
    """
    found: dict[str, Path] = {}
    for here, files in folders_with_files(folder):
        series = []
        for path in files:
            if path.name.startswith("."):
                others["hidden files"] += 1
            elif _NIFTI.search(path.name):
                key = _NIFTI.sub("", path.relative_to(folder).as_posix())
                if key in found:
                    faults.add(title + path.relative_to(folder).as_posix(), "is there twice")
                found[key] = path
            elif is_dicom(path):
                series.append(path)
            else:
                others["other files"] += 1
        if series:
            found[here.relative_to(folder).as_posix()] = here
    return dict(sorted(found.items()))


def patients_of(
    volumes: Mapping[str, Path], pattern: re.Pattern[str] | None, faults: Faults
) -> dict[str, str]:
    """Patient of each volume, by the name of the volume. Used only to split; never stored.

    With a pattern, the patient is the match of its first group (or of the whole pattern) in the
    name of the volume. Otherwise it is the BIDS subject (`sub-01`), else the PatientID of DICOM,
    else the file name up to the first "_". Volumes in several subfolders without any of these are
    faults: the folders may or may not be patients, and a wrong guess would put one patient into two
    splits.
    """
    nested = len({name.rpartition("/")[0] for name in volumes}) > 1
    patients: dict[str, str] = {}
    for name, path in volumes.items():
        try:
            patient = _matched(pattern, name) if pattern is not None else _recorded(name, path)
        except InputError as error:
            faults.add(name, error)
            continue
        if patient is None and nested:
            faults.grave.append(
                f"{name}: the patient is unknown; give patient=PATTERN, such as '^[^/]+' for "
                "the first folder or '[^/_]+(?=[^/]*$)' for the name up to the first _"
            )
        else:
            patients[name] = patient or name.rpartition("/")[2].partition("_")[0]
    return patients


def _matched(pattern: re.Pattern[str], name: str) -> str:
    match = pattern.search(name)
    if match is None:
        raise InputError(
            f"{pattern.pattern!r} finds no patient in its name; change the pattern or the name"
        )
    return match[1] if pattern.groups and match[1] else match[0]


def _recorded(name: str, path: Path) -> str | None:
    """Patient by BIDS or DICOM; None without either."""
    bids = _BIDS.search(name)
    return bids[1] if bids else _patient_id(path) or None


def source_digest(path: Path) -> str:
    """SHA-256 of a file, or of the digests of the files in a folder sorted by name; hex."""
    if path.is_file():
        return file_sha256(path)
    return joint_sha256({file.name: file_sha256(file) for file in path.iterdir() if file.is_file()})


def _patient_id(path: Path) -> str:
    """PatientID of the first file of a DICOM series; empty for other files and without one."""
    if path.is_file():
        return ""
    files = (file for file in sorted(path.iterdir()) if file.is_file())
    return patient_id(next(file for file in files if is_dicom(file)))
