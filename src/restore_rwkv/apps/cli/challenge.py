"""The command challenge."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from restore_rwkv.apps.cli.console import plain_table
from restore_rwkv.apps.cli.options import Device, Json, Quiet, Seed, TaskName, Verbose
from restore_rwkv.apps.cli.progress import progress_bar
from restore_rwkv.apps.cli.terminal import say, show, show_json
from restore_rwkv.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from restore_rwkv.evaluation.challenge import Challenge, Rate, Summary

_FILES = "lesions.csv, places.csv, challenge.json and lesions.png"


def challenge(
    scans: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCAN|SET...", help="Scans of full quality, or folders of prepared sets."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="New folder for the results.")
    ],
    task: TaskName = "auto",
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Name of shipped weights, or a weight file; repeatable."),
    ] = None,
    contrasts: Annotated[
        str,
        typer.Option(
            metavar="C,C",
            help="Of lesions, in HU, or % of the local value (MRI, PET). By default 5,10,20; PET "
            "20,50,100.",
            show_default=False,
        ),
    ] = "",
    radii: Annotated[str, typer.Option(metavar="MM,MM", help="Of lesions, in mm.")] = "5",
    places: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most lesions of one kind in a scan.")
    ] = 20,
    apart: Annotated[
        float, typer.Option(metavar="MM", help="Least distance of lesions in one slice.")
    ] = 35.0,
    slices: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Most slices, those with most room; PET takes all."),
    ] = 24,
    factor: Annotated[
        float | None,
        typer.Option(
            metavar="F",
            help="How much less is measured; by default as the task: MRI 4, CT 4, PET 12.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Part of the prepared sets.")
    ] = "test",
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Plant lesions in good scans, degrade and restore them, and count what is lost or invented.

    Compared with the input as it is, and with a blur that leaves as much noise as the first
    weights do.
    """
    with progress_bar("loading PyTorch", "restoring", "slices") as progress:
        from restore_rwkv.evaluation.challenge import (
            ChallengeFiles,
            ChallengeRequest,
            run_challenge,
        )
        from restore_rwkv.evaluation.challenge.tables import challenge_values

        files = ChallengeFiles(output)
        request = ChallengeRequest(
            scans=tuple(scans),
            weights=tuple(weights or ()),
            task=task,
            contrasts=numbers(contrasts, "contrasts"),
            radii=numbers(radii, "radii"),
            places=places,
            apart=apart,
            slices=slices,
            factor=factor,
            split=split,
            seed=seed,
            device=device,
            command=shlex.join(["restore-rwkv", *sys.argv[1:]]),
        )
        files.check()
        with files.claimed():
            found = run_challenge(request, progress)
            show(*challenge_tables(found))  # before the files, as the disk may be full
            files.write(found)
    say(f"{output}: {_FILES}")
    if as_json:
        show_json({**challenge_values(found), "output_path": str(output)})


def numbers(text: str, name: str) -> tuple[float, ...]:
    """Return the numbers of an option such as "5,10,20"; none for an empty text.

    Raises:
        ConfigError: a part is not a number.
    """
    found = []
    for part in text.split(",") if text.strip() else []:
        try:
            found.append(float(part))
        except ValueError as error:
            raise ConfigError(
                f"{name} is {text!r}; give numbers between commas, such as 5,10,20"
            ) from error
    return tuple(found)


def challenge_tables(found: Challenge) -> tuple[Table, Table, Table]:
    """Return a table by method, contrast and radius, one of methods compared, one of all."""
    from restore_rwkv.evaluation.challenge.tables import sentence_of

    columns = ("method", f"contrast {found.unit}", "radius mm", "lesions", "contrast retained")
    table = plain_table(*columns, "lost %", "invented %", "d'")
    table.title = f"{found.task}: lesions planted before the degradation"
    kind = None
    for summary in found.summaries:
        now = (summary.contrast, summary.radius)
        if kind not in (None, now):
            table.add_section()
        kind = now
        table.add_row(*_cells(summary))
    reasons = dict.fromkeys(each.reason for each in found.summaries if each.seen is None)
    table.caption = "\n".join(
        [
            "± is the standard deviation over lesions; in brackets are 95 % intervals.",
            sentence_of(found),
            *(f"No d': {reason}." for reason in reasons),
        ]
    )
    table.caption_justify = "left"
    every = plain_table("method", "score", "patches that differ %", "agreement / mm")
    every.title = "all lesions together, and patches of the scans without (sFRC)"
    for each in found.overall:
        median = "none" if each.agreement is None else f"{each.agreement:.3f}"
        every.add_row(each.method, f"{each.score:.2f}", percent(each.flagged), median)
    every.caption = (
        "Score: 1 where every lesion has its contrast and none is made up. It says what a method "
        f"costs, not what it gains.\nA patch differs if it agrees below {found.frequency:.3f} / mm "
        "only."
    )
    every.caption_justify = "left"
    return table, _compared(found), every


def _compared(found: Challenge) -> Table:
    """Return a table of the first method and the others on the same lesions."""
    columns = ("less", f"contrast {found.unit}", "radius mm", "lesions", "contrast retained")
    table = plain_table(*columns, "lost only by it", "only by the other", "p")
    table.title = f"{found.methods[0]} less the others, at the same places"
    for each in found.comparisons:
        ends = "" if each.interval is None else " ({:+.2f} to {:+.2f})".format(*each.interval)
        table.add_row(
            each.other,
            f"{each.contrast:g}",
            f"{each.radius:g}",
            str(each.lesions),
            f"{each.retained:+.2f}{ends}",
            str(each.lost),
            str(each.lost_by_other),
            "none" if each.p is None else f"{each.p:.2g}",
        )
    table.caption = "p: exact test of McNemar, of lesions that one loses and the other does not."
    table.caption_justify = "left"
    return table


def percent(rate: Rate) -> str:
    """Return a rate with its interval in percent, such as "5 (1-17)"; "none" without cases."""
    share, ends = rate.share, rate.interval
    if share is None or ends is None:
        return "none"
    return f"{100 * share:.0f} ({100 * ends[0]:.0f}-{100 * ends[1]:.0f})"


def _cells(summary: Summary) -> tuple[str, ...]:
    seen = summary.seen
    d_prime = "none" if seen is None else f"{seen.d_prime:.2f} ({seen.low:.2f}-{seen.high:.2f})"
    retained = f"{summary.retained:.2f}"
    if summary.lesions > 1:
        retained += f" ± {summary.spread:.2f}"
    return (
        summary.method,
        f"{summary.contrast:g}",
        f"{summary.radius:g}",
        str(summary.lesions),
        retained,
        percent(summary.lost),
        percent(summary.invented),
        d_prime,
    )
