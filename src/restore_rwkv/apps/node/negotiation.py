"""What the node offers to other applications: SOP classes, transfer syntaxes, sizes of messages."""

from __future__ import annotations

IMPLEMENTATION_UID = "2.25.89535077162352437852073789135282168317"
IMPLEMENTATION_VERSION = "RESTORE_RWKV"
