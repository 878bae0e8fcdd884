"""Native pixels of a DICOM data set of any transfer syntax, checked against its header."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.child import Child, Limits
from restore_rwkv.io.decoding import DECODING_ERRORS
from restore_rwkv.io.dicom.layout import Layout, Numbers, layout_of, stored_values
from restore_rwkv.io.dicom.transfer_syntax import (
    COMPRESSED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    UNCOMPRESSED,
    stream_may_be_lossy,
    transfer_syntax,
    transfer_syntax_name,
)
from restore_rwkv.io.volume import one_line

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_COPY = "copy the file again"
_CONVERT = "convert it to an uncompressed or JPEG 2000 transfer syntax"
_DECODER = "restore_rwkv.io.dicom.decode:decode"
_TYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4")  # that a decoder may give

# Packed more densely than this are only images without anything in them, which are allowed if
# they are small.
_DENSEST, _SMALL = 1000, 1 << 26
_SPACE, _SPACE_PER_PIXEL = 1 << 29, 200  # bytes; the decoders in NumPy take most
_SECONDS, _PIXELS_PER_SECOND = 30.0, 50_000  # far slower than any machine
_UNUSED = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


class PixelDecoder:
    """Gives data sets native pixels. Compressed ones are decoded in a child process.

    The process starts at the first compressed data set and serves until the decoder is closed, so
    use one decoder for a whole series.

    Example:
        >>> with PixelDecoder() as decoder:  # doctest: +SKIP
        ...     dataset = decoder.native(pydicom.dcmread(path), path.name)
    """

    def __init__(self) -> None:
        self._child = Child(_DECODER, _COPY)

    def __enter__(self) -> PixelDecoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child process."""
        self._child.close()

    def native(self, dataset: Dataset, name: str) -> Dataset:
        """Return a data set with the same elements and uncompressed pixels.

        Its transfer syntax is Explicit VR Little Endian, HighBit is BitsStored - 1, and its pixels
        have no bits above but their sign, so that `pixel_array` decodes and corrects nothing.

        Args:
            dataset: a grey image, as read from a file; it is not changed.
            name: name of the file, for messages.

        Raises:
            InputError: The pixels are missing, damaged, not as many as the header declares, or
                their compression is not supported.
            ConfigError: The child process cannot be started.
        """
        uid = transfer_syntax(dataset)
        layout = layout_of(dataset, name)
        if uid in COMPRESSED and not layout.is_float:
            data = bytearray()
            for frame in self._decoded(dataset, layout, name):
                data += frame
            return _with_pixels(dataset, bytes(data), layout)
        if uid in UNCOMPRESSED:
            return _with_pixels(dataset, _uncompressed(dataset, layout, name), layout)
        raise InputError(
            f"{name}: its pixels are stored as {transfer_syntax_name(dataset)}, which cannot be "
            f"decoded here; {_CONVERT}"
        )

    def _decoded(self, dataset: Dataset, layout: Layout, name: str) -> Iterator[bytes]:
        """Native pixels of each frame."""
        title, family = COMPRESSED[transfer_syntax(dataset)]
        subject = f"{name}: its {title} data"
        limits = _limits(layout)
        request = {
            "family": family,
            "rows": layout.rows,
            "columns": layout.columns,
            "allocated": layout.allocated,
        }
        lossy = stream_may_be_lossy(dataset)
        for number, frame in enumerate(_frames(dataset, layout, subject), start=1):
            where = subject if layout.frames == 1 else f"{subject} of frame {number}"
            facts, data = self._child.call(where, request, frame, limits)
            try:
                yield stored_values(_numbers(facts, data, layout, lossy), layout).tobytes()
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{where} cannot be decoded ({one_line(error)}); {_COPY}"
                ) from error


def _limits(layout: Layout) -> Limits:
    size = layout.rows * layout.columns
    return Limits(
        memory=_SPACE + _SPACE_PER_PIXEL * size,
        seconds=_SECONDS + size / _PIXELS_PER_SECOND,
        reply=4 * size,
    )


def _frames(dataset: Dataset, layout: Layout, subject: str) -> Iterator[bytes]:
    """Compressed frames of a data set.

    Raises:
        InputError: They are not as many as the header states, or too short for its pixels.
    """
    from pydicom.encaps import generate_frames

    offsets = None
    if all(key in dataset for key in _UNUSED):
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    found = 0
    try:
        data = dataset.PixelData
        if layout.length > _SMALL + _DENSEST * len(data):
            raise ValueError(f"{len(data)} bytes cannot hold the {layout.length} of its pixels")
        frames = generate_frames(data, number_of_frames=layout.frames, extended_offsets=offsets)
        for frame in frames:
            found += 1
            if found > layout.frames:
                break
            yield frame
        if found != layout.frames:
            raise ValueError(f"it has {found} frames or more, and the header {layout.frames}")
    except DECODING_ERRORS as error:
        raise InputError(f"{subject} cannot be decoded ({one_line(error)}); {_COPY}") from error


def _numbers(facts: dict[str, Any], data: bytes, layout: Layout, lossy: bool) -> Numbers:
    """Check what the child says of a frame."""
    if facts["dtype"] not in _TYPES:
        raise ValueError(f"values of type {facts['dtype']!r}")
    values = np.frombuffer(data, facts["dtype"]).reshape(layout.rows, layout.columns)
    exact = bool(facts["exact"]) and not lossy
    return Numbers(values, int(facts["precision"]), bool(facts["signed"]), exact)


def _uncompressed(dataset: Dataset, layout: Layout, name: str) -> bytes:
    """Native pixels of uncompressed ones.

    Raises:
        InputError: They are not as long as the header declares, but for one byte of padding.
    """
    element = dataset[layout.keyword]
    data = bytes(element.value or b"")
    if not layout.length <= len(data) <= layout.length + 1:
        raise InputError(
            f"{name}: the pixel data cannot be decoded: {len(data)} bytes, and the header's "
            f"{layout.frames} x {layout.rows} x {layout.columns} pixels of {layout.allocated} bits "
            f"need {layout.length}; {_COPY}"
        )
    big = transfer_syntax(dataset) == EXPLICIT_BIG
    if big and layout.allocated == 8 and element.VR == "OW":
        data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
    data = data[: layout.length]
    kind = layout.dtype.kind if layout.is_float else "u"
    values = np.frombuffer(data, f"{'>' if big else '<'}{kind}{layout.allocated // 8}")
    if layout.is_float or layout.stored == layout.allocated:
        return values.astype(layout.dtype.newbyteorder("<"), copy=False).tobytes() if big else data
    frames = values.reshape(layout.frames, -1)  # one at a time: 64-bit copies are large
    numbers = (Numbers(frame, layout.allocated, False, True) for frame in frames)
    return b"".join(stored_values(frame, layout).tobytes() for frame in numbers)


def _with_pixels(dataset: Dataset, data: bytes, layout: Layout) -> Dataset:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    native = dataset[:]  # shares the other elements
    native.file_meta = FileMetaDataset()
    native.file_meta.update(getattr(dataset, "file_meta", {}))
    native.file_meta.TransferSyntaxUID = UID(EXPLICIT_LITTLE)
    for keyword in _UNUSED:
        if keyword in native:
            del native[keyword]
    if layout.is_float:
        vr = "OF" if layout.allocated == 32 else "OD"
    else:
        vr = "OB" if layout.allocated == 8 else "OW"
        native.HighBit = layout.stored - 1
    padding = b"\0" * (len(data) % 2)
    native[layout.keyword] = DataElement(layout.keyword, vr, data + padding)
    return native
