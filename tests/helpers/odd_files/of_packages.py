"""The test files that pydicom, nibabel and highdicom bring along, where they are installed."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.helpers.odd_files.case import Case, Family, Refused, Restored

_FOLDERS = {
    "pydicom": ("data/test_files", "data/charset_files"),
    "nibabel": ("tests/data", "nicom/tests/data", "gifti/tests/data"),
    "highdicom": ("data/test_files", "tests/data"),
}
_CODE = (".py", ".pyc", ".json", ".txt", ".md")
_TASKS = {"CT": "ct-denoise", "MR": "mri-sr", "PT": "pet-synth"}

# What is right is not said for these: only that it is one of the two, without a trace or a hang.
_ANY = (Restored(), Refused((3, 4, 6), "."))


@cache
def package_cases() -> dict[str, Case]:
    """Return a case for each file, by its name: restored or refused, both are right."""
    cases: dict[str, Case] = {}
    for package, folders in _FOLDERS.items():
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            continue
        family = Family(f"files of {package}")
        root = Path(found.origin).parent
        for path in _files(root, folders):
            source = f"scan{_suffix(path)}" if path.suffix else "scan.dcm"
            family.add(
                str(path.relative_to(root)),
                lambda folder, path=path, source=source: shutil.copyfile(path, folder / source),
                *_ANY,
                words=f"restore {source} -o out.nii.gz -t {_task(path)}",
            )
        cases |= {case.title: case for case in family.cases}
    return cases


def _files(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix not in _CODE and "__pycache__" not in path.parts:
                yield path


def _suffix(path: Path) -> str:
    return "".join(re.findall(r"\.[A-Za-z]\w*", path.name)[-2:])


def _task(path: Path) -> str:
    """Name the task of a DICOM file's modality, that of MRI for all others."""
    from pydicom import dcmread

    try:
        modality = dcmread(path, specific_tags=["Modality"], stop_before_pixels=True).Modality
    except Exception:  # of any kind, on any file
        modality = "MR"
    return _TASKS.get(str(modality), "ct-denoise")
