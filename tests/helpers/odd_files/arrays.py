"""NumPy files of every kind, with headers that lie, and with objects that run code."""

from __future__ import annotations

import io
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np

from tests.helpers.odd_files.case import Family, Make, Refused, Restored
from tests.helpers.odd_files.images import Array, mri

FAMILY = Family("arrays", "restore scan.npy -o out.npy -t mri-sr")

_OUTPUTS = ("out.npy", "out.restoration.json")


class Evil:
    """Its pickle writes a file named PWNED into the current folder when it is opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('PWNED', 'w').write('code ran')",)


def _add(name: str, make: Make, *right: Restored | Refused) -> None:
    FAMILY.add(name, make, *right, outputs=_OUTPUTS)


def _array(data: Array) -> Make:
    return lambda folder: np.save(folder / "scan.npy", data, allow_pickle=True)


def _kept(values: Array) -> Restored:
    def check(folder: Path) -> None:
        got = np.load(folder / "out.npy")
        assert got.shape[: values.ndim] == values.shape, f"shape {got.shape}"
        worst = float(np.abs(got.reshape(values.shape) - values).max())
        assert worst < 1e-4 * float(np.abs(values).max()), f"values differ by up to {worst:g}"

    return Restored(check)


_MRI = mri()
_same = _kept(_MRI)
_add("float32", _array(_MRI.astype(np.float32)), _same)
_add("the other order of axes", _array(np.asfortranarray(_MRI)), _same)
_add("big endian", _array(_MRI.astype(">f8")), _same)
_add("float16", _array(_MRI.astype(np.float16)), _kept(_MRI.astype(np.float16).astype(float)))
_add("int64", _array(_MRI.astype(np.int64)), _same)
_add("two axes", _array(_MRI[..., 0]), _kept(_MRI[..., 0]))
_add("float128", _array(_MRI.astype(np.longdouble)), _same, Refused((3,), "type|float128"))
_kind = Refused((3,), "type|real|axes|voxels|shape|numbers|image")
_add("truth values", _array(_MRI > 500), _kind)
_add("complex", _array(_MRI.astype(np.complex64)), _kind)
_add("text", _array(np.array([["a", "b"]] * 9)), _kind)
_add("dates", _array(np.zeros((9, 9), "M8[s]")), _kind)
_add("records", _array(np.zeros((9, 9), [("a", "f4"), ("b", "i4")])), _kind)
_add("bytes without a type", _array(np.zeros((9, 9), "V7")), _kind)
_add("one axis", _array(np.arange(99.0)), _kind)
_add("no axis", _array(np.array(1.0)), _kind)
_add("four axes", _array(np.ones((3, 9, 9, 9))), _kind)
_add("an axis without values", _array(np.zeros((16, 0), np.float32)), _kind)
_add("30 axes of length 1", _array(np.ones((1,) * 30)), _kind, Refused((3,), "pixels"))
_add("NaN", _array(np.where(_MRI > 700, np.nan, _MRI)), Refused((3,), "finite|NaN"))
_add("zeros", _array(_MRI * 0), Refused((4,), "all values|nothing"))
_objects = Refused((3,), "object|pickle|numbers|type")
_add("objects", _array(np.array([{"a": 1}], object)), _objects)
_add("objects that run code", _array(np.array([[Evil()] * 9] * 9, object)), _objects)
_add(
    "a pickle that runs code",
    lambda f: (f / "scan.npy").write_bytes(pickle.dumps(Evil())),
    _objects,
)


def _headed(header: str, content: bytes = b"", version: bytes = b"\x01\x00") -> Make:
    """Return a function that writes a file with this header."""
    text = header.encode() + b"\n"
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return lambda folder: (folder / "scan.npy").write_bytes(
        b"\x93NUMPY" + version + length + text + content
    )


_damaged = Refused((3,), "empty|array|header|numbers|shape|less|truncated|axes|type|voxels")
_FIELDS = "'descr': '<f4', 'fortran_order': False, 'shape': "
_add("10 TB claimed", _headed("{" + _FIELDS + "(1000, 1000, 2500000)}", bytes(400)), _damaged)
_add("a length below 0", _headed("{" + _FIELDS + "(-9, 9)}", bytes(400)), _damaged)
_add("2 ** 70 values claimed", _headed("{" + _FIELDS + f"({2**70}, 9)}}", bytes(400)), _damaged)
_add("a shape of fractions", _headed("{" + _FIELDS + "(9.5, 9)}", bytes(400)), _damaged)
_add("a header that runs code", _headed("open('PWNED', 'w').write('code ran')"), _damaged)
_add("a header with a call", _headed("{" + _FIELDS + "open('PWNED', 'w')}"), _damaged)
_add("a header of brackets", _headed("(" * 9000), _damaged)
_add("a header of 60 kB", _headed("{" + _FIELDS + "(9, 9)}" + " " * 60_000), _damaged)
_add("a header without its fields", _headed("{}"), _damaged)
_add("an unknown version", _headed("{}", version=b"\x09\x00"), _damaged)
_add(
    "a header of 4 GB claimed",
    lambda f: (f / "scan.npy").write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"),
    _damaged,
)
_add("no bytes", lambda f: (f / "scan.npy").write_bytes(b""), _damaged)
_add("text named npy", lambda f: (f / "scan.npy").write_text("numbers: 1 2 3"), _damaged)


def _half(folder: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, _MRI)
    (folder / "scan.npy").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])


_add("half of it", _half, _damaged)


def _archive(folder: Path) -> None:
    np.savez(folder / "scan.npz", _MRI)
    shutil.move(folder / "scan.npz", folder / "scan.npy")


_add("an archive named npy", _archive, Refused((3,), "archive|npz|zip"))
FAMILY.add(
    "an archive",
    lambda f: np.savez(f / "scan.npz", _MRI),
    Refused((3,), "unknown|kind|npz"),
    words="restore scan.npz -o out.npy -t mri-sr",
    outputs=_OUTPUTS,
)
