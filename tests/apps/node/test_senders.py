"""Files are sent by C-STORE and STOW-RS, and what goes wrong is known as passing or lasting."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, MRImageStorage, RLELossless
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from restore_rwkv.apps.node.config import TLS, Destination, NodeConfig, Peer, Rule
from restore_rwkv.apps.node.dicomweb.multipart import Sizes, boundary_of, parts
from restore_rwkv.apps.node.dicomweb.request import Patience
from restore_rwkv.apps.node.outgoing import SendError
from restore_rwkv.apps.node.sending.senders import WebSender, sender_of
from restore_rwkv.apps.node.sending.store_scu import StoreUser, Timeouts
from tests.helpers.certificates import Certificates, make_certificates
from tests.helpers.derivable_series import write_source
from tests.helpers.orthanc import free_port
from tests.helpers.synthetic_series import make_slice, save
from tests.helpers.tools import needs
from tests.helpers.web_peer import Reply, raw_server, web_server

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
# pynetdicom leaves a socket that could not connect to the garbage collector.
pytestmark = [
    pytest.mark.slow,  # beside servers and peers, which takes its time
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

QUICK = Timeouts(connect=1, association=1, silence=1, response=1, pace=1e6)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    peers, rules = (Peer(name="ct", ae_title="CT"),), (Rule(name="none", action="ignore"),)
    return NodeConfig(folder=tmp_path / "node", ae_title="NODE", peers=peers, rules=rules)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return sorted(write_source(tmp_path / "derived", "CT").iterdir())


def to_port(port: int, **changes: object) -> Destination:
    known = {"ae_title": "PACS", "host": "127.0.0.1", "port": port} | changes
    return Destination(name="pacs", kind="dimse", **known)  # type: ignore[arg-type]


def send_all(sender: StoreUser | WebSender, files: Sequence[Path]) -> tuple[list[Path], SendError]:
    """Return what was accepted before the error, and the error."""
    accepted: list[Path] = []
    with pytest.raises(SendError) as caught:
        accepted.extend(sender.send(files))
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    assert not any(word in message for word in ("Anna", "Sch", "P1", "1.2.826"))
    return accepted, caught.value


@contextmanager
def store_provider(
    answer: Callable[[Event], int | Dataset] = lambda event: 0,
    syntaxes: Sequence[str] = (EXPLICIT,),
    sop_class: str = CTImageStorage,
    context: ssl.SSLContext | None = None,
    called: bool = False,
) -> Iterator[int]:
    entity = AE("PACS")
    entity.require_called_aet = called
    entity.add_supported_context(sop_class, list(syntaxes))
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, answer)],
        ssl_context=context,
    )
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def test_files_arrive_as_they_are_in_one_association(config: NodeConfig, files: list[Path]) -> None:
    received: list[tuple[object, str, bytes]] = []

    def answer(event: Event) -> int:
        data = event.request.DataSet.getvalue()
        received.append((event.assoc, event.assoc.requestor.ae_title, data))
        return 0

    with store_provider(answer) as port:
        assert list(sender_of(to_port(port), config).send(files)) == files
    assert {title for _, title, _ in received} == {"NODE"}
    assert len({id(association) for association, _, _ in received}) == 1
    assert all(
        file.read_bytes().endswith(data) for file, (_, _, data) in zip(files, received, strict=True)
    )
    assert all(len(data) > 1000 for _, _, data in received)


def test_explicit_vr_is_written_as_implicit_for_a_peer_that_takes_only_that(
    config: NodeConfig, files: list[Path]
) -> None:
    received: list[Dataset] = []

    def answer(event: Event) -> int:
        assert event.context.transfer_syntax == IMPLICIT
        received.append(event.dataset)
        return 0

    with store_provider(answer, syntaxes=[IMPLICIT]) as port:
        assert list(sender_of(to_port(port), config).send(files)) == files
    for file, found in zip(files, received, strict=True):
        assert found == dcmread(file)


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0111])
def test_a_warning_and_a_file_that_is_there_already_are_taken_as_accepted(
    config: NodeConfig, files: list[Path], status: int
) -> None:
    with store_provider(lambda event: status) as port:
        assert list(sender_of(to_port(port), config).send(files)) == files


@pytest.mark.parametrize(
    ("status", "transient"),
    [
        *[(0xA700, True), (0xA701, True), (0xA7FF, True), (0x0110, True), (0x0213, True)],
        *[(0xA900, False), (0xA9FF, False), (0x0122, False), (0x0124, False), (0xC000, False)],
    ],
)
def test_a_refusal_of_one_file_ends_the_sending_after_those_before_it(
    config: NodeConfig, files: list[Path], status: int, transient: bool
) -> None:
    third = dcmread(files[2]).SOPInstanceUID

    def answer(event: Event) -> Dataset:
        found = Dataset()
        found.Status = status if event.request.AffectedSOPInstanceUID == third else 0
        found.ErrorComment = "no room for Anna"
        return found

    with store_provider(answer) as port:
        accepted, error = send_all(StoreUser(to_port(port), config), files)
    assert accepted == files[:2]
    assert error.transient == transient
    assert f"0x{status:04X}" in str(error)


def test_a_wrong_ae_title_does_not_pass(config: NodeConfig, files: list[Path]) -> None:
    with store_provider(called=True) as port:
        accepted, error = send_all(StoreUser(to_port(port, ae_title="OTHER"), config), files)
    assert (accepted, error.transient) == ([], False)
    assert "NODE" in str(error)


@pytest.mark.parametrize(
    ("result", "source", "reason", "transient"),
    [(1, 1, 3, False), (2, 1, 1, True), (1, 3, 2, True), (2, 3, 1, True)],
)
def test_a_rejected_association_says_whether_to_try_again(
    config: NodeConfig, files: list[Path], result: int, source: int, reason: int, transient: bool
) -> None:
    def talk(connection: socket.socket) -> None:
        head = connection.recv(6, socket.MSG_WAITALL)  # all of it, or closing would reset
        connection.recv(int.from_bytes(head[2:], "big"), socket.MSG_WAITALL)
        connection.sendall(bytes([3, 0, 0, 0, 0, 4, 0, result, source, reason]))
        connection.recv(1)

    with raw_server(talk) as port:
        _, error = send_all(StoreUser(to_port(port), config, QUICK), files)
    assert "rejects the association" in str(error)
    assert error.transient == transient


def test_a_peer_without_the_kind_or_the_syntax_of_a_file_gets_none(
    config: NodeConfig, files: list[Path], tmp_path: Path
) -> None:
    with store_provider(sop_class=MRImageStorage) as port:
        accepted, error = send_all(StoreUser(to_port(port), config), files)
        assert (accepted, error.transient) == ([], False)
        assert "none of the SOP classes" in str(error)
        other = make_slice(0)
        other.SOPClassUID = MRImageStorage
        save(other, tmp_path / "mr.dcm")
        accepted, error = send_all(StoreUser(to_port(port), config), [tmp_path / "mr.dcm", *files])
        assert (accepted, error.transient) == ([], False)
        assert CTImageStorage in str(error)
    image = dcmread(files[0])
    image.compress(RLELossless, generate_instance_uid=False)
    image.save_as(tmp_path / "rle.dcm")
    with store_provider() as port:
        compressed = [files[1], tmp_path / "rle.dcm"]
        accepted, error = send_all(StoreUser(to_port(port), config), compressed)
        assert (accepted, error.transient) == ([], False)
        assert RLELossless in str(error)
    with store_provider(syntaxes=[EXPLICIT, RLELossless]) as port:
        assert len(list(StoreUser(to_port(port), config).send(compressed))) == 2


def test_a_peer_that_is_not_there_may_come_back(config: NodeConfig, files: list[Path]) -> None:
    accepted, error = send_all(StoreUser(to_port(free_port()), config, QUICK), files)
    assert (accepted, error.transient) == ([], True)
    assert "Connection refused" in str(error)
    nowhere = to_port(104, host="nowhere.invalid")
    _, error = send_all(StoreUser(nowhere, config, QUICK), files)
    assert error.transient
    assert "host name" in str(error)


@pytest.mark.parametrize(
    "talk",
    [
        lambda connection: time.sleep(1.5),
        lambda connection: None,
        lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        lambda connection: connection.sendall(b"\x02\x00\xff\xff\xff\xff" + bytes(1000)),
    ],
)
def test_a_peer_that_does_not_speak_dicom_never_hangs_the_sender(
    config: NodeConfig, files: list[Path], talk: Callable[[socket.socket], None]
) -> None:
    began = time.monotonic()
    with raw_server(talk) as port:
        accepted, error = send_all(StoreUser(to_port(port), config, QUICK), files)
    assert (accepted, error.transient) == ([], True)
    assert time.monotonic() - began < 8


def test_an_aborted_association_is_worth_another_attempt(
    config: NodeConfig, files: list[Path]
) -> None:
    def answer(event: Event) -> int:
        event.assoc.abort()
        return 0

    with store_provider(answer) as port:
        accepted, error = send_all(StoreUser(to_port(port), config, QUICK), files)
    assert (accepted, error.transient) == ([], True)


def test_an_answer_is_not_lost_to_a_thread_that_pauses_late(
    config: NodeConfig, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine: pynetdicom's own thread then took the answer."""

    class Late(threading.Event):
        def __init__(self, association: Association) -> None:
            super().__init__()
            self.answers = association.dimse.msg_queue

        def wait(self, timeout: float | None = None) -> bool:
            found = super().wait(timeout)
            # It says that it is paused, and goes on only when there is an answer.
            end = time.monotonic() + 0.1
            while self.answers.empty() and time.monotonic() < end:
                pass
            return found

    begin = Association.__init__

    def slow(self: Association, ae: AE, mode: str) -> None:
        begin(self, ae, mode)
        if mode == "requestor":
            self._reactor_checkpoint = Late(self)
            self._reactor_checkpoint.set()

    monkeypatch.setattr(Association, "__init__", slow)
    with store_provider() as port:
        sender = StoreUser(to_port(port), config, QUICK)
        assert list(sender.send(files * 30)) == files * 30


