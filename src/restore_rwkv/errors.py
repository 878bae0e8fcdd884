"""Every error that this package raises on purpose.

Each message is one line that says what is wrong, where, and how to correct it.
"""

from __future__ import annotations


class RestoreError(Exception):
    """Base of all errors raised on purpose by restore-rwkv."""


class InputError(RestoreError):
    """A file, folder or array given by the user cannot be used."""


class UnfitError(InputError):
    """An image that can be read is not one that the weights are for."""


class WeightsError(RestoreError):
    """A weight file is unsafe, damaged, unknown, or does not fit the network or the task."""


class ConfigError(RestoreError, ValueError):
    """A setting is unknown or out of range."""


class OperatorError(RestoreError, ValueError):
    """An operator was given a wrong shape, data type, device or backend."""


class TrainingError(RestoreError):
    """A training run cannot continue."""
