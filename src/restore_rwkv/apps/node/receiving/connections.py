"""Connections of DICOM peers, with bounds on what a peer can make the node hold or wait for.

pynetdicom waits for the rest of a PDU for ever, ends a thread with a traceback where a PDU makes no
sense, and does the handshake of TLS while nobody else can connect. Here every wait has an end, and
a silent connection gives way to a new one.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pynetdicom.association import Association
from pynetdicom.fsm import StateMachine
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from restore_rwkv.apps.node.negotiation import MAXIMUM_PDU
from restore_rwkv.apps.node.receiving.messages import Begin, Messages
from restore_rwkv.apps.node.tcp import confirm_at_once

_log = logging.getLogger(__name__)

# A-ABORT (PS3.8 9.3.8) by the service provider, for an invalid value of a PDU parameter.
_ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x06"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What peers may cost.

    Attributes:
        associations: Most associations at a time.
        instance_bytes: Largest data set.
        pdu_seconds: Longest time from the first byte of a PDU to its last, and of a TLS handshake.
        silence_seconds: Longest time without a PDU, or until the peer takes what is sent to it.
        silent: Most further connections, which have not been given an association yet.
    """

    associations: int
    instance_bytes: int
    pdu_seconds: float
    silence_seconds: float
    silent: int = 32


