"""Messages of an association: a data set goes to the disk as it comes, other requests end it."""

from __future__ import annotations

import io
import logging
import queue
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu_primitives import P_DATA

from restore_rwkv.apps.node.negotiation import VERIFICATION
from restore_rwkv.apps.node.spooling.spool import Arriving, Instance
from restore_rwkv.errors import InputError, RestoreError

_log = logging.getLogger(__name__)

_LONGEST_COMMAND = 1 << 16
_MOST_WAITING = 4  # messages of an association; no more than one is agreed on

Begin = Callable[[Association, str, str, str], Arriving]
"""Opens a file for an instance: association, SOP class and instance, transfer syntax."""


class InstanceTooLargeError(InputError):
    """An instance has more bytes than one may have."""


class DataSet(io.BytesIO):
    """The data set of a C-STORE request, of which every piece goes to the disk as it comes.

    Args:
        begin: Opens its file.
        most: Bytes that it may have.

    Attributes:
        arriving: The file; None before the first byte, and after a failure.
        failure: Why it cannot be stored, None if it can.
    """

    def __init__(self, begin: Callable[[], Arriving], most: int) -> None:
        super().__init__()
        self.arriving: Arriving | None = None
        self.failure: Exception | None = None
        self._begin, self._most, self._size = begin, most, 0

    def write(self, block: Any) -> int:
        """Take a piece; after a failure it is dropped, up to twice the largest size."""
        self._size += len(block)
        if self._size > 2 * self._most + _LONGEST_COMMAND:
            raise InstanceTooLargeError("instance: it does not end; limit instance_bytes")
        try:
            if self._size > self._most:
                raise InstanceTooLargeError("instance: larger than one may be; raise the limit")
            if self.failure is None:
                self.arriving = self.arriving or self._begin()
                self.arriving.write(block)
        except (RestoreError, OSError) as error:
            self.failure = self.failure or error
            self.discard()
        return len(block)

    def store(self, origin: str) -> tuple[Instance, bool]:
        """Store the instance; results and errors are those of `Spool.add`, and `failure`."""
        if self.failure is not None:
            raise self.failure
        if self.arriving is None:
            raise InputError("instance: has no data set; send it again")
        try:
            return self.arriving.store(origin)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what has come."""
        if self.arriving is not None:
            self.arriving.discard()
            self.arriving = None


class Messages(DIMSEServiceProvider):  # type: ignore[misc]
    """Puts the messages of an association together; anything but C-ECHO and C-STORE ends it."""

    def __init__(self, association: Association, begin: Begin, most: int) -> None:
        super().__init__(association)
        self._begin, self._most, self._command = begin, most, 0
        self._data_sets: list[DataSet] = []
        self.message: Any

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take a piece of a message."""
        try:
            self._receive(primitive)
        except Exception as error:  # pydicom and pynetdicom raise errors of many kinds
            _log.warning("an association was ended: message not valid (%s)", type(error).__name__)
            self.dul.socket.refuse()
            with suppress(queue.Empty):
                while True:
                    self.msg_queue.get_nowait()

    def discard(self) -> None:
        """Remove the data sets that will not be stored any more."""
        for data_set in self._data_sets:
            data_set.failure = data_set.failure or ConnectionError("the association has ended")
            data_set.discard()
        self._data_sets.clear()

    def _receive(self, primitive: P_DATA) -> None:
        if self.message is None:
            self.message, self._command = DIMSEMessage(), 0
            data_set = DataSet(self._begin_file, self._most)
            self.message.data_set = data_set
            self._data_sets = [d for d in self._data_sets if d.arriving is not None]
            self._data_sets.append(data_set)
        for _, data in primitive.presentation_data_value_list:
            self._command += len(data) if data[0] & 1 else 0
        if self._command > _LONGEST_COMMAND:
            raise ValueError("a command that does not end")
        if not self.message.decode_msg(primitive, self.assoc):
            return
        message, self.message = self.message, None
        request = message.message_to_primitive()
        context = self.assoc._accepted_cx[message.context_id]
        kind = C_ECHO if context.abstract_syntax == VERIFICATION else C_STORE
        if type(request) is not kind or not request.is_valid_request:
            raise ValueError("not a request for what was agreed on")
        if str(request.AffectedSOPClassUID) != str(context.abstract_syntax):
            raise ValueError("another SOP class than was agreed on")
        if self.msg_queue.qsize() >= _MOST_WAITING:
            raise ValueError("requests before the answers to the last ones")
        self.msg_queue.put((message.context_id, request))

    def _begin_file(self) -> Arriving:
        message = self.message
        if not isinstance(message, C_STORE_RQ):
            raise InputError("message: has a data set, and no C-STORE; send images by C-STORE")
        context = self.assoc._accepted_cx[message.context_id]
        command = message.command_set
        return self._begin(
            self.assoc,
            str(command.AffectedSOPClassUID),
            str(command.AffectedSOPInstanceUID),
            str(context.transfer_syntax[0]),
        )
