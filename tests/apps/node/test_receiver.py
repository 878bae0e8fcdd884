"""The receiver with real senders: pynetdicom and dcmtk on loopback."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.presentation import build_context

from restore_rwkv.apps.node import negotiation
from restore_rwkv.apps.node.config import TLS, Limits, Peer
from restore_rwkv.apps.node.receiving.receiver import Pace
from restore_rwkv.apps.node.spooling.spool import Instance
from restore_rwkv.errors import ConfigError, InputError, message_of
from tests.helpers.certificates import Certificates, make_certificates
from tests.helpers.derivable_series import classic, save
from tests.helpers.live_receiver import CT, LiveReceiver, contexts_of, listening
from tests.helpers.tools import needs

pytestmark = pytest.mark.slow  # beside servers and peers, which takes time


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveReceiver]:
    with listening(tmp_path / "node") as receiver:
        yield receiver


def slice_of(folder: Path, k: int = 0, change: Callable[[Dataset], None] = lambda d: None) -> Path:
    """A file of a CT slice."""
    image = classic("CT", k)
    image.SOPInstanceUID = f"1.2.3.{k}"
    change(image)
    path = folder / f"slice{k}.dcm"
    save(image, path)
    return path


def test_an_echo_is_answered(live: LiveReceiver) -> None:
    with live.associated([build_context(negotiation.VERIFICATION)]) as association:
        assert association.send_c_echo().Status == 0x0000


def test_an_instance_is_stored_as_it_was_sent_and_then_accepted(
    live: LiveReceiver, tmp_path: Path
) -> None:
    source = slice_of(tmp_path)
    with live.associated() as association:
        assert association.send_c_store(dcmread(source)).Status == 0x0000
        (instance,) = live.accepted  # before the answer
    assert instance.origin == "dimse:SCANNER"
    assert live.files() == [instance.path]
    stored = dcmread(instance.path)
    assert stored == dcmread(source)
    assert stored.file_meta.SendingApplicationEntityTitle == "SCANNER"
    assert stored.file_meta.ReceivingApplicationEntityTitle == "NODE"
    assert stored.file_meta.ImplementationClassUID == negotiation.IMPLEMENTATION_UID
    assert live.metrics.counts == {
        ("received_bytes_total", "dimse:SCANNER"): instance.size,
    }


def test_what_the_node_says_of_itself_in_an_association(live: LiveReceiver) -> None:
    with live.associated() as association:
        acceptor = association.acceptor
        assert acceptor.implementation_class_uid == negotiation.IMPLEMENTATION_UID
        assert acceptor.implementation_version_name == negotiation.IMPLEMENTATION_VERSION
        assert acceptor.maximum_length == negotiation.MAXIMUM_PDU
    assert len(negotiation.IMPLEMENTATION_VERSION) <= 16


def test_the_same_instance_again_succeeds_and_is_accepted_again(
    live: LiveReceiver, tmp_path: Path
) -> None:
    image = dcmread(slice_of(tmp_path))
    with live.associated() as association:
        assert association.send_c_store(image).Status == 0x0000
        assert association.send_c_store(image).Status == 0x0000
    assert len(live.files()) == 1
    assert len(live.accepted) == 2
    assert live.metrics.counts["repeated_instances_total", "dimse:SCANNER"] == 1


def test_another_instance_of_the_same_uid_is_a_duplicate(
    live: LiveReceiver, tmp_path: Path
) -> None:
    image = dcmread(slice_of(tmp_path))
    with live.associated() as association:
        assert association.send_c_store(image).Status == 0x0000
        image.PatientName = "Other"
        answer = association.send_c_store(image)
    assert answer.Status == negotiation.DUPLICATE.code == 0x0111
    assert "SOP Instance UID" in answer.ErrorComment
    assert live.metrics.counts["refused_instances_total", "duplicate"] == 1
    assert dcmread(live.files()[0]).PatientName != "Other"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), negotiation.OUT_OF_RESOURCES),
        (RuntimeError("a bug"), negotiation.OUT_OF_RESOURCES),
        (InputError("instance: has come before with other content"), negotiation.DUPLICATE),
    ],
)
def test_an_instance_that_is_not_accepted_is_not_confirmed_and_may_come_again(
    live: LiveReceiver, tmp_path: Path, error: Exception, status: negotiation.Status
) -> None:
    def refuse(instance: Instance) -> None:
        raise error

    image = dcmread(slice_of(tmp_path))
    with live.associated() as association:
        live.refuse = refuse
        assert association.send_c_store(image).Status == status.code
        assert live.accepted == []
        assert live.files() == []
        live.refuse = lambda instance: None
        assert association.send_c_store(image).Status == 0x0000
    assert len(live.accepted) == 1


def _without_series(image: Dataset) -> None:
    del image.SeriesInstanceUID


def test_an_instance_without_a_series_is_not_understood(live: LiveReceiver, tmp_path: Path) -> None:
    with live.associated() as association:
        answer = association.send_c_store(dcmread(slice_of(tmp_path, change=_without_series)))
    assert answer.Status == negotiation.NOT_UNDERSTOOD.code == 0xC000
    assert live.files() == []
    assert live.spool.used() == 0


def test_a_request_that_names_another_instance_than_its_data_set_is_a_mismatch(
    live: LiveReceiver, tmp_path: Path
) -> None:
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    image = dcmread(slice_of(tmp_path))
    with live.associated() as association:
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, "1.2.3.99"
        request.DataSet = BytesIO(encode(image, False, True))
        association._reactor_checkpoint.clear()
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, answer = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
    assert answer.Status == negotiation.MISMATCH.code == 0xA900
    assert live.files() == []


def test_a_full_quota_is_out_of_resources_and_leaves_nothing(tmp_path: Path) -> None:
    with listening(tmp_path / "node", quota=3000) as live:
        with live.associated() as association:
            answers = [
                association.send_c_store(dcmread(slice_of(tmp_path, k))).Status for k in range(2)
            ]
            assert answers == [0x0000, negotiation.OUT_OF_RESOURCES.code] == [0x0000, 0xA700]
            live.spool.remove(live.accepted[0].series_uid)
            assert association.send_c_store(dcmread(slice_of(tmp_path, 1))).Status == 0x0000
        assert len(live.files()) == 1


def test_an_instance_that_is_too_large_is_refused_and_never_all_on_the_disk(tmp_path: Path) -> None:
    with listening(tmp_path / "node", limits=Limits(instance_bytes=100_000)) as live:
        largest = 0
        end = threading.Event()

        def watch() -> None:
            nonlocal largest
            while not end.is_set():
                largest = max(largest, live.spool.used())

        def enlarge(image: Dataset) -> None:
            image.Rows = image.Columns = 260
            image.PixelData = bytes(2 * 260 * 260)

        watcher = threading.Thread(target=watch)
        watcher.start()
        with live.associated() as association:
            answer = association.send_c_store(dcmread(slice_of(tmp_path, change=enlarge)))
            assert answer.Status == negotiation.TOO_LARGE.code
            assert association.send_c_store(dcmread(slice_of(tmp_path, 1))).Status == 0x0000
        end.set()
        watcher.join()
        assert largest < 150_000
        assert live.metrics.counts["refused_instances_total", "too-large"] == 1


def test_an_instance_far_above_the_limit_ends_the_association(tmp_path: Path) -> None:
    def enlarge(image: Dataset) -> None:
        image.Rows = image.Columns = 800
        image.PixelData = bytes(2 * 800 * 800)

    with listening(tmp_path / "node", limits=Limits(instance_bytes=100_000)) as live:
        with live.associated() as association:
            answer = association.send_c_store(dcmread(slice_of(tmp_path, change=enlarge)))
            assert "Status" not in answer
        assert live.files() == []
        with live.associated() as association:
            assert association.is_established


def test_a_series_with_too_many_instances_takes_no_more(tmp_path: Path) -> None:
    with (
        listening(tmp_path / "node", limits=Limits(series_instances=2)) as live,
        live.associated() as association,
    ):
        answers = [
            association.send_c_store(dcmread(slice_of(tmp_path, k))).Status for k in range(3)
        ]
    assert answers == [0, 0, negotiation.TOO_LARGE.code]


@pytest.mark.parametrize(
    ("peer", "calling", "called", "rejection"),
    [
        (Peer(name="a", ae_title="SCANNER"), "STRANGER", "NODE", negotiation.UNKNOWN_CALLER),
        (Peer(name="a", ae_title="SCANNER"), "scanner", "NODE", negotiation.UNKNOWN_CALLER),
        (Peer(name="a", ae_title="SCANNER"), "SCANNER", "OTHER", negotiation.WRONG_CALLED),
        (
            Peer(name="a", ae_title="SCANNER", address="10.1.2.3"),
            *("SCANNER", "NODE", negotiation.UNKNOWN_CALLER),
        ),
    ],
)
def test_who_is_not_allowed_is_rejected_with_the_reason(
    tmp_path: Path, peer: Peer, calling: str, called: str, rejection: negotiation.Rejection
) -> None:
    with listening(tmp_path / "node", peers=(peer,)) as live:
        with live.associated(calling=calling, called=called) as association:
            assert association.is_rejected
            answer = association.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (
                rejection.result,
                rejection.source,
                rejection.number,
            )
        assert live.metrics.counts == {("refused_associations_total", rejection.reason): 1}


def test_a_peer_at_its_address_is_allowed(tmp_path: Path) -> None:
    peer = Peer(name="a", ae_title="SCANNER", address="127.0.0.0/8")
    with listening(tmp_path / "node", peers=(peer,)) as live, live.associated() as association:
        assert association.is_established


def test_one_association_more_than_allowed_is_rejected_for_the_moment(tmp_path: Path) -> None:
    with listening(tmp_path / "node", limits=Limits(associations=2)) as live:
        with live.associated() as first, live.associated() as second:
            assert first.is_established
            assert second.is_established
            with live.associated() as third:
                assert third.is_rejected
                answer = third.acceptor.primitive
                assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
            assert live.metrics.counts["refused_associations_total", "too-many"] == 1
        _until(lambda: _is_admitted(live))


def _is_admitted(live: LiveReceiver) -> bool:
    with live.associated() as association:
        return bool(association.is_established)


def _until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_rate_is_kept_by_answering_later() -> None:
    pace = Pace(200, threading.Event())
    began = time.monotonic()
    for _ in range(220):
        pace.wait()
    assert 0.09 < time.monotonic() - began < 2  # 200 of a second that was idle, then 20 at 5 ms
    stopping = threading.Event()
    stopping.set()
    slow = Pace(0.01, stopping)
    slow.wait()
    assert time.monotonic() - began < 2


def test_several_senders_at_once_lose_and_mix_nothing(live: LiveReceiver, tmp_path: Path) -> None:
    images = [dcmread(slice_of(tmp_path, k)) for k in range(12)]
    statuses: list[int] = []

    def send(part: list[Dataset]) -> None:
        with live.associated() as association:
            statuses.extend(association.send_c_store(image).Status for image in part)

    threads = [threading.Thread(target=send, args=(images[k::3],)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 12
    stored = {str(dcmread(path).SOPInstanceUID): dcmread(path) for path in live.files()}
    assert stored == {str(image.SOPInstanceUID): image for image in images}


def test_no_data_of_a_patient_and_no_uid_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("pynetdicom").setLevel(logging.DEBUG)  # the receiver silences it
    limits = Limits(series_instances=1)
    with listening(tmp_path / "node", limits=limits) as live, live.associated() as association:
        image = dcmread(slice_of(tmp_path))
        image.PatientName, image.AccessionNumber = "Doe^Jane", "ACC-4711"
        image.PatientID = "ID-4711"
        association.send_c_store(image)
        image.PatientName = "Doe^John"
        association.send_c_store(image)
        association.send_c_store(dcmread(slice_of(tmp_path, 1)))
        image.PatientName = "Doe^Jim"
        del image.StudyInstanceUID
        association.send_c_store(image)
    out, err = capfd.readouterr()
    logged = caplog.text + out + err
    assert "refused" in logged
    for secret in ("Doe", "4711", "1.2.3.", str(image.SeriesInstanceUID), str(image.PatientID)):
        assert secret not in logged


def test_stopping_ends_associations_and_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with listening(tmp_path / "node") as live:
        assert live.receiver.alive
        with live.associated() as association:
            assert association.is_established
            began = time.monotonic()
            live.receiver.stop()
            assert time.monotonic() - began < 5
            _until(lambda: not association.is_established)
        assert not live.receiver.alive
    _until(lambda: not set(threading.enumerate()) - before)


def test_a_port_that_is_taken_is_an_error(live: LiveReceiver, tmp_path: Path) -> None:
    from restore_rwkv.apps.node.receiving.receiver import Receiver

    other = Receiver(live.receiver._config, live.accepted.append, live.spool, live.metrics)
    with pytest.raises(OSError, match="in use") as raised:
        other.start()
    message = message_of(raised.value) or ""
    assert message.startswith(f"127.0.0.1 port {live.receiver._config.port}: ")
    assert message.endswith("; stop what listens there, or give another address or port")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def _client(certificates: Certificates, *, shown: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates.authorities)
    if shown:
        context.load_cert_chain(certificates.certificate, certificates.key)
    return context


@needs("openssl")
def test_tls_takes_peers_that_show_a_certificate_of_the_authority(
    tmp_path: Path, certificates: Certificates
) -> None:
    tls = TLS(
        certificate=certificates.certificate,
        key=certificates.key,
        authorities=certificates.authorities,
    )
    with listening(tmp_path / "node", tls=tls) as live:
        shown = (_client(certificates, shown=True), "localhost")
        with live.associated(tls_args=shown) as association:
            assert association.send_c_store(dcmread(slice_of(tmp_path))).Status == 0x0000
        old = _client(certificates, shown=True)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        for context in (_client(certificates, shown=False), old):
            with (
                socket.create_connection(("127.0.0.1", live.port), timeout=5) as plain,
                pytest.raises(ssl.SSLError),
                context.wrap_socket(plain, server_hostname="localhost") as connection,
            ):
                connection.recv(1)  # by TLS 1.3 the client hears of it afterwards
        with socket.create_connection(("127.0.0.1", live.port), timeout=5) as plain:
            plain.sendall(b"\x01\x00\x00\x00\x00\x44" + bytes(68))
            assert plain.recv(100)[:1] in (b"", b"\x15")  # or an alert of TLS, but not of DICOM
        with live.associated(tls_args=shown) as association:
            assert association.is_established


@needs("openssl")
def test_certificates_that_cannot_be_used_are_an_error(
    tmp_path: Path, certificates: Certificates
) -> None:
    tls = TLS(
        certificate=certificates.authorities,
        key=certificates.key,
        authorities=certificates.authorities,
    )
    with pytest.raises(ConfigError, match="tls"), listening(tmp_path / "node", tls=tls):
        pass


@needs("echoscu", "storescu")
def test_dcmtk_echoes_and_stores(live: LiveReceiver, tmp_path: Path) -> None:
    files = [str(slice_of(tmp_path, k)) for k in range(3)]
    where = ["-aet", "SCANNER", "-aec", "NODE", "127.0.0.1", str(live.port)]
    subprocess.run(["echoscu", *where], check=True, timeout=30)
    subprocess.run(["storescu", *where, *files], check=True, timeout=30)
    assert len(live.files()) == 3
    stranger = ["-aet", "STRANGER", "-aec", "NODE", "127.0.0.1", str(live.port)]
    refused = subprocess.run(["storescu", *stranger, *files], capture_output=True, timeout=30)
    assert refused.returncode != 0
    assert b"Calling AE Title Not Recognized" in refused.stdout + refused.stderr


@needs("storescu")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the option")
def test_no_instance_of_dcmtk_waits_for_a_delayed_confirmation(
    live: LiveReceiver, tmp_path: Path
) -> None:
    where = ["-aet", "SCANNER", "-aec", "NODE", "127.0.0.1", str(live.port)]
    image = classic("CT", 0)
    fastest = 1.0
    for turn in range(3):
        files = [tmp_path / f"{turn}-{number}.dcm" for number in range(30)]
        for file in files:
            image.SOPInstanceUID = generate_uid()
            save(image, file)
        began = time.monotonic()
        subprocess.run(["storescu", *where, *map(str, files)], check=True, timeout=60)
        fastest = min(fastest, (time.monotonic() - began) / len(files))
    assert fastest < 0.04, "an instance took 8 ms, and with the delay 52 ms"


@needs("dcmcjpls", "storescu")
def test_dcmtk_sends_compressed_files_as_they_are(live: LiveReceiver, tmp_path: Path) -> None:
    source, packed = slice_of(tmp_path), tmp_path / "packed.dcm"
    subprocess.run(["dcmcjpls", str(source), str(packed)], check=True, timeout=30)
    subprocess.run(
        [
            "storescu",
            "-xt",
            *("-aet", "SCANNER", "-aec", "NODE"),
            "127.0.0.1",
            str(live.port),
            packed,
        ],
        check=True,
        timeout=30,
    )
    (instance,) = live.accepted
    assert instance.transfer_syntax == "1.2.840.10008.1.2.4.80"
    assert dcmread(instance.path).PixelData == dcmread(packed).PixelData


def test_images_of_each_kind_are_taken(live: LiveReceiver, tmp_path: Path) -> None:
    from tests.helpers.derivable_series import CLASSIC, ENHANCED, enhanced

    images = [classic(kind, 0) for kind in CLASSIC] + [enhanced(kind) for kind in ENHANCED]
    for number, image in enumerate(images):
        save(image, tmp_path / f"{number}.dcm")
        images[number] = dcmread(tmp_path / f"{number}.dcm")
    with live.associated(contexts_of(images)) as association:
        assert [association.send_c_store(image).Status for image in images] == [0] * 6
    assert [instance.header["Modality"] for instance in live.accepted] == ["CT", "MR", "PT"] * 2
