"""A corpus of bad and odd inputs, and a way to run the command line on each of them.

Each case is made by code in an empty folder, run as a command line there, and compared with what is
right. `all_cases` gives them; `running.Runner` runs one.
"""

from __future__ import annotations

import importlib
from functools import cache

from tests.helpers.odd_files.case import Case, Refused, Restored

MODULES = (
    "nifti_bytes",
    "nifti_headers",
    "nifti_values",
    "nifti_names",
    "dicom_folders",
    "dicom_slices",
    "dicom_pixels",
    "dicom_geometry",
    "dicom_headers",
    "dicom_statements",
    "archives",
    "pictures",
    "arrays",
    "other_formats",
    "weights",
    "settings",
    "outputs",
)
"""The modules of this package that hold cases; each has one or more `Family` of them."""


@cache
def all_cases() -> dict[str, Case]:
    """Return every case of the corpus by its full name, "family: case"."""
    cases: dict[str, Case] = {}
    for name in MODULES:
        module = importlib.import_module(f"{__name__}.{name}")
        for case in module.FAMILY.cases:
            if case.title in cases:
                raise ValueError(f"two cases are named {case.title!r}; rename one")
            cases[case.title] = case
    return cases


__all__ = ["MODULES", "Case", "Refused", "Restored", "all_cases"]
