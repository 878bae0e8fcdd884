"""Pack the open scans into one file that is small enough to carry to another machine.

    python -m benchmarks.pack runs/open slices.zip             # pack
    python -m benchmarks.pack --unpack slices.zip data/open    # make prepared sets again

The file holds the validation slices that the shipped recipes look at, and some of the training
slices, evenly spread over each volume; test subjects are left out. What is not whole numbers is
rounded to a step of its task: 1 HU, 0.001 SUV. `--unpack` writes ordinary prepared sets, so that
everything that reads `data/open` reads these. Their volumes keep the scaling of the whole volume.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.train_shipped import SHIPPED, recipe_of
from restore_rwkv.data import PreparedSet, SetWriter, Stack
from restore_rwkv.data.prepared import read_sets
from restore_rwkv.data.slice import slices_of
from restore_rwkv.errors import InputError, RestoreError
from restore_rwkv.io import atomic_file

EVERY = {"mri-sr": 5, "ct-denoise": 5, "pet-synth": 4}
"""One training slice in so many is packed."""
STEPS = {"ct-denoise": 1.0, "pet-synth": 0.001}
"""Step, in the unit of the task, to which values that are not whole numbers are rounded."""
MEGABYTES = 45
_FORMAT = "restore-rwkv slices 1"
_INDEX = "index.json"
_LARGEST = 2**15 - 1
_LEVELS = 20_000  # of values without a step of their task


def main(arguments: list[str] | None = None) -> None:
    """Pack, or unpack, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--unpack", action="store_true", help="the other way round")
    parser.add_argument("source", type=Path, help="prepared sets, or with --unpack the file")
    parser.add_argument("target", type=Path, help="file to write, or with --unpack a new folder")
    words = parser.parse_args(arguments)
    try:
        if words.unpack:
            for folder in unpack(words.source, words.target):
                print(folder)
        else:
            print(pack(words.source, words.target))
    except (RestoreError, OSError) as error:
        sys.exit(f"{error}")


