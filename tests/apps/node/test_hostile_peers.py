"""Peers that send nonsense, nothing, too much or too slowly do no harm to the receiver."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import build_context

from restore_rwkv.apps.node import negotiation
from restore_rwkv.apps.node.config import TLS, Limits
from restore_rwkv.apps.node.receiving import receiver as receiver_module
from tests.helpers.certificates import make_certificates
from tests.helpers.derivable_series import classic, save
from tests.helpers.live_receiver import CT, LiveReceiver, listening, open_files
from tests.helpers.tools import needs

pytestmark = pytest.mark.slow  # beside servers and peers, which takes time

ABORT, REJECT, ACCEPT, RELEASED = b"\x07", b"\x03", b"\x02", b"\x06"
VERSION, CONTEXT = 6, 74 + 4  # bytes of the request: protocol version, application context name


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveReceiver]:
    """A receiver with short waits, which has to be as before after each test."""
    for name in ("ACSE_SECONDS", "PDU_SECONDS", "SILENCE_SECONDS"):
        monkeypatch.setattr(receiver_module, name, 0.7)
    threads = set(threading.enumerate())
    with listening(tmp_path / "node", limits=Limits(instance_bytes=1 << 20)) as receiver:
        files, idle = open_files(), set(threading.enumerate())
        yield receiver
        until(lambda: not set(threading.enumerate()) - idle, "a thread is left")
        until(lambda: open_files() <= files, "a connection is left open")
        assert receiver.files() == []
        assert receiver.spool.used() == 0
        assert answers(receiver)
    until(lambda: not set(threading.enumerate()) - threads, "a thread is left at the end")


def until(condition: Callable[[], bool], fault: str, seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, fault
        time.sleep(0.02)


def answers(live: LiveReceiver) -> bool:
    """Whether an honest peer is served."""
    with live.associated([build_context(negotiation.VERIFICATION)]) as association:
        return association.is_established and association.send_c_echo().Status == 0x0000


def connect(live: LiveReceiver) -> socket.socket:
    return socket.create_connection(("127.0.0.1", live.port), timeout=5)


def answer_to(connection: socket.socket, sent: bytes) -> bytes:
    """The first PDU that comes back, b"" if the connection is closed."""
    try:
        connection.sendall(sent)
        head = connection.recv(6, socket.MSG_WAITALL)
        return head + connection.recv(struct.unpack(">L", head[2:])[0], socket.MSG_WAITALL)
    except (ConnectionError, struct.error):
        return b""


def request(live: LiveReceiver) -> bytes:
    """The bytes of a valid A-ASSOCIATE-RQ for verification and CT."""
    sent: list[bytes] = []
    contexts = [build_context(negotiation.VERIFICATION), build_context(CT)]
    handlers = [(evt.EVT_DATA_SENT, lambda event: sent.append(event.data))]
    with live.associated(contexts, evt_handlers=handlers):
        return sent[0]


def p_data(*values: tuple[int, int, bytes]) -> bytes:
    """A P-DATA-TF PDU of values, each with context, message control header and data."""
    items = b"".join(
        struct.pack(">LBB", len(data) + 2, context, control) + data
        for context, control, data in values
    )
    return b"\x04\x00" + struct.pack(">L", len(items)) + items


def command(**elements: object) -> bytes:
    """A command set."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    coded = encode(dataset, True, True)
    assert coded is not None
    return b"\x00\x00\x00\x00\x04\x00\x00\x00" + struct.pack("<L", len(coded)) + coded


STORE = {
    "AffectedSOPClassUID": CT,
    "CommandField": 0x0001,
    "MessageID": 1,
    "Priority": 2,
    "CommandDataSetType": 1,
    "AffectedSOPInstanceUID": "1.2.3",
}


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", id="http"),
        pytest.param(bytes(64), id="zeros"),
        pytest.param(b"\x01\x00\xff\xff\xff\xff" + bytes(70000), id="a PDU of 4 GiB"),
        pytest.param(b"\x01\x00\x00\x02\x00\x01" + bytes(20), id="a PDU above the maximum"),
        pytest.param(b"\x01\x00\x00\x00\x00\x00", id="an empty request"),
        pytest.param(b"\x01\x00\x00\x00\x00\x44" + bytes(68), id="a request of zeros"),
        pytest.param(b"\x01\x00\x00\x00\x00\x44" + b"\xff" * 68, id="a request of ones"),
        pytest.param(p_data((1, 3, b"data")), id="data before an association"),
        pytest.param(b"\x05\x00\x00\x00\x00\x04" + bytes(4), id="a release before one"),
        pytest.param(b"\x07\x00\x00\x00\x00\x04" + bytes(4), id="an abort before one"),
        pytest.param(b"\x02\x00\x00\x00\x00\x44" + bytes(68), id="an acceptance"),
        pytest.param(b"\x03\x00\x00\x00\x00\x04" + bytes(4), id="a rejection"),
        pytest.param(b"\x09\x00\x00\x00\x00\x04" + bytes(4), id="a PDU of no known type"),
    ],
)
def test_nonsense_instead_of_a_request_ends_the_connection(live: LiveReceiver, sent: bytes) -> None:
    with connect(live) as connection:
        answer = answer_to(connection, sent)
        assert answer == b"" or answer[:1] in (ABORT, REJECT)


