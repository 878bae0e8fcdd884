"""The command `restore-rwkv`: each command translates its words into one call of the library."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restore_rwkv.errors import ConfigError, RestoreError

if TYPE_CHECKING:
    from rich.table import Table

    from restore_rwkv.inference import Progress
    from restore_rwkv.metrics import MeanScore

app = typer.Typer(
    name="restore-rwkv",
    help="Medical image restoration with Restore-RWKV. For research only; not a medical device.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Weights = Annotated[
    str | None, typer.Option(help="Shipped weights by name, or a weight file.", show_default=False)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", "-f", help="Replace existing outputs.")]


@app.command()
def restore(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="NIfTI, PNG, TIFF, NPY, or a folder of DICOM."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="File to write, such as out.nii.gz."),
    ],
    task: Annotated[
        str, typer.Option("--task", "-t", help="auto (by modality), mri-sr, ct-denoise, pet-synth.")
    ] = "auto",
    weights: Weights = None,
    device: Device = "auto",
    scale: Annotated[
        float | None,
        typer.Option(
            metavar="F", help="MRI on its coarse native grid: to a grid finer by this factor."
        ),
    ] = None,
    plane: Annotated[
        str, typer.Option(help="Slices to restore: auto, axial, coronal or sagittal.")
    ] = "auto",
    scaling: Annotated[
        str, typer.Option(help="auto, robust, or fixed (for data prepared as the paper's).")
    ] = "auto",
    unit: Annotated[
        str, typer.Option(help="auto, or SUV for PET whose file does not say that it is.")
    ] = "auto",
    memory: Annotated[str, typer.Option(help="For the network's activations.")] = "2GiB",
    dtype: Annotated[
        str, typer.Option(help="auto, float32, or source (the source's type, clipped).")
    ] = "auto",
    series: Annotated[
        str | None,
        typer.Option(help="Number or UID, for a DICOM folder with several.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Restore a scan; grid (without --scale), affine, units and header stay as they are."""
    import restore_rwkv
    from restore_rwkv.restoration import Settings, record_of
    from restore_rwkv.tasks import task_of

    settings = Settings(plane, scaling, parse_memory(memory), scale, unit)  # type: ignore[arg-type]
    with _progress("restoring", "slices", quiet) as progress:
        restored = restore_rwkv.restore(
            source,
            output,
            task=task,
            weights=weights,
            device=device,
            settings=settings,
            dtype=dtype,  # type: ignore[arg-type]
            overwrite=overwrite,
            series=int(series) if series and series.isdecimal() else series,
            progress=progress,
        )
    if not quiet:
        if task == "auto" and restored.modality is not None:
            used = task_of(restored.modality).name
            typer.echo(f"{restored.name}: {restored.modality}, restored with {used}")
        typer.echo(f"{output}: restored; how it was made: {record_of(output)}")


@app.command()
def info() -> None:
    """List tasks, weights, operator backends and devices."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # count GPUs without waking one
    import torch

    from restore_rwkv.model import read_info
    from restore_rwkv.ops import available_backends
    from restore_rwkv.shipped import shipped_weights
    from restore_rwkv.tasks import TASKS

    tasks = _table("task", "what it does", "modality", "weights")
    for task in TASKS.values():
        tasks.add_row(task.name, task.title, task.modality, task.weights)
    weights = _table("weights", "tasks", "parameters", "SHA-256")
    for name, path in shipped_weights().items():
        record = read_info(path)
        served = ", ".join(record.scaling)
        weights.add_row(name, served, f"{record.parameters:,}", record.sha256[:16])
    machine = _table("backend or device", "here")
    for name, here in available_backends().items():
        machine.add_row(f"backend {name}", "yes" if here else "no")
    machine.add_row("device cpu", f"yes, {torch.get_num_threads()} threads")
    machine.add_row("device cuda", _yes(torch.cuda.is_available()))
    machine.add_row("device mps", _yes(torch.backends.mps.is_available()))
    _print(tasks, weights, machine)


@app.command()
def evaluate(
    scans: Annotated[list[Path], typer.Argument(metavar="SCAN...", help="Sharp scans.")],
    task: Annotated[str, typer.Option("--task", "-t", help="See `restore-rwkv info`.")] = "mri-sr",
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """Degrade sharp scans, restore them, and score them by the paper's protocol."""
    from restore_rwkv.evaluation import evaluate as evaluate_scan
    from restore_rwkv.io import read_volume
    from restore_rwkv.restoration import Restorer

    restorer = Restorer(task, weights, device)
    table = _score_table("scan")
    for scan in scans:
        for name, score in evaluate_scan(read_volume(scan), restorer).scores.items():
            table.add_row(scan.name, *_score_row(name, score))
    _print(table)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(
        "demo-output"
    ),
    device: Device = "auto",
) -> None:
    """Restore a shipped scan of known truth, print what it gains, and draw it."""
    from restore_rwkv.demo import run_demo

    result = run_demo(output, device)
    table = _score_table()
    for name, score in result.evaluation.scores.items():
        table.add_row(*_score_row(name, score))
    _print(table)
    for what, path in result.files.items():
        typer.echo(f"{what}: {path}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, such as recipes/light-mri-sr.toml.")],
    data: Annotated[Path, typer.Option(help="Folder with the recipe's subjects.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    device: Device = "auto",
) -> None:
    """Train a network; the same command goes on where a stopped run was."""
    from restore_rwkv.recipe import Recipe
    from restore_rwkv.restoration import find_device
    from restore_rwkv.training import train as run_training

    plan = Recipe.read(recipe)
    best = run_training(
        plan, data, output, device=find_device(device), report=_report(plan.training.iterations)
    )
    typer.echo(f"best weights: {best}")


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="PTH", help="Published checkpoint.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Weight file: *.safetensors.")
    ],
    task: Annotated[
        str, typer.Option("--task", "-t", help="What it was trained for; also all-in-one.")
    ] = "mri-sr",
    overwrite: Overwrite = False,
) -> None:
    """Convert a published checkpoint (.pth) to a weight file; executes nothing in it."""
    from restore_rwkv.model import convert_published
    from restore_rwkv.tasks import get_tasks

    if output.exists() and not overwrite:
        raise ConfigError(f"{output}: exists already; name another file, or use --overwrite")
    scaling = {trained.name: trained.paper_scaling for trained in get_tasks(task)}
    record = convert_published(checkpoint, output, scaling=scaling)
    typer.echo(f"{output}: {record.parameters:,} parameters, SHA-256 {record.sha256}")


