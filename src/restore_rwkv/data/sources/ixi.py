"""IXI: T2 volumes of 578 subjects (https://brain-development.org/ixi-dataset/, CC BY-SA 3.0)."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path

from restore_rwkv.data.prepared import PreparedSet
from restore_rwkv.data.slices import slices_across
from restore_rwkv.data.sources.jobs import (
    Faults,
    Job,
    Preparation,
    Slices,
    folders_with_files,
    require_source,
    split_patients,
    write_jobs,
    writers,
)
from restore_rwkv.data.writer import SetWriter
from restore_rwkv.errors import InputError
from restore_rwkv.io import Progress, plane_axis, read_volume

SLICES = 100
SIZE = 256
PAPER_SPLIT = {"train": 405, "validation": 59, "test": 114}

_NAME = re.compile(r"(?P<subject>IXI\d+)-(?P<site>\w+)-(?P<number>\d+)-(?P<kind>\w+)(-\d+)?")
_SUFFIX = re.compile(r"\.nii(\.gz)?$")


def prepare_ixi(
    source: Path | str,
    output: Path | str,
    *,
    skip: bool = False,
    progress: Progress | None = None,
) -> Preparation:
    """Prepare IXI T2 as the paper did: the central 100 axial slices of 256 x 256 of each volume.

    `split_patients` splits the patients 405 : 59 : 114, as the 578 patients of the paper, and other
    numbers of patients in the same proportions; the authors have not published their own split.
    Only the high quality is stored, as degrading (k-space, factor 4) is deterministic and fast.

    Args:
        source: folder with `IXI002-Guys-0828-T2.nii.gz` and so on, at any depth. Files of other
            contrasts are counted and not used.
        output: folder of the prepared set, to be created.
        skip: leave faulty volumes out and report them, instead of raising an error.
        progress: called with (volumes done, all).

    Returns:
        The prepared set, the volumes left out, and the number of files that were not used.

    Raises:
        InputError: volumes cannot be read, are not 256 x 256 in the axial plane, have fewer than
            100 slices, or occur twice; the message names each.
    """
    source, output = Path(source), Path(output)
    require_source(source, output=output)
    faults = Faults()
    files, others = _find(source, faults)
    if not files:
        raise InputError(
            f"{source}: no IXI T2 volumes, such as IXI002-Guys-0828-T2.nii.gz; check the folder"
        )
    patients = {name: name.partition("-")[0] for name in files}
    share = len(set(patients.values())) / sum(PAPER_SPLIT.values())
    splits = split_patients(
        patients.values(), *(round(share * PAPER_SPLIT[key]) for key in ("validation", "test"))
    )
    writer = SetWriter(output, "ixi", "mri-sr")
    jobs = [
        Job(path.name, patients[name], splits[patients[name]], writer, partial(_read, name, path))
        for name, path in files.items()
    ]
    with writers(output, writer):
        write_jobs(jobs, faults, source, skip=skip, progress=progress)
        writer.record.update(left_out=faults.entries, not_asked_for=others)
    return Preparation((PreparedSet.read(output),), faults.entries, others)


def _find(source: Path, faults: Faults) -> tuple[dict[str, Path], dict[str, int]]:
    """Paths of T2 volumes by name, in order, and the number of files of other kinds."""
    files: dict[str, Path] = {}
    others: Counter[str] = Counter()
    for path in (path for _, paths in folders_with_files(source) for path in paths):
        name = _SUFFIX.sub("", path.name)
        match = _NAME.fullmatch(name)
        if match is None or name == path.name:
            others["other files"] += 1
        elif match["kind"] != "T2":
            others[match["kind"]] += 1
        elif name in files:
            faults.add(
                str(path.relative_to(source)),
                f"is there already as {files[name].relative_to(source)}; remove one",
            )
        else:
            files[name] = path
    return files, dict(sorted(others.items()))


def _read(name: str, path: Path, faults: Faults) -> list[Slices]:
    volume = read_volume(path)
    if volume.affine is None:
        raise InputError(f"{path.name}: has no geometry; download it again")
    axis = plane_axis(volume.affine, "axial")
    images, spacing = slices_across(volume, axis)
    count, height, width = images.shape
    if (height, width) != (SIZE, SIZE):
        raise InputError(
            f"{path.name}: axial slices are {height} x {width}, not {SIZE} x {SIZE}; leave it out"
        )
    if count < SLICES:
        raise InputError(f"{path.name}: has {count} axial slices, not {SLICES}; leave it out")
    first = (count - SLICES) // 2
    origin = {"file": path.name, "axis": axis, "first_slice": first, "slices_there": count}
    return [Slices(name, images[first : first + SLICES], None, spacing, origin)]
