"""A scan to restore, and what came of it: plain values, to be stored and sent elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["done", "skipped", "refused", "failed"]
"""Restored now; restored before; refused because of the scan; failed because of the machine."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A scan to restore.

    Attributes:
        key: 16 hex digits, from the name of the source below its tree and its series.
        name: for tables: the source below its tree, and for DICOM the number of the series.
        source: path or URL of the file; for DICOM of the folder or archive of the series.
        series: SeriesInstanceUID; None for other formats.
        files: DICOM: its files below `source`; empty to search `source`.
        target: path or URL of the output: a file, or the folder of a derived series.
        is_series: which of the two.
        size: bytes of the files of the source.
    """

    key: str
    name: str
    source: str
    series: str | None = None
    files: tuple[str, ...] = ()
    target: str
    is_series: bool = False
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a job.

    Attributes:
        key: of the job.
        state: see `State`.
        kind: "ok", or what the error is about, see `errors.ErrorKind`.
        reason: one line; empty where it is done.
        seconds: from the beginning of the reading to the end of the writing.
        network_seconds: those of them that the network took.
        bytes_read: size of the files of the source.
        bytes_written: size of the output and its record.
        record: values of the restoration record; None where nothing was written.
        thumbnail: PNG of one slice before and after, and of their difference; None likewise.
        attempts: how often it was tried.
        worker: host and process, such as "node3:4711".
        details: of a bug, its traceback.
    """

    key: str
    state: State
    kind: str = "ok"
    reason: str = ""
    seconds: float = 0.0
    network_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    record: Mapping[str, Any] | None = None
    thumbnail: bytes | None = None
    attempts: int = 1
    worker: str = ""
    details: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether there is no restored scan."""
        return self.state in ("refused", "failed")


def job_key(name: str, series: str | None) -> str:
    """Return the key of a scan, the same wherever its tree lies.

    Args:
        name: of the source below its tree, with "/" between folders.
        series: SeriesInstanceUID; None for other formats.
    """
    text = f"{name}\0{series or ''}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:16]
