"""What the node agrees on with other applications: what it takes, sends, answers and rejects.

The receiver negotiates by these tables and the conformance statement prints them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from restore_rwkv.io.dicom.original import CLASSIC, ENHANCED
from restore_rwkv.io.dicom.syntaxes import EXPLICIT_BIG, READABLE, is_lossless, is_uncompressed

if TYPE_CHECKING:
    from pynetdicom.presentation import PresentationContext

IMPLEMENTATION_UID = "2.25.89535077162352437852073789135282168317"
"""Implementation class UID; made once, for all versions."""

IMPLEMENTATION_VERSION = "RESTORE_RWKV"
"""Implementation version name, at most 16 characters."""

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""The only application context name of DICOM (PS3.7 A.2.1)."""

MAXIMUM_PDU = 131072
"""Bytes of the largest PDU that is received."""

MAXIMUM_CONTEXTS = 128
"""Presentation contexts of an association: their numbers are odd and below 256 (PS3.8 9.3.2.2)."""

VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


def _preference(uid: str) -> tuple[bool, bool, bool]:
    """Sort key of a transfer syntax: uncompressed first, those that may lose something last.

    No sender shall compress with loss because of the node; one that holds only a compressed image
    proposes a context for it.
    """
    plain = uid in (EXPLICIT, IMPLICIT)
    return (not plain, not (is_lossless(uid) and not is_uncompressed(uid)), not is_lossless(uid))


IMAGE_CLASSES = (*CLASSIC, *ENHANCED)
"""SOP classes of images that are received: those that a derived series can be written of."""

IMAGE_SYNTAXES = tuple(
    sorted(
        (EXPLICIT, *(uid for uid in READABLE if uid not in (EXPLICIT, EXPLICIT_BIG))),
        key=_preference,
    )
)
"""Transfer syntaxes that images are received in; of those that are proposed, the first is chosen.

Explicit VR Big Endian is left out: a derived series cannot be written of it.
"""

RECEIVED = {
    VERIFICATION: (EXPLICIT, IMPLICIT),
    **dict.fromkeys(IMAGE_CLASSES, IMAGE_SYNTAXES),
}
"""Transfer syntaxes by SOP class, as SCP."""

SENT = dict.fromkeys(IMAGE_CLASSES, (EXPLICIT, IMPLICIT))
"""Transfer syntaxes by SOP class, as SCU: derived series are written uncompressed."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """A status of C-STORE, as the node answers it.

    Attributes:
        code: Its number.
        reason: Label of the metrics; empty for success.
        when: When it is answered.
    """

    code: int
    reason: str
    when: str


STORED = Status(
    code=0x0000,
    reason="",
    when="the instance is on the disk and in the queue, or was there already",
)
OUT_OF_RESOURCES = Status(
    code=0xA700,
    reason="resources",
    when="quota or disk is full, or the instance could not be noted in the queue; send it again",
)
TOO_LARGE = Status(
    code=0xA701,
    reason="too-large",
    when="the instance or its series is larger than the limits of the node",
)
MISMATCH = Status(
    code=0xA900,
    reason="mismatch",
    when="the data set is of another SOP class or instance than the request",
)
DUPLICATE = Status(
    code=0x0111,
    reason="duplicate",
    when="another instance with this SOP Instance UID has come before",
)
NOT_UNDERSTOOD = Status(
    code=0xC000, reason="damaged", when="the data set cannot be read, or a UID is not valid"
)
STATUSES = (STORED, OUT_OF_RESOURCES, TOO_LARGE, MISMATCH, DUPLICATE, NOT_UNDERSTOOD)
"""Every status that C-STORE is answered with."""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A rejection of an association (PS3.8 9.3.4).

    Attributes:
        result: 1 permanent, 2 transient.
        source: 1 service user, 2 service provider (ACSE), 3 service provider (presentation).
        number: Reason, by source.
        reason: Label of the metrics.
        when: When an association is rejected so.
    """

    result: int
    source: int
    number: int
    reason: str
    when: str


TOO_MANY = Rejection(
    result=2, source=3, number=2, reason="too-many", when="as many associations as allowed are open"
)
WRONG_CONTEXT = Rejection(
    result=1, source=1, number=2, reason="context", when="the application context is not DICOM's"
)
UNKNOWN_CALLER = Rejection(
    result=1,
    source=1,
    number=3,
    reason="calling",
    when="no peer has this calling AE title at the address that the connection comes from",
)
WRONG_CALLED = Rejection(
    result=1, source=1, number=7, reason="called", when="the called AE title is not the node's"
)
WRONG_VERSION = Rejection(
    result=1, source=2, number=2, reason="version", when="the protocol version is not 1"
)
REJECTIONS = (TOO_MANY, WRONG_CONTEXT, UNKNOWN_CALLER, WRONG_CALLED, WRONG_VERSION)
"""Every rejection of an association."""


def received_contexts() -> list[PresentationContext]:
    """Return `RECEIVED` as pynetdicom takes it."""
    from pynetdicom.presentation import build_context

    return [build_context(uid, list(syntaxes)) for uid, syntaxes in RECEIVED.items()]
