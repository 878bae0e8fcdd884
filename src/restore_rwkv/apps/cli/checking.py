"""The command check: what `restore` would do with every scan below some paths."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restore_rwkv.apps.cli.console import plain_table
from restore_rwkv.apps.cli.exit_codes import REFUSED
from restore_rwkv.apps.cli.messages import with_flags
from restore_rwkv.apps.cli.options import (
    Device,
    Json,
    Memory,
    Quiet,
    Strict,
    TaskName,
    Verbose,
    Weights,
)
from restore_rwkv.apps.cli.progress import in_words, progress_bar
from restore_rwkv.apps.cli.terminal import say, screen, show, show_json
from restore_rwkv.options import parse_memory

if TYPE_CHECKING:
    from rich.table import Table

    from restore_rwkv.restoration import Checked


def check(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, or folders at any depth.")
    ],
    task: TaskName = "auto",
    weights: Weights = None,
    device: Device = "auto",
    strict: Strict = False,
    memory: Memory = "2GiB",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what restore would do with every scan found, and what it would refuse; write nothing."""
    with progress_bar(f"looking at {paths[0].name}", "looking", "scans") as progress:
        from restore_rwkv.restoration import Checker, RestoreOptions

        options = RestoreOptions(memory=parse_memory(memory), strict=strict)
        checker = Checker(task, weights, device, options)
        found: list[Checked] = []
        with screen.silenced():  # the table has the warnings
            for path in paths:
                for scan in checker.scans(path):
                    found.append(scan)
                    if progress is not None:
                        progress.stage(f"{len(found)} found, last {Path(scan.name).name}")
    refused = sum(bool(scan.refusals) for scan in found)
    if as_json:
        show_json({"scans": list(map(_as_json, found)), "refused": refused})
    else:
        show(_table(found))
        for scan in found:
            _say_findings(scan)
        free = [scan.free for scan in found if scan.free is not None]
        room = f"; {min(free) / 2**30:.1f} GiB of memory are free" if free else ""
        plural = "s" * (len(found) != 1)
        say(f"{len(found)} scan{plural}, {refused} would be refused{room}")
    if refused or not found:
        raise typer.Exit(REFUSED.code)


def _as_json(scan: Checked) -> dict[str, Any]:
    return dataclasses.asdict(scan) | {
        "refusals": _worded(scan.refusals),
        "warnings": _worded(scan.warnings),
    }


def _say_findings(scan: Checked) -> None:
    texts = [f"  refused: {text}" for text in _worded(scan.refusals)]
    texts += [f"  warning: {text}" for text in _worded(scan.warnings)]
    texts += [f"  {name} not compared: {text}" for name, text in scan.unjudged.items()]
    if texts:
        say(scan.name)
    for text in texts:
        say(text)


def _worded(texts: tuple[str, ...]) -> list[str]:
    """Messages of the library in the words of the command line."""
    from restore_rwkv.apps.cli.app import option_flags

    return [with_flags(text, option_flags()) for text in texts]


def _table(found: list[Checked]) -> Table:
    names = ("scan", "kind", "voxels", "mm", "encoding", "fits", "memory", "tile", "time")
    table = plain_table(*names)
    table.columns[names.index("fits")].no_wrap = True
    for scan in found:
        table.add_row(
            scan.name,
            " ".join(word for word in (scan.modality, scan.unit) if word) or "?",
            _times(scan.shape, "d") + (f" x {scan.volumes}" if scan.volumes > 1 else ""),
            _times(scan.spacing, ".3g"),
            scan.encoding,
            "\n".join(f"{name}: {_fit(scan, name)}" for name in scan.fit) or "-",
            _memory(scan),
            _times(scan.tile, "d"),
            "-" if scan.seconds is None else in_words(scan.seconds),
        )
    return table


def _fit(scan: Checked, weights: str) -> str:
    return scan.fit[weights] + (", not compared" if weights in scan.unjudged else "")


def _times(numbers: tuple[float, ...] | None, style: str) -> str:
    return "-" if numbers is None else " x ".join(format(number, style) for number in numbers)


def _memory(scan: Checked) -> str:
    return "-" if scan.memory is None else f"{scan.memory / 2**30:.2f} GiB"
