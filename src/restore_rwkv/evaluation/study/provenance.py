"""What an evaluation was made from: versions, options, and digests of weights and data."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from restore_rwkv.evaluation.measures.measure import Measure
from restore_rwkv.evaluation.study.pairing import find_images
from restore_rwkv.evaluation.study.request import StudyRequest
from restore_rwkv.evaluation.study.sources import Case
from restore_rwkv.io.record import file_sha256, joint_sha256, program_version
from restore_rwkv.tasks import Task

_PACKAGES = ("torch", "numpy", "scipy")


def sentence_of(task: Task, cases: Sequence[Case], request: StudyRequest) -> str:
    """Return what was scored of a task, in a sentence."""
    of_task = [case for case in cases if case.task.name == task.name]
    patients = len({case.patient for case in of_task})
    slices = sum(case.shape[0] for case in of_task)
    split = f", {request.split} split" if all(case.stack for case in of_task) else ""
    origins = list(dict.fromkeys(case.origin for case in of_task))
    of = origins[0] if len(origins) == 1 else f"{origins[0]} and {len(origins) - 1} more"
    how = "" if request.from_files or split else f", degraded with seed {request.seed}"
    return (
        f"{task.title}: {of}{split}{how}; {_count(patients, 'patient')}, "
        f"{_count(len(of_task), 'scan')}, {_count(slices, 'slice')}."
    )


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def provenance_of(
    request: StudyRequest,
    cases: Sequence[Case],
    measures: Sequence[Measure],
    weights: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Return versions, options, and digests of weights, images and data, as plain JSON values.

    Args:
        request: what was scored.
        cases: its scans.
        measures: what was measured.
        weights: file and digest of weights, by name of the method.
    """
    folders = {
        name: {"folder": root.name, "sha256": _digest(root)} for name, root in request.roots.items()
    }
    return {
        "software": program_version(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "command": request.command,
        "seed": request.seed,
        "split": request.split,
        "protocols": list(request.protocols),
        "measures": [measure.name for measure in measures],
        "options": {
            name: getattr(request.options, name)
            for name in ("consistency", "ensemble", "strength", "force", "strict")
        },
        "methods": {**folders, **weights},
        "data": {case.origin: case.digest for case in cases},
    }


def _digest(root: Path) -> str:
    """SHA-256 of a file, or of those of all images in a folder by their names."""
    found = {}
    for name, path in find_images(root).items():
        if path.is_dir():
            files = {f.name: file_sha256(f) for f in path.iterdir() if f.is_file()}
            found[name] = joint_sha256(files)
        else:
            found[name] = file_sha256(path)
    return joint_sha256(found)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
