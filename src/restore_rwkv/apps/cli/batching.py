"""The command batch: every scan below some folders, each on its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from restore_rwkv.apps.cli.batch_progress import BatchProgress
from restore_rwkv.apps.cli.batch_report import report
from restore_rwkv.apps.cli.exit_codes import REFUSED
from restore_rwkv.apps.cli.options import (
    Consistency,
    Device,
    Dtype,
    Ensemble,
    Factor,
    Force,
    KeepNan,
    Memory,
    Plane,
    Quiet,
    Scale,
    ScalingName,
    Strength,
    Strict,
    TaskName,
    UnitName,
    Verbose,
    Weights,
)
from restore_rwkv.apps.cli.progress import progress_bar
from restore_rwkv.apps.cli.stopping import Stopping
from restore_rwkv.apps.cli.terminal import say, screen
from restore_rwkv.errors import ConfigError
from restore_rwkv.options import parse_memory

if TYPE_CHECKING:
    from restore_rwkv.batch import Engine, FoundJob, Job, Outcome, Part, WorkerSettings
    from restore_rwkv.restoration import RestoreOptions

_FREE = 0.8  # of the free memory that all workers may take
_MOST_JOBS = 8
_OF_A_WORKER = 2 << 30  # bytes


def _set_lines(value: str | None) -> str | None:
    screen.as_json = screen.as_lines = value == "-"
    return value


def batch(
    trees: Annotated[
        list[str],
        typer.Argument(metavar="TREE...", help="Folders at any depth, files, or URLs such as s3:."),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Folder for the outputs, which mirror the tree, and the manifest; or a URL.",
        ),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for manifest and overview; needed where OUT is a URL.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="Worker processes; 0 chooses by device and cores.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the batch in OUT, with new scans.")
    ] = False,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            callback=_set_lines,
            help="Write a report; - prints a line of JSON for each scan on stdout.",
            show_default=False,
        ),
    ] = None,
    bids: Annotated[
        bool,
        typer.Option("--bids", help="TREE is a BIDS dataset; makes derivatives/restore-rwkv."),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Only share K of N, each on its own machine."),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="ray: workers on a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Address of the Ray cluster, or auto; left out: one is started here."),
    ] = None,
    most_memory: Annotated[
        str | None,
        typer.Option(
            "--max-memory",
            metavar="SIZE",
            help="Memory of all workers together; 80 % of what is free by default.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        Literal["auto", "nifti"],
        typer.Option("--format", help="Of the outputs: that of each scan, or NIfTI."),
    ] = "auto",
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
    keep_nan: KeepNan = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Restore every scan below some folders; one that cannot be restored never stops the others."""
    Stopping.hint = "the same command with --resume goes on"
    with progress_bar(f"looking at {trees[0]}", "restoring", "scans") as bar:
        from restore_rwkv.batch import BatchRequest, Pool, WorkerSettings, run_batch
        from restore_rwkv.batch.storage import exists
        from restore_rwkv.io.outputs import check_writable
        from restore_rwkv.restoration import RestoreOptions

        if address is not None and engine != "ray":
            raise ConfigError("address is of a Ray cluster; give engine='ray' with it")

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
        if json_file not in (None, "-"):
            check_writable(Path(str(json_file)), overwrite=True, make_folders=True)
        if bids and manifest is not None:
            raise ConfigError(
                "manifest: cannot be given with bids=True; it lies in the derivative dataset"
            )
        if bids:
            plan = _bids(trees, output, options)
        else:
            plan = _mirrored(trees, (output, manifest), format)
        number = jobs or default_jobs(device)
        settings = WorkerSettings(
            task=task,
            weights=weights,
            device=device,
            options=options,
            dtype=dtype,
            keep_nan=keep_nan,
            threads=threads_of(number),
        )
        request = BatchRequest(
            output=plan.output,
            settings=settings,
            format=format,
            resume=resume,
            part=part_of_text(part),
            after=plan.after,
            exists=exists,
        )
        bound = None if most_memory is None else parse_memory(most_memory, "most_memory")
        if engine == "ray" and bound is not None and not jobs:
            raise ConfigError("most_memory: is shared by jobs on a cluster; give jobs=N too")

        def start() -> Engine:
            if engine == "ray":
                return _ray(settings, (address, jobs, bound), plan)
            return Pool(settings, number, _free_memory() if bound is None else bound)

        summary = run_batch(request, plan.find, start, BatchProgress(bar))
    report(request.manifest, summary, json_file)
    Stopping.hint = ""
    if summary.faults or not summary.found:
        raise typer.Exit(REFUSED.code)


