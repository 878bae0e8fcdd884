"""The command `restore-rwkv`: each command translates its words into one call of the library."""

from __future__ import annotations

import logging
import os
import sys

import typer

from restore_rwkv.apps.cli.networks import convert, evaluate, info, train
from restore_rwkv.apps.cli.prepare import data_app
from restore_rwkv.apps.cli.scans import degrade, demo, restore
from restore_rwkv.errors import RestoreError
from restore_rwkv.ops.cpu.memory import keep_freed_memory

app = typer.Typer(
    name="restore-rwkv",
    help="Medical image restoration with Restore-RWKV. For research only; not a medical device.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (restore, degrade, evaluate, demo, train, convert, info):
    app.command()(command)
app.add_typer(data_app, name="data")


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
    if isinstance(error, MemoryError):
        return "this machine has run out of memory; free some, or give a smaller scan or --scale"
    if isinstance(error, OSError):
        where = f"{os.fspath(error.filename)}: " if error.filename else ""
        return f"{where}{error.strerror or error}; check the path, its permissions and free space"
    if hasattr(error, "format_message"):  # of click, which typer brings under changing names
        return f"{error.format_message()} See restore-rwkv --help."
    return None
