"""The command batch: every scan below some folders, each on its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from restore_rwkv.apps.cli.console import plain_table
from restore_rwkv.apps.cli.exit_codes import REFUSED
from restore_rwkv.apps.cli.messages import with_flags
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
from restore_rwkv.apps.cli.progress import Bar, in_words, progress_bar
from restore_rwkv.apps.cli.terminal import say, say_aside, screen, show, show_line
from restore_rwkv.errors import ConfigError
from restore_rwkv.options import parse_memory

if TYPE_CHECKING:
    from rich.table import Table

    from restore_rwkv.batch import FoundJob, Job, Manifest, Outcome, Part, Progressed, Summary
    from restore_rwkv.restoration import RestoreOptions

_MOST_ROWS = 40
_STEPS = 1000  # of the bar for each scan
_FREE = 0.8  # of the free memory that all workers may take
_MOST_JOBS = 8
_OF_A_WORKER = 2 << 30  # bytes


def _set_lines(value: str | None) -> str | None:
    screen.as_json = value == "-"
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
            help="Folder for the outputs, which mirror the tree, and the manifest.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="Worker processes; 0 chooses by device and cores.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the batch that OUT holds.")
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
        typer.Option(help="Address of the Ray cluster; starts one here where left out."),
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
    with progress_bar(f"looking at {trees[0]}", "restoring", "scans") as bar:
        from restore_rwkv.batch import BatchRequest, Pool, WorkerSettings, run_batch
        from restore_rwkv.restoration import RestoreOptions

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
        plan = _bids(trees, output, options) if bids else _mirrored(trees, output, format)
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
            resume=resume,
            part=part_of_text(part),
            after=plan.after,
        )
        bound = _free_memory() if most_memory is None else parse_memory(most_memory)
        summary = run_batch(
            request,
            plan.find,
            lambda: Pool(settings, number, bound),
            _Told(bar),
        )
    _report(request.manifest, summary, json_file)
    if summary.faults:
        raise typer.Exit(REFUSED.code)


class _Plan(NamedTuple):
    """What is searched, where outputs go, and what is done after each scan."""

    output: Path
    find: Callable[[], Iterable[FoundJob]]
    after: Callable[[Job, Outcome], None] | None = None


def _mirrored(trees: list[str], output: str | None, format: Literal["auto", "nifti"]) -> _Plan:
    """Outputs that mirror the trees."""
    from restore_rwkv.batch import find_jobs

    if output is None:
        raise ConfigError("output is missing; give the folder for the outputs")
    folder = Path(output)
    return _Plan(folder, lambda: find_jobs([Path(tree) for tree in trees], folder, format))


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

    if len(trees) != 1:
        raise ConfigError(f"bids: takes one dataset, and {len(trees)} are given; give one")
    dataset = find_bids(Path(trees[0]))
    folder = bids_output(dataset.root, None if output is None else Path(output))
    if dataset.left_out:
        texts = (f"{number} {suffix}" for suffix, number in dataset.left_out.items())
        say(f"not restored: {', '.join(texts)}")

    def find() -> Iterable[FoundJob]:
        write_dataset_files(folder, dataset)
        return bids_jobs(dataset, folder, options.scale)

    def after(job: Job, outcome: Outcome) -> None:
        write_bids_sidecar(Path(job.source), Path(job.target), outcome.record or {})

    return _Plan(folder, find, after)


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


class _Told:
    """Shows how a batch goes on: one bar over all, and a line for each scan without a result."""

    def __init__(self, bar: Bar | None) -> None:
        self._bar = bar
        self._faults = 0
        self._ended = 0
        self._all = 0
        self._shares: dict[str, int] = {}

    def found(self, number: int) -> None:
        if self._bar is not None and number % 10 == 0:
            self._bar.stage(f"looking: {number} scans found")

    def begun(self, waiting: int, finished: int) -> None:
        self._all = waiting
        if finished:
            say(f"{finished} scans are done already")
        if self._bar is not None:
            self._bar.stage("starting", "scans")

    def started(self, job: Job) -> None:
        self._shares[job.key] = 0

    def progressed(self, job: Job, news: Progressed) -> None:
        if news.total:
            self._shares[job.key] = _STEPS * news.done // news.total
            if self._bar is not None:
                faults = f" ({self._faults} failed)" if self._faults else ""
                self._bar.stage(f"{job.name}{faults}")
                self._show()

    def ended(self, job: Job, outcome: Outcome) -> None:
        self._shares.pop(job.key, None)
        self._ended += 1
        if outcome.is_fault:
            self._faults += 1
            if not screen.quiet:
                say_aside(f"{outcome.state}: {job.name}: {_worded(outcome.reason)}")
            if outcome.details and screen.verbose:
                say_aside("  " + outcome.details.rstrip().replace("\n", "\n  "))
        if screen.as_json:
            show_line(_as_json(job.name, job.source, job.target, outcome))
        self._show()

    def waited(self) -> None:
        pass

    def _show(self) -> None:
        if self._bar is not None:
            self._bar(_STEPS * self._ended + sum(self._shares.values()), _STEPS * self._all)


def _report(path: Path, summary: Summary, json_file: str | None) -> None:
    from restore_rwkv.batch import Manifest

    with Manifest(path) as manifest:
        if json_file not in (None, "-"):
            _write_report(Path(str(json_file)), manifest, summary)
        show(_table(manifest))
    if screen.as_json:
        show_line({"summary": _totals(summary)})
    counts = ", ".join(f"{number} {state}" for state, number in summary.counts.items() if number)
    speed = ""
    if summary.counts["done"]:
        speed = f", of which the network {in_words(summary.network_seconds)}"
    say(f"{counts or 'no scans found'}; {in_words(summary.seconds)}{speed}")


def _table(manifest: Manifest) -> Table:
    """Every scan where there are few, and else those without a result."""
    few = sum(manifest.counts().values()) <= _MOST_ROWS
    table = plain_table("scan", "outcome", "seconds", "read", "written", "reason")
    rows = 0
    for entry in manifest.entries(faults=None if few else True, pictures=False):
        outcome = entry.outcome
        if outcome is None:
            continue
        rows += 1
        if rows > _MOST_ROWS:
            table.add_row("...", "", "", "", "", "all of them are in the overview")
            break
        table.add_row(
            entry.name,
            outcome.state,
            f"{outcome.seconds:.1f}",
            _size(outcome.bytes_read),
            _size(outcome.bytes_written),
            _worded(outcome.reason),
        )
    return table


def _write_report(path: Path, manifest: Manifest, summary: Summary) -> None:
    """Write the report, one scan after the other, as a batch may have many."""
    from restore_rwkv.io import atomic_file

    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"summary": {json.dumps(_totals(summary))},\n "scans": [')
        for number, line in enumerate(_lines(manifest)):
            file.write(",\n  " if number else "\n  ")
            file.write(json.dumps(line))
        file.write("\n ]}\n")


def _lines(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for entry in manifest.entries(pictures=False):
        if entry.outcome is not None:
            yield _as_json(entry.name, entry.source, entry.target, entry.outcome)


def _totals(summary: Summary) -> dict[str, Any]:
    return {
        **summary.counts,
        "seconds": summary.seconds,
        "network_seconds": summary.network_seconds,
        "bytes_read": summary.bytes_read,
        "bytes_written": summary.bytes_written,
    }


def _as_json(name: str, source: str, target: str, outcome: Outcome) -> dict[str, Any]:
    return {
        "name": name,
        "source": source,
        "target": target,
        "state": outcome.state,
        "kind": outcome.kind,
        "reason": _worded(outcome.reason),
        "seconds": outcome.seconds,
        "network_seconds": outcome.network_seconds,
        "bytes_read": outcome.bytes_read,
        "bytes_written": outcome.bytes_written,
        "attempts": outcome.attempts,
        "worker": outcome.worker,
        "record": outcome.record,
    }


def _worded(text: str) -> str:
    """A message of the library in the words of the command line."""
    from restore_rwkv.apps.cli.app import option_flags

    flags: Callable[[], dict[str, str]] = option_flags
    return with_flags(text, flags())


def _size(number: int) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number //= 1000
    return f"{number:.0f} GB"
