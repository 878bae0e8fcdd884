"""The record beside an output, as JSON: how the output was made."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from restore_rwkv.errors import InputError
from restore_rwkv.io.atomic import atomic_file

_CHUNK = 1 << 22


def record_of(output: Path, kind: Literal["restoration", "degradation"] = "restoration") -> Path:
    """Path of the record beside an output: scan.restoration.json for scan.nii.gz.

    Not scan.json, which has another meaning in BIDS.
    """
    inner = output.with_suffix("") if output.suffix.lower() == ".gz" else output
    return inner.with_suffix(f".{kind}.json")


def check_record(path: Path, *, overwrite: bool) -> None:
    """Check that a record may be written.

    Raises:
        InputError: it exists, and `overwrite` is false.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; name another output, or give overwrite=True")


def write_record(path: Path, values: Mapping[str, Any], source: Path) -> None:
    """Write the record of an output, with the software, the time and the source.

    Args:
        path: from `record_of`.
        values: plain JSON values.
        source: file or folder that was read; a file is hashed.
    """
    record = {
        "software": f"restore-rwkv {version('restore-rwkv')}",
        "python": platform.python_version(),
        **values,
        "source": source.name,
        "source_sha256": None if source.is_dir() else file_sha256(source),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()
