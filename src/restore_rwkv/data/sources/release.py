"""The authors' preprocessed release: single slices and patches of all three tasks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.data.prepared import PreparedSet
from restore_rwkv.data.sources.jobs import (
    Faults,
    Job,
    Preparation,
    Slices,
    natural_key,
    require_source,
    write_jobs,
    writers,
)
from restore_rwkv.data.sources.pickled import read_pickled_array
from restore_rwkv.data.stack import SPLITS, Split
from restore_rwkv.data.writer import SetWriter
from restore_rwkv.errors import InputError
from restore_rwkv.io import Progress, read_volume

_QUALITIES = ("LQ", "HQ")
_SUFFIXES = (".bin", ".nii", ".nii.gz")
_NAMES = {
    "MRI": re.compile(r"(IXI\d+)-\S+"),  # IXI385-HH-2078-T2_58
    "CT": re.compile(r"([A-Z]\d+)_\S+"),  # L506_105_0
    "PET": re.compile(r"(Patient_\d+)_\S+"),  # Patient_41_105_0
}
_TASKS = {"MRI": "mri-sr", "CT": "ct-denoise", "PET": "pet-synth"}


@dataclass(frozen=True)
class Pair:
    """A slice or patch in both qualities."""

    name: str
    high: Path
    low: Path


def prepare_release(
    source: Path | str,
    output: Path | str,
    *,
    skip: bool = False,
    progress: Progress | None = None,
) -> Preparation:
    """Prepare `ROOT/{MRI,CT,PET}/{train,validation,test}/{LQ,HQ}/NAME` as released.

    Splits and both qualities are kept. All slices and patches of a patient that have the same size
    become one stack, in the order of their numbers. The authors store arrays as rows by columns
    (SimpleITK); here they are transposed to columns by rows, the axis order of the scans, in which
    `restore` passes slices to a network.

    Args:
        source: ROOT. Training images are `*.bin`, pickled NumPy arrays of shape (1, H, W) or
            (H, W), of which nothing is executed (see `read_pickled_array`); others are 2-D `*.nii`.
            Modalities may be missing.
        output: folder to be created, with a set for each modality: `mri-sr`, `ct-denoise` and
            `pet-synth`.
        skip: leave faulty images out and report them, instead of raising an error.
        progress: called with (patients done, all).

    Returns:
        The prepared sets, the images left out, and the number of files that were not used.

    Raises:
        InputError: images lack their partner, cannot be read, are not single slices, differ in
            size from their partner, or a patient is in several splits; the message names each.
    """
    source, output = Path(source), Path(output)
    require_source(source, output=output)
    faults, others = Faults(), Counter[str]()
    opened: list[SetWriter] = []
    jobs: list[Job] = []
    _count_unknown(source, _TASKS, others)
    for modality, task in _TASKS.items():
        if (source / modality).is_dir():
            _count_unknown(source / modality, SPLITS, others)
            opened.append(SetWriter(output / task, "release", task))
            jobs += _jobs(source, modality, opened[-1], faults, others)
    if not jobs and not faults.entries:
        raise InputError(f"{source}: no images such as MRI/train/HQ/*.bin; give the folder above")
    with writers(output, *opened):
        write_jobs(jobs, faults, source, skip=skip, progress=progress)
        for writer in opened:
            modality = next(m for m, task in _TASKS.items() if task == writer.task.name)
            left_out = {k: v for k, v in faults.entries.items() if k.startswith(f"{modality}/")}
            writer.record.update(left_out=left_out)
    sets = tuple(PreparedSet.read(writer.folder) for writer in opened)
    return Preparation(sets, faults.entries, dict(others))


def _count_unknown(folder: Path, known: Collection[str], others: Counter[str]) -> None:
    """Count the files in a folder that lie outside the subfolders of the release."""
    for entry in sorted(folder.iterdir()):
        if entry.name not in known:
            files = sum(path.is_file() for path in entry.rglob("*")) if entry.is_dir() else 1
            others[f"{folder.name}/{entry.name}"] += files


def _jobs(
    source: Path, modality: str, writer: SetWriter, faults: Faults, others: Counter[str]
) -> Iterator[Job]:
    """Yield a job for each patient and split; add faults found in the listing."""
    seen: defaultdict[str, list[Split]] = defaultdict(list)
    for split in SPLITS:
        folder = source / modality / split
        if not folder.is_dir():
            continue
        patients: defaultdict[str, list[Pair]] = defaultdict(list)
        for pair in _pairs(folder, f"{modality}/{split}", faults, others):
            match = _NAMES[modality].fullmatch(pair.name)
            if match is None:
                faults.add(f"{modality}/{split}/{pair.name}", "the name has no patient; rename it")
            else:
                patients[match[1]].append(pair)
        for patient, pairs in sorted(patients.items(), key=lambda entry: natural_key(entry[0])):
            seen[patient].append(split)
            title = f"{modality}/{split}/{patient}"
            yield Job(title, patient, split, writer, partial(_read, patient, title, pairs))
    faults.grave += [
        f"{modality}/{patient}: in more than one split ({', '.join(splits)}); remove all but one"
        for patient, splits in seen.items()
        if len(splits) > 1
    ]


def _pairs(folder: Path, title: str, faults: Faults, others: Counter[str]) -> list[Pair]:
    """Images that exist in both qualities, in the order of their numbers."""
    files: dict[str, dict[str, Path]] = {}
    for quality in _QUALITIES:
        if not (folder / quality).is_dir():
            faults.add(f"{title}/{quality}", "is missing; copy it again")
            return []
        files[quality] = _images(folder / quality, f"{title}/{quality}", faults, others)
    low, high = files["LQ"], files["HQ"]
    for quality, here, there in (("HQ", low, high), ("LQ", high, low)):
        for name in sorted(here.keys() - there.keys(), key=natural_key):
            faults.add(f"{title}/{quality}/{name}", "is missing, its partner is there; copy it")
    return [
        Pair(name, high[name], low[name])
        for name in sorted(low.keys() & high.keys(), key=natural_key)
    ]


def _images(folder: Path, title: str, faults: Faults, others: Counter[str]) -> dict[str, Path]:
    """Paths of image files by name without suffix."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((s for s in _SUFFIXES if path.name.lower().endswith(s)), None)
        if suffix is None or path.name.startswith("."):
            others["other files"] += 1
            continue
        name = path.name[: -len(suffix)]
        if name in found:
            faults.add(f"{title}/{path.name}", f"exists as {found[name].name} too; remove one")
        found[name] = path
    return found


