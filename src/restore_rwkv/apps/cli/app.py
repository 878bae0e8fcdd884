"""The command `restore-rwkv`: each command turns its options into one call of the library."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterator
from typing import Any

import typer

from restore_rwkv.apps.cli.messages import user_message, with_flags
from restore_rwkv.apps.cli.networks import convert, evaluate, info, train
from restore_rwkv.apps.cli.prepare import data_app
from restore_rwkv.apps.cli.scans import degrade, demo, restore
from restore_rwkv.ops.cpu.memory import keep_freed_memory

app = typer.Typer(
    name="restore-rwkv",
    help="Medical image restoration with Restore-RWKV. For research only; not a medical device.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (restore, degrade, evaluate, demo, train, convert, info):
    app.command()(command)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line; a mistake of the user ends in one line and exit code 2."""
    keep_freed_memory()
    handler = logging.StreamHandler()
    handler.setFormatter(_FlagFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    try:
        words = sys.argv[1:] or ["--help"]
        sys.exit(app(words, prog_name="restore-rwkv", standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        message = user_message(error, option_flags())
        if message is None:
            raise
        typer.echo(f"error: {message}", err=True)
        sys.exit(2)


class _FlagFormatter(logging.Formatter):
    """Warnings of the library, with flags in place of its arguments."""

    def format(self, record: logging.LogRecord) -> str:
        return with_flags(super().format(record), option_flags())


@functools.cache
def option_flags() -> dict[str, str]:
    """Long flag of every option of every command, by the name of its argument."""
    return {
        str(parameter.name): max(parameter.opts, key=len)
        for command in _commands(typer.main.get_command(app))
        for parameter in command.params
        if parameter.param_type_name == "option"
    }


def _commands(command: Any) -> Iterator[Any]:
    """A command and those below it."""
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from _commands(inner)
