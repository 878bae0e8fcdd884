"""The TOML file of the node's settings, and the files of secrets that it names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from restore_rwkv.apps.node.config import TLS, Archive, Destination, Limits, NodeConfig, Peer
from restore_rwkv.apps.node.rules import Rule
from restore_rwkv.errors import ConfigError, WeightsError
from restore_rwkv.options import from_mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_ROWS: dict[str, type[Any]] = {
    "peers": Peer,
    "rules": Rule,
    "destinations": Destination,
    "archives": Archive,
}
_TABLES: dict[str, type[Any]] = {"limits": Limits, "tls": TLS}
_PATHS = ("folder", "certificate", "key", "authorities", "password_file", "token_file")
_SECRETS = ("key", "password_file", "token_file")
_LARGEST_SECRET = 65536


def read_config(path: Path | str) -> NodeConfig:
    """Read the configuration of a node from a TOML file.

    Relative paths are relative to the file.

    Raises:
        ConfigError: the file is missing, not valid TOML, or a value is wrong; the message names
            table and key.
    """
    path = Path(path)
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the file of the node") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error}); correct that line") from error
    base = path.absolute().parent
    with _within(str(path)):
        values = _located(values, base)
    for key, kind in _TABLES.items():
        if key in values:
            with _within(str(path)):
                values[key] = from_mapping(kind, _located(values[key], base))
    for key, kind in _ROWS.items():
        if not isinstance(values.get(key, []), list):
            raise ConfigError(f"{path}: {key} is a table; write [[{key}]] for each")
        rows = []
        for number, row in enumerate(values.get(key, []), start=1):
            with _within(f"{path}: {key} {number}"):
                rows.append(from_mapping(kind, _located(row, base)))
        values[key] = rows
    with _within(str(path)):
        return from_mapping(NodeConfig, values)


def read_secret(path: Path) -> str:
    """Return the text of a file that holds a password or a token, without the ends of its line.

    Raises:
        ConfigError: it cannot be read, is empty, or everyone may read it.
    """
    _check_private(path)
    try:
        with path.open(encoding="utf-8") as stream:
            secret = stream.read(_LARGEST_SECRET).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read; check the path and permissions") from error
    if not secret or "\n" in secret:
        raise ConfigError(f"{path}: holds not one line of text; write only the secret into it")
    return secret


def _located(values: Any, base: Path) -> Any:
    """Return a table with its paths below the folder of the file, and secrets checked."""
    if not isinstance(values, Mapping):
        return values
    found = dict(values)
    for key in _PATHS:
        if isinstance(found.get(key), str) and found[key]:
            found[key] = base / Path(found[key]).expanduser()
            if key != "folder" and not found[key].is_file():
                raise ConfigError(f"{key} is {found[key]}, which is not a file; check the path")
            if key in _SECRETS:
                _check_private(found[key])
    if isinstance(found.get("weights"), str):
        found["weights"] = _weights(found["weights"], base)
    return found


def _weights(name: str, base: Path) -> str:
    from restore_rwkv.model import find_weights

    if (base / name).is_file():
        return str(base / name)
    try:
        find_weights(name)
    except WeightsError as error:
        raise ConfigError(f"weights: {error}") from error
    return name


def _check_private(path: Path) -> None:
    """Raise ConfigError where everyone on this machine may read a file."""
    if os.name == "posix" and path.exists() and path.stat().st_mode & 0o004:
        raise ConfigError(f"{path}: everyone may read it; run chmod o-r on it")


@contextmanager
def _within(place: str) -> Iterator[None]:
    """Begin the messages of mistakes with their place in the file."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{place}: {str(error).removeprefix('node: ')}") from error
