"""An option of TCP that both roles of DICOM need."""

from __future__ import annotations

import socket
import sys


def confirm_at_once(connection: socket.socket) -> None:
    """Let the next bytes of the peer be confirmed without delay.

    DCMTK, and with it many scanners and archives, sends the two parts of a message one after the
    other, and the second waits for the confirmation of the first: 40 ms for each instance. Linux
    forgets the option after a while, so it is set again for each message.
    """
    if sys.platform == "linux":
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
