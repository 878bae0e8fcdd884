"""The DICOM conformance statement of the node (after PS3.2), from the tables that it works by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from restore_rwkv.apps.node import negotiation
from restore_rwkv.apps.node.receiving import receiver
from restore_rwkv.apps.node.spooling.part10 import HEADER_FIELDS
from restore_rwkv.io.dicom.changes import ADDED, CHANGED, DROPPED, DROPPED_KINDS, KEPT, Change
from restore_rwkv.io.dicom.derived import SOFTWARE
from restore_rwkv.io.dicom.syntaxes import syntax_name

if TYPE_CHECKING:
    from restore_rwkv.apps.node.config import NodeConfig


def conformance_statement(config: NodeConfig | None = None) -> str:
    """Return the conformance statement as Markdown.

    Args:
        config: Of the node that it is for: its AE title, limits and security; None for the
            defaults of every node.
    """
    parts = (
        _overview(config),
        _entities(),
        _classes("SOP classes received (SCP)", negotiation.RECEIVED),
        _classes("SOP classes sent (SCU)", negotiation.SENT),
        _policies(config),
        _statuses(),
        _security(config),
        _attributes(),
    )
    return "\n\n".join(parts) + "\n"


def _overview(config: NodeConfig | None) -> str:
    title = config.ae_title if config is not None else "configured"
    return "\n\n".join(
        (
            "# DICOM conformance statement",
            _table(
                ("", ""),
                (
                    ("product", f"{SOFTWARE} node, version {version(SOFTWARE)}"),
                    ("AE title", title),
                    ("implementation class UID", negotiation.IMPLEMENTATION_UID),
                    ("implementation version name", negotiation.IMPLEMENTATION_VERSION),
                ),
            ),
            "## Overview",
            "The node receives series of images by C-STORE, or fetches them from a DICOMweb "
            "archive, restores them by rules of its configuration, and sends a derived series for "
            "each to the destinations of the rule, by C-STORE or STOW-RS. It keeps no archive: a "
            "received series is removed some days after it has ended. It is not a medical device.",
        )
    )


def _entities() -> str:
    return "\n\n".join(
        (
            "## AE specifications",
            _table(
                ("service", "SCU", "SCP"),
                (
                    ("Verification", "no", "yes"),
                    ("Storage of images", "yes", "yes"),
                    ("Query and retrieve by DIMSE", "no", "no"),
                    ("DICOMweb: search, retrieve, store", "user agent", "no"),
                ),
            ),
            "The DIMSE entity has one AE title for both roles. It takes part in one transaction "
            "at a time in each association: no asynchronous operations, no role selection, no "
            "extended negotiation. Any number of presentation contexts up to "
            f"{negotiation.MAXIMUM_CONTEXTS} may be proposed. Of the transfer syntaxes proposed "
            "for a context, the node chooses the one that comes first in its own list; SOP classes "
            "that are not listed are rejected with result 3, contexts without a listed transfer "
            "syntax with result 4. Instances are stored in the transfer syntax that they were sent "
            "in, with the bytes of their data set as they came.",
        )
    )


def _classes(title: str, table: Mapping[str, Sequence[str]]) -> str:
    """One row for each SOP class and transfer syntax, in the order of preference."""
    from pydicom.uid import UID

    rows = [
        (UID(kind).name, kind, syntax_name(syntax), syntax)
        for kind, syntaxes in table.items()
        for syntax in syntaxes
    ]
    head = ("SOP class", "UID", "transfer syntax", "UID")
    return f"### {title}\n\n{_table(head, rows)}"


def _policies(config: NodeConfig | None) -> str:
    from restore_rwkv.apps.node.config import Limits

    limits = config.limits if config is not None else Limits()
    rows = (
        ("maximum PDU received", f"{negotiation.MAXIMUM_PDU} bytes; a longer one is aborted"),
        ("application context name", negotiation.APPLICATION_CONTEXT),
        ("associations at a time", f"{limits.associations}"),
        ("size of an instance", f"{limits.instance_bytes} bytes"),
        ("instances of a series", f"{limits.series_instances}"),
        ("size of a series", f"{limits.series_bytes} bytes"),
        (
            "instances a second of one peer",
            f"{limits.instances_per_second}; answers are held back above it",
        ),
        ("from connection to association request", f"{receiver.ACSE_SECONDS:g} s"),
        ("from first to last byte of a PDU", f"{receiver.PDU_SECONDS:g} s"),
        ("without a PDU in an association", f"{receiver.SILENCE_SECONDS:g} s, then A-ABORT"),
    )
    rejections = [
        (r.when, f"{r.result}", f"{r.source}", f"{r.number}") for r in negotiation.REJECTIONS
    ]
    return "\n\n".join(
        (
            "## Association policies and limits",
            _table(("limit", "value"), rows),
            "An association is rejected when:",
            _table(("when", "result", "source", "reason"), rejections),
            "Messages other than C-ECHO-RQ and C-STORE-RQ, requests before the answer to the last "
            "one, and PDUs that are not valid are answered with A-ABORT.",
        )
    )


def _statuses() -> str:
    rows = [(f"{status.code:04X}", status.when) for status in negotiation.STATUSES]
    return "\n\n".join(
        (
            "## Status codes of C-STORE",
            _table(("status", "when"), rows),
            "C-ECHO is answered with 0000. An instance that comes again with the same data set is "
            "confirmed again and stored once. Success is answered when the instance would outlast "
            "a power cut.",
            f"From each instance the node keeps, for its rules: {', '.join(HEADER_FIELDS)}.",
        )
    )


def _security(config: NodeConfig | None) -> str:
    tls = "as configured"
    if config is not None:
        tls = "on" if config.tls else "off"
    return "\n\n".join(
        (
            "## Security",
            f"TLS for DIMSE: {tls}. With it, TLS 1.2 or later is required, and every peer has to "
            "show a certificate of the configured authorities. Peers are allowed by calling AE "
            "title and, where configured, by address. The log has names or addresses of "
            "peers and, unless it is configured otherwise, digests of UIDs; no other data of "
            "instances.",
        )
    )


def _attributes() -> str:
    sections = (
        ("Added", ADDED, "New, or replaced or extended where the source has them."),
        ("Changed", CHANGED, "Attributes of the source with another value."),
        ("Dropped", DROPPED, "Attributes of the source that are left out."),
        ("Kept", KEPT, "The most important ones; all that no other table names is kept too."),
    )
    head = ("attribute", "tag", "images", "what")
    texts = [
        f"### {title}\n\n{words}\n\n{_table(head, _rows(changes))}"
        for title, changes, words in sections
    ]
    texts.insert(3, "Dropped further:\n\n" + "\n".join(f"- {words}" for words in DROPPED_KINDS))
    intro = (
        "## Attributes of derived series\n\nA derived series has the SOP class of its source, one "
        "instance for each of the source, and Explicit VR Little Endian."
    )
    return "\n\n".join((intro, *texts))


def _rows(changes: Iterable[Change]) -> list[tuple[str, ...]]:
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    rows: list[tuple[str, ...]] = []
    for change in changes:
        tag = Tag(tag_for_keyword(change.keyword))
        number = f"({tag.group:04X},{tag.element:04X})"
        rows.append((change.keyword, number, change.scope, change.what))
    return rows


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)
