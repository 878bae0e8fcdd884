"""Every error that this package raises on purpose.

Each message is one line that says what is wrong, where, and how to correct it.
"""

from __future__ import annotations

import errno
import os
from typing import Literal

ErrorKind = Literal["unfit", "input", "weights", "training", "usage", "system", "bug"]


class RestoreError(Exception):
    """Base of all errors raised on purpose by restore-rwkv."""


class InputError(RestoreError):
    """A file, folder or array given by the user cannot be used."""


class BusyError(InputError):
    """Another process is writing an output; once it has ended, the same call may succeed."""


class UnfitError(InputError):
    """An image that can be read is not one that the weights are for."""


class WeightsError(RestoreError):
    """A weight file is unsafe, damaged, unknown, or does not fit the network or the task."""


class ConfigError(RestoreError, ValueError):
    """A setting is unknown or out of range."""


class NoMemoryError(ConfigError):
    """The machine or its GPU has too little free memory."""


class StorageError(RestoreError):
    """A store of files, or the disk beside it, cannot be used now."""


class OperatorError(RestoreError, ValueError):
    """An operator was given a wrong shape, data type, device or backend."""


class TrainingError(RestoreError):
    """A training run cannot continue."""


# The first class that an error is an instance of decides.
_KINDS: tuple[tuple[type[Exception], ErrorKind], ...] = (
    (UnfitError, "unfit"),
    (BusyError, "system"),
    (InputError, "input"),
    (WeightsError, "weights"),
    (TrainingError, "training"),
    (NoMemoryError, "system"),
    (ConfigError, "usage"),
    (StorageError, "system"),
    (OperatorError, "input"),  # the physics of a task refuses the values of a scan
    (RestoreError, "usage"),
    (MemoryError, "system"),
    (OSError, "system"),
)


_OF_ADDRESSES = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


def kind_of_error(error: BaseException) -> ErrorKind:
    """Return what an error is about; "bug" if it was raised by mistake."""
    return next((kind for cls, kind in _KINDS if isinstance(error, cls)), "bug")


def message_of(error: BaseException) -> str | None:
    """Return the one line that says what is wrong, where, and the remedy; None for a bug."""
    if isinstance(error, RestoreError):
        return str(error)
    if isinstance(error, MemoryError):
        return "this machine has run out of memory; free some, or give a smaller scan"
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        remedy = "check the path, its permissions and free space"
        if error.errno in _OF_ADDRESSES:
            remedy = "stop what listens there, or give another address or port"
        return f"{where}{error.strerror or error}; {remedy}"
    return None
