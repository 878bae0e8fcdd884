"""Names of methods and scans, and the patients that scans are of."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from restore_rwkv.data.sources.jobs import Faults
from restore_rwkv.data.sources.volumes import patients_of
from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.study.faults import FaultList

_BIDS = re.compile(r"(?:^|/)(sub-[A-Za-z0-9]+)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STEP = re.compile(r"(?:^|[/\\])\.{0,2}(?:[/\\]|$)")  # an empty name, or a step up


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return file names, each with as many of its folders as tell it from the others."""
    paths = [Path(printable(os.path.abspath(path))) for path in paths]
    names = [path.name for path in paths]
    for level in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        counts = Counter(names)
        twice = {name for name, count in counts.items() if count > 1}
        if not twice:
            break
        names = [
            Path(*path.parts[-level:]).as_posix() if name in twice else name
            for name, path in zip(names, paths, strict=True)
        ]
    return names


def printable(name: str) -> str:
    """Return a name with escapes for control characters, and for bytes that are not UTF-8."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def is_path_inside(name: str) -> bool:
    """Whether a name is a path that leads to something below a folder."""
    return not _STEP.search(name)


def patient_of(name: str, pattern: str | None) -> str:
    """Return the patient of a scan that is to be degraded: by pattern, by BIDS, else the scan.

    Raises:
        InputError: the pattern does not match.
    """
    if pattern is None:
        bids = _BIDS.search(name)
        return bids[1] if bids else name
    match = re.search(pattern, name)
    if match is None:
        raise InputError(f"{name}: patient {pattern!r} finds nothing in this name; change it")
    return match[1] if match.re.groups and match[1] else match[0]


def patients_by_scan(
    images: Mapping[str, Path], pattern: str | None, faults: FaultList
) -> dict[str, str]:
    """Return the patient by name of the scan; those that only headers name are numbered."""
    unknown = Faults()
    found = patients_of(images, re.compile(pattern) if pattern else None, unknown)
    for text in (*unknown.grave, *(f"{name}: {why}" for name, why in unknown.entries.items())):
        faults.add(text)
    for name, patient in found.items():
        if pattern is None and _BIDS.search(name):
            found[name] = f"sub-{patient}"
    hidden = {patient for name, patient in found.items() if patient not in name}
    order = list(dict.fromkeys(patient for patient in found.values() if patient in hidden))
    numbers = {patient: f"patient-{number:04d}" for number, patient in enumerate(order, 1)}
    return {name: numbers.get(patient, patient) for name, patient in found.items()}
