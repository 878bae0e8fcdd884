"""Receives DICOM instances: the node as SCP of verification and storage."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from restore_rwkv.apps.node import negotiation
from restore_rwkv.apps.node.certificates import server_context
from restore_rwkv.apps.node.names import short_hash
from restore_rwkv.apps.node.negotiation import Rejection, Status
from restore_rwkv.apps.node.spooling.part10 import MismatchError, head_of, with_origin
from restore_rwkv.apps.node.spooling.spool import (
    Arriving,
    ConflictError,
    Instance,
    SeriesTooLargeError,
    Spool,
)
from restore_rwkv.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from restore_rwkv.apps.node.config import NodeConfig
    from restore_rwkv.apps.node.metrics import Metrics
    from restore_rwkv.apps.node.receiving.connections import Server

_log = logging.getLogger(__name__)

ACSE_SECONDS = 20.0
"""Longest time from the connection to the request for an association, and until its end."""

PDU_SECONDS = 30.0
"""Longest time from the first byte of a PDU to its last, and of a TLS handshake."""

SILENCE_SECONDS = 60.0
"""Longest time without a PDU, or until the peer takes what is sent to it."""

_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.1
_BURST_SECONDS = 1.0


class Receiver:
    """The node's side of C-ECHO and C-STORE.

    Args:
        config: Of the node: AE title, address, peers, TLS and limits.
        accept: Registers an instance that is in the spool. Only when it returns, the sender is told
            that the instance is stored; it may be given the same instance again.
        spool: Where instances are stored.
        metrics: Counts what comes and what is refused.
    """

    def __init__(
        self,
        config: NodeConfig,
        accept: Callable[[Instance], None],
        spool: Spool,
        metrics: Metrics,
    ) -> None:
        self._config, self._accept = config, accept
        self._spool, self._metrics = spool, metrics
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        rate = config.limits.instances_per_second
        self._paces = {peer.name: Pace(rate, self._stopping) for peer in config.peers}

    def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The certificates cannot be used.
            OSError: The address cannot be listened at, such as when its port is taken.
        """
        from pynetdicom import AE, evt

        from restore_rwkv.apps.node.receiving.connections import Bounds, Server

        _silence_libraries()
        config = self._config
        entity = AE(config.ae_title)
        entity.maximum_pdu_size = negotiation.MAXIMUM_PDU
        entity.implementation_class_uid = negotiation.IMPLEMENTATION_UID
        entity.implementation_version_name = negotiation.IMPLEMENTATION_VERSION
        entity.acse_timeout = ACSE_SECONDS
        entity.maximum_associations = 1 << 20  # the server counts those that are established
        limits = config.limits
        bounds = Bounds(
            associations=limits.associations,
            instance_bytes=limits.instance_bytes,
            pdu_seconds=PDU_SECONDS,
            silence_seconds=SILENCE_SECONDS,
        )
        entity.network_timeout = entity.dimse_timeout = SILENCE_SECONDS
        try:
            self._server = Server(
                bounds,
                self._begin,
                *(entity, (config.host, config.port), config.ae_title),
                negotiation.received_contexts(),
                ssl_context=server_context(config.tls) if config.tls else None,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._admit),
                    (evt.EVT_C_ECHO, self._echo),
                    (evt.EVT_C_STORE, self._store),
                ],
            )
        except OSError as error:
            where = f"{config.host} port {config.port}"
            raise OSError(error.errno, error.strerror, where) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="receiver", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Listen no more, and end all associations; instances without an answer are not stored."""
        self._stopping.set()
        if self._server is not None and self._thread is not None:
            self._server.close_all(_STOP_SECONDS)
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it listens."""
        return self._thread is not None and self._thread.is_alive()

    def _admit(self, event: Event) -> None:
        """Accept or reject a request for an association."""
        association = event.assoc
        request = association.requestor.primitive
        address = str(association.requestor.address_info.address)
        caller = str(request.calling_ae_title or "").strip()
        peer = next((p for p in self._config.peers if p.allows(caller, address)), None)
        assert self._server is not None
        rejection: Rejection | None = None
        if str(request.application_context_name) != negotiation.APPLICATION_CONTEXT:
            rejection = negotiation.WRONG_CONTEXT
        elif peer is None:
            rejection = negotiation.UNKNOWN_CALLER
        elif str(request.called_ae_title or "").strip() != self._config.ae_title:
            rejection = negotiation.WRONG_CALLED
        elif not self._server.admit(association, peer.name):
            rejection = negotiation.TOO_MANY
        if rejection is None:
            return
        self._metrics.count("refused_associations_total", reason=rejection.reason)
        who = peer.name if peer is not None else address
        _log.warning("an association was refused: %s (%s)", rejection.when, who)
        association.acse.send_reject(rejection.result, rejection.source, rejection.number)
        association.kill()

    def _begin(
        self, association: Association, sop_class: str, instance: str, syntax: str
    ) -> Arriving:
        """Open the file of an instance that comes."""
        sender = str(association.requestor.ae_title).strip()
        title = self._config.ae_title
        head = head_of(sop_class, instance, syntax, sender=sender, receiver=title)
        return self._spool.begin(with_origin(head, f"dimse:{sender}"))

    def _echo(self, event: Event) -> int:
        return negotiation.STORED.code

    def _store(self, event: Event) -> Dataset:
        """Answer a C-STORE."""
        assert self._server is not None
        peer = self._server.peer_of(event.assoc)
        self._paces[peer].wait()
        uid = str(event.request.AffectedSOPInstanceUID)
        try:
            status, problem = self._take(event), ""
        except Exception as error:
            status, problem = _status_of(error), type(error).__name__
        if status is not negotiation.STORED:
            self._metrics.count("refused_instances_total", reason=status.reason)
            _log.warning(
                "%s: instance %s refused: %s (%s)", peer, short_hash(uid), problem, status.when
            )
        return _answer(status)

    def _take(self, event: Event) -> Status:
        """Store and register an instance."""
        origin = f"dimse:{str(event.assoc.requestor.ae_title).strip()}"
        instance, new = event.request.DataSet.store(origin)
        try:
            self._accept(instance)
        except BaseException as error:
            if new:
                self._spool.discard(instance)
            if isinstance(error, InputError):
                raise ConflictError("instance: another one of its UID was registered") from error
            raise
        if not new:
            self._metrics.count("repeated_instances_total", origin=origin)
        self._metrics.count("received_bytes_total", instance.size, origin=origin)
        return negotiation.STORED


