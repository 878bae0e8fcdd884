"""Why a worker did not restore a series, in words that the queue and the log may have."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.apps.node.names import short_hash

if TYPE_CHECKING:
    from restore_rwkv.batch.job import Outcome

# A library that reads a header quotes what it does not expect, which may be anything.
_QUOTED = re.compile(r"(['\"]).*?\1")
_LINE = re.compile(r'File "(.+)", line ([0-9]+)')  # of a traceback
_IMAGE_TYPE = re.compile(r"ImageType [^:;]*")
_UID = re.compile(r"\b[0-9]+(?:\.[0-9]+){4,}\b")


def reason_of(outcome: Outcome, *, log_patient_data: bool) -> str:
    """Return the reason of an outcome.

    Args:
        outcome: of a series that was refused or has failed.
        log_patient_data: whether values of its header, and UIDs, may be quoted.
    """
    reason = outcome.reason
    if log_patient_data:
        return reason
    if outcome.kind == "bug":  # its type and place, without what Python says further
        place = "".join(
            f" at {Path(file).name}:{line}" for file, line in _LINE.findall(outcome.details)[-1:]
        )
        return ": ".join(reason.split(": ")[:2]) + place
    reason = _UID.sub(lambda uid: short_hash(uid[0]), reason)
    reason = _IMAGE_TYPE.sub("ImageType", reason)
    return _QUOTED.sub("'...'", reason)


def is_disk_full(reason: str) -> bool:
    """Whether the reason of an outcome is that a disk is full."""
    return os.strerror(errno.ENOSPC) in reason or os.strerror(errno.EDQUOT) in reason
