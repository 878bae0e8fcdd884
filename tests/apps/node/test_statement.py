"""The conformance statement, line by line against live associations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRBigEndian
from pynetdicom.presentation import build_context

from restore_rwkv.apps.node import negotiation
from restore_rwkv.apps.node.config import Limits, NodeConfig, Peer
from restore_rwkv.apps.node.rules import Rule
from restore_rwkv.apps.node.statement import conformance_statement
from restore_rwkv.io.dicom.changes import ADDED, CHANGED, DROPPED, KEPT
from tests.helpers.live_receiver import CT, LiveReceiver, listening

pytestmark = pytest.mark.slow  # beside servers and peers, which takes time

Row = tuple[str, ...]


def rows_of(title: str, text: str) -> list[Row]:
    """The rows of the first table after a heading."""
    after = text[text.index(f"# {title}\n") :]
    lines = re.search(r"(?:^\|.*\n)+", after, re.MULTILINE)
    assert lines is not None
    rows = [tuple(cell.strip() for cell in row.split("|")[1:-1]) for row in lines[0].splitlines()]
    return rows[2:]


RECEIVED = rows_of("SOP classes received (SCP)", conformance_statement())
SENT = rows_of("SOP classes sent (SCU)", conformance_statement())


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveReceiver]:
    with listening(tmp_path_factory.mktemp("node")) as receiver:
        yield receiver


def test_every_line_of_sop_class_and_transfer_syntax_is_accepted(live: LiveReceiver) -> None:
    proposed = [build_context(kind, syntax) for _, kind, _, syntax in RECEIVED]
    assert len(proposed) == 2 + 6 * 15
    with live.associated(proposed) as association:
        accepted = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in association.accepted_contexts
        }
        assert association.rejected_contexts == []
    assert accepted == {(kind, syntax) for _, kind, _, syntax in RECEIVED}


@pytest.mark.parametrize("row", RECEIVED, ids=lambda row: f"{row[0]} {row[2]}")
def test_a_line_holds_for_an_association_of_its_own(live: LiveReceiver, row: Row) -> None:
    _, kind, _, syntax = row
    with live.associated([build_context(kind, syntax)]) as association:
        (context,) = association.accepted_contexts
        assert (context.abstract_syntax, context.transfer_syntax) == (kind, [syntax])


@pytest.mark.parametrize(
    ("kind", "syntax", "result"),
    [
        pytest.param("1.2.840.10008.5.1.4.1.1.7", negotiation.EXPLICIT, 3, id="secondary capture"),
        pytest.param("1.2.840.10008.5.1.4.1.1.2.2", negotiation.EXPLICIT, 3, id="legacy CT"),
        pytest.param("1.2.840.10008.5.1.4.1.1.66.4", negotiation.EXPLICIT, 3, id="segmentation"),
        pytest.param("1.2.840.10008.5.1.4.1.2.2.1", negotiation.IMPLICIT, 3, id="study root find"),
        pytest.param(CT, ExplicitVRBigEndian, 4, id="big endian"),
        pytest.param(CT, "1.2.840.10008.1.2.4.102", 4, id="MPEG-4"),
        pytest.param(negotiation.VERIFICATION, "1.2.840.10008.1.2.4.70", 4, id="echo in JPEG"),
    ],
)
def test_what_is_in_no_line_is_rejected(
    live: LiveReceiver, kind: str, syntax: str, result: int
) -> None:
    assert (kind, syntax) not in {(row[1], row[3]) for row in RECEIVED}
    contexts = [build_context(kind, syntax), build_context(CT)]
    with live.associated(contexts) as association:
        (context,) = association.rejected_contexts
        assert (context.abstract_syntax, context.result) == (kind, result)


def test_the_first_listed_syntax_is_chosen_and_a_lossy_one_only_without_another(
    live: LiveReceiver,
) -> None:
    listed = [syntax for _, kind, _, syntax in RECEIVED if kind == CT]
    lossy = ["50", "51", "81", "91", "203"]
    assert [syntax.rpartition(".")[2] for syntax in listed[-5:]] == lossy
    for first in range(len(listed)):
        proposed = list(reversed(listed[first:]))
        with live.associated([build_context(CT, proposed)]) as association:
            (context,) = association.accepted_contexts
            assert context.transfer_syntax == [listed[first]]


def test_a_derived_series_fits_into_one_association() -> None:
    assert {row[1] for row in SENT} == set(negotiation.IMAGE_CLASSES)
    assert len(SENT) <= negotiation.MAXIMUM_CONTEXTS


def test_attributes_and_statuses_are_those_of_the_tables() -> None:
    text = conformance_statement()
    for title, changes in (
        ("Added", ADDED),
        ("Changed", CHANGED),
        ("Dropped", DROPPED),
        ("Kept", KEPT),
    ):
        rows = rows_of(title, text)
        assert [row[0] for row in rows] == [change.keyword for change in changes]
    assert [int(row[0], 16) for row in rows_of("Status codes of C-STORE", text)] == [
        status.code for status in negotiation.STATUSES
    ]
    from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

    known = STORAGE_SERVICE_CLASS_STATUS
    assert all(status.code in known for status in negotiation.STATUSES)


def test_the_statement_of_a_node_says_its_title_and_limits(tmp_path: Path) -> None:
    config = NodeConfig(
        folder=tmp_path,
        ae_title="NODE7",
        peers=(Peer(name="a", ae_title="A"),),
        rules=(Rule(name="none", action="ignore"),),
        limits=Limits(associations=7, instance_bytes=12345),
    )
    text = conformance_statement(config)
    limits = dict(rows_of("Association policies and limits", text))
    assert limits["associations at a time"] == "7"
    assert limits["size of an instance"] == "12345 bytes"
    assert "| AE title | NODE7 |" in text
    assert "TLS for DIMSE: off" in text


def test_the_statement_is_markdown_of_moderate_size() -> None:
    text = conformance_statement()
    assert text.startswith("# DICOM conformance statement\n")
    assert text.endswith("\n")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert len(text) < 40_000