def pack(data: Path, path: Path, megabytes: float = MEGABYTES) -> str:
    """Write the slices of prepared sets to one file.

    Args:
        data: prepared sets, or a folder that contains some, one for each task.
        path: file to write; an existing one is replaced.
        megabytes: largest size in units of 10^6 bytes.

    Returns:
        A line for each set: slices of each split; and the size of the file.

    Raises:
        InputError: a set cannot be read, or the file would be larger.
    """
    index: dict[str, Any] = {"format": _FORMAT, "sets": []}
    lines = []
    with atomic_file(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as archive:
            for prepared in read_sets(data):
                index["sets"].append(_add_set(archive, prepared))
                lines.append(_described(index["sets"][-1]))
            archive.writestr(_INDEX, json.dumps(index, indent=1))
        size = temporary.stat().st_size / 1e6
        if size > megabytes:
            raise InputError(
                f"{path}: would take {size:.1f} MB, more than {megabytes:g}; raise EVERY in "
                "benchmarks/pack.py"
            )
    return "\n".join([*lines, f"{path}: {size:.1f} MB"])


def unpack(path: Path, folder: Path) -> list[Path]:
    """Write the prepared sets of a packed file into a folder, each under the name of its task.

    Raises:
        InputError: the file is damaged or not of this kind, or a set exists already.
    """
    written = []
    try:
        with zipfile.ZipFile(path) as archive:
            index = json.loads(archive.read(_INDEX))
            if index["format"] != _FORMAT:
                raise InputError(f"{path}: format is {index['format']!r}; pack it again")
            for entry in index["sets"]:
                target = folder / entry["task"]
                with SetWriter(target, entry["dataset"], entry["task"], entry["factor"]) as writer:
                    writer.record = entry["record"]
                    for stack in entry["stacks"]:
                        _write_stack(writer, archive, stack)
                written.append(target)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a packed file ({error}); pack it again") from error
    return written


def kept(prepared: PreparedSet, stack: Stack) -> NDArray[np.int64]:
    """Return the indices of the slices of a stack that are packed; none of a test subject."""
    count = stack.shape[0]
    if stack.split == "train":
        every = min(EVERY[prepared.task_name], count)
        return np.arange(every // 2, count, every)
    if stack.split == "test":
        return np.arange(0)
    chosen = slices_of([prepared], "validation", _validated(prepared.task_name))
    return np.array([x.index for x in chosen if x.stack.name == stack.name], np.int64)


def _validated(task: str) -> int:
    """Slices that the recipe of one task validates on, or else the most of all recipes."""
    recipes = [recipe_of(name) for name in SHIPPED]
    own = [recipe for recipe in recipes if recipe.task == task]
    return max(recipe.data.validation_slices for recipe in own or recipes)


def whole_numbers(images: NDArray[Any], task: str) -> tuple[NDArray[np.int16], float]:
    """Return images as int16, and the step that gives their values again, exact for int16."""
    if images.dtype.kind in "iu" and np.abs(images.astype(np.int64)).max() <= _LARGEST:
        return images.astype(np.int16), 1.0
    peak = float(np.abs(images).max()) or 1.0
    step = max(STEPS.get(task, peak / _LEVELS), peak / _LARGEST)
    return np.rint(images / step).astype(np.int16), step


def _add_set(archive: zipfile.ZipFile, prepared: PreparedSet) -> dict[str, Any]:
    entries = []
    for stack in prepared.stacks:
        chosen = kept(prepared, stack)
        if not chosen.size:
            continue
        files = {
            quality: _add_images(archive, prepared, prepared.images(stack, quality)[chosen])
            for quality in ("high", "low")
            if quality in stack.files
        }
        entry = dataclasses.asdict(stack)
        kept_fields = ("name", "patient", "split", "spacing", "robust_scale", "origin")
        entry = {name: entry[name] for name in kept_fields}
        entries.append({**entry, "files": files, "slices": chosen.tolist()})
    packed_from = {"packed_from": prepared.sha256, "one_in": EVERY[prepared.task_name]}
    return {
        "dataset": prepared.dataset,
        "task": prepared.task_name,
        "factor": prepared.factor,
        "record": {**prepared.record, **packed_from},
        "stacks": entries,
    }


def _add_images(
    archive: zipfile.ZipFile, prepared: PreparedSet, images: NDArray[Any]
) -> dict[str, Any]:
    """Store images under their digest: realisations of a scan share one full quality."""
    values, step = whole_numbers(images, prepared.task_name)
    name = f"{hashlib.sha256(values.tobytes()).hexdigest()[:24]}.npy"
    if name not in archive.namelist():
        with archive.open(name, "w") as file:
            np.lib.format.write_array(file, values, allow_pickle=False)
    return {"name": name, "step": step}


def _write_stack(writer: SetWriter, archive: zipfile.ZipFile, entry: dict[str, Any]) -> None:
    images = {quality: _read(archive, file) for quality, file in entry["files"].items()}
    spacing, slices = entry["spacing"], entry["slices"]
    if spacing is not None:
        steps = np.diff(slices) if len(slices) > 1 else [1]
        spacing = (spacing[0] * float(np.mean(steps)), *spacing[1:])
    writer.add(
        entry["name"],
        entry["patient"],
        entry["split"],
        images["high"],
        images.get("low"),
        spacing=spacing,
        origin={**entry["origin"], "packed_slices": slices},
    )
    whole = dataclasses.replace(writer.stacks[-1], robust_scale=entry["robust_scale"])
    writer.stacks[-1] = whole


def _read(archive: zipfile.ZipFile, file: dict[str, Any]) -> NDArray[Any]:
    with archive.open(file["name"]) as stream:
        values: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return values if file["step"] == 1 else (values * np.float64(file["step"])).astype(np.float32)


def _described(entry: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for stack in entry["stacks"]:
        counts[stack["split"]] = counts.get(stack["split"], 0) + len(stack["slices"])
    splits: Sequence[str] = [f"{count} slices for {split}" for split, count in counts.items()]
    return f"{entry['task']}: {', '.join(splits)}"


if __name__ == "__main__":
    main()
