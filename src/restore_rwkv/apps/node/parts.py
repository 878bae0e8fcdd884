"""What a service is made of, which tests replace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from restore_rwkv.apps.node.config import Archive, NodeConfig
from restore_rwkv.apps.node.metrics import Metrics
from restore_rwkv.apps.node.restoring.workers import EngineOf
from restore_rwkv.apps.node.sending.delivering import SenderOf

if TYPE_CHECKING:
    from restore_rwkv.apps.node.spooling.spool import Instance, Spool


class Source(Protocol):
    """What instances come from: the receiver, or the watcher of an archive."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End within seconds; what is being taken then is safe, or not confirmed."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""


Accept = Callable[["Instance"], None]
ReceiverOf = Callable[[NodeConfig, Accept, "Spool", Metrics], Source]
WatcherOf = Callable[[Archive, NodeConfig, "Spool", Accept, Metrics], Source]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a service is made of; None for the node's own.

    Attributes:
        receiver_of: makes the receiver.
        watcher_of: makes the watcher of an archive.
        engine_of: starts workers.
        sender_of: makes the sender to a destination.
        clock: seconds since 1970, which may be set.
    """

    receiver_of: ReceiverOf | None = None
    watcher_of: WatcherOf | None = None
    engine_of: EngineOf | None = None
    sender_of: SenderOf | None = None
    clock: Callable[[], float] = time.time
