"""Names that stand for UIDs: nothing that a sender says becomes a part of a path or of the log."""

from __future__ import annotations

import hashlib

DIGITS = 32
"""Length of the name of a file or folder."""


def file_name(uid: str) -> str:
    """Return the name of the file or folder of a UID: `DIGITS` hex digits."""
    return hashlib.sha256(uid.encode()).hexdigest()[:DIGITS]


def short_hash(uid: str) -> str:
    """Return what stands for a UID in the log: the first 16 hex digits of its file's name."""
    return file_name(uid)[:16]
