"""Faults of inputs, which are collected and raised together before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restore_rwkv.errors import ConfigError, InputError, RestoreError, UnfitError, message_of

_PLAIN = (InputError, UnfitError, ConfigError)  # errors that are their message


class FaultList:
    """Errors of inputs, which are collected and raised together."""

    def __init__(self) -> None:
        self.errors: list[RestoreError | OSError] = []

    @contextmanager
    def collected(self, path: Path | None = None) -> Iterator[None]:
        """Collect an error of the block, which names a file of many by its whole path."""
        try:
            yield
        except (RestoreError, OSError) as error:
            text = str(error)
            if path is not None and type(error) in _PLAIN and text.startswith(f"{path.name}: "):
                error = type(error)(f"{path}{text.removeprefix(path.name)}")
            self.errors.append(error)

    def add(self, text: str) -> None:
        """Add a fault of an input."""
        self.errors.append(InputError(text))

    def refuse(self) -> None:
        """Raise the only fault, or one error that has all of them in a line each.

        Raises:
            RestoreError: there are faults; an InputError where they are of several kinds.
        """
        if not self.errors:
            return
        if len(self.errors) == 1:
            raise self.errors[0]
        kinds = {type(error) for error in self.errors}
        kind = kinds.pop() if len(kinds) == 1 else InputError
        if not issubclass(kind, RestoreError):
            kind = InputError
        lines = [message_of(error) or str(error) for error in self.errors]
        start = f"inputs: {len(lines)} problems; nothing was computed; correct them:"
        raise kind("\n  ".join([start, *lines]))
