"""Simulation of a low-quality scan from a good one, by the physics of a task."""

from __future__ import annotations

import dataclasses
import operator
from pathlib import Path

from restore_rwkv.errors import ConfigError, InputError, OperatorError
from restore_rwkv.io import (
    DegradationRecord,
    Progress,
    Volume,
    atomic_files,
    begin_stage,
    check_output,
    check_output_path,
    check_record,
    claimed,
    encode_volumes,
    identify,
    identify_output,
    read_volume,
    record_of,
    record_text,
    recorded_warnings,
)
from restore_rwkv.tasks.modality import Degraded, DegradeOptions
from restore_rwkv.tasks.table import AUTO, NOTICE, TASKS, Task, get_task, pick_task


def degrade(
    volume: Volume,
    task: Task | str,
    options: DegradeOptions | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Degraded:
    """Make a low-quality scan from a good one by the physics of a task.

    MRI: the centre of k-space, zero-filled, in the plane of finest spacing. CT: noise inserted into
    axial slices; padding below -1024 HU becomes air in both scans. PET: a PET scan is used as the
    activity; from a T1-weighted head scan an FDG-like activity map is made first, so that high and
    low are both simulated PET on a grid of 2 mm.

    Args:
        volume: the good scan, in the unit of the task.
        task: task whose physics is simulated, or its name.
        options: options of the simulated scanner.
        seed: seed of all random numbers, 0 or more.
        progress: called with (slices done, all); for CT only, as MRI is quick, and the slices of
            PET are simulated together.

    Raises:
        InputError: the scan's modality does not suit the task, or it lacks the geometry needed.
        ConfigError: an option is out of range, or is not one of this task.
        OperatorError: the physics refuses the scan.

    Example:
        >>> quarter = degrade(read_volume("ct.nii.gz"), "ct-denoise")  # doctest: +SKIP
        >>> write_volume(quarter.low, "ct-quarter-dose.nii.gz")  # doctest: +SKIP
    """
    import torch  # imported here, so that tasks can be listed without it

    seed = _checked_seed(seed)
    task = get_task(task) if isinstance(task, str) else task
    options = options or DegradeOptions()
    _require_options(options, task)
    task.rules.require_degradable(volume, task)
    task.rules.warn_of_strange_values(volume)
    generator = torch.Generator().manual_seed(seed)
    try:
        made = task.rules.degrade(volume, task, options, generator, progress)
    except OperatorError as error:
        raise OperatorError(f"{volume.name}: {error}") from error
    record = {"task": task.name, "factor": options.factor_for(task), "seed": seed, **made.record}
    return dataclasses.replace(made, record=record)


def _checked_seed(seed: int) -> int:
    try:
        number = operator.index(seed)
    except TypeError as error:
        raise ConfigError(f"seed is {seed!r}; give a whole number from 0") from error
    if not 0 <= number < 2**63:
        raise ConfigError(f"seed is {number}; give a whole number from 0, below 2^63")
    return number


def _require_options(options: DegradeOptions, task: Task) -> None:
    """Raise ConfigError for an option that the physics of a task would ignore."""
    for name in sorted(options.specific - task.rules.degrade_options):
        users = [user.name for user in TASKS.values() if name in user.rules.degrade_options]
        raise ConfigError(f"{name}: is for {' and '.join(users)}, not {task.name}; leave it out")


def degrade_file(
    source: Path | str,
    output: Path | str,
    *,
    task: str = AUTO,
    options: DegradeOptions | None = None,
    seed: int = 0,
    truth: Path | str | None = None,
    series: int | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Degrade a scan on disk, and write it with a record of how it was made.

    Args:
        source: NIfTI file or folder with a DICOM series. Never changed.
        output: file to write.
        task: name of the task; "auto" picks the one for the modality that the source states.
        options: options of the simulated scanner.
        seed: seed of all random numbers, 0 or more.
        truth: file for the scan of full quality on the grid of the output; None to write none.
        series: number or UID of the series to use in a DICOM folder with several.
        overwrite: replace existing outputs.
        progress: told the stages, and called as by `degrade`.

    Returns:
        Path of the record, beside the output with the suffix .degradation.json.

    Raises:
        InputError: the source cannot be read, or an output cannot be written.
        ConfigError: as `degrade`.
        OperatorError: as `degrade`.
    """
    source, outputs = Path(source), [Path(path) for path in (output, truth) if path is not None]
    record_path = record_of(outputs[0], "degradation")
    for path in outputs:
        check_output_path(path, source=source, overwrite=overwrite)
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise InputError(f"{output}: is named twice; give the truth a file of its own")
    check_record(record_path, outputs[0], overwrite=overwrite)
    with recorded_warnings() as said, claimed(*outputs, record_path):
        begin_stage(progress, f"reading {source.name}")
        volume = read_volume(source, series=series)
        identity = identify(volume)
        for path in outputs:
            check_output(volume, path, overwrite=overwrite)
        chosen = pick_task(volume, task)
        begin_stage(progress, "degrading", "slices")
        made = degrade(volume, chosen, options, seed=seed, progress=progress)
        images = dict(zip(outputs, (made.low, made.high), strict=False))
        for path, image in images.items():  # PET made from MRI has another grid
            check_output(image, path, overwrite=overwrite)
            path.parent.mkdir(parents=True, exist_ok=True)
        begin_stage(progress, "writing")
        with atomic_files(*outputs, record_path, overwrite=overwrite) as (*temporaries, text):
            for temporary, image in zip(temporaries, images.values(), strict=True):
                encode_volumes([image], 1, temporary, dtype="auto", keep_nan=False)
            record = DegradationRecord(
                source=identity,
                notice=NOTICE,
                modality=made.low.modality or chosen.modality,
                unit=made.low.unit,
                warnings=tuple(said),
                output=identify_output(temporaries[0], outputs[0].name),
                made=made.record,
            )
            text.write_text(record_text(record), encoding="utf-8")
    return record_path
