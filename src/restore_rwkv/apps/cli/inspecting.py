"""Commands that look at networks and training runs: profile, erf and compare."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restore_rwkv.apps.cli.console import plain_table
from restore_rwkv.apps.cli.options import Device, Json, Overwrite, Quiet, Seed, Verbose
from restore_rwkv.apps.cli.progress import progress_bar
from restore_rwkv.apps.cli.terminal import say, show, show_json

if TYPE_CHECKING:
    from rich.table import Table

    from restore_rwkv.model.profile import Profile
    from restore_rwkv.training.comparison import Comparison

Networks = Annotated[
    list[str],
    typer.Argument(
        metavar="NETWORK...",
        help="light, base or patch2; a compared one, such as unet or restormer; name of shipped "
        "weights; a weight file; or a recipe (.toml).",
    ),
]
Picture = Annotated[
    Path, typer.Option("--output", "-o", metavar="PNG", help="Picture to write.", dir_okay=False)
]


def profile(
    networks: Networks,
    size: Annotated[int, typer.Option(min=1, help="Rows and columns of the image.")] = 256,
    repeats: Annotated[int, typer.Option(min=1, help="Timed calls.")] = 5,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Print parameters, multiply-accumulates, time and memory of networks, by level."""
    profiles: list[tuple[str, Profile]] = []
    with progress_bar("loading PyTorch", "measuring", "networks") as progress:
        from restore_rwkv.model.macs import COUNTED
        from restore_rwkv.model.profile import profile_network
        from restore_rwkv.restoration import find_device
        from restore_rwkv.training.networks import open_network

        place = find_device(device)
        opened = [open_network(name) for name in networks]
        for done, named in enumerate(opened):
            profiles.append(
                (named.name, profile_network(named.network, size, device=place, repeats=repeats))
            )
            if progress is not None:
                progress(done + 1, len(opened))
    show(profile_table(profiles), *(level_table(name, found) for name, found in profiles))
    for kind, meaning in COUNTED.items():
        say(f"{kind}: {meaning}")
    if as_json:
        found = [{"network": name, **one.to_dict()} for name, one in profiles]
        show_json({"counted": COUNTED, "networks": found})


