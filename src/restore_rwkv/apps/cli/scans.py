"""Commands on scans: restore, degrade and demo."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from restore_rwkv.apps.cli.fidelity import report_paths, written
from restore_rwkv.apps.cli.messages import with_flags
from restore_rwkv.apps.cli.options import (
    Consistency,
    Device,
    Dtype,
    Ensemble,
    Factor,
    Force,
    Json,
    KeepNan,
    Memory,
    OutputFile,
    Overwrite,
    Plane,
    Quiet,
    Report,
    Scale,
    ScalingName,
    Seed,
    Series,
    Strength,
    Strict,
    TaskName,
    Uncertainty,
    UnitName,
    Verbose,
    Weights,
    series_of,
)
from restore_rwkv.apps.cli.progress import progress_bar
from restore_rwkv.apps.cli.scoring import score_rows, score_table, scores_as_json
from restore_rwkv.apps.cli.terminal import say, screen, show, show_json
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.options import parse_memory

if TYPE_CHECKING:
    from restore_rwkv.evaluation.fidelity import Reported, ReportOptions
    from restore_rwkv.restoration import Preview


def restore(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN", help="DICOM (folder, file, zip), NIfTI, NRRD, MHA, MGZ, PNG, TIFF, NPY."
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="File such as out.nii.gz; for DICOM also a new folder for a derived series.",
        ),
    ],
    task: TaskName = "auto",
    weights: Weights = None,
    device: Device = "auto",
    scale: Scale = None,
    plane: Plane = "auto",
    scaling: ScalingName = "auto",
    unit: UnitName = "auto",
    consistency: Consistency = None,
    ensemble: Ensemble = False,
    factor: Factor = None,
    strength: Strength = None,
    force: Force = False,
    strict: Strict = False,
    memory: Memory = "2GiB",
    dtype: Dtype = "auto",
    format: Annotated[
        Literal["auto", "dicom"],
        typer.Option("--format", help="dicom for a derived series in a folder of any name."),
    ] = "auto",
    keep_nan: KeepNan = False,
    series: Series = None,
    overwrite: Overwrite = False,
    report: Report = False,
    uncertainty: Uncertainty = "none",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan, and what would be refused; write nothing."),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Restore a scan. Affine, units and header are kept, and the grid unless --scale is given."""
    with progress_bar(f"reading {source.name}", "restoring", "slices") as progress:
        from restore_rwkv.io import record_values
        from restore_rwkv.restoration import RestoreOptions, Restorer

        options = RestoreOptions(
            plane=plane,
            scaling=scaling,
            memory=parse_memory(memory),
            scale=scale,
            unit=unit,
            consistency=consistency,
            ensemble=ensemble,
            factor=factor,
            strength=strength,
            force=force,
            strict=strict,
        )
        restorer = Restorer(task, weights, device)
        how: dict[str, Any] = {
            "dtype": dtype,
            "format": format,
            "overwrite": overwrite,
            "keep_nan": keep_nan,
            "series": series_of(series),
        }
        asked = _report_options(uncertainty, wanted=report)
        reported: Reported | None = None
        if asked is not None:
            from restore_rwkv.evaluation.fidelity import preview_with_report, restore_with_report

            how["report"] = asked
            if dry_run:
                preview = preview_with_report(restorer, source, output, options, **how)
            else:
                reported = restore_with_report(
                    restorer, source, output, options, **how, progress=progress
                )
                restored = reported.restored
        elif dry_run:
            preview = restorer.preview(source, output, options, **how)
        else:
            restored = restorer.file(source, output, options, **how, progress=progress)
    if dry_run:
        _show_preview(output, preview)
        return
    volume = restored.volume
    if task == "auto":
        say(f"{volume.name}: {volume.modality}, restored with {restored.record.task}")
    record = _record_path(Path(output))
    say(f"{output}: restored; how it was made: {record}")
    paths = _paths(Path(output), record)
    if reported is not None:
        say(reported.fidelity.verdict)
        for path, what in written(reported.fidelity, reported.files).items():
            say(f"{path}: {what}")
        paths |= report_paths(reported.files)
    if as_json:
        show_json(record_values(restored.record) | paths)