def test_half_a_pdu_is_waited_for_only_so_long(live: LiveReceiver) -> None:
    whole = request(live)
    for part in (whole[:1], whole[:5], whole[:6], whole[:100]):
        with connect(live) as connection:
            began = time.monotonic()
            assert answer_to(connection, part)[:1] in (b"", ABORT)
            assert time.monotonic() - began < 4


def test_a_pdu_that_drips_is_waited_for_only_so_long(live: LiveReceiver) -> None:
    whole = request(live)
    with connect(live) as connection:
        began = time.monotonic()
        with suppress(ConnectionError):
            for byte in whole:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
        assert time.monotonic() - began < 4


def test_another_protocol_version_is_rejected(live: LiveReceiver) -> None:
    whole = bytearray(request(live))
    whole[VERSION : VERSION + 2] = b"\x00\x02"
    wrong = negotiation.WRONG_VERSION
    with connect(live) as connection:
        answer = answer_to(connection, bytes(whole))
    assert answer[:1] == REJECT
    assert tuple(answer[7:10]) == (wrong.result, wrong.source, wrong.number)


def test_another_application_context_is_rejected(live: LiveReceiver) -> None:
    whole = request(live)
    name = negotiation.APPLICATION_CONTEXT.encode()
    assert whole[CONTEXT:].startswith(name)
    wrong = negotiation.WRONG_CONTEXT
    with connect(live) as connection:
        answer = answer_to(connection, whole.replace(name, b"1.2.840.10008.3.1.1.9"))
    assert answer[:1] == REJECT
    assert tuple(answer[7:10]) == (wrong.result, wrong.source, wrong.number)


def test_requests_with_random_faults_never_harm_the_receiver(live: LiveReceiver) -> None:
    whole, chance = request(live), random.Random(1)
    for _ in range(80):
        changed = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            changed[chance.randrange(6, len(changed))] = chance.randrange(256)
        with connect(live) as connection:
            answer = answer_to(connection, bytes(changed))
            assert answer == b"" or answer[:1] in (ABORT, REJECT, ACCEPT)


_INVALID = [
    pytest.param(p_data((1, 3, b"")), id="an empty command"),
    pytest.param(b"\x04\x00\x00\x00\x00\x00", id="an empty PDU"),
    pytest.param(b"\x04\x00\x00\x00\x00\x05\x00\x00\x00\x01\x01", id="a value without its header"),
    pytest.param(b"\x04\x00\x00\x00\x00\x0a\xff\xff\xff\xff" + bytes(6), id="a value too long"),
    pytest.param(p_data((1, 3, b"\xff" * 80)), id="a command of ones"),
    pytest.param(p_data((1, 3, command(CommandField=0x0030))), id="a command without its rest"),
    pytest.param(p_data((1, 3, command(MessageID=1))), id="a command without its kind"),
    pytest.param(p_data((1, 3, command(CommandField=0x7777))), id="a command of no known kind"),
    pytest.param(p_data((99, 3, command(**STORE)), (99, 2, b"x")), id="a context not agreed on"),
    pytest.param(p_data((1, 3, command(**STORE)), (1, 2, b"x")), id="a store for verification"),
    pytest.param(
        p_data((3, 3, command(**STORE | {"AffectedSOPClassUID": "1.2.3"})), (3, 2, b"x")),
        id="a store of another class",
    ),
    pytest.param(
        p_data((3, 3, command(**STORE | {"CommandField": 0x0020})), (3, 2, b"x" * 99)),
        id="a query",
    ),
    pytest.param(
        p_data((3, 3, command(**STORE | {"CommandField": 0x0100})), (3, 2, b"x" * 99)),
        id="an event report",
    ),
    pytest.param(
        p_data((3, 3, command(CommandField=0x8001, MessageIDBeingRespondedTo=1, Status=0))),
        id="an answer",
    ),
    pytest.param(p_data((3, 1, b"x" * 60000)) * 2, id="a command that does not end"),
    pytest.param(b"\x04\x00\x7f\xff\xff\xff" + bytes(5000), id="a PDU above the maximum"),
    pytest.param(b"\x01\x00\x00\x00\x00\x44" + bytes(68), id="another request"),
    pytest.param(b"\x02\x00\x00\x00\x00\x44" + bytes(68), id="an acceptance"),
]


