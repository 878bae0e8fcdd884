"""The command node: receives series, restores them by rules, and sends derived series back."""

from __future__ import annotations

import logging
import os
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore_rwkv.apps.cli.console import plain_table
from restore_rwkv.apps.cli.exit_codes import BUG
from restore_rwkv.apps.cli.options import Json, Quiet, Verbose
from restore_rwkv.apps.cli.progress import in_words
from restore_rwkv.apps.cli.terminal import escaped, say, say_aside, screen, show, show_json
from restore_rwkv.errors import ConfigError, kind_of_error

if TYPE_CHECKING:
    from restore_rwkv.apps.node.config import NodeConfig

_IF = {"fit": " if fit", "doubtful": " if fit or doubtful", "any": ""}


def node(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.toml", help="Settings of the node.", show_default=False),
    ] = None,
    statement: Annotated[
        bool,
        typer.Option("--statement", help="Print the DICOM conformance statement, and end."),
    ] = False,
    check_only: Annotated[
        bool,
        typer.Option("--check", help="Check the settings, say what the node would do, and end."),
    ] = False,
    show_queue: Annotated[
        bool,
        typer.Option(
            "--queue",
            help="List the series that are open, refused or given up, with the reasons, and end; "
            "the node may run meanwhile.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="First put back the series that were given up."),
    ] = False,
    retry_refused: Annotated[
        bool,
        typer.Option(
            "--retry-refused",
            help="First put back the series that were refused, as after a change of rules.",
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve as a DICOM node, until SIGTERM or Ctrl-C; the next start goes on where it ended."""
    from restore_rwkv.apps.node.config_file import read_config

    settings = None if config is None else read_config(config)
    if statement:
        from restore_rwkv.apps.node.statement import conformance_statement

        typer.echo(conformance_statement(settings))
        return
    if settings is None:
        raise ConfigError("the settings are missing; give the TOML file of the node")
    if show_queue:
        _show_queue(settings)
        return
    if check_only:
        if settings.tls:
            from restore_rwkv.apps.node.certificates import client_context, server_context

            server_context(settings.tls)
            client_context(settings.tls)
        lines = summary(settings)
        show_json({"node": lines}) if as_json else say("\n".join(lines))
        return
    from restore_rwkv.apps.node.service import Service

    os.umask(os.umask(0o077) | 0o007)  # not everyone on this machine may read what comes
    _log(settings)
    service = Service(settings)
    if retry_failed:
        say(f"{service.upkeep.revive('failed')} series that were given up are tried again")
    if retry_refused:
        say(f"{service.upkeep.revive('refused')} series that were refused are tried again")
    try:
        service.run()
    except Exception as error:
        if settings.log_patient_data or kind_of_error(error) != "bug":
            raise
        # Its message, which a traceback would show, may quote what was received.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        say_aside(f"error: this is a bug in restore-rwkv, please report it: {where}")
        raise typer.Exit(BUG.code) from None


def summary(config: NodeConfig) -> list[str]:
    """Lines that say what a node would do."""
    lines = [f"folder: {config.folder}"]
    if config.peers:
        secured = "with TLS" if config.tls else "without TLS"
        lines.append(f"listens: {config.ae_title} at {config.host} port {config.port}, {secured}")
    lines += [
        f"peer {peer.name}: {peer.ae_title} from {peer.address or 'any address'}"
        for peer in config.peers
    ]
    lines += [
        f"archive {archive.name}: {archive.url}, every {archive.every_seconds:g} s"
        for archive in config.archives
    ]
    lines += [
        f"rule {rule.name}: {rule.conditions()}: "
        + (
            "ignored"
            if rule.action == "ignore"
            else f"restored ({rule.task}, {rule.weights or 'its own weights'}){_IF[rule.fit]}, "
            f"sent to {', '.join(rule.send_to)}"
        )
        for rule in config.rules
    ]
    for destination in config.destinations:
        where = destination.url or (
            f"{destination.ae_title} at {destination.host} port {destination.port}, "
            f"{'with' if destination.tls else 'without'} TLS"
        )
        lines.append(f"destination {destination.name}: {where}")
    if config.metrics_port:
        lines.append(f"metrics: http://127.0.0.1:{config.metrics_port}/metrics and /health")
    return lines


def _show_queue(config: NodeConfig) -> None:
    """Print what is in the queue; UIDs only where the log may have them."""
    from restore_rwkv.apps.node.queueing.listing import listed

    counts, found = listed(config.folder, time.time())
    hidden = () if config.log_patient_data else ("series_uid",)
    rows = [{k: v for k, v in vars(row).items() if k not in hidden} for row in found]
    if screen.as_json:
        show_json({"series": counts, "listed": rows})
        return
    table = plain_table("series", "state", "from", "images", "for", "tries", "next in", "reason")
    for row in found:
        name = row.series_uid if config.log_patient_data else row.key
        wait = in_words(row.wait) if row.wait else "-"
        table.add_row(
            *(name, row.state, row.origin, str(row.instances), in_words(row.seconds)),
            *(str(row.attempts), wait, escaped(row.reason) or "-"),
        )
    if found:
        show(table)
    say(", ".join(f"{number} {state}" for state, number in counts.items()))


def _log(config: NodeConfig) -> None:
    """Write one line for each event to stderr, and nothing of what other packages say of files.

    Their warnings quote values of headers. Workers inherit the environment.
    """
    from restore_rwkv.apps.node.calm_log import CalmLog

    own = logging.getLogger("restore_rwkv.apps.node")
    handler = logging.StreamHandler()
    handler.addFilter(CalmLog())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    own.addHandler(handler)
    own.propagate = False
    own.setLevel(logging.WARNING if screen.quiet else logging.INFO)
    if not config.log_patient_data:
        import warnings

        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"
        for name in ("pydicom", "pynetdicom", "highdicom"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
