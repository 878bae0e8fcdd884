"""Prepared sets for all three tasks from open scans, real CT and MRI from software packages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from restore_rwkv.data.open_scans.convert import check_scans, fetch_scans, read_scan
from restore_rwkv.data.open_scans.table import OPEN_SCANS, OpenScan
from restore_rwkv.data.prepared import PreparedSet
from restore_rwkv.data.slices import index_ranges, indices_with_signal, slices_across, square_planes
from restore_rwkv.data.sources.jobs import Preparation, Slices, writers
from restore_rwkv.data.stack import Split
from restore_rwkv.data.writer import SetWriter
from restore_rwkv.errors import InputError
from restore_rwkv.io import Progress, Volume, acquisition_axis, plane_axis
from restore_rwkv.tasks import TASKS, DegradeOptions, Task, slice_axis
from restore_rwkv.tasks.degradation import degrade

# Split of each scan by task; the test scans are those in the folder "test" of the table.
_SPLITS: Mapping[str, Mapping[str, Split]] = {
    "mri-sr": {
        "mr_t1_a": "train",
        "mr_t1_b": "train",
        "mr_t1_c": "train",
        "mr_t1gd_b": "train",
        "mr_pd_a": "validation",
        "mr_t1gd_a": "test",
        "mr_t1_d": "test",
    },
    "ct-denoise": {
        "ct_chest_b": "train",
        "ct_chest_c": "train",
        "ct_head_a": "train",
        "ct_abdomen_a": "validation",
        "ct_chest_a": "test",
    },
    "pet-synth": {
        "mr_t1_a": "train",
        "mr_t1_c": "train",
        "mr_t1_b": "validation",
        "mr_t1_d": "test",
    },
}
# Slices of a training scan for training and for validation, by task and scan. One abdomen does not
# say how weights do on a chest, and there is no chest to spare: so the top of one is held out.
_SLABS: Mapping[str, Mapping[str, Mapping[Split, range]]] = {
    "ct-denoise": {"ct_chest_b": {"train": range(42), "validation": range(45, 61)}},
}
# Factor of each degradation of a scan for training, with new noise and for PET with a new uptake;
# None for that of the task. CT noise of other levels is made from these two when they are read.
_FACTORS: Mapping[str, tuple[float | None, ...]] = {
    "mri-sr": (None,),
    "ct-denoise": (None, None),
    "pet-synth": (None, None, None, 2.0, 5.0, 25.0, 50.0),
}
_WITH_AIR = ("ct-denoise",)  # sets that keep slices of air
_PLANES: tuple[Literal["sagittal", "coronal", "axial"], ...] = ("sagittal", "coronal", "axial")
_FETCHING_STEPS = 2 * len({scan.package for scan in OPEN_SCANS})


@dataclass(frozen=True)
class _Realisation:
    """A scan to be sliced for a task.

    Attributes:
        label: distinguishes realisations and slabs of one scan.
        slab: slices to be used; None for all.
    """

    task: Task
    scan: OpenScan
    split: Split
    label: str | None = None
    factor: float | None = None
    slab: range | None = None

    @property
    def name(self) -> str:
        return self.scan.name if self.label is None else f"{self.scan.name}-{self.label}"


def prepare_open(
    output: Path | str,
    *,
    scans: Path | str | None = None,
    downloads: Path | str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Preparation:
    """Fetch the open scans and prepare the sets that the shipped weights are trained with.

    The sets appear together or not at all, as `mri-sr`, `ct-denoise` and `pet-synth` in the output.
    PET is simulated, as no real PET was available: FDG-like activity is assigned to the anatomy of
    T1 scans. The same seed gives the same sets.

    Args:
        output: folder of the sets; may exist, but must not contain any of them.
        scans: folder of the scans, as created by `fetch_scans`. By default `scans` in the output,
            created by `fetch_scans` if it does not exist.
        downloads: folder of archives, as for `fetch_scans`.
        seed: seed of all noise, uptakes and lesions; 0 or more.
        progress: called with (steps done, all).

    Returns:
        The prepared sets.

    Raises:
        InputError: a set exists already, or scans cannot be fetched or differ from the pinned ones.

    Example:
        >>> prepare_open("data/open").lines()  # doctest: +SKIP
    """
    output = Path(output)
    if scans is not None and downloads is not None:
        raise InputError(
            "scans and downloads: scans are made from downloads; give only one of them"
        )
    opened = {name: SetWriter(output / name, "open", name) for name in _SPLITS}
    realisations = list(_realisations())
    report = progress or (lambda _done, _all: None)
    folder = output / "scans" if scans is None else Path(scans)
    fetching = 0 if scans is not None or folder.exists() else _FETCHING_STEPS
    steps = fetching + len(realisations)
    if fetching:
        fetch_scans(
            folder,
            downloads=downloads,
            table=OPEN_SCANS,
            progress=lambda done, _all: report(done, steps),
        )
    else:
        check_scans(folder, OPEN_SCANS)
    with writers(output, *opened.values()):
        for done, realisation in enumerate(realisations, fetching + 1):
            for stack in _slices(realisation, folder, seed):
                opened[realisation.task.name].add(
                    *(stack.name, realisation.scan.name, realisation.split),
                    *(stack.high, stack.low),
                    spacing=stack.spacing,
                    origin=stack.origin,
                )
            report(done, steps)
        for name, writer in opened.items():
            writer.record["seed"] = seed
            if shared := {scan: _shared(slabs) for scan, slabs in _SLABS.get(name, {}).items()}:
                writer.record["shared_patients"] = shared
    return Preparation(tuple(PreparedSet.read(output / name) for name in opened))


def _realisations() -> Iterator[_Realisation]:
    table = {scan.name: scan for scan in OPEN_SCANS}
    for task, splits in _SPLITS.items():
        for name, split in splits.items():
            slabs = _SLABS.get(task, {}).get(name, {})
            factors = _FACTORS[task] if split == "train" else (None,)
            for number, factor in enumerate(factors, 1):
                label = str(number) if len(factors) > 1 else None
                yield _Realisation(TASKS[task], table[name], split, label, factor, slabs.get(split))
            if "validation" in slabs:
                yield _Realisation(
                    *(TASKS[task], table[name], "validation", "slab"), slab=slabs["validation"]
                )


def _shared(slabs: Mapping[Split, range]) -> str:
    """Statement that a patient is in two splits, for the manifest."""
    parts = ", ".join(f"{split} {index_ranges(list(slab))}" for split, slab in slabs.items())
    return f"slices of one scan: {parts}; those between are in no split"


def _slices(realisation: _Realisation, folder: Path, seed: int) -> list[Slices]:
    volume = read_scan(realisation.scan, folder)
    if not realisation.task.rules.stored_pairs:
        return _sharp(realisation, volume)
    return [_pair(realisation, volume, seed)]


def _sharp(realisation: _Realisation, volume: Volume) -> list[Slices]:
    """MRI: slices with signal in all planes for training, else the whole acquisition plane."""
    if volume.affine is None or volume.spacing is None:
        raise InputError(f"{realisation.scan.name}: has no geometry; fetch the scans again")
    plane_of = {plane_axis(volume.affine, plane): plane for plane in _PLANES}
    train = realisation.split == "train"
    axes = square_planes(volume) if train else [acquisition_axis(volume.spacing)]
    stacks = []
    for axis in axes:
        images, spacing = slices_across(volume, axis)
        kept = list(range(len(images)))
        if train:
            kept = indices_with_signal(images, volume, realisation.task)
        name = f"{realisation.name}-{plane_of[axis]}" if train else realisation.name
        origin = _origin(realisation.scan, plane=plane_of[axis], slices=index_ranges(kept))
        stacks.append(Slices(name, images[kept], None, spacing, origin))
    return stacks


def _pair(realisation: _Realisation, volume: Volume, seed: int) -> Slices:
    """CT: all axial slices. PET: coronal slices with signal of a simulated scan."""
    own_seed = _seed(f"{seed}:{realisation.task.name}:{realisation.name}")
    options = DegradeOptions(factor=realisation.factor)
    degraded = degrade(volume, realisation.task, options, seed=own_seed)
    high = degraded.high
    if high.affine is None:
        raise InputError(
            f"{realisation.name}: degrading it lost its geometry; this is a bug, please report it"
        )
    axis = slice_axis(high, realisation.task)
    images, spacing = slices_across(high, axis)
    low, _ = slices_across(degraded.low, axis)
    kept = list(realisation.slab or range(len(images)))
    if realisation.task.name not in _WITH_AIR:
        kept = indices_with_signal(images, high, realisation.task)
    origin = _origin(
        realisation.scan,
        plane=realisation.task.plane,
        slices=index_ranges(kept),
        physics=degraded.record,
    )
    return Slices(realisation.name, images[kept], low[kept], spacing, origin)


def _seed(text: str) -> int:
    """Seed derived from a text; the same on any machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _origin(scan: OpenScan, **more: Any) -> dict[str, Any]:
    package = scan.package
    return {
        "ecosystem": package.ecosystem,
        "package": package.name,
        "version": package.version,
        "paths": list(scan.paths),
        "licence": package.licence,
        "scan": scan.name,
        "scan_sha256": scan.sha256,
        **more,
    }