class _Socket(AssociationSocket):  # type: ignore[misc]
    """The socket of an association, whose reads and writes end in time.

    Args:
        inner: What it takes the place of.
        bounds: For how long to wait.
    """

    def __init__(self, inner: AssociationSocket, bounds: Bounds) -> None:
        self.__dict__.update(vars(inner))
        self._bounds, self._refused = bounds, False
        self.socket.settimeout(bounds.silence_seconds)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, or fewer at the end of the connection.

        Raises:
            OSError: A PDU would be too long, or does not come in time.
        """
        connection = self.socket
        if self._refused:  # what has come in the meantime is not looked at
            return bytearray()
        if nr_bytes > MAXIMUM_PDU:
            self.refuse()
            raise OSError("a PDU longer than was agreed on")
        until = time.monotonic() + self._bounds.pdu_seconds
        data = bytearray()
        try:
            while len(data) < nr_bytes:
                connection.settimeout(max(0.001, until - time.monotonic()))
                confirm_at_once(connection)
                block = connection.recv(nr_bytes - len(data))
                if not block:
                    break
                data += block
            connection.settimeout(self._bounds.silence_seconds)
        except TimeoutError:
            self.refuse()
            raise
        return data

    def refuse(self) -> None:
        """Send A-ABORT and end the connection."""
        self._refused = True
        if self.socket is not None:
            with suppress(OSError):
                self.socket.settimeout(1.0)
                self.socket.sendall(_ABORT)
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


class _Machine(StateMachine):  # type: ignore[misc]
    """The state machine of an association, which ends its threads with its connection."""

    def do_action(self, event: str) -> None:
        """Do what an event asks for."""
        try:
            super().do_action(event)
            if self.current_state == "Sta1" and self.dul.assoc.requestor.primitive is None:
                _wake(self.dul.assoc)  # the connection was closed before a request
        except Exception as error:  # PDUs without sense make pynetdicom raise errors of many kinds
            _log.warning("a connection was ended: PDU not valid (%s)", type(error).__name__)
            self.dul.socket.refuse()
            self.dul.kill_dul()
            _wake(self.dul.assoc)


@dataclass(eq=False)
class _Connection:
    """A connection; `association` is None until it is made, after the handshake of TLS."""

    socket: socket.socket
    association: Association | None = None
    peer: str | None = None  # name of the peer, once its association is admitted


class Server(ThreadedAssociationServer):  # type: ignore[misc]
    """Listens for peers, with bounds on how many there are and how long each takes.

    Args:
        bounds: What peers may cost.
        begin: Opens the file of an instance that comes.
        arguments: Those of pynetdicom's server.
        named: Likewise.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, bounds: Bounds, begin: Begin, *arguments: Any, **named: Any) -> None:
        self.bounds, self.begin = bounds, begin
        self._connections: list[_Connection] = []
        self._table = threading.Lock()
        self._tls = named.pop("ssl_context", None)
        super().__init__(*arguments, request_handler=_Handler, **named)

    def admit(self, association: Association, peer: str) -> bool:
        """Note the peer that asks for an association; return whether there may be one more."""
        with self._table:
            for connection in self._connections:
                if connection.association is association:
                    active = sum(c.peer is not None for c in self._connections if _alive(c))
                    if active < self.bounds.associations:
                        connection.peer = peer
                        return True
        return False

    def peer_of(self, association: Association) -> str:
        """Name of the peer of an association that was admitted."""
        with self._table:
            return next(
                c.peer
                for c in self._connections
                if c.association is association and c.peer is not None
            )

    def close_all(self, seconds: float) -> None:
        """Listen no more, abort all associations, and wait for their ends."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
        with self._table:
            connections = list(self._connections)
        for connection in connections:
            _end(connection)
        until = time.monotonic() + seconds
        for connection in connections:
            if connection.association is not None:
                connection.association.join(max(0.01, until - time.monotonic()))
        self._prune()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; the handshake of TLS follows in a thread of its own."""
        try:
            connection, address = self.socket.accept()
        except OSError:
            time.sleep(0.05)  # out of file descriptors: the loop would turn as fast as it can
            raise
        connection.settimeout(self.bounds.pdu_seconds)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Note a connection; where too many have no association, the oldest of them gives way."""
        self._prune()
        with self._table:
            silent = [c for c in self._connections if c.peer is None]
            for connection in silent[: max(0, len(silent) + 1 - self.bounds.silent)]:
                _end(connection)
                self._connections.remove(connection)
            self._connections.append(_Connection(request))
        return True

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Do the handshake of TLS, and begin an association."""
        if self._tls is not None:
            with self._table:  # wrapping leaves the plain socket without its descriptor
                noted = next((c for c in self._connections if c.socket is request), None)
                request = self._tls.wrap_socket(
                    request, server_side=True, do_handshake_on_connect=False
                )
                if noted is not None:
                    noted.socket = request
            try:
                request.do_handshake()
            except OSError:
                self.shutdown_request(request)
                raise
        super().finish_request(request, client_address)

    def opened(self, association: Association, request: socket.socket) -> None:
        """Note the association of a connection."""
        with self._table:
            for connection in self._connections:
                if connection.socket is request:
                    connection.association = association
                    return
        _end(_Connection(request, association))  # it has given way already

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line that a connection failed."""
        import sys

        kind = type(sys.exc_info()[1]).__name__
        _log.info("a connection from %s failed (%s)", client_address[0], kind)

    def service_actions(self) -> None:
        """Forget connections that have ended; called several times a second."""
        self._prune()

    def _prune(self) -> None:
        with self._table:
            ended = [c for c in self._connections if not _alive(c)]
            self._connections = [c for c in self._connections if _alive(c)]
        for connection in ended:
            association = connection.association
            if association is not None:
                association.dul.kill_dul()
                association.dimse.discard()
            with suppress(OSError):
                connection.socket.close()


class _Handler(RequestHandler):  # type: ignore[misc]
    """Makes the association of a connection."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        server = self.server
        inner = association.dul.socket
        association.dul.socket = _Socket(inner, server.bounds)
        association.dul.state_machine = _Machine(association.dul)
        association.dimse = Messages(association, server.begin, server.bounds.instance_bytes)
        for thread in (association, association.dul):
            _contain(thread)
        server.opened(association, self.request)
        return association


def _alive(connection: _Connection) -> bool:
    """Whether a connection has not ended."""
    association = connection.association
    if association is None or association.ident is None:
        return connection.socket.fileno() >= 0
    return bool(association.is_alive())


def _end(connection: _Connection) -> None:
    """End a connection, and the threads that serve it."""
    with suppress(OSError):
        if connection.peer is not None:
            connection.socket.settimeout(1.0)
            connection.socket.sendall(_ABORT)
    with suppress(OSError, ssl.SSLError):
        connection.socket.shutdown(socket.SHUT_RDWR)
    if connection.association is not None and connection.peer is None:
        _wake(connection.association)


def _wake(association: Association) -> None:
    """Have the thread of an association not wait for a request any more."""
    association.dul.to_user_queue.put(None)


def _contain(thread: threading.Thread) -> None:
    """Have a thread end with a line in the log, and not with a traceback that may quote data."""
    run = thread.run

    def contained() -> None:
        try:
            run()
        except Exception as error:
            _log.error("the thread of a connection failed (%s)", type(error).__name__)

    thread.run = contained  # type: ignore[method-assign]