class Pace:
    """Slows a peer down to a rate, over all its associations, by answering later.

    A sender waits for the answer before it sends the next instance, so nothing has to be refused.

    Args:
        rate: Instances a second.
        stopping: Ends all waiting once it is set.
    """

    def __init__(self, rate: float, stopping: threading.Event) -> None:
        self._rate, self._stopping = rate, stopping
        self._lock = threading.Lock()
        self._due = 0.0

    def wait(self) -> None:
        """Wait until the next instance may be answered; what came below the rate is made up for."""
        now = time.monotonic()
        with self._lock:
            self._due = max(self._due, now - _BURST_SECONDS) + 1 / self._rate
            delay = self._due - now
        if delay > 0:
            self._stopping.wait(delay)


def _status_of(error: Exception) -> Status:
    from restore_rwkv.apps.node.receiving.messages import InstanceTooLargeError

    if isinstance(error, (InstanceTooLargeError, SeriesTooLargeError)):
        return negotiation.TOO_LARGE
    if isinstance(error, MismatchError):
        return negotiation.MISMATCH
    if isinstance(error, ConflictError):
        return negotiation.DUPLICATE
    if isinstance(error, InputError):
        return negotiation.NOT_UNDERSTOOD
    return negotiation.OUT_OF_RESOURCES


def _answer(status: Status) -> Dataset:
    from pydicom.dataset import Dataset

    answer = Dataset()
    answer.Status = status.code
    if status is not negotiation.STORED:
        answer.ErrorComment = status.when[:64]
    return answer


def _silence_libraries() -> None:
    """Have pynetdicom and pydicom log and warn of nothing, since they quote what was sent."""
    import warnings

    from pynetdicom import _config

    _config.LOG_HANDLER_LEVEL = "none"
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="pydicom")
    warnings.filterwarnings("ignore", module="pynetdicom")