def _report_options(uncertainty: str, *, wanted: bool) -> ReportOptions | None:
    """Return how a report is made; None where none is wanted.

    Raises:
        ConfigError: intervals are asked for without a report.
    """
    if not wanted:
        if uncertainty != "none":
            raise ConfigError("uncertainty: is part of the report; give report=True as well")
        return None
    from restore_rwkv.evaluation.fidelity import ReportOptions
    from restore_rwkv.options import from_mapping

    method = None if uncertainty == "none" else uncertainty
    command = shlex.join(["restore-rwkv", *sys.argv[1:]])
    return from_mapping(ReportOptions, {"uncertainty": method, "command": command})


def _show_preview(output: str, preview: Preview) -> None:
    """Print a plan.

    Raises:
        InputError: restoring would be refused; the message lists why.
    """
    from restore_rwkv.apps.cli.app import option_flags

    lines = list(preview.plan.lines()) if preview.plan else []
    for line in lines:
        say(line)
    if preview.refusals:
        kind = InputError if preview.error is None else type(preview.error)
        refusals = [with_flags(text, option_flags()) for text in preview.refusals]
        raise kind("\n  ".join([f"{output}: would be refused:", *refusals]))
    if screen.as_json:
        show_json({"plan": lines})


def _record_path(output: Path) -> Path:
    """Path of the record of a restored image or series."""
    from restore_rwkv.io import record_of, record_of_series

    return record_of_series(output) if output.is_dir() else record_of(output)


def _paths(output: Path, record: Path) -> dict[str, Any]:
    """Where an output and its record lie, for JSON."""
    return {"output_path": str(output), "record_path": str(record)}


def degrade(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="High-quality scan: NIfTI, or a folder of DICOM.")
    ],
    output: OutputFile,
    task: TaskName = "auto",
    dose: Annotated[
        float | None,
        typer.Option(help="CT, PET: fraction of the dose; 0.25 and 1/12 by default, as the paper."),
    ] = None,
    factor: Annotated[
        float | None,
        typer.Option(help="MRI: full over measured extent of k-space; 4 by default."),
    ] = None,
    sigma: Annotated[
        float,
        typer.Option(help="MRI: noise (standard deviation), in units of the full image."),
    ] = 0.0,
    photons: Annotated[
        float | None,
        typer.Option(
            help="CT: photons per ray at the scan's dose; estimated from its noise by default."
        ),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(
            help="PET made from a T1 scan with a wrong affine: directions of its axes, as PIR."
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the full-quality scan on the same grid."),
    ] = None,
    seed: Seed = 0,
    series: Series = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Simulate a low-quality scan from a high-quality one, and record the parameters."""
    with progress_bar(f"reading {source.name}", "degrading", "slices") as progress:
        from restore_rwkv.tasks import DegradeOptions, degrade_file

        record = degrade_file(
            source,
            output,
            task=task,
            options=DegradeOptions(
                factor=factor, sigma=sigma, photons=photons, axes=axes, dose=dose
            ),
            seed=seed,
            truth=truth,
            series=series_of(series),
            overwrite=overwrite,
            progress=progress,
        )
    say(f"{output}: degraded; how it was made: {record}")
    if as_json:
        values = json.loads(record.read_text(encoding="utf-8"))
        truth_path = {} if truth is None else {"truth_path": str(truth)}
        show_json(values | _paths(output, record) | truth_path)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(
        "demo-output"
    ),
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Degrade and restore the sample scan, print the scores, and draw a comparison."""
    with progress_bar("loading PyTorch", "restoring", "slices") as progress:
        from restore_rwkv.apps.cli.demo import run_demo

        result = run_demo(output, device, overwrite=overwrite, progress=progress)
    rows = score_rows("", result.evaluation.scores)
    show(score_table(rows))
    for name, path in result.files.items():
        say(f"{name}: {path}")
    if as_json:
        files = {name: str(path) for name, path in result.files.items()}
        show_json(scores_as_json(rows) | {"files": files})
