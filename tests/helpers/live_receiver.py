"""A receiver on loopback for tests, and senders to it."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from restore_rwkv.apps.node.config import TLS, Limits, NodeConfig, Peer
from restore_rwkv.apps.node.receiving.receiver import Receiver
from restore_rwkv.apps.node.rules import Rule
from restore_rwkv.apps.node.spooling.spool import Instance, Spool

NODE, SCANNER = "NODE", "SCANNER"
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
LIMITS = Limits()
ANYONE = (Peer(name="scanner", ae_title=SCANNER),)


class CountedMetrics:
    """Metrics that a test can look at."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self._lock = threading.Lock()

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self.counts[(name, *labels.values())] += amount  # type: ignore[assignment]


@dataclass
class LiveReceiver:
    """A receiver that listens.

    Attributes:
        receiver: It.
        port: Where.
        folder: Of its spool.
        spool: Where it stores.
        metrics: What it counted.
        accepted: What it accepted.
        refuse: Called with each instance before it is accepted; may raise.
    """

    receiver: Receiver
    port: int
    folder: Path
    spool: Spool
    metrics: CountedMetrics
    accepted: list[Instance] = field(default_factory=list)
    refuse: Callable[[Instance], None] = lambda instance: None

    def files(self) -> list[Path]:
        """All files of the spool, complete or not."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    @contextmanager
    def associated(
        self,
        contexts: Sequence[PresentationContext] | None = None,
        *,
        called: str = NODE,
        calling: str = SCANNER,
        **arguments: Any,
    ) -> Iterator[Association]:
        """An association with the receiver, established or not; it is released at the end."""
        entity = AE(calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        proposed = list(contexts or [build_context(CT, EXPLICIT)])
        association = entity.associate(
            "127.0.0.1", self.port, contexts=proposed, ae_title=called, **arguments
        )
        try:
            yield association
        finally:
            if association.is_established:
                association.release()
            if association.ident is not None:
                association.join(5)


@contextmanager
def listening(
    folder: Path,
    *,
    peers: tuple[Peer, ...] = ANYONE,
    limits: Limits = LIMITS,
    tls: TLS | None = None,
    quota: int = 1 << 30,
) -> Iterator[LiveReceiver]:
    """A receiver with a spool in a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = NodeConfig(
        folder=folder,
        ae_title=NODE,
        port=port,
        peers=peers,
        limits=limits,
        tls=tls,
        rules=(Rule(name="none", action="ignore"),),
    )
    spool = Spool(
        folder / "spool",
        quota,
        reserve=0,
        series_instances=limits.series_instances,
        series_bytes=limits.series_bytes,
    )
    metrics = CountedMetrics()

    def accept(instance: Instance) -> None:
        live.refuse(instance)
        live.accepted.append(instance)

    receiver = Receiver(config, accept, spool, metrics)  # type: ignore[arg-type]
    live = LiveReceiver(receiver, port, folder / "spool", spool, metrics)
    receiver.start()
    try:
        yield live
    finally:
        receiver.stop()


def contexts_of(images: Sequence[Dataset]) -> list[PresentationContext]:
    """One presentation context for each kind of image."""
    kinds = dict.fromkeys(
        (str(image.SOPClassUID), str(image.file_meta.TransferSyntaxUID)) for image in images
    )
    return [build_context(UID(kind), UID(syntax)) for kind, syntax in kinds]


def open_files() -> int:
    """Number of file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
