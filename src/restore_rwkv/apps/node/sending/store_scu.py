"""Sending by C-STORE: one association for the files of a series (PS3.4 B, PS3.7 9.1.1)."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_rwkv.apps.node.certificates import client_context
from restore_rwkv.apps.node.config import Destination, NodeConfig
from restore_rwkv.apps.node.negotiation import (
    EXPLICIT,
    IMPLEMENTATION_UID,
    IMPLEMENTATION_VERSION,
    IMPLICIT,
    MAXIMUM_CONTEXTS,
)
from restore_rwkv.apps.node.outgoing import (
    DUPLICATE,
    Outgoing,
    SendError,
    is_transient,
    read_outgoing,
)
from restore_rwkv.apps.node.tcp import confirm_at_once
from restore_rwkv.errors import ConfigError

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.presentation import PresentationContext

_LOG = logging.getLogger(__name__)

_WARNINGS = {0xB000, 0xB006, 0xB007}
_REJECTED_TRANSIENT, _BY_PRESENTATION = 2, 3  # result and source of A-ASSOCIATE-RJ, PS3.8 9.3.4


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long a peer is waited for, in seconds.

    Attributes:
        connect: until the connection is open, with TLS.
        association: until it answers to the request or the end of an association.
        silence: until it takes the next bytes.
        response: until it answers to a C-STORE; the time to send the file at `pace` is added.
        pace: lowest rate of a file, bytes a second.
    """

    connect: float = 10.0
    association: float = 30.0
    silence: float = 60.0
    response: float = 120.0
    pace: float = 20_000.0