@pytest.mark.parametrize("sent", _INVALID)
def test_nonsense_in_an_association_ends_it(live: LiveReceiver, sent: bytes) -> None:
    with connect(live) as connection:
        assert answer_to(connection, request(live))[:1] == ACCEPT
        assert answer_to(connection, sent)[:1] in (b"", ABORT)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(p_data((3, 3, command(**STORE | {"CommandDataSetType": 0x0101}))), id="none"),
        pytest.param(p_data((3, 3, command(**STORE)), (3, 2, b"")), id="an empty one"),
        pytest.param(p_data((3, 3, command(**STORE)), (3, 2, b"\xff" * 999)), id="nonsense"),
    ],
)
def test_a_store_without_a_usable_data_set_is_not_understood(
    live: LiveReceiver, sent: bytes
) -> None:
    with connect(live) as connection:
        assert answer_to(connection, request(live))[:1] == ACCEPT
        answer = decode(BytesIO(answer_to(connection, sent)[12:]), True, True)
        assert answer.Status == negotiation.NOT_UNDERSTOOD.code


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(p_data((3, 3, command(**STORE))), id="a command without its data set"),
        pytest.param(
            p_data((3, 3, command(**STORE)), (3, 0, b"x" * 5000)), id="half of a data set"
        ),
        pytest.param(p_data((3, 3, command(**STORE)))[:20], id="half of a PDU"),
    ],
)
def test_a_peer_that_falls_silent_or_goes_away_holds_nothing(
    live: LiveReceiver, sent: bytes
) -> None:
    with connect(live) as silent, connect(live) as gone:
        for connection in (silent, gone):
            assert answer_to(connection, request(live))[:1] == ACCEPT
            connection.sendall(sent)
        gone.close()
        began = time.monotonic()
        assert silent.recv(100)[:1] in (b"", ABORT)
        assert time.monotonic() - began < 4


def test_messages_with_random_faults_never_harm_the_receiver(
    live: LiveReceiver, tmp_path: Path
) -> None:
    image, chance = classic("CT", 0), random.Random(2)
    save(image, tmp_path / "image.dcm")
    body = encode(dcmread(tmp_path / "image.dcm"), True, True)
    assert body is not None
    whole, associate = p_data((3, 3, command(**STORE)), (3, 2, body)), request(live)
    for _ in range(40):
        changed = bytearray(whole)
        for _ in range(chance.choice((1, 2, 5, 20))):
            changed[chance.randrange(6, len(changed))] = chance.randrange(256)
        with connect(live) as connection:
            assert answer_to(connection, associate)[:1] == ACCEPT
            connection.settimeout(0.2)
            with suppress(TimeoutError):  # a length that was changed has it wait for more
                answer = answer_to(connection, bytes(changed))
                assert answer == b"" or answer[:1] in (ABORT, b"\x04")
    for instance in {instance.series_uid for instance in live.accepted}:
        live.spool.remove(instance)


def test_requests_without_waiting_for_answers_end_the_association(
    live: LiveReceiver, tmp_path: Path
) -> None:
    hold = threading.Event()
    live.refuse = lambda instance: hold.wait(5) and None  # type: ignore[func-returns-value]
    image = classic("CT", 0)
    image.SOPInstanceUID = "1.2.3"
    save(image, tmp_path / "image.dcm")
    body = encode(dcmread(tmp_path / "image.dcm"), True, True)
    assert body is not None
    one = p_data((3, 3, command(**STORE)), (3, 2, body))
    with connect(live) as connection:
        assert answer_to(connection, request(live))[:1] == ACCEPT
        assert answer_to(connection, one * 20)[:1] in (b"", ABORT)
        assert len(live.files()) < 8
    hold.set()
    until(lambda: len(live.files()) == 1, "data sets are left")
    live.spool.remove(str(image.SeriesInstanceUID))


def test_200_silent_connections_do_not_keep_others_out(live: LiveReceiver) -> None:
    threads = threading.active_count()
    connections = [connect(live) for _ in range(200)]
    began = time.monotonic()
    assert answers(live)
    assert time.monotonic() - began < 3
    assert threading.active_count() - threads < 2 * 32 + 20
    for connection in connections:
        connection.close()


def test_silent_connections_are_closed_in_time(live: LiveReceiver) -> None:
    with connect(live) as connection:
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - began < 4


@needs("openssl")
def test_a_handshake_of_tls_that_does_not_begin_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    monkeypatch.setattr(receiver_module, "PDU_SECONDS", 2.0)
    files = make_certificates(tmp_path)
    tls = TLS(certificate=files.certificate, key=files.key, authorities=files.authorities)
    context = ssl.create_default_context(cafile=files.authorities)
    context.load_cert_chain(files.certificate, files.key)
    with listening(tmp_path / "node", tls=tls) as live:
        silent = [connect(live) for _ in range(50)]
        began = time.monotonic()
        with live.associated(tls_args=(context, "localhost")) as association:
            assert association.is_established
        assert time.monotonic() - began < 2
        assert silent[-1].recv(1) == b""  # closed in time
        for connection in silent:
            connection.close()


@pytest.mark.slow
def test_a_data_set_that_is_sent_does_not_lie_in_memory(tmp_path: Path) -> None:
    block = bytes(100_000)
    process = psutil.Process()
    with listening(tmp_path / "node") as live:
        associate = request(live)
        with connect(live) as connection:
            assert answer_to(connection, associate)[:1] == ACCEPT
            connection.sendall(p_data((3, 3, command(**STORE))))
            before = process.memory_info().rss
            for _ in range(2000):
                connection.sendall(p_data((3, 0, block)))
            grown = process.memory_info().rss - before
            assert live.spool.used() > 150_000_000
        until(lambda: live.spool.used() == 0, "the data set is left")
    assert grown < 30_000_000
