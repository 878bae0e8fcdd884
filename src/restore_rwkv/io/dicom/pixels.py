"""Stored pixel values of a DICOM file of any transfer syntax, checked against its header."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError
from restore_rwkv.io.child import Child, Limits
from restore_rwkv.io.decoding import DECODING_ERRORS
from restore_rwkv.io.dicom.files import transfer_syntax
from restore_rwkv.io.dicom.layout import Layout, Numbers, layout_of, stored_values
from restore_rwkv.io.dicom.syntaxes import (
    EXPLICIT_BIG,
    family_of,
    is_uncompressed,
    may_be_inexact,
    syntax_name,
)
from restore_rwkv.io.volume import one_line

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_COPY = "copy the file again"
_CONVERT = "convert it to an uncompressed or JPEG 2000 transfer syntax"
_DECODE = "restore_rwkv.io.dicom.decoders:decode"
_TYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4")  # that a decoder may give

# Images packed more densely than this hold nothing, and are allowed if they are small.
_DENSEST, _SMALL = 1000, 1 << 26
_SPACE, _SPACE_PER_PIXEL = 1 << 29, 200  # bytes; the decoders in NumPy take most
_SECONDS, _PIXELS_PER_SECOND = 30.0, 50_000  # a hundredth of the speed of an idle core
_OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")

StoredPixels = npt.NDArray[np.integer]


class PixelReader:
    """Reads the pixels of the files of a series; compressed ones are decoded in a child process.

    The process starts at the first compressed file and serves until the reader is closed.
    """

    def __init__(self) -> None:
        self._child = Child(_DECODE, _COPY)

    def __enter__(self) -> PixelReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._child.close()

    def stored(self, dataset: Dataset, name: str) -> StoredPixels:
        """Return the stored values: (rows, columns), or (frames, rows, columns) of several.

        They are those of the BitsStored bits up to HighBit, with their sign; bits outside hold
        overlays, or what a compression made of them.

        Args:
            dataset: A file with its pixel data.
            name: Of the file, for messages.

        Raises:
            InputError: The pixels are missing, damaged, not as many as the header declares, or
                compressed in a way that is not decoded.
            ConfigError: The child process cannot be started.
        """
        layout = layout_of(dataset, name)
        if "PixelData" not in dataset:
            raise InputError(f"{name}: has no pixel data of integers; give another file")
        uid = transfer_syntax(dataset)
        if is_uncompressed(uid):
            frames = _uncompressed(dataset, uid, layout, name)
        elif family_of(uid) is not None:
            frames = self._decoded(dataset, uid, layout, name)
        else:
            raise InputError(
                f"{name}: its pixels are compressed as {syntax_name(uid)}, which is not decoded; "
                f"{_CONVERT}"
            )
        values: StoredPixels = np.empty((layout.frames, layout.rows, layout.columns), layout.dtype)
        for k, frame in enumerate(frames):
            values[k] = frame
        return values if layout.frames > 1 else values[0]

    def _decoded(
        self, dataset: Dataset, uid: str, layout: Layout, name: str
    ) -> Iterator[StoredPixels]:
        """Stored values of each compressed frame."""
        subject = f"{name}: its {syntax_name(uid)} data"
        limits = _limits(layout)
        request = {
            "family": family_of(uid),
            "rows": layout.rows,
            "columns": layout.columns,
            "allocated": layout.allocated,
        }
        inexact = may_be_inexact(uid, dataset)
        for number, frame in enumerate(_compressed_frames(dataset, layout, subject), start=1):
            where = subject if layout.frames == 1 else f"{subject} of frame {number}"
            facts, data = self._child.call(where, request, frame, limits)
            try:
                yield stored_values(_numbers(facts, data, layout, inexact=inexact), layout)
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


def _compressed_frames(dataset: Dataset, layout: Layout, subject: str) -> Iterator[bytes]:
    """Frames of a file as they are compressed.

    Raises:
        InputError: They are not as many as the header states, or too short for its pixels.
    """
    from pydicom.encaps import generate_frames

    found = 0
    try:
        offsets = None
        if all(key in dataset for key in _OFFSETS):
            offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
        data = dataset.PixelData
        if layout.length > _SMALL + _DENSEST * len(data):
            raise ValueError(f"{len(data)} bytes cannot hold the {layout.length} of its pixels")
        frames = generate_frames(data, number_of_frames=layout.frames, extended_offsets=offsets)
        for found, frame in enumerate(frames, start=1):
            if found > layout.frames:
                break
            yield bytes(frame)
        if found != layout.frames:
            raise ValueError(f"it has {found} frame(s), and the header states {layout.frames}")
    except DECODING_ERRORS as error:
        raise InputError(f"{subject} cannot be decoded ({one_line(error)}); {_COPY}") from error


def _numbers(facts: dict[str, Any], data: bytes, layout: Layout, *, inexact: bool) -> Numbers:
    """Check what the child says of a frame."""
    if facts["dtype"] not in _TYPES:
        raise ValueError(f"values of type {facts['dtype']!r}")
    values = np.frombuffer(data, facts["dtype"]).reshape(layout.rows, layout.columns)
    exact = bool(facts["exact"]) and not inexact
    return Numbers(values, int(facts["precision"]), bool(facts["signed"]), exact)


def _uncompressed(dataset: Dataset, uid: str, layout: Layout, name: str) -> Iterator[StoredPixels]:
    """Stored values of each frame that is not compressed.

    Raises:
        InputError: The data is not as long as the header declares, but for one byte of padding.
    """
    element = dataset["PixelData"]
    data = bytes(element.value or b"")
    if not layout.length <= len(data) <= layout.length + 1:
        raise InputError(
            f"{name}: holds {len(data)} bytes of pixels, and its header says {layout.length} "
            f"({layout.frames} x {layout.rows} x {layout.columns} pixels of {layout.allocated} "
            f"bits); {_COPY}"
        )
    big = uid == EXPLICIT_BIG
    if big and layout.allocated == 8 and element.VR == "OW":  # swapped in pairs
        data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
    kind = f"{'>' if big else '<'}u{layout.allocated // 8}"
    count = layout.frames * layout.rows * layout.columns
    values = np.frombuffer(data, kind, count).reshape(layout.frames, layout.rows, layout.columns)
    for frame in values:  # one at a time: copies of 64 bits are large
        if layout.stored == layout.allocated:
            yield frame.astype(frame.dtype.newbyteorder("="), copy=False).view(layout.dtype)
        else:
            yield stored_values(Numbers(frame, layout.allocated), layout)
