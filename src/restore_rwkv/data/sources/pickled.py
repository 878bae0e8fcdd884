"""Pickled NumPy arrays, read without executing anything that a file asks for.

A pickle is a program for a small machine, which may call any function of any module. Two gates
stand before it here. First, its bytes are scanned: only the instructions that the pickle of an
array consists of may occur, with lengths that the file can hold. Then `pickle` runs it, and each
function or class that it names is one of the few below or refused. Even these are not NumPy's own
but stand-ins that keep their arguments; the array is made from those, after they are checked.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.errors import InputError

_LARGEST_FILE = 1 << 30  # a slice of 8192 x 8192 float64 has half of it
_LARGEST_PROGRAM = 500  # instructions; an array has about 50
_LARGEST_MEMO = 1000
_MOST_AXES = 4
_SIZES = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "b": (1,)}

# Instructions by what follows them in the file: nothing, so many bytes, text up to the end of a
# line (two for GLOBAL), or so many bytes that hold the length of what follows.
_FIXED = {
    **dict.fromkeys(b"(t)\x85\x86\x87N\x88\x89Rb0\x94\x93", 0),
    **dict.fromkeys(b"]lae", 0),  # lists: of arrays of objects, refused later with what is in them
    **dict.fromkeys(b"\x80K", 1),  # protocol, integers
    **{ord("M"): 2, ord("J"): 4, ord("G"): 8, 0x95: 8},
    **dict.fromkeys(b"qh", 1),  # memo
    **dict.fromkeys(b"rj", 4),
}
_LINES = {**dict.fromkeys(b"ILSVpg", 1), ord("c"): 2}
_COUNTED = {
    **dict.fromkeys(b"UC\x8c\x8a", 1),
    **dict.fromkeys(b"TBX\x8b", 4),
    **dict.fromkeys(b"\x8d\x8e\x96", 8),
}
_PUTS = {ord("q"): 1, ord("r"): 4}
_STOP = ord(".")


def read_pickled_array(path: Path) -> NDArray[Any]:
    """Read the one NumPy array that a pickle of any protocol holds.

    Args:
        path: File of at most 1 GiB.

    Returns:
        A new array of one to four axes, of real numbers or bool, in the machine's byte order.

    Raises:
        InputError: The file asks for anything else than an array, is damaged, or holds an array of
            another size than its data; the message says what. Nothing in it is executed.

    Example:
        >>> read_pickled_array(Path("IXI385-HH-2078-T2_58.bin")).shape  # doctest: +SKIP
        (1, 128, 128)
    """
    if path.stat().st_size > _LARGEST_FILE:
        raise InputError(f"{path.name}: larger than 1 GiB, no slice is; give single slices")
    try:
        return _load(path.read_bytes())
    except _RefusalError as refusal:
        raise InputError(f"{path.name}: {refusal}") from refusal


class _RefusalError(Exception):
    """Why a pickle is refused, and the mend."""


def _load(content: bytes) -> NDArray[Any]:
    _scan(content)
    try:
        loaded = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except _RefusalError:
        raise
    except Exception as error:  # a damaged program can fail in any way
        raise _damaged(type(error).__name__) from error
    if type(loaded) is not _Array:
        raise _RefusalError("a pickle of something else than a NumPy array; give arrays")
    return loaded.made()


def _damaged(why: str) -> _RefusalError:
    return _RefusalError(f"the pickle is damaged ({why}); copy it again")


def _scan(content: bytes) -> None:
    """Refuse instructions that arrays do not need, and lengths that are not in the file."""
    position = steps = 0
    while position < len(content):
        code = content[position]
        position += 1
        if code == _STOP:
            if position != len(content):
                raise _damaged("it goes on behind its end")
            return
        steps += 1
        if steps > _LARGEST_PROGRAM:
            raise _RefusalError("a pickle of more than one NumPy array; give one array a file")
        position = _after(content, code, position)
        if position > len(content):
            break
    raise _damaged("it ends too early")


def _after(content: bytes, code: int, position: int) -> int:
    """Position behind what follows an instruction."""
    if code in _FIXED:
        width = _PUTS.get(code, 0)
        if int.from_bytes(content[position : position + width], "little") > _LARGEST_MEMO:
            raise _damaged("its memo is too large")
        return position + _FIXED[code]
    if code in _COUNTED:
        start = position + _COUNTED[code]
        return start + int.from_bytes(content[position:start], "little")
    if code in _LINES:
        start = position
        for _ in range(_LINES[code]):
            position = content.find(b"\n", position) + 1
            if position == 0:
                raise _damaged("a line has no end")
        if code == ord("p") and not re.fullmatch(rb"\d{1,3}\n", content[start:position]):
            raise _damaged("its memo is too large")
        return position
    raise _RefusalError(f"a pickle with {_name(code)}, which no array has; give arrays")


def _name(code: int) -> str:
    named = [opcode.name for opcode in pickletools.opcodes if ord(opcode.code) == code]
    return named[0] if named else f"an unknown instruction ({code})"


class _ArrayUnpickler(pickle.Unpickler):
    """Runs a scanned pickle; what it names is a stand-in or refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        asked = f"{module}.{name}"[:80]
        if module.split(".")[0] == "torch":
            raise _RefusalError(
                f"a pickled PyTorch tensor (asks for {asked!a}); save tensor.numpy() instead"
            )
        raise _RefusalError(
            f"asks for {asked!a}, which is no part of a NumPy array; nothing was executed, do not "
            "trust this file"
        )


