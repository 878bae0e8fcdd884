"""The command `restore-rwkv`: each command turns its options into one call of the library."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from restore_rwkv.apps.cli.batching import batch
from restore_rwkv.apps.cli.challenge import challenge
from restore_rwkv.apps.cli.checking import check
from restore_rwkv.apps.cli.evaluating import evaluate
from restore_rwkv.apps.cli.exit_codes import BUG, CLOSED_PIPE, INTERRUPTED, kind_of
from restore_rwkv.apps.cli.exporting import export
from restore_rwkv.apps.cli.fidelity import fidelity
from restore_rwkv.apps.cli.inspecting import compare, erf, profile
from restore_rwkv.apps.cli.logs import printed_warnings
from restore_rwkv.apps.cli.messages import user_message
from restore_rwkv.apps.cli.networks import convert, info, train
from restore_rwkv.apps.cli.node import node
from restore_rwkv.apps.cli.opening import open_page
from restore_rwkv.apps.cli.options import print_version
from restore_rwkv.apps.cli.prepare import data_app
from restore_rwkv.apps.cli.scans import degrade, demo, restore
from restore_rwkv.apps.cli.terminal import say_aside, screen, show_json
from restore_rwkv.ops.cpu.memory import keep_freed_memory

app = typer.Typer(
    name="restore-rwkv",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=print_version,
            is_eager=True,
            help="Print the versions of the program, Python and PyTorch.",
        ),
    ] = False,
) -> None:
    """Medical image restoration with Restore-RWKV. For research only; not a medical device."""


for command in (
    *(restore, batch, check, degrade, fidelity, challenge, evaluate, demo, train),
    *(compare, profile, erf, convert, export, info, node),
):
    app.command()(command)
app.command("open")(open_page)
app.add_typer(data_app, name="data")


def run() -> None:
    """Run the words of `sys.argv`, and exit: 0, or by the kind of the error."""
    keep_freed_memory()
    _reset_screen(sys.argv[1:])
    with printed_warnings(option_flags):
        try:
            words = sys.argv[1:] or ["--help"]
            code = app(words, prog_name="restore-rwkv", standalone_mode=False)
        except SystemExit as end:
            # Of typer, when the reader of --help has gone.
            raise SystemExit(CLOSED_PIPE if end.code == 1 else end.code) from None
        except typer.Abort:
            code = INTERRUPTED
        except Exception as error:
            code = _told(error)
    sys.exit(code)


def _reset_screen(words: list[str]) -> None:
    """Begin a run; errors are JSON even where the options cannot be read."""
    asked = "--json" in words
    lines = words[:1] == ["batch"]  # whose --json takes a value
    if asked and lines:
        asked = words[words.index("--json") + 1 :][:1] == ["-"]
    screen.reset(as_json=asked)
    screen.as_lines = lines


def _told(error: Exception) -> int:
    """Print an error as one line, of a bug with its traceback, and return the exit code."""
    kind = kind_of(error)
    message = user_message(error, option_flags())
    if kind == BUG or message is None:
        kind, message = BUG, f"{type(error).__name__}: {error}"
        traceback.print_exc()
        say_aside(f"error: this is a bug in restore-rwkv, please report it: {message}")
    else:
        say_aside(f"error: {message}")
    if screen.as_json:
        show_json({"error": {"kind": kind.name, "exit_code": kind.code, "message": message}})
    return kind.code


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