def main() -> None:
    """Run the command line; mistakes of the user end in one line and exit code 2."""
    keep_freed_memory()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        message = _told(error)
        if message is None:
            raise
        typer.echo(f"error: {message}", err=True)
        sys.exit(2)


def _told(error: Exception) -> str | None:
    """The line to print of an error; None for a defect of the program."""
    if isinstance(error, RestoreError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{os.fspath(error.filename)}: " if error.filename else ""
        return f"{where}{error.strerror or error}; check the path, its permissions and free space"
    if hasattr(error, "format_message"):  # of click, which typer brings under changing names
        return f"{error.format_message()} See restore-rwkv --help."
    return None


def parse_memory(text: str) -> int:
    """Bytes of a size such as "2GiB", "800 MB" or "500000000".

    Raises:
        ConfigError: the text is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if match is None or len(match[1]) > 18:
        raise ConfigError(f"memory {text!r} is no size; write it as 2GiB or 800MB")
    number, prefix, binary = match.groups()
    power = " kmgt".index(prefix.lower() or " ")
    return int(float(number) * (1024 if binary else 1000) ** power)


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks, or each operation pays for its pages anew (2x in time)."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-3, 2**31 - 1) or mallopt(-3, 2**25)  # M_MMAP_THRESHOLD; limited in older glibc


@contextmanager
def _progress(what: str, unit: str, quiet: bool) -> Iterator[Progress | None]:
    """A bar with the time left, on a terminal alone."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        job = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(job, completed=done, total=total)


def _report(iterations: int) -> Any:
    """A line that is rewritten on a terminal, and a line for each validation anywhere."""
    rate: list[float] = []
    terminal = sys.stdout.isatty()

    def report(entry: dict[str, Any]) -> None:
        rate.append(entry["seconds"])
        left = (iterations - entry["iteration"]) * sum(rate[-50:]) / len(rate[-50:]) / 60
        line = f"{entry['iteration']}/{iterations} loss {entry['loss']:.5f} {left:.0f} min left"
        if "psnr" in entry:
            line += f"  validation {entry['psnr']:.3f} dB  SSIM {entry['ssim']:.4f}"
            typer.echo(f"\r{line}" if terminal else line)
        elif terminal:
            typer.echo(f"\r{line}   ", nl=False)

    return report


def _score_table(*columns: str) -> Table:
    from restore_rwkv.metrics import PAPER_PROTOCOL

    table = _table(*columns, "image", "PSNR dB", "SSIM", "RMSE", "slices")
    table.title = f"means over slices, {PAPER_PROTOCOL} protocol"
    return table


def _score_row(name: str, score: MeanScore) -> tuple[str, ...]:
    slices = f"{score.slices}"
    if score.slices_without_score:
        slices += f" of {score.slices + score.slices_without_score}"
    if score.psnr is None:
        return (name, "none", "none", "none", slices)
    return (name, f"{score.psnr:.2f}", f"{score.ssim:.4f}", f"{score.rmse:.2f}", slices)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD)
    return table


def _print(*tables: Table) -> None:
    from rich.console import Console

    console = Console(markup=False, emoji=False)  # a file may be named scan[1].nii.gz
    for table in tables:
        console.print(table)


def _yes(here: bool) -> str:
    return "yes" if here else "no"