class StoreUser:
    """Sends files by C-STORE.

    Args:
        destination: of kind "dimse".
        config: of the node, whose AE title calls and whose certificates are shown.
        timeouts: how long to wait for the peer.
    """

    def __init__(
        self, destination: Destination, config: NodeConfig, timeouts: Timeouts = Timeouts()
    ) -> None:
        self._destination = destination
        self._config = config
        self._timeouts = timeouts

    def send(self, files: Sequence[Path]) -> Iterator[Path]:
        """Send files in one association, and yield each once the peer has accepted it.

        Raises:
            SendError: a file was not accepted, or there is no association.
        """
        outgoing = read_outgoing(files)
        if not outgoing:
            return
        association = self._associate(outgoing)
        try:
            self._check_contexts(association, outgoing)
            for number, file in enumerate(outgoing):
                self._store(association, file, number % 0xFFFF + 1)
                yield file.path
        finally:
            if association.is_established and association.dul.is_alive():
                association.release()

    def _associate(self, files: Sequence[Outgoing]) -> Association:
        """Return an established association."""
        from pydicom.uid import UID
        from pynetdicom import AE, evt

        contexts = self._contexts(files)
        timeouts = self._timeouts
        entity = AE(self._config.ae_title)
        entity.implementation_class_uid = UID(IMPLEMENTATION_UID)
        entity.implementation_version_name = IMPLEMENTATION_VERSION
        entity.connection_timeout = timeouts.connect
        entity.acse_timeout = timeouts.association
        entity.network_timeout = timeouts.response
        opened: list[Any] = []
        try:
            tls = self._tls()
            association = entity.associate(
                self._destination.host,
                self._destination.port or 0,
                contexts,
                self._destination.ae_title or "",
                tls_args=(tls, self._destination.host) if tls else None,
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, opened.append),
                    (evt.EVT_CONN_OPEN, _prepare, [timeouts.silence]),
                    (evt.EVT_DATA_SENT, _confirm_at_once),
                ],
            )
        except ConfigError as error:  # a file is being replaced, perhaps
            raise self._error(str(error), transient=True) from error
        except OSError as error:  # the host's name, or a certificate
            raise self._error(_why(error), transient=True) from error
        if not association.is_established:
            raise self._no_association(association, bool(opened), tls)
        _leave_answers(association)
        threading.Thread(target=_tell_of_end, args=(association,), daemon=True).start()
        return association

    def _contexts(self, files: Sequence[Outgoing]) -> list[PresentationContext]:
        """Return a presentation context for each way to send each kind of object."""
        from pynetdicom import build_context

        offered: dict[tuple[str, str], None] = {}  # a set that keeps its order
        for file in files:
            for syntax in _syntaxes(file.transfer_syntax):
                offered[file.sop_class_uid, syntax] = None
        if len(offered) > MAXIMUM_CONTEXTS:
            raise self._error(
                f"the files are of {len(offered)} kinds, and an association has room for "
                f"{MAXIMUM_CONTEXTS}; send fewer at a time",
                transient=False,
            )
        return [build_context(*pair) for pair in offered]

    def _tls(self) -> ssl.SSLContext | None:
        tls = self._config.tls
        if not self._destination.tls or tls is None:
            return None
        return client_context(tls)

    def _no_association(
        self, association: Association, opened: bool, tls: ssl.SSLContext | None
    ) -> SendError:
        """Return the error of an association that was not established."""
        answer = association.acceptor.primitive
        if association.is_rejected and answer is not None:
            busy = answer.result_source == _BY_PRESENTATION
            return self._error(
                f"rejects the association ({answer.reason_str}); "
                f"allow the AE title {self._config.ae_title} there, and check ae_title",
                transient=answer.result == _REJECTED_TRANSIENT or busy,
            )
        if not opened:
            return self._error(self._why_closed(tls), transient=True)
        if association.rejected_contexts and not association.accepted_contexts:
            return self._error(
                "supports none of the SOP classes of the files; send them elsewhere",
                transient=False,
            )
        return self._error("ends the association, or does not answer; see its log", transient=True)

    def _why_closed(self, tls: ssl.SSLContext | None) -> str:
        """Connect once more, since pynetdicom does not say why it could not."""
        place = (self._destination.host, self._destination.port or 0)
        try:
            with socket.create_connection(place, self._timeouts.connect) as plain:
                if tls:
                    tls.wrap_socket(plain, server_hostname=place[0]).close()
        except OSError as error:
            return _why(error)
        return "cannot be reached; see whether it runs"

    def _check_contexts(self, association: Association, files: Sequence[Outgoing]) -> None:
        """Refuse to begin with files of which the peer does not take all."""
        accepted = [
            (str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in association.accepted_contexts
        ]
        classes = {sop_class for sop_class, _ in accepted}
        for file in files:
            if file.sop_class_uid not in classes:
                raise self._error(
                    f"does not support the SOP class {file.sop_class_uid}; send it elsewhere",
                    transient=False,
                )
            syntaxes = _syntaxes(file.transfer_syntax)
            if not any((file.sop_class_uid, syntax) in accepted for syntax in syntaxes):
                raise self._error(
                    f"does not take the transfer syntax {file.transfer_syntax}; send it elsewhere",
                    transient=False,
                )

    def _store(self, association: Association, file: Outgoing, number: int) -> None:
        """Send one file; return once it was accepted."""
        from pydicom import dcmread
        from pynetdicom import _config

        same = any(
            (context.abstract_syntax, context.transfer_syntax[0])
            == (file.sop_class_uid, file.transfer_syntax)
            for context in association.accepted_contexts
        )
        # A file is sent as its bytes are, and only parsed to be written as implicit VR.
        _config.STORE_SEND_CHUNKED_DATASET = True
        association.dimse_timeout = self._timeouts.response + file.size / self._timeouts.pace
        try:
            answer = association.send_c_store(file.path if same else dcmread(file.path), number)
        except RuntimeError as error:  # there is no association any more
            raise self._error("has ended the association; see its log", transient=True) from error
        except OSError as error:
            raise self._error(
                f"a file cannot be read ({error.strerror}); see the disk", transient=True
            ) from error
        except (ValueError, AttributeError) as error:
            raise self._error(
                "a file cannot be encoded to be sent; restore the series again", transient=False
            ) from error
        status = answer.get("Status")
        if status is None:
            raise self._error(
                "ends the association, or does not answer; see its log", transient=True
            )
        self._check_status(status)

    def _check_status(self, status: int) -> None:
        """Raise SendError unless a status of C-STORE says that the peer has the file."""
        name = self._destination.name
        if status == 0:
            return
        if status in _WARNINGS:
            _LOG.warning("%s: accepts a file with warning 0x%04X", name, status)
        elif status == DUPLICATE:
            _LOG.info("%s: has a file already (0x0111)", name)
        else:
            raise self._error(
                f"refuses a file with status 0x{status:04X}; see its log",
                transient=is_transient(status),
            )

    def _error(self, words: str, *, transient: bool) -> SendError:
        return SendError(f"{self._destination.name}: {words}", transient=transient)


def _syntaxes(own: str) -> tuple[str, ...]:
    """Return the transfer syntaxes in which a file can be sent, its own first."""
    if own in (EXPLICIT, IMPLICIT):
        return (own, IMPLICIT if own == EXPLICIT else EXPLICIT)
    return (own,)


def _prepare(event: Event, seconds: float) -> None:
    """Set up the socket of a new connection.

    pynetdicom would wait for ever for a peer that takes nothing more. And it sends a command and
    its data set one after the other, which TCP by default delays by 40 ms for each instance.
    """
    wrapper = event.assoc.dul.socket
    if wrapper is not None and wrapper.socket is not None:
        wrapper.socket.settimeout(seconds)
        wrapper.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _confirm_at_once(event: Event) -> None:
    wrapper = event.assoc.dul.socket
    if wrapper is not None and wrapper.socket is not None:
        confirm_at_once(wrapper.socket)


def _leave_answers(association: Association) -> None:
    """Have pynetdicom's own thread take no messages: those that come are answers to C-STORE.

    It is paused while `send_c_store` waits for one, but on a busy machine it may go on once more
    after that, and then takes the answer: the sender would wait until a timeout.
    """
    take = association.dimse.get_msg

    def get_msg(block: bool = False) -> tuple[int | None, Any]:
        return take(block) if block else (None, None)  # only that thread does not wait

    association.dimse.get_msg = get_msg


def _tell_of_end(association: Association) -> None:
    """Wake the thread that waits for an answer when the connection has ended.

    pynetdicom says so only where it ends within a message: `send_c_store` would else wait for its
    whole timeout.
    """
    association.dul.join()
    association.dimse.msg_queue.put((None, None))


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({error.verify_message}); check authorities and host"
    if isinstance(error, ssl.SSLError):
        return "no connection by TLS; check the certificates of both sides"
    if isinstance(error, socket.gaierror):
        return "its host name is not known; check host"
    return f"cannot be reached ({error.strerror or error}); see whether it runs"