def erf(
    networks: Networks,
    output: Picture,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="SET|SCAN",
            help="Images: prepared set, a folder of them, or a scan of low quality; "
            "white noise by default.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=8, help="Rows and columns of the images.")] = 160,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw effective receptive fields: the input pixels that the central output depends on.

    Networks that no file holds have random weights, as at the start of training.
    """
    with progress_bar("loading PyTorch", "measuring", "networks") as progress:
        from restore_rwkv.training.fields import draw_fields, network_fields

        check_picture(output, overwrite)
        fields = network_fields(
            networks, data=data, size=size, seed=seed, device=device, progress=progress
        )
        draw_fields(fields, output)
    rows = [field.values() for field in fields]
    show(field_table(rows))
    say(f"{output}: the fields")
    if as_json:
        show_json({"output_path": str(output), "networks": rows})


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Output folders of train, or folders of these."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PNG", help="Also draw their curves."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Also write the table of runs as CSV."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare training runs: PSNR gained in validation over iterations and processor time.

    Runs on other data or tasks come apart, since their PSNR cannot be compared; those that differ
    only in the seed also have their mean and standard deviation.
    """
    from restore_rwkv.errors import ConfigError
    from restore_rwkv.io.files import check_writable
    from restore_rwkv.training import compare_runs, draw_runs, read_runs

    if output is not None:
        check_picture(output, overwrite)
    if table is not None:
        check_writable(table, overwrite=overwrite)
    if output is not None and table is not None and output.resolve() == table.resolve():
        raise ConfigError(f"{table}: is both the picture and the table; give two names")
    found = compare_runs(read_runs(runs))
    if output is not None:
        draw_runs(found, output)
    for comparison in found:
        show(*run_tables(comparison))
    if len(found) > 1:
        say(f"{len(found)} tables: PSNR on other data, tasks or slices cannot be compared")
    if table is not None:
        rows = [{"data": one.title, **run.values()} for one in found for run in one.runs]
        write_rows(table, rows)
        say(f"{table}: the runs as CSV")
    if output is not None:
        say(f"{output}: their curves")
    if as_json:
        show_json({"comparisons": [comparison.to_dict() for comparison in found]})


def check_picture(path: Path, overwrite: bool) -> None:
    """Refuse an output that is not a PNG or cannot be written."""
    from restore_rwkv.errors import InputError
    from restore_rwkv.io.files import check_writable

    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: is not named as a picture; give a name that ends with .png")
    check_writable(path, overwrite=overwrite)


def profile_table(profiles: Sequence[tuple[str, Profile]]) -> Table:
    """Table with a row for each network."""
    first = profiles[0][1]
    table = plain_table(
        "network",
        "parameters",
        "trained",
        "GMAC",
        "as the paper counts",
        "ms, median (min-max)",
        "peak MiB",
    )
    table.title = f"one image of {first.height} x {first.width}, {first.device}"
    for name, one in profiles:
        times = [1e3 * value for value in (one.median, min(one.seconds), max(one.seconds))]
        table.add_row(
            name,
            f"{one.parameters:,}",
            f"{one.training_parameters:,}",
            f"{one.macs.total / 1e9:.4f}",
            f"{one.macs.as_paper / 1e9:.4f}",
            f"{times[0]:.1f} ({times[1]:.1f}-{times[2]:.1f})",
            "not reported here" if one.peak is None else f"{one.peak / 2**20:.0f}",
        )
    return table


def level_table(name: str, found: Profile) -> Table:
    """Table with a row for each level of a network, in the inference form."""
    from restore_rwkv.model.macs import COUNTED

    table = plain_table("level", "parameters", *(f"{kind}, GMAC" for kind in COUNTED), "share")
    table.title = name
    for level in found.levels:
        kinds = [f"{getattr(level.macs, kind) / 1e9:.4f}" for kind in COUNTED]
        share = level.macs.total / max(1, found.macs.total)
        table.add_row(level.name, f"{level.parameters:,}", *kinds, f"{share:.1%}")
    return table


def field_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Table of the areas that hold shares of the gradient."""
    shares = list(rows[0]["area"])
    table = plain_table("network", "weights", "images", *(f"{float(x):.0%}" for x in shares))
    table.title = "share of the image, around its centre, that holds so much of the gradient"
    for row in rows:
        areas = [f"{row['area'][share]:.2%}" for share in shares]
        table.add_row(row["network"], row["weights"], row["images"], *areas)
    return table


def run_tables(comparison: Comparison) -> list[Table]:
    """Tables of the runs and, where there are any, of those that differ only in the seed."""
    table = plain_table(
        *("run", "network", "parameters", "seed", "iterations", "state", "hours"),
        *("best gain dB", "at", "last gain dB"),
    )
    table.title = comparison.title
    for row in (run.values() for run in comparison.runs):
        table.add_row(
            *(row["run"], row["network"], f"{row['parameters']:,}", str(row["seed"])),
            f"{row['iterations']:,} of {row['of_iterations']:,}",
            row["state"] if row["state"] == "done" else f"{row['state']}, {row['written']}",
            "not recorded" if row["cpu_hours"] is None else f"{row['cpu_hours']:.2f}",
            *(_gain(row["best_gain_db"]), _whole(row["best_iteration"])),
            _gain(row["last_gain_db"]),
        )
    if not comparison.seeds:
        return [table]
    seeds = plain_table(
        "runs that differ only in the seed", "seeds", "best gain dB", "last gain dB"
    )
    seeds.title = "mean over seeds, with the sample standard deviation (n - 1)"
    for row in (one.values() for one in comparison.seeds):
        gains = [
            f"{_gain(row[f'{which}_gain_mean_db'])} (sd {_gain(row[f'{which}_gain_sd_db'], '')})"
            for which in ("best", "last")
        ]
        seeds.add_row(", ".join(row["runs"]), ", ".join(map(str, row["seeds"])), *gains)
    return [table, seeds]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows to a CSV file with a header, whole or not at all."""
    from restore_rwkv.io import atomic_file

    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _gain(value: float | None, sign: str = "+") -> str:
    return "none" if value is None else f"{value:{sign}.3f}"


def _whole(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"
