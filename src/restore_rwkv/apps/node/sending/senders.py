"""Derived series are sent to their destinations: by C-STORE, or by STOW-RS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from restore_rwkv.apps.node.config import Destination, NodeConfig
from restore_rwkv.apps.node.dicomweb.client import DicomWeb
from restore_rwkv.apps.node.dicomweb.multipart import Sizes
from restore_rwkv.apps.node.dicomweb.request import PATIENCE, Patience, WebError
from restore_rwkv.apps.node.outgoing import SendError, read_outgoing
from restore_rwkv.apps.node.sending.store_scu import StoreUser

__all__ = ["SendError", "Sender", "WebSender", "sender_of"]


class Sender(Protocol):
    """Sends files to one destination."""

    def send(self, files: Sequence[Path]) -> Iterator[Path]:
        """Send files, and yield each once the destination has accepted it.

        A file may be sent again after it was accepted: destinations know it by its UID.

        Raises:
            SendError: a file was not accepted, or the destination cannot be reached; the files
                that were yielded before need not be sent again.
        """
        ...


def sender_of(destination: Destination, config: NodeConfig) -> Sender:
    """Return what sends to a destination.

    Args:
        destination: where to.
        config: of the node, whose AE title calls and whose certificates are shown.
    """
    if destination.kind == "web":
        return WebSender(destination, config)
    return StoreUser(destination, config)


class WebSender:
    """Sends files by STOW-RS.

    Args:
        destination: of kind "web".
        config: of the node.
        patience: how long to wait for the server.
    """

    def __init__(
        self, destination: Destination, config: NodeConfig, patience: Patience = PATIENCE
    ) -> None:
        sizes = Sizes(part=config.limits.instance_bytes, whole=config.limits.series_bytes)
        self._web = DicomWeb(destination, sizes, patience)

    def send(self, files: Sequence[Path]) -> Iterator[Path]:
        """Send files, and yield each once the server has taken it.

        Raises:
            SendError: a file was not taken, or the server cannot be reached.
        """
        try:
            yield from self._web.store(read_outgoing(files))
        except WebError as error:
            raise SendError(str(error), transient=error.transient) from error
