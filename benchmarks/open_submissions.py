"""Submissions to the open benchmark: a folder of restored images, and who made them how.

::

    submission.toml                 names, statement of the training data; see `template`
    TASK/PATIENT/STACK.npy          (slices, rows, columns), as the inputs are; or .nii, .nii.gz
    README.md, LICENSE              if you like

One folder may have some of the tasks, but all stacks of each.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.open_definition import SPLIT, Definition, digest_of
from benchmarks.open_statements import STATEMENT, Statement, read_statement
from restore_rwkv.data import PreparedSet
from restore_rwkv.data.open_scans import OPEN_SCANS
from restore_rwkv.errors import InputError, message_of
from restore_rwkv.evaluation.scores import stack_volumes
from restore_rwkv.evaluation.study.faults import FaultList
from restore_rwkv.evaluation.study.looking import look_at
from restore_rwkv.evaluation.study.naming import printable
from restore_rwkv.evaluation.study.request import StudyRequest
from restore_rwkv.evaluation.study.sources import as_stack
from restore_rwkv.io import file_sha256, read_volume
from restore_rwkv.options import nearest

_BESIDE = ("README.md", "README.txt", "LICENSE", "LICENSE.md", "LICENSE.txt")
_SUFFIXES = (".npy", ".nii", ".nii.gz")
_TYPES = ("float32", "float64", "int16", "int32", "uint16")
_RESERVED = ("input", "cubic", "truth")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._+-]{0,58}[A-Za-z0-9+])?")
_LISTED = 5  # names in a message


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A submission that was read.

    Attributes:
        folder: where it lies.
        name: of the method in tables.
        statement: what it says of itself.
        tasks: names of those that it has images of.
        sha256: of the statement and of all images, by their paths.
    """

    folder: Path
    name: str
    statement: Statement
    tasks: tuple[str, ...]
    sha256: str


def read_submission(
    given: str, definition: Definition, sets: Mapping[str, PreparedSet], faults: FaultList
) -> Submission | None:
    """Read and check a submission.

    Args:
        given: "FOLDER" or "NAME=FOLDER".
        definition: of the benchmark.
        sets: prepared sets by task; images of other tasks are not looked at.
        faults: receives everything that is wrong with it.

    Returns:
        The submission; None where its folder cannot be read.
    """
    name, folder = _named(given)
    if not folder.is_dir():
        faults.add(f"{folder}: is not a folder; give that of a submission")
        return None
    files, odd = _files(folder)
    for path, why in odd:
        faults.add(f"{folder}: {path} is {why}; put a plain file there")
    statement = read_statement(folder, files, definition, faults)
    tasks = tuple(task for task in definition.data if any(f.startswith(f"{task}/") for f in files))
    if not any(task in sets for task in tasks):
        faults.add(f"{folder}: has no images to score; put them in {' or '.join(sets)}")
    for task in tasks:
        if statement.benchmark and task not in statement.data:
            faults.add(
                f"{folder / STATEMENT}: benchmark.data has no {task}; add it from the inputs"
            )
    _check_extra(folder, files, definition, sets, faults)
    _check_subjects(folder, statement, [sets[task] for task in tasks if task in sets], faults)
    if not odd:
        for task in tasks:
            if task in sets:
                _check_images(folder / task, sets[task], faults)
    name = name or statement.name
    if name and (not _NAME.fullmatch(name) or name in _RESERVED):
        faults.add(
            f"{folder}: name {printable(name)[:60]!r} cannot be used; give up to 60 letters, "
            f"digits, spaces and . _ + -, and none of {', '.join(_RESERVED)}"
        )
    sha256 = sha256_of(folder, () if odd else files)
    return Submission(folder=folder, name=name, statement=statement, tasks=tasks, sha256=sha256)


def sha256_of(folder: Path, files: Sequence[str] | None = None) -> str:
    """SHA-256 of the statement and the images of a submission, hex."""
    files = _files(folder)[0] if files is None else files
    kept = [name for name in files if name not in _BESIDE]
    return digest_of({name: file_sha256(folder / name).encode() for name in kept})


