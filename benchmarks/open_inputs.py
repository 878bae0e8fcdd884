"""What a participant of the open benchmark needs: low-quality test images, and a statement to fill.

The folder has the form of a submission: replace each image with the restored one, and fill in
`submission.toml`. It holds no image of full quality.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.open_definition import SPLIT, Definition
from benchmarks.open_statements import FORMAT, STATEMENT
from restore_rwkv.data import PreparedSet, Stack
from restore_rwkv.evaluation.scores import stack_volumes
from restore_rwkv.io import Volume, atomic_folder, claimed, write_volume

_TEMPLATE = """# A submission to the open benchmark of restore-rwkv; docs/benchmark.md describes it.
format = "{format}"

# Name of the method in tables: letters, digits, spaces and . _ + -
name = ""
authors = [""]
# Paper, preprint or page that describes the method, or "unpublished".
reference = ""
# Licence of these restored images, such as "CC-BY-4.0".
licence = ""

[training]
# Open scans that were trained on or used to choose settings, such as ["mr_t1_a"]; [] for none.
# Those that are tested may not be among them: {tested}
subjects = []
# All other data, such as "fastMRI knee, 973 scans", or "none".
other_data = ""

[network]
# Leave out what there is not.
# parameters = 1000000
# hardware = "one thread of ..."
# seconds_per_slice = {{ {tasks} }}

# From which inputs the images were restored; leave as it is.
[benchmark]
version = "{version}"

[benchmark.data]
{data}
"""

_README = """# Inputs of the open benchmark of restore-rwkv, version {version}

Low-quality images of the test split; the truth is not here. Replace each file with the restored
image, under the same name, and fill in `{statement}`. Then:

    python -m benchmarks.open_benchmark check --submission FOLDER
    python -m benchmarks.open_benchmark --submission FOLDER

Leave out the folders of tasks that you do not take part in; of a task, all stacks are needed.

- `.npy`: an array (slices, rows, columns). `.nii.gz`: (rows, columns, slices), with the sizes of
  voxels only. Both on the grid of the input.
- float32 (float64, int16, uint16 and int32 will do), finite, in the unit of the input: no scaling
  to 0..1, no shift.
- Each patient is one subject; slices lie in order, those of a stack are of one scan.

| file | unit | slices, rows, columns | mm between them | low quality |
|---|---|---|---|---|
{rows}

PET is simulated from the anatomy of an MRI scan; all low quality is simulated. Research only.
"""

_MADE = {
    "mri-sr": "centre of k-space, factor {factor:g}, zero-filled to the grid of the truth",
    "ct-denoise": "1/{factor:g} of the dose",
    "pet-synth": "1/{factor:g} of the counts",
}


def write_inputs(
    folder: Path,
    definition: Definition,
    sets: Mapping[str, PreparedSet],
    kind: Literal["npy", "nifti"] = "npy",
) -> None:
    """Write the inputs of tasks, with a statement to fill in and a description.

    Args:
        folder: new folder, which appears when all is written.
        definition: of the benchmark.
        sets: prepared sets by task.
        kind: format of the images.

    Raises:
        InputError: the folder exists.
        BusyError: another process writes it.
    """
    made = atomic_folder(folder)
    suffix = ".npy" if kind == "npy" else ".nii.gz"
    rows = []
    with claimed(folder), made as temporary:
        for task, prepared in sets.items():
            for stack in prepared.split(SPLIT):
                path = f"{task}/{stack.patient}/{stack.name}{suffix}"
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                low, _ = stack_volumes(prepared, stack)
                _write(temporary / path, low, stack)
                rows.append(_row(path, prepared, stack))
        readme = _README.format(
            version=definition.version, statement=STATEMENT, rows="\n".join(rows)
        )
        (temporary / "README.md").write_text(readme, encoding="utf-8")
        text = template(definition, sets)
        (temporary / STATEMENT).write_text(text, encoding="utf-8")


def template(definition: Definition, sets: Mapping[str, PreparedSet]) -> str:
    """Return a statement to be filled in."""
    tested = sorted({stack.patient for p in sets.values() for stack in p.split(SPLIT)})
    return _TEMPLATE.format(
        format=FORMAT,
        tested=", ".join(tested),
        tasks=", ".join(f"{task} = 0.1" for task in sets),
        version=definition.version,
        data="\n".join(f'{task} = "{definition.data[task]}"' for task in sets),
    )


def _write(path: Path, low: Volume, stack: Stack) -> None:
    if path.suffix == ".npy":
        np.save(path, np.ascontiguousarray(low.slices(2)))
        return
    between, down, along = stack.spacing or (1.0, 1.0, 1.0)
    affine = np.diag([down, along, between, 1.0])
    write_volume(Volume(low.data, affine, low.unit, low.modality), path, dtype="float32")


def _row(path: str, prepared: PreparedSet, stack: Stack) -> str:
    shape = " x ".join(map(str, stack.shape))
    apart = "unknown" if stack.spacing is None else " x ".join(f"{mm:.4g}" for mm in stack.spacing)
    how = _MADE.get(prepared.task_name, "factor {factor:g}")
    made = how.format(factor=prepared.factor_of(stack))
    return f"| `{path}` | {prepared.task.unit} | {shape} | {apart} | {made} |"
