"""The connection to a Ray cluster, or one that is started on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_rwkv.errors import ConfigError

_SECONDS_TO_ANSWER = 5.0
_OBJECT_STORE = 100 << 20  # bytes, of a cluster that is started here; nothing large goes through it


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where workers run, and what each of them takes.

    Attributes:
        address: of the cluster, such as "10.0.0.1:6379" or "auto"; None for that of `RAY_ADDRESS`,
            and where that is not set for one that is started on this machine.
        workers: number of workers; 0 for as many as the cluster has room for, also on nodes that
            join later.
        cpus: cores, and threads of the network, of each.
        gpus: GPUs of each; 0 for one where the device of the settings is a GPU.
        memory: bytes that each may take, and that Ray sets aside for it; None for no bound.
        output: folder of the outputs, which every node has to see; None where they go to a store.
    """

    address: str | None = None
    workers: int = 0
    cpus: int = 1
    gpus: float = 0
    memory: int | None = None
    output: Path | None = None

    def __post_init__(self) -> None:
        if self.workers < 0 or self.cpus < 1 or self.gpus < 0:
            raise ConfigError(
                f"{self.workers} workers of {self.cpus} CPUs and {self.gpus:g} GPUs are not "
                "possible; give at least 1 CPU"
            )


class Cluster:
    """A connection of this process to a cluster, see `RayEngine`; one that exists already is used.

    Attributes:
        ray: the module.

    Args:
        address: as in `RayOptions`.

    Raises:
        ConfigError: Ray is not installed, or the cluster is not reached.
    """

    def __init__(self, address: str | None) -> None:
        self.ray = _imported()
        self._files: Path | None = None  # of Ray, where it is started here
        self._ours = not self.ray.is_initialized()
        if not self._ours:
            return
        address = address or os.environ.get("RAY_ADDRESS")
        where: dict[str, Any] = {"address": address}
        if address is not None:
            _require_listener(address)
        else:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            # Its sockets do not bear a long path.
            short = "/tmp" if os.path.isdir("/tmp") else None
            self._files = Path(tempfile.mkdtemp(prefix="restore-rwkv-ray-", dir=short))
            where = {
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": str(self._files),
            }
        _show_messages(False)
        try:
            self.ray.init(**where, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # Ray raises all sorts of errors
            self.disconnect()
            raise ConfigError(
                f"{address or 'cluster'}: no Ray cluster is reached there ({in_words(error)}); "
                "check the address, RAY_AUTH_TOKEN, and that both have the same versions of Ray "
                "and Python"
            ) from error

    def disconnect(self) -> None:
        """End the connection, and a cluster that was started for it, unless it was here before."""
        if not self._ours:
            return
        self.ray.shutdown()
        _show_messages(True)
        if self._files is not None:
            shutil.rmtree(self._files, ignore_errors=True)


def _require_listener(address: str) -> None:
    """Check that something listens at an address, as Ray waits for minutes where nothing does."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():  # "auto", "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"address {address}: nothing answers there ({reason}); give HOST:PORT of the head node "
            "of a Ray cluster that runs"
        ) from error


def marked(output: Path | None) -> Path | None:
    """Write a file into the folder of the outputs that every node has to see."""
    if output is None:
        return None
    output.mkdir(parents=True, exist_ok=True)
    mark = output.absolute() / f".restore-rwkv-{secrets.token_hex(8)}.mark"
    mark.touch()
    return mark


def in_words(error: Exception) -> str:
    """Return the name of an error and the first sentence of what it says, on one line."""
    text = " ".join(str(error).split())
    first = text.split(". ")[0]
    return f"{type(error).__name__}: {first[:200]}" if first else type(error).__name__


def _imported() -> Any:
    """Return Ray; raises ConfigError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "ray is missing, which runs workers on a cluster; pip install 'restore-rwkv[ray]'"
        ) from error
    return ray


def _show_messages(shown: bool) -> None:
    """Have Ray print what happens to its nodes on the standard output, or not."""
    from ray._private import worker  # no public setting reaches these

    if hasattr(worker, "_worker_logs_enabled"):
        worker._worker_logs_enabled = shown