def test_an_early_end_releases_the_association(config: NodeConfig, files: list[Path]) -> None:
    with store_provider() as port:
        sending = StoreUser(to_port(port), config).send(files)
        assert next(sending) == files[0]
        sending.close()  # type: ignore[attr-defined]
        assert list(StoreUser(to_port(port), config).send(files)) == files
        assert list(StoreUser(to_port(port), config).send([])) == []


def test_files_that_cannot_be_read_are_named(config: NodeConfig, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("Anna")
    for name in ("gone.dcm", "note.txt"):
        _, error = send_all(StoreUser(to_port(1), config), [tmp_path / name])
        assert not error.transient
        assert str(error).startswith(name)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@needs("openssl")
@pytest.mark.parametrize(
    ("host", "trusted", "words"),
    [
        ("localhost", True, None),
        ("127.0.0.1", True, "certificate is refused (IP address mismatch"),
        ("localhost", False, "certificate is refused"),
    ],
)
def test_a_peer_by_tls_shows_a_certificate_and_asks_for_ours(
    config: NodeConfig,
    files: list[Path],
    certificates: Certificates,
    host: str,
    trusted: bool,
    words: str | None,
) -> None:
    context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.authorities)
    )
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificates.certificate, certificates.key)
    tls = TLS(
        certificate=certificates.certificate,
        key=certificates.key,
        authorities=certificates.authorities if trusted else certificates.stranger,
    )
    config = replace(config, tls=tls)
    with store_provider(context=context) as port:
        sender = StoreUser(to_port(port, host=host, tls=True), config, QUICK)
        if words is None:
            assert list(sender.send(files)) == files
            return
        accepted, error = send_all(sender, files)
    assert (accepted, error.transient) == ([], True)
    assert words in str(error)


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    folder.mkdir()
    port = free_port()
    words = ["storescp", *options, "-od", str(folder), str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield port, process
    finally:
        process.kill()
        process.wait()


@needs("storescp")
@pytest.mark.parametrize("option", ["+xe", "+xi"])
def test_the_receiver_of_dcmtk_gets_what_was_sent(
    config: NodeConfig, files: list[Path], tmp_path: Path, option: str
) -> None:
    with storescp(tmp_path / "scp", option) as (port, _):
        assert list(StoreUser(to_port(port), config).send(files)) == files
    found = {image.SOPInstanceUID: image for image in map(dcmread, (tmp_path / "scp").iterdir())}
    assert len(found) == len(files)
    for file in files:
        image = dcmread(file)
        assert found[image.SOPInstanceUID] == image


@needs("storescp")
def test_a_receiver_that_stops_reading_is_given_up(config: NodeConfig, tmp_path: Path) -> None:
    image = make_slice(0)
    image.Rows = image.Columns = 4096
    image.PixelData = bytes(2 * 4096 * 4096)  # more than the buffers of two sockets hold
    save(image, tmp_path / "large.dcm")
    with storescp(tmp_path / "scp") as (port, process):
        sender = StoreUser(to_port(port), config, replace(QUICK, pace=1e8))
        sending = sender.send([tmp_path / "large.dcm"] * 2)
        next(sending)
        os.kill(process.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(SendError) as caught:
            next(sending)
        assert time.monotonic() - began < 10
    assert caught.value.transient


def stored(method: str, path: str, headers: Mapping[str, str], body: bytes) -> list[Dataset]:
    assert (method, path, headers["Content-Length"]) == ("POST", "/studies", str(len(body)))
    pieces = iter([body])
    sizes = Sizes(part=10**8, whole=10**9)
    found = parts(lambda: next(pieces, b""), boundary_of(headers["Content-Type"]), sizes)
    return [dcmread(io.BytesIO(part)) for part in found]


def said(taken: Sequence[Dataset], failed: Mapping[str, int | None], status: int) -> Reply:
    def of(uid: str, reason: int | None = None) -> dict[str, object]:
        row: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
        if reason is not None:
            row["00081197"] = {"vr": "US", "Value": [reason]}
        return row

    body: dict[str, object] = {}
    if taken:
        body["00081199"] = {"vr": "SQ", "Value": [of(image.SOPInstanceUID) for image in taken]}
    if failed:
        body["00081198"] = {"vr": "SQ", "Value": [of(*pair) for pair in failed.items()]}
    return status, {"Content-Type": "application/dicom+json"}, json.dumps(body).encode()


def web(url: str) -> Destination:
    return Destination(name="pacs", kind="web", url=url)


def test_files_are_stored_by_stow_in_bounded_requests(
    config: NodeConfig, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = files[0].stat().st_size
    monkeypatch.setattr("restore_rwkv.apps.node.dicomweb.client._BATCH_BYTES", int(2.5 * size))
    requests: list[list[Dataset]] = []

    def respond(*request: object) -> Reply:
        requests.append(stored(*request))  # type: ignore[arg-type]
        return said(requests[-1], {}, 200)

    with web_server(respond) as url:
        assert list(sender_of(web(url), config).send(files)) == files
    assert [len(images) for images in requests] == [2, 2]
    assert [image for images in requests for image in images] == [dcmread(file) for file in files]


def test_a_request_that_is_too_large_for_the_server_is_halved(
    config: NodeConfig, files: list[Path]
) -> None:
    counts = []

    def respond(*request: object) -> Reply:
        images = stored(*request)  # type: ignore[arg-type]
        counts.append(len(images))
        return (413, {}, b"") if len(images) > 1 else said(images, {}, 200)

    with web_server(respond) as url:
        assert list(sender_of(web(url), config).send(files)) == files
    assert counts == [4, 2, 1, 1, 2, 1, 1]
    with web_server(lambda *request: (413, {}, b"")) as url:
        accepted, error = send_all(WebSender(web(url), config), files)
    assert (accepted, error.transient) == ([], True)


@pytest.mark.parametrize(
    ("status", "reason", "transient"),
    [
        *[(200, 0xA700, True), (202, 0xA700, True), (202, 0x0110, True), (202, None, True)],
        *[(200, 0x0122, False), (202, 0xA900, False), (202, 0xC000, False)],
    ],
)
def test_stow_tells_of_each_file_whether_it_was_taken(
    config: NodeConfig, files: list[Path], status: int, reason: int | None, transient: bool
) -> None:
    def respond(*request: object) -> Reply:
        images = stored(*request)  # type: ignore[arg-type]
        failed = {images[1].SOPInstanceUID: reason, images[2].SOPInstanceUID: 0x0111}
        return said([images[0], images[3]], failed, status)

    with web_server(respond) as url:
        accepted, error = send_all(WebSender(web(url), config), files)
    assert accepted == [files[0], files[2], files[3]]
    assert error.transient == transient


@pytest.mark.parametrize(
    ("reply", "transient"),
    [
        (said([], {}, 202), True),  # it does not say which
        (said([], {}, 409), True),
        ((409, {}, b"<html>Anna</html>"), False),
        ((202, {}, b"<html>Anna</html>"), False),
        ((403, {}, b"Anna"), False),
        ((503, {}, b"Anna"), True),
    ],
)
def test_stow_without_a_file_that_was_taken_is_refused(
    config: NodeConfig, files: list[Path], reply: Reply, transient: bool
) -> None:
    with web_server(lambda *request: reply) as url:
        accepted, error = send_all(WebSender(web(url), config), files)
    assert (accepted, error.transient) == ([], transient)


def test_files_that_all_are_there_already_are_accepted(
    config: NodeConfig, files: list[Path]
) -> None:
    uids = [dcmread(file).SOPInstanceUID for file in files]
    with web_server(lambda *request: said([], dict.fromkeys(uids, 0x0111), 409)) as url:
        assert list(sender_of(web(url), config).send(files)) == files


def test_status_200_without_a_word_is_taken_for_all(config: NodeConfig, files: list[Path]) -> None:
    for kind, body in (("text/xml", b"<ok/>"), ("text/plain", b""), ("application/json", b"{}")):
        reply: Reply = (200, {"Content-Type": kind}, body)
        with web_server(lambda *request, reply=reply: reply) as url:
            assert list(sender_of(web(url), config).send(files)) == files


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html>Anna Smith, please log in</html>"),
        ("", b"<!doctype html>"),
        ("text/xml", b"<HTML>please log in</HTML>"),
        ("application/dicom+xml", b'<NativeDicomModel><DicomAttribute tag="00081198"/>'),
        ("application/json", b'{"error": "Anna Smith is not allowed"}'),
        ("application/json", b'"ok"'),
    ],
)
def test_an_answer_that_does_not_say_that_files_were_taken_is_no_success(
    files: list[Path], config: NodeConfig, kind: str, body: bytes
) -> None:
    with web_server(lambda *request: (200, {"Content-Type": kind}, body)) as url:
        accepted, error = send_all(WebSender(web(url), config), files)
    assert accepted == []
    assert error.transient
    assert "does not say that it has the files" in str(error)
    assert "Anna" not in str(error)


def test_a_server_that_refuses_before_it_has_read_is_understood(
    config: NodeConfig, tmp_path: Path
) -> None:
    image = make_slice(0)
    image.Rows = image.Columns = 2048
    image.PixelData = bytes(2 * 2048 * 2048)
    save(image, tmp_path / "large.dcm")

    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.2)  # then closed with bytes that were not read: a reset

    patience = Patience(connect=1, silence=2, answer=2)
    with raw_server(talk) as port:
        sender = WebSender(web(f"http://127.0.0.1:{port}"), config, patience)
        _, error = send_all(sender, [tmp_path / "large.dcm"])
    assert not error.transient
    assert "403" in str(error)