class _Named:
    """Stands in for a function or class that a pickle names."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __setstate__(self, state: object) -> None:
        raise _damaged(f"it changes {self._name}")

    def __call__(self, *args: object) -> object:
        calls: dict[str, Callable[..., object]] = {
            "_reconstruct": _Array.empty,
            "_frombuffer": _Array.of_buffer,
            "dtype": _Dtype,
            "encode": _encode,
        }
        if self._name not in calls:
            raise _damaged(f"it calls {self._name}")
        return calls[self._name](*args)


class _Dtype:
    """What a pickle says of a data type."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:
        self.code = code
        self.order: object = "="

    def __setstate__(self, state: object) -> None:
        if type(state) is not tuple or len(state) < 5 or any(x is not None for x in state[2:5]):
            raise _RefusalError("an array of records or sub-arrays; give arrays of real numbers")
        self.order = state[1]

    def made(self) -> np.dtype[Any]:
        code, order = self.code, self.order
        if type(code) is not str or type(order) is not str or order not in ("<", ">", "|", "="):
            raise _damaged("its data type is none")
        kind, size = code[:1], code[1:]
        if size not in map(str, _SIZES.get(kind, ())):
            raise _RefusalError(f"an array of type {code[:20]!a}; give arrays of real numbers")
        return np.dtype(code if order == "|" else order + code)


class _Array:
    """What a pickle says of an array."""

    __slots__ = ("axes", "data", "dtype", "order", "shape")

    def __init__(self) -> None:
        self.shape: object = None
        self.dtype: object = None
        self.data: object = None
        self.order: object = "C"
        self.axes: object = None

    @classmethod
    def empty(cls, kind: object, *_: object) -> _Array:
        """`numpy._core.multiarray._reconstruct`: an array that gets its state later."""
        if kind is not _NDARRAY:
            raise _damaged("it reconstructs no array")
        return cls()

    @classmethod
    def of_buffer(
        cls, data: object, dtype: object, shape: object, order: object, axes: object = None
    ) -> _Array:
        """`numpy._core.numeric._frombuffer`, of protocol 5."""
        array = cls()
        array.data, array.dtype, array.shape = data, dtype, shape
        array.order, array.axes = order, axes
        return array

    def __setstate__(self, state: object) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise _damaged("its array has no state")
        _, self.shape, self.dtype, fortran, self.data = state
        self.order = "F" if fortran in (True, 1) else "C"

    def made(self) -> NDArray[Any]:
        """The array, after all that the pickle says of it is checked."""
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        shape = self.shape
        if type(self.dtype) is not _Dtype or not isinstance(data, (bytes, bytearray)):
            raise _RefusalError("an array of objects or without data; give arrays of real numbers")
        dtype = self.dtype.made()
        if not isinstance(shape, tuple) or not 1 <= len(shape) <= _MOST_AXES:
            raise _RefusalError(
                f"an array without or with more than {_MOST_AXES} axes; give slices"
            )
        if any(type(length) is not int or length < 1 for length in shape):
            raise _damaged("its shape is none")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise _damaged(f"its array should have {len(data)} bytes and has not")
        order = self.order if isinstance(self.order, str) else ""
        if order not in ("C", "F", "K") or (order == "K" and self.axes is None):
            raise _damaged("its order is none")
        array = np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")
        if order == "K":
            array = array.transpose(_permutation(self.axes, len(shape)))
        return array.astype(dtype.newbyteorder("="))


def _permutation(axes: object, count: int) -> tuple[int, ...]:
    if not isinstance(axes, (tuple, list)) or any(type(axis) is not int for axis in axes):
        raise _damaged("its axes are none")
    if sorted(axes) != list(range(count)):
        raise _damaged("its axes are none")
    return tuple(axes)


def _encode(text: object = None, encoding: object = None) -> bytes:
    """`_codecs.encode`, which protocols 0 to 2 turn text into bytes with."""
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise _damaged("it encodes no bytes")
    return text.encode("latin1")


_NDARRAY = _Named("ndarray")
_ADMITTED = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Named("dtype"),
    ("numpy.core.multiarray", "_reconstruct"): _Named("_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): _Named("_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"): _Named("_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"): _Named("_frombuffer"),
    ("_codecs", "encode"): _Named("encode"),
}
