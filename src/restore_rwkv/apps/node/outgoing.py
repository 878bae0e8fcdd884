"""What files that are to be sent are: read from their file meta information."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from restore_rwkv.errors import RestoreError

DUPLICATE = 0x0111
"""Status of a file that the destination has already: it came before, and the answer was lost."""

_PASSING = {0x0110, 0x0213}  # processing failure, resource limitation


class SendError(RestoreError):
    """A destination has not taken a file.

    Attributes:
        transient: whether it may be taken later, so that it is worth to try again.
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A file that is to be sent.

    Attributes:
        path: the file.
        sop_class_uid: what kind of object it holds.
        sop_instance_uid: which one.
        transfer_syntax: how it is encoded.
        size: bytes.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    size: int


def read_outgoing(files: Iterable[Path]) -> list[Outgoing]:
    """Return what the files are, in their order.

    Raises:
        SendError: one cannot be read, or is not a DICOM file that says what it is.
    """
    return [_read(path) for path in files]


def is_transient(status: int) -> bool:
    """Whether a status of failure may pass (PS3.7 C, PS3.4 B.2.3; PS3.18 10.5.3 has the same)."""
    return status in _PASSING or status >> 8 == 0xA7


def _read(path: Path) -> Outgoing:
    from pydicom.filereader import read_file_meta_info

    try:
        size = path.stat().st_size
        meta = read_file_meta_info(path)
        return Outgoing(
            path=path,
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax=str(meta.TransferSyntaxUID),
            size=size,
        )
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        raise SendError(
            f"{path.name}: cannot be read to be sent ({error.strerror}); restore the series again",
            transient=not gone,
        ) from error
    except Exception as error:  # pydicom raises errors of many kinds for a damaged file
        raise SendError(
            f"{path.name}: is not a DICOM file that can be sent; restore the series again",
            transient=False,
        ) from error