class _Plan(NamedTuple):
    """What is searched, where outputs go, and what is done after each scan.

    Attributes:
        output: folder of manifest and overview.
        find: finds the scans.
        after: called after each.
        shared: folder of the outputs, which every node of a cluster has to see; None for URLs.
    """

    output: Path
    find: Callable[[], Iterable[FoundJob]]
    after: Callable[[Job, Outcome], None] | None = None
    shared: Path | None = None


def _mirrored(
    trees: list[str], places: tuple[str | None, str | None], format: Literal["auto", "nifti"]
) -> _Plan:
    """Outputs that mirror the trees, in a folder or at a URL, and their manifest in a folder.

    Raises:
        ConfigError: one of these is missing.
    """
    from restore_rwkv.batch import find_jobs
    from restore_rwkv.batch.storage import is_url, plain

    output, manifest = places
    if not output:
        raise ConfigError("output is missing; give the folder for the outputs")
    output = plain(output)
    if is_url(output) and manifest is None:
        raise ConfigError(
            f"manifest is missing; give a folder of this machine for it, as {output} is a URL"
        )
    shared = None if is_url(output) else Path(output)
    folder = Path(output if manifest is None else manifest)
    return _Plan(folder, lambda: find_jobs(trees, output, format), shared=shared)


def _ray(settings: WorkerSettings, how: tuple[str | None, int, int | None], plan: _Plan) -> Engine:
    """Workers on a Ray cluster.

    Args:
        settings: of the workers.
        how: address of the cluster, number of workers (0 fills it), and memory of all.
        plan: of the batch.
    """
    from restore_rwkv.batch.ray_engine import RayEngine, RayOptions

    address, jobs, memory = how
    each = memory // jobs if memory is not None and jobs else None
    options = RayOptions(address=address, workers=jobs, memory=each, output=plan.shared)
    return RayEngine(settings, options)


def _bids(trees: list[str], output: str | None, options: RestoreOptions) -> _Plan:
    """The derivatives of a BIDS dataset.

    Raises:
        InputError: it is not one, or the output holds something else.
    """
    from restore_rwkv.batch.bids import find_bids
    from restore_rwkv.batch.bids_derivative import (
        bids_jobs,
        bids_output,
        write_bids_sidecar,
        write_dataset_files,
    )
    from restore_rwkv.batch.storage import is_url, plain

    if any(is_url(plain(place)) for place in (*trees, output or "")):
        raise ConfigError("bids: takes folders of this machine and no URLs; mount the dataset")
    if len(trees) != 1:
        raise ConfigError(f"bids: takes one dataset, and {len(trees)} are given; give one")
    dataset = find_bids(plain(trees[0]))
    folder = bids_output(dataset.root, None if output is None else Path(plain(output)))
    if dataset.left_out:
        texts = (f"{number} {suffix}" for suffix, number in dataset.left_out.items())
        say(f"not restored: {', '.join(texts)}")

    def find() -> Iterable[FoundJob]:
        write_dataset_files(folder, dataset)
        return bids_jobs(dataset, folder, options.scale)

    def after(job: Job, outcome: Outcome) -> None:
        write_bids_sidecar(Path(job.source), Path(job.target), outcome.record or {})

    return _Plan(folder, find, after, folder)


def part_of_text(text: str | None) -> Part | None:
    """Return the share that "K/N" names.

    Raises:
        ConfigError: it does not name one.
    """
    from restore_rwkv.batch import Part

    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if match is None:
        raise ConfigError(f"part {text!r} is not a share; give K/N, such as 1/8")
    return Part(number=int(match[1]), count=int(match[2]))


def default_jobs(device: str) -> int:
    """Number of workers: one on a GPU; else one a core, as far as memory and `_MOST_JOBS` go.

    Workers of one thread each take less time together than one of many threads
    (`python -m benchmarks.batch`).
    """
    from restore_rwkv.restoration import find_device

    if find_device(device).type != "cpu":
        return 1
    return max(1, min(_cores(), _MOST_JOBS, _free_memory() // _OF_A_WORKER))


def threads_of(jobs: int) -> int:
    """Threads of the network in each worker."""
    return max(1, _cores() // jobs)


def _cores() -> int:
    import torch

    return int(torch.get_num_threads())


def _free_memory() -> int:
    import torch

    from restore_rwkv.restoration.memory import free_memory

    return int(_FREE * free_memory(torch.device("cpu")))
