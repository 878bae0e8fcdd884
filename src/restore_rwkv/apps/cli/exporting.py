"""The command export: a network as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from restore_rwkv.apps.cli.options import Json, Overwrite, Quiet, Verbose
from restore_rwkv.apps.cli.progress import progress_bar
from restore_rwkv.apps.cli.terminal import say, show_json


def export(
    weights: Annotated[str, typer.Argument(help="Name of shipped weights, or a weight file.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="ONNX", help="File to write: *.onnx.")
    ],
    precision: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(help="float16 halves the file; int8 computes linear layers in whole numbers."),
    ] = "float32",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a network as ONNX for images of any size, once it computes what PyTorch computes.

    `restore --weights model.onnx` runs it with ONNX Runtime. Needs the extra: restore-rwkv[onnx].
    """
    with progress_bar("loading PyTorch", "exporting", "stages") as progress:
        from restore_rwkv.model.export import export_onnx

        exported = export_onnx(
            weights, output, precision=precision, overwrite=overwrite, progress=progress
        )
    for line in exported.lines():
        say(line)
    if as_json:
        show_json(exported.to_dict())