def _read(patient: str, title: str, pairs: Sequence[Pair], faults: Faults) -> Iterator[Slices]:
    """Stacks of one patient; each image that cannot be used becomes a fault."""
    groups: defaultdict[tuple[int, int], list[tuple[str, NDArray[Any], NDArray[Any]]]]
    groups = defaultdict(list)
    for pair in pairs:
        try:
            high, low = _image(pair.high), _image(pair.low)
            if high.shape != low.shape:
                sizes = [" x ".join(map(str, image.shape)) for image in (high, low)]
                raise InputError(f"HQ is {sizes[0]} and LQ {sizes[1]}; export it again")
        except (InputError, OSError) as error:
            faults.add(f"{title.rpartition('/')[0]}/{pair.name}", error)
        else:
            groups[high.shape[0], high.shape[1]].append((pair.name, high, low))
    for (height, width), members in groups.items():
        name = patient if len(groups) == 1 else f"{patient}-{height}x{width}"
        highs, lows = (np.stack([member[i] for member in members]) for i in (1, 2))
        yield Slices(name, highs, lows, None, _origin([member[0] for member in members], patient))


def _origin(names: Sequence[str], patient: str) -> Mapping[str, Any]:
    return {"images": " ".join(name.removeprefix(patient) for name in names)}


def _image(path: Path) -> NDArray[Any]:
    """Slice of a file, columns by rows, checked to be single, real and finite."""
    if path.suffix.lower() == ".bin":
        array = read_pickled_array(path)
        image: NDArray[Any] = (array[0] if array.ndim == 3 else array).T
    else:
        array = read_volume(path).data
        image = array[..., 0]
    if image.ndim != 2 or image.size != array.size:
        shape = " x ".join(map(str, array.shape))
        raise InputError(f"{path.name}: holds {shape} values, not one slice; export it again")
    if image.dtype.kind not in "iuf":
        raise InputError(f"{path.name}: holds {image.dtype}, not real numbers; export it again")
    if not np.isfinite(image).all():
        raise InputError(f"{path.name}: has values that are not finite; replace them")
    return image