def _named(given: str) -> tuple[str, Path]:
    name, sign, folder = given.partition("=")
    if os.path.exists(given) or not (sign and name and folder):
        return "", Path(given)
    return name, Path(folder)


def _files(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the plain files of a folder by their paths, and what else there is, with a word."""
    files: list[str] = []
    odd: list[tuple[str, str]] = []
    for here, folders, names in os.walk(folder):
        for name in sorted((*folders, *names)):
            path = Path(here) / name
            inside = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                files.append(inside)
            elif not stat.S_ISDIR(mode):
                odd.append((printable(inside), "a link" if stat.S_ISLNK(mode) else "a device"))
    return sorted(files), odd


def _check_extra(
    folder: Path,
    files: Sequence[str],
    definition: Definition,
    sets: Mapping[str, PreparedSet],
    faults: FaultList,
) -> None:
    wanted = {
        f"{task}/{stack.patient}/{stack.name}{suffix}"
        for task, prepared in sets.items()
        for stack in prepared.split(SPLIT)
        for suffix in _SUFFIXES
    }
    left_out = tuple(f"{task}/" for task in definition.data if task not in sets)
    extra = [
        printable(name)
        for name in files
        if name not in wanted
        and name not in (STATEMENT, *_BESIDE)
        and not (left_out and name.startswith(left_out))
    ]
    if extra:
        more = f" and {len(extra) - _LISTED} more" if len(extra) > _LISTED else ""
        faults.add(
            f"{folder}: does not belong there: {', '.join(extra[:_LISTED])}{more}; remove it"
        )


def _check_subjects(
    folder: Path, statement: Statement, sets: Sequence[PreparedSet], faults: FaultList
) -> None:
    known = {scan.name for scan in OPEN_SCANS}
    known |= {stack.patient for prepared in sets for stack in prepared.stacks}
    tested = {stack.patient: p.task_name for p in sets for stack in p.split(SPLIT)}
    for subject in statement.subjects:
        if subject in tested:
            faults.add(
                f"{folder}: was trained on {subject}, a test subject of {tested[subject]}; train "
                "without it"
            )
        elif subject not in known:
            faults.add(
                f"{folder}: training.subjects has {printable(subject)!r}, which is not an open "
                f"scan; the nearest is {nearest(subject, known)!r}, others go into other_data"
            )


def _check_images(root: Path, prepared: PreparedSet, faults: FaultList) -> None:
    """Add what an evaluation would refuse, and types and copies that make no submission."""
    found = FaultList()
    look_at(StudyRequest(truths=(prepared.folder,), restored={root.name: root}), found, None)
    for error in found.errors:
        text = message_of(error) or str(error)
        # An evaluation can be told to score other units; the benchmark cannot.
        text = text.replace(", or force=True if it is", "")
        faults.add(text if text.startswith(str(root)) else f"{root}: {text}")
    for stack in prepared.split(SPLIT):
        base = root / stack.patient / stack.name
        paths = [path for suffix in _SUFFIXES if (path := Path(f"{base}{suffix}")).is_file()]
        if len(paths) == 1:
            with faults.collected():
                _check_stack(paths[0], prepared, stack)


def _check_stack(path: Path, prepared: PreparedSet, stack: Any) -> None:
    try:
        volume = read_volume(path)
    except InputError:
        return  # the evaluation has said so
    stored = volume.source.stored if volume.source else None
    kind = "of several types" if stored is None else stored.dtype.newbyteorder("=").name
    if kind not in _TYPES:
        raise InputError(f"{path}: values are {kind}; write float32")
    images = as_stack(path, volume)
    for quality, other in zip(("input", "truth"), stack_volumes(prepared, stack), strict=True):
        if np.array_equal(images, other.data):
            raise InputError(f"{path}: equals the {quality}; put the restored images there")
