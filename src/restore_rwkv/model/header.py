"""The header of a weight file: its record and the size of its tensors, read without PyTorch.

A safetensors file starts with the length of its header (8 bytes, the lowest first) and the header
itself: JSON that gives the data type, shape and place of each tensor, and text in "__metadata__".
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_rwkv.errors import WeightsError

FORMAT = 2
KEY = "restore_rwkv"
"""The one metadata entry, since safetensors does not keep the order of several."""

_MAX_LENGTH = 100_000_000  # bytes of a header, the limit of safetensors
_ALIGNED = 8  # bytes: safetensors wants the tensors to start at a multiple
_FAULTS = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    RecursionError,
)


EXPORT = "export"
"""Entry of the record of an exported network, with what is true of it only."""


@dataclass(frozen=True)
class Header:
    """What the header of a weight file says; only the format version is checked.

    Attributes:
        record: the entries of `WeightsInfo`, as plain JSON values.
        parameters: number of weights, counted from the shapes.
    """

    record: dict[str, Any]
    parameters: int


def is_exported(path: str | Path) -> bool:
    """Return whether a path is named as an exported network."""
    return Path(path).suffix.lower() == ".onnx"


def read_header(path: str | Path) -> Header:
    """Read the header of a weight file, or the record of an exported network (`.onnx`).

    Raises:
        WeightsError: the file is missing, damaged, or of another kind or version.
        ConfigError: it is an exported network, and `onnx` is not installed.
    """
    path = Path(path)
    if is_exported(path):
        from restore_rwkv.model.export.file import read_exported

        return read_exported(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the path of a weight file")
    try:
        metadata, parameters = _read(path)
    except _FAULTS as error:
        raise damaged(path, error) from error
    if KEY not in metadata:
        raise WeightsError(
            f"{path}: holds no {KEY} record; use a file written by restore-rwkv, of a training run "
            "best.safetensors, or convert a published checkpoint with `restore-rwkv convert`"
        )
    try:
        record = json.loads(metadata[KEY])
        version = record["format"]
    except _FAULTS as error:
        raise damaged_record(path, error) from error
    if version != FORMAT:
        raise WeightsError(
            f"{path}: weight format {version!r}; this release reads {FORMAT}, update it"
        )
    return Header(record, parameters)


def replace_record(path: str | Path, record: Mapping[str, Any]) -> None:
    """Write another record into a weight file, whole or not at all; its tensors stay as they are.

    Args:
        path: a file that `read_header` reads.
        record: plain JSON values.
    """
    path = Path(path)
    from restore_rwkv.io.atomic import atomic_file  # NumPy, which reading a header does not need

    with path.open("rb") as stream, atomic_file(path) as temporary:
        entries = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        text = json.dumps(dict(record), allow_nan=False, sort_keys=True)
        header = json.dumps(entries | {"__metadata__": {KEY: text}}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % _ALIGNED)
        with temporary.open("wb") as target:
            target.write(len(header).to_bytes(8, "little") + header)
            shutil.copyfileobj(stream, target)


def damaged(path: str | Path, reason: object) -> WeightsError:
    """The error for a file that is not safetensors."""
    return WeightsError(
        f"{path}: not a safetensors file, or a damaged one ({reason}); fetch it again, or convert "
        "a published checkpoint with `restore-rwkv convert`"
    )


def damaged_record(path: str | Path, reason: object) -> WeightsError:
    """The error for a record that cannot be used."""
    return WeightsError(f"{path}: the {KEY} record is damaged ({reason}); fetch the file again")


def _read(path: Path) -> tuple[dict[str, str], int]:
    """Metadata and number of weights; raises any of `_FAULTS` if the file is damaged."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > _MAX_LENGTH:
            raise ValueError("the header is too long")
        entries = json.loads(stream.read(length))
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(type(x) is not str for x in metadata.values()):
        raise ValueError("its metadata is not a table of text")
    sides = [side for entry in entries.values() for side in entry["shape"]]
    if any(type(side) is not int or side < 0 for side in sides):
        raise ValueError("a tensor has an invalid shape")
    if 8 + length + max(e["data_offsets"][1] for e in entries.values()) != path.stat().st_size:
        raise ValueError("the length of the file does not fit its tensors")
    return metadata, sum(math.prod(entry["shape"]) for entry in entries.values())
